"""Writes the pages of ``docs`` that are made from code: ``python -m stagelight.documentation [--check]``.

Works in a checkout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from stagelight import integrations_page, settings_page

__all__ = ["FOLDER", "PAGES", "main"]

FOLDER: Final = Path(__file__).parents[2] / "docs"

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "settings.md": settings_page.page,
    "integrations.md": integrations_page.page,
}
"""Who writes which page."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages that are stale, or with ``--check`` only name them.

    Returns:
        The exit status: 1 when a page is stale and was not to be written.
    """
    parser = argparse.ArgumentParser(prog="stagelight.documentation", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check: bool = parser.parse_args(arguments).check
    stale = {name: text for name, page in PAGES.items() if (text := page()) != _written(FOLDER / name)}
    for name, text in stale.items():
        if not check:
            (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"docs/{name} {'is stale: run make generate' if check else 'written'}")
    return 1 if check and stale else 0


def _written(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
