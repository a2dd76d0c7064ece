"""Price files in YAML: read with the position of every value, so that an error names file, line and field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

import yaml

from stagelight.cost.errors import PriceFileError
from stagelight.cost.names import canonical_provider
from stagelight.cost.rates import EXACT, Rates, Step
from stagelight.cost.units import KEYS, STANDARD_TIERS

__all__ = ["Entry", "PriceFile", "read"]

_FIELDS: Final = (
    "provider", "model", "from", "tier", "currency", "usd_rate", "usd_rate_date", "multiplier", "free", "estimate",
    "prices", "steps", "gpu_count", "share", "minimum_audio_seconds", "as_of", "source_url", "note",
)  # fmt: skip
_SOURCED: Final = ("as_of", "source_url", "estimate")
_LARGEST: Final = Decimal(1_000_000)
"""No price, rate or count of a price file is larger; catches a missing decimal point or a wrong unit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of a price file. ``rates`` is ``None`` for a pure discount, which needs a price from elsewhere."""

    line: int
    provider: str
    model: str
    rates: Rates | None
    multiplier: Decimal | None
    since: date | None
    tier: str
    estimate: bool
    as_of: date | None
    source_url: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class PriceFile:
    """Items of one file in its order."""

    path: Path
    entries: tuple[Entry, ...] = ()


def read(path: Path, *, sourced: bool = False) -> PriceFile:
    """Read and check a price file.

    Args:
        path: a UTF-8 YAML file.
        sourced: require ``as_of``, ``source_url`` and ``estimate`` in every item, as the bundled files must have.

    Raises:
        PriceFileError: the file cannot be read, or a value in it is not accepted.
    """
    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise PriceFileError(path, None, "file", str(error), "a readable UTF-8 file") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise PriceFileError(path, line, "file", error.problem or "a syntax error", "valid YAML") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise PriceFileError(path, None, "file", type(error).__name__, "valid YAML") from error
    if root is None:
        return PriceFile(path)
    reader = _Reader(path)
    fields = reader.mapping(root, "file", ("prices",))
    items = reader.items(fields["prices"], "prices") if "prices" in fields else ()
    entries = tuple(reader.entry(node, f"prices[{index}]", sourced) for index, node in enumerate(items))
    _refuse_duplicates(path, entries)
    return PriceFile(path, entries)


def _refuse_duplicates(path: Path, entries: tuple[Entry, ...]) -> None:
    seen: dict[tuple[object, ...], int] = {}
    for entry in entries:
        key = (entry.provider, entry.model, entry.tier, entry.since)
        if key in seen:
            raise PriceFileError(
                path, entry.line, "model", f"{entry.provider} {entry.model} a second time (first on line {seen[key]})",
                "one item for each provider, model, tier and from",
            )  # fmt: skip
        seen[key] = entry.line


class _Reader:
    """Reads nodes of one file; every method raises ``PriceFileError`` with the node's line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entry(self, node: yaml.Node, at: str, sourced: bool) -> Entry:
        fields = self.mapping(node, at, _FIELDS)
        for required in ("provider", "model", *(_SOURCED if sourced else ())):
            if required not in fields:
                raise self._error(node, f"{at}.{required}", "nothing", f"a value for {required}")
        multiplier = self._number(fields, "multiplier", at)
        provider = canonical_provider(self.text(fields["provider"], f"{at}.provider"))
        tier = self._optional_text(fields, "tier", at) or ""
        return Entry(
            line=_line(node),
            provider=provider,
            model=self.text(fields["model"], f"{at}.model").lower(),
            rates=self._rates(node, fields, at, multiplier),
            multiplier=multiplier,
            since=self._date(fields, "from", at),
            tier="" if tier.lower() in STANDARD_TIERS else tier.lower(),
            estimate=self._flag(fields, "estimate", at),
            as_of=self._date(fields, "as_of", at),
            source_url=self._optional_text(fields, "source_url", at),
            note=self._optional_text(fields, "note", at),
        )

    def _rates(
        self, node: yaml.Node, fields: Mapping[str, yaml.Node], at: str, multiplier: Decimal | None
    ) -> Rates | None:
        free = self._flag(fields, "free", at)
        if free and fields.keys() & {"prices", "steps", "multiplier"}:
            raise self._error(fields["free"], f"{at}.free", "true beside prices", "free: true alone")
        if free:
            return Rates((Step(-1, dict.fromkeys((unit.name for unit in KEYS.values()), Decimal(0))),))
        if "prices" not in fields:
            if multiplier is None or "steps" in fields:
                raise self._error(node, at, "no prices", "prices, multiplier or free: true")
            return None
        base = self._prices(fields["prices"], f"{at}.prices")
        steps = [Step(-1, base)]
        for index, item in enumerate(self.items(fields["steps"], f"{at}.steps") if "steps" in fields else ()):
            steps.append(self._step(item, f"{at}.steps[{index}]", base, steps[-1].above))
        gpus = self._number(fields, "gpu_count", at, Decimal(1)) or Decimal(1)
        share = self._number(fields, "share", at, Decimal(1)) or Decimal(1)
        if share > 1:
            raise self._error(fields["share"], f"{at}.share", str(share), "a number above 0, at most 1")
        shortest = self._number(fields, "minimum_audio_seconds", at, Decimal(0)) or Decimal(0)
        rates = Rates(tuple(steps), gpu_factor=EXACT.multiply(gpus, share), minimum_audio_s=int(shortest))
        factor = EXACT.multiply(multiplier or Decimal(1), self._usd_rate(node, fields, at))
        return rates if factor == 1 else rates.scaled(factor)

    def _step(self, node: yaml.Node, at: str, base: Mapping[str, Decimal], before: int) -> Step:
        fields = self.mapping(node, at, ("above_input_tokens", "prices"))
        for required in ("above_input_tokens", "prices"):
            if required not in fields:
                raise self._error(node, f"{at}.{required}", "nothing", f"a value for {required}")
        text = self.text(fields["above_input_tokens"], f"{at}.above_input_tokens").replace("_", "")
        if not (text.isascii() and text.isdigit() and len(text) <= 12) or int(text) <= before:
            accepted = f"a whole number above {max(before, 0)}"
            raise self._error(fields["above_input_tokens"], f"{at}.above_input_tokens", text, accepted)
        return Step(int(text), {**base, **self._prices(fields["prices"], f"{at}.prices")})

    def _prices(self, node: yaml.Node, at: str) -> dict[str, Decimal]:
        fields = self.mapping(node, at, tuple(KEYS))
        if not fields:
            raise self._error(node, at, "nothing", f"at least one of {', '.join(KEYS)}")
        return {KEYS[key].name: self._decimal(value, f"{at}.{key}", zero=True) for key, value in fields.items()}

    def _usd_rate(self, node: yaml.Node, fields: Mapping[str, yaml.Node], at: str) -> Decimal:
        currency = (self._optional_text(fields, "currency", at) or "USD").upper()
        rate = self._number(fields, "usd_rate", at)
        if currency == "USD":
            if rate is not None:
                raise self._error(fields["usd_rate"], f"{at}.usd_rate", str(rate), "no usd_rate for prices in USD")
            return Decimal(1)
        if rate is None or self._date(fields, "usd_rate_date", at) is None:
            missing = "usd_rate" if rate is None else "usd_rate_date"
            accepted = f"usd_rate (USD for 1 {currency}) and usd_rate_date"
            raise self._error(node, f"{at}.{missing}", f"nothing, with currency {currency}", accepted)
        return rate

    def _number(
        self, fields: Mapping[str, yaml.Node], name: str, at: str, default: Decimal | None = None
    ) -> Decimal | None:
        if name not in fields:
            return default
        return self._decimal(fields[name], f"{at}.{name}", zero=name == "minimum_audio_seconds")

    def _decimal(self, node: yaml.Node, at: str, *, zero: bool) -> Decimal:
        text = self.text(node, at)
        accepted = f"a number {'of at least' if zero else 'above'} 0, at most {_LARGEST}"
        try:
            number = Decimal(text)
        except InvalidOperation as error:
            raise self._error(node, at, text, accepted) from error
        if not number.is_finite() or not (0 <= number <= _LARGEST) or (number == 0 and not zero):
            raise self._error(node, at, text, accepted)
        return number

    def _flag(self, fields: Mapping[str, yaml.Node], name: str, at: str) -> bool:
        if name not in fields:
            return False
        text = self.text(fields[name], f"{at}.{name}")
        if text.lower() not in {"true", "false"}:
            raise self._error(fields[name], f"{at}.{name}", text, "true or false")
        return text.lower() == "true"

    def _date(self, fields: Mapping[str, yaml.Node], name: str, at: str) -> date | None:
        if name not in fields:
            return None
        text = self.text(fields[name], f"{at}.{name}")
        try:
            return date.fromisoformat(text)
        except ValueError as error:
            raise self._error(fields[name], f"{at}.{name}", text, "a date such as 2026-01-31") from error

    def _optional_text(self, fields: Mapping[str, yaml.Node], name: str, at: str) -> str | None:
        return self.text(fields[name], f"{at}.{name}") if name in fields else None

    def text(self, node: yaml.Node, at: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            raise self._error(node, at, _kind(node), "a single value")
        return str(node.value).strip()

    def items(self, node: yaml.Node, at: str) -> tuple[yaml.Node, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._error(node, at, _kind(node), "a list")
        return tuple(node.value)

    def mapping(self, node: yaml.Node, at: str, accepted: tuple[str, ...]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, at, _kind(node), f"fields: {', '.join(accepted)}")
        fields: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node, at):
            if key.value not in accepted:
                raise self._error(key, f"{at}.{key.value}", "an unknown field", ", ".join(accepted))
            if key.value in fields:
                raise self._error(key, f"{at}.{key.value}", "the field a second time", "each field once")
            fields[key.value] = value
        return fields

    def _pairs(self, node: yaml.MappingNode, at: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, at, _kind(key), "a field name")
            yield key, value

    def _error(self, node: yaml.Node, field: str, received: str, accepted: str) -> PriceFileError:
        return PriceFileError(self._path, _line(node), field, received, accepted)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return str(node.value) or "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "fields"
