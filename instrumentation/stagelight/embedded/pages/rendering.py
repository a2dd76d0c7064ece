"""Templates to HTML: everything printed is escaped, and hidden characters are written out."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stagelight.embedded.pages import stages, units
from stagelight.sources.format import money_places

__all__ = ["FILES", "File", "render"]

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class File:
    """A static file, read once; its address carries a digest, so that browsers may keep it for ever."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.media_type = _TYPES[path.suffix]
        self.address = f"/static/{path.name}?v={hashlib.sha256(self.content).hexdigest()[:12]}"


FILES = {path.name: File(path) for path in sorted((_HERE / "static").iterdir()) if path.suffix in _TYPES}


def _printed(value: object) -> object:
    """Last step of every expression in a template, before escaping."""
    return units.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in (
        "ago",
        "bytes_size",
        "count",
        "counted",
        "duration",
        "exact_money",
        "exact_time",
        "iso_time",
        "money",
        "percent",
    ):
        environment.filters[name] = getattr(units, name)
    environment.filters |= {"seconds": units.seconds, "visible": units.visible}
    environment.globals.update(
        files={name: file.address for name, file in FILES.items()},
        money_places=money_places,
        ordered_shares=stages.ordered_shares,
        share_bar=stages.share_bar,
        stage_style=stages.style,
        turn_bar=stages.turn_bar,
    )
    return environment


_ENVIRONMENT = _environment()


def render(template: str, **values: object) -> str:
    """Text of a template with its values."""
    return _ENVIRONMENT.get_template(template).render(values)
