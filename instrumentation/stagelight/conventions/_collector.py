"""Writes the registry's names into the Collector's allow list."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ._registry import Registry, RegistryError

__all__ = ["CONFIGURATION", "render_collector"]

CONFIGURATION = Path(__file__).parents[3] / "collector" / "collector.yaml"
"""Of a checkout."""

_BEGIN = "      # begin registry\n"
_END = "      # end registry\n"


def render_collector(registry: Registry) -> str:
    """Return the text of ``collector.yaml`` with the ``gen_ai.*`` and ``stagelight.*`` keys between its two marks."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise RegistryError([f"{CONFIGURATION.name}: the marks '# begin registry' and '# end registry' are missing"])
    keys = sorted(
        row.key
        for row in registry.attributes
        if row.key.startswith(("gen_ai.", "stagelight.")) and not row.is_template  # what follows a prefix is a pattern
    )
    lines = textwrap.fill(", ".join(keys) + ",", 120, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"{before}{begin}{lines}\n{end}{after}"
