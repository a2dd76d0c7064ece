"""Environment variables as ``stagelight doctor`` sees them: what may be shown of a value, and values without effect."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Final, NamedTuple
from urllib.parse import urlsplit

__all__ = ["Wrong", "shown_endpoint", "shown_hosts", "unknown", "wrong"]

_PREFIX: Final = "STAGELIGHT_"
_HIDDEN: Final = "(not shown)"
_HOST: Final = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
_NAME: Final = re.compile(r"[\w.-]+")
_SHOWN_CHARACTERS: Final = 40

_TIMES: Final = (
    "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BLRP_SCHEDULE_DELAY", "OTEL_BLRP_EXPORT_TIMEOUT",
)  # fmt: skip
_SIZES: Final = (
    "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BLRP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
)  # fmt: skip


class Wrong(NamedTuple):
    """A variable whose value has no effect."""

    variable: str
    found: str
    accepted: str


def shown_endpoint(endpoint: str) -> str:
    """Scheme, host and port: a user's name, a password and a path (which may hold a vendor's token) are not shown."""
    scheme, separator, rest = endpoint.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return _HIDDEN
    host = parts.hostname or ""
    return f"{scheme}{separator}[{host}]{port}" if ":" in host else f"{scheme}{separator}{host}{port}"


def shown_hosts(pairs: str) -> str:
    """``host=provider`` pairs with host, port and provider only."""
    return ", ".join(_pair(pair.strip()) for pair in pairs.split(",") if pair.strip())


def _pair(pair: str) -> str:
    host, _, provider = pair.rpartition("=")
    host = host.strip().rpartition("://")[2].rpartition("@")[2].partition("/")[0]
    provider = provider.strip()
    return (
        f"{host if _HOST.fullmatch(host) else _HIDDEN}={provider if _NAME.fullmatch(provider) else _HIDDEN}"
    )  # fmt: skip


def unknown(known: Collection[str]) -> Iterator[Wrong]:
    """Variables that look like ours and are not: misspelt, or of another version."""
    for variable in sorted(os.environ):
        if variable.startswith(_PREFIX) and variable not in known and os.environ[variable].strip():
            near = get_close_matches(variable, known, n=1)
            yield Wrong(variable, "no setting of this version", near[0] if near else ", ".join(sorted(known)))


def wrong() -> Iterator[Wrong]:
    """Standard variables whose values are not accepted, so that a default is in force."""
    for variables, least, accepted in (
        (_TIMES, math.ulp(0), "a number of milliseconds above 0"),
        (_SIZES, 1.0, "a number from 1 on"),
    ):
        for variable in variables:
            if _has(variable) and not _is_number(variable, least):
                yield Wrong(variable, _given(variable), accepted)


def _value(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _has(variable: str) -> bool:
    return bool(_value(variable))


def _given(variable: str) -> str:
    return repr(_value(variable)[:_SHOWN_CHARACTERS])


def _is_number(variable: str, least: float, most: float = sys.float_info.max) -> bool:
    try:
        return least <= float(_value(variable)) <= most
    except ValueError:
        return False
