"""Environment variables as ``stagelight doctor`` sees them: what may be shown of a value, and values without effect."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Final, NamedTuple
from urllib.parse import urlsplit

__all__ = ["Wrong", "shown_endpoint", "shown_hosts", "unknown"]

_PREFIX: Final = "STAGELIGHT_"
_HIDDEN: Final = "(not shown)"
_HOST: Final = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
_NAME: Final = re.compile(r"[\w.-]+")


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
