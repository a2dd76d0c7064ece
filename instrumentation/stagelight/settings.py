"""Settings: one table of rows, from which the frozen ``Settings`` and the documentation are made.

``OTEL_*`` variables rule wherever OpenTelemetry has one; ``STAGELIGHT_*`` exists only for what it lacks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from stagelight._request_rules import FIELDS, SOURCES, Rule, parse_rules

__all__ = ["ROWS", "Problem", "Row", "Settings", "SettingsError", "default_of", "read", "table"]

Profile = Literal["released", "latest"]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_PATTERN = re.compile(r"[a-z0-9*?._-]+|(\[)?[a-f0-9*?.]*(:[a-f0-9*?.]*){2,}(?(1)\])")
"""Of a host name or an address of IPv6; no scheme, port or path."""
MIN_KEY_VARIETY = 8  # "aaaa..." is long and still guessed at once
MIN_KEY_CHARACTERS = 32  # half of a SHA-256 block in hex; shorter keys can be guessed together with the ids


class SettingsError(ValueError):
    """A setting has a value that is not accepted; the message names setting, value and accepted values."""


class Row(NamedTuple):
    """One setting."""

    field: str
    variable: str
    parse: Callable[[str], Any]
    accepted: str
    default: Any
    doc: str
    secret: bool = False


class Problem(NamedTuple):
    """A variable whose value was not accepted; the part it controls stays at its default."""

    variable: str
    message: str


def _switch(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(text)


def _one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        lowered = text.strip().lower()
        if lowered not in values:
            raise ValueError(text)
        return lowered

    return parse


def _existing_file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError(text)
    return path


def _key(text: str) -> str:
    if len(text.strip()) < MIN_KEY_CHARACTERS or len(set(text.strip())) < MIN_KEY_VARIETY:
        raise ValueError(text)
    return text.strip()


def _hosts(text: str) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        host, separator, provider = part.rpartition("=")
        if not separator or not host.strip() or not provider.strip():
            raise ValueError(text)
        pairs[host.strip().lower()] = provider.strip()
    return MappingProxyType(pairs)


def _patterns(text: str) -> tuple[str, ...]:
    patterns = tuple(piece.strip().lower() for piece in text.split(",") if piece.strip())
    if not all(_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise ValueError(text)
    return patterns


_KEY_RULE = f"at least {MIN_KEY_CHARACTERS} characters, {MIN_KEY_VARIETY} of them different"
_SWITCH = "1, true, yes, on or 0, false, no, off"

ROWS: tuple[Row, ...] = (
    Row("semconv", "STAGELIGHT_SEMCONV", _one_of("released", "latest"), "released or latest", "released",
        "Generation of the OpenTelemetry GenAI names: what the official Python packages 1.3b0 emit, or upstream main."),
    Row("strict", "STAGELIGHT_STRICT", _switch, _SWITCH, False,
        "Raise misuse and our own failures instead of logging them once. For tests."),
    Row("prices", "STAGELIGHT_PRICES", _existing_file, "path of a readable YAML file", None,
        "Your own prices; they win over the bundled ones. See docs/pricing.md."),
    Row("id_key", "STAGELIGHT_ID_KEY", _key, _KEY_RULE, None,
        "Secret from which pseudonyms of user and session ids are made. Without it both are dropped.", secret=True),
    Row("id_key_file", "STAGELIGHT_ID_KEY_FILE", _existing_file, "path of a readable file", None,
        "File that holds the secret of STAGELIGHT_ID_KEY; used when that is not set.",
        secret=True),  # people put the key itself here
    Row("cost_names", "STAGELIGHT_COST_NAMES", _one_of("own", "upstream"), "own or upstream", "own",
        "With upstream, call spans also carry the proposed gen_ai cost attributes (semantic-conventions-genai #443)."),
    Row("provider_hosts", "STAGELIGHT_PROVIDER_HOSTS", _hosts, "host=provider pairs separated by commas",
        MappingProxyType({}),
        "Provider of a host the client library cannot tell, e.g. a proxy: 127.0.0.1:8080=openai."),
    Row("propagate_to", "STAGELIGHT_PROPAGATE_TO", _patterns,
        "host names and * patterns, without ports, separated by commas", None,
        "Hosts that trace context, baggage and request ids are sent to; not set: all but known AI providers."),
    Row("request_identity", "STAGELIGHT_REQUEST_IDENTITY", parse_rules,
        f"field=source:name pairs separated by commas; fields: {', '.join(FIELDS)}; sources: {', '.join(SOURCES)}", (),
        "Whose request it is: tenant=header:x-tenant,user_id=jwt:sub,*=function:app.owners:owner_of."),
    Row("instrument", "STAGELIGHT_INSTRUMENT", _switch, _SWITCH, True,
        "Instrument the installed client libraries in configure()."),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``configure`` decided, one field per row of the table."""

    semconv: Profile = "released"
    strict: bool = False
    prices: Path | None = None
    id_key: str | None = None
    id_key_file: Path | None = None
    cost_names: Literal["own", "upstream"] = "own"
    provider_hosts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    propagate_to: tuple[str, ...] | None = None
    request_identity: tuple[Rule, ...] = ()
    instrument: bool = True

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{row.field}={'***' if row.secret and getattr(self, row.field) else repr(getattr(self, row.field))}"
            for row in ROWS
        )
        return f"Settings({shown})"

    def resolve_id_key(self) -> str | None:
        """The key of the pseudonyms, read from its file when it is not given directly.

        Raises:
            SettingsError: the file cannot be read or holds too short a key.
        """
        if self.id_key or self.id_key_file is None:
            return self.id_key
        try:
            return _key(self.id_key_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise SettingsError(
                f"STAGELIGHT_ID_KEY_FILE: (hidden) is not accepted; accepted: a readable file with {_KEY_RULE}"
            ) from None


def _refusal(name: str, value: object, row: Row) -> str:
    shown = "(hidden)" if row.secret else repr(value)
    return f"{name}: {shown} is not accepted; accepted: {row.accepted}"


def read(environment: Mapping[str, str] | None = None, **given: Any) -> tuple[Settings, tuple[Problem, ...]]:
    """Settings by keyword, then environment, then default.

    Args:
        environment: variables to read; default ``os.environ``.
        given: keywords of ``configure``; ``None`` means "not given".

    Returns:
        The settings, and the variables whose values were not accepted (their settings keep the default).

    Raises:
        SettingsError: a keyword is unknown or its value is not accepted.
    """
    environment = os.environ if environment is None else environment
    known = {row.field: row for row in ROWS}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SettingsError(f"configure(): unknown setting {unknown[0]!r}; accepted: {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for row in ROWS:
        value = given.get(row.field)
        if value is not None:
            values[row.field] = _from_keyword(row, value)
            continue
        text = environment.get(row.variable, "")
        if not text.strip():
            continue
        try:
            values[row.field] = row.parse(text)
        except ValueError:
            problems.append(Problem(row.variable, _refusal(row.variable, text, row)))
    return Settings(**values), tuple(problems)


def _from_keyword(row: Row, value: Any) -> Any:
    if isinstance(row.default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(value, Mapping):
        if row.field == "provider_hosts" and all(isinstance(part, str) for pair in value.items() for part in pair):
            return MappingProxyType({host.lower(): provider for host, provider in value.items()})
    elif isinstance(value, str | Path):
        try:
            return row.parse(str(value))
        except ValueError:
            pass
    raise SettingsError(_refusal(f"configure({row.field}=...)", value, row))


def table() -> str:
    """The settings as a Markdown table, for the README and docs/settings.md."""
    lines = ["| variable | accepted | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{row.variable}` | {row.accepted} | {default_of(row)} | {row.doc} |" for row in ROWS]
    return "\n".join(lines)


def default_of(row: Row) -> str:
    """The default of a setting in words."""
    if isinstance(row.default, Mapping | tuple):
        return "none"
    return "not set" if row.default is None else str(row.default).lower()
