"""Writes the modules and the document that are generated from the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ._registry import Registry, read_registry
from ._render import render_attributes, render_events, render_metrics, render_spans, render_values

__all__ = ["main"]

HERE = Path(__file__).parent
MODULES: Mapping[str, Callable[[Registry], str]] = {
    "attributes.py": render_attributes,
    "metrics.py": render_metrics,
    "events.py": render_events,
    "spans.py": render_spans,
    "values.py": render_values,
}


def main() -> None:
    """Write all generated files."""
    registry = read_registry()
    for name, render in MODULES.items():
        (HERE / name).write_text(render(registry), encoding="utf-8")


if __name__ == "__main__":
    main()
