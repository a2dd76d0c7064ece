"""Writes what is generated from the registry: ``python -m stagelight.conventions.generate [--check]``.

Works in a checkout: the document goes to ``docs/conventions.md``, the Collector's allow list into
``collector/collector.yaml``. With ``--check`` nothing is written, and the exit status is 1 when a file is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ._collector import CONFIGURATION, render_collector
from ._document import render_document
from ._registry import Registry, RegistryError
from ._render import render_attributes, render_events, render_metrics, render_spans, render_values
from ._rules import load_registry

__all__ = ["OUTPUTS", "main", "stale"]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

OUTPUTS: Mapping[Path, Callable[[Registry], str]] = {
    HERE / "attributes.py": render_attributes,
    HERE / "metrics.py": render_metrics,
    HERE / "events.py": render_events,
    HERE / "spans.py": render_spans,
    HERE / "values.py": render_values,
    ROOT / "docs" / "conventions.md": render_document,
    CONFIGURATION: render_collector,
}
"""Who writes which file."""


def stale(registry: Registry) -> dict[Path, str]:
    """Return the files that differ from what ``registry`` says, with the text they should have."""
    texts = {path: render(registry) for path, render in OUTPUTS.items()}
    return {path: text for path, text in texts.items() if not path.exists() or path.read_text("utf-8") != text}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the stale files, or with ``--check`` only name them.

    Returns:
        The exit status: 0, or 1 when the registry breaks a rule or, with ``--check``, when a file is stale.
    """
    parser = argparse.ArgumentParser(prog="stagelight.conventions.generate", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check: bool = parser.parse_args(arguments).check
    try:
        changed = stale(load_registry())
    except RegistryError as error:
        print(error, file=sys.stderr)
        return 1
    for path, text in changed.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} {'is stale: run make generate' if check else 'written'}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
