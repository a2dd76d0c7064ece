"""The clients of the suite, and which of them can be used here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from noninterference.uses import Client, Kind, Use

__all__ = ["CLIENTS", "INSTALLED", "KINDS", "ROWS", "title_of"]

_MODULES = sorted(path.stem for path in Path(__file__).parent.glob("uses_*.py"))

CLIENTS: tuple[Client, ...] = tuple(import_module(f"noninterference.{module}").CLIENT for module in _MODULES)
INSTALLED: tuple[Client, ...] = tuple(client for client in CLIENTS if client.is_installed)

KINDS: list[tuple[Client, Kind]] = [(client, kind) for client in INSTALLED for kind in client.kinds()]
ROWS: list[tuple[Client, Use, Kind]] = [(client, use, kind) for client in INSTALLED for use, kind in client.rows()]


def title_of(row: object) -> str | None:
    """What names a row, or a part of one, in a report."""
    if isinstance(row, Client):
        return row.integration
    if isinstance(row, Use):
        return row.title.replace(" ", "_")
    return None
