"""What can go wrong on purpose: the kinds of fault, their options, and how a request header names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["KINDS", "Fault", "FaultError", "Faults", "Option", "parse_faults"]


class FaultError(ValueError):
    """A fault that does not exist, or an option it does not accept; the message says what is accepted."""


class Option(NamedTuple):
    """One number that tunes a fault."""

    default: float
    low: float
    high: float


_CHUNK = {"after": Option(3, 0, 1_000_000)}
KINDS: Final[Mapping[str, Mapping[str, Option]]] = {
    "rate_limit": {"retry_after": Option(1, 0, 3600)},
    "quota": {},
    "server_error": {"status": Option(500, 500, 599)},
    "unauthorized": {},
    "model_not_found": {},
    "timeout": {"seconds": Option(600, 0, 86_400)},
    "slow_first_token": {"delay": Option(5, 0, 86_400)},
    "stream_cut": _CHUNK,
    "malformed_chunk": _CHUNK,
    "stream_error": _CHUNK,
    "missing_usage": {},
    "content_filter": {"after": Option(10, 0, 1_000_000)},
    "length_cut": {"tokens": Option(16, 1, 1_000_000)},
}
"""Every fault with its options; ``docs/simulator.md`` says what each does."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one response.

    Args:
        kind: A key of ``KINDS``.
        options: Values for the options of the kind; those left out take their default.

    Raises:
        FaultError: when the kind or an option is unknown, or a value is out of range.
    """

    kind: str
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        accepted = KINDS.get(self.kind)
        if accepted is None:
            raise FaultError(f"fault is {self.kind!r}; accepted: {', '.join(KINDS)}")
        for name, value in self.options.items():
            if name not in accepted:
                raise FaultError(f"{self.kind} has no option {name!r}; accepted: {', '.join(accepted) or 'none'}")
            low, high = accepted[name].low, accepted[name].high
            if not low <= value <= high:
                raise FaultError(f"{self.kind}.{name} is {value:g}; accepted: a number from {low:g} to {high:g}")

    def __getitem__(self, option: str) -> float:
        return self.options.get(option, KINDS[self.kind][option].default)


class Faults(NamedTuple):
    """The faults of one response."""

    all: tuple[Fault, ...] = ()

    def get(self, kind: str) -> Fault | None:
        """Return the first fault of this kind, or ``None``."""
        return next((fault for fault in self.all if fault.kind == kind), None)


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read the value of the header ``x-stagelight-fault``: ``rate_limit; retry_after=2, slow_first_token``.

    Raises:
        FaultError: when a part cannot be read.
    """
    return tuple(_fault(part) for part in text.split(",") if part.strip())


def _fault(text: str) -> Fault:
    kind, *rest = (part.strip() for part in text.split(";"))
    options: dict[str, float] = {}
    for part in rest:
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            options[name] = float(value)
        except ValueError:
            raise FaultError(f"{kind}: {part!r} is not readable; accepted: name=number") from None
    return Fault(kind, options)
