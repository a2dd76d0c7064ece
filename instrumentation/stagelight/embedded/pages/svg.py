"""SVG elements as safe markup. Widths and places are attributes: the content security policy forbids inline styles."""

from __future__ import annotations

from markupsafe import Markup, escape

from stagelight.embedded.pages.units import visible

__all__ = ["element", "number", "percent", "title"]


def element(tag: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """One element, text escaped: ``stroke_width`` becomes ``stroke-width``, ``class_`` ``class``; None is left out."""
    inside = Markup().join(escape(child) for child in children)
    named = Markup().join(
        Markup(' {}="{}"').format(Markup(name.rstrip("_").replace("_", "-")), _text(value))  # noqa: S704 - names are ours
        for name, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), named, inside)  # noqa: S704 - tags are ours


def _text(value: str | float) -> str:
    return visible(value) if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """Coordinate with at most two decimals: ``12.5``."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def title(text: str) -> Markup:
    """What a browser shows while the pointer rests on the element around it."""
    return element("title", visible(text))


def percent(place: float) -> str:
    """Place from 0 to 1 as a percentage of the picture: ``12.5%``."""
    return f"{number(place * 100)}%"
