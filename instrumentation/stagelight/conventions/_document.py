"""Writes ``docs/conventions.md``: the registry as tables for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ._registry import Attribute, Event, MetricRow, Reference, Registry, Signal, Span

__all__ = ["anchors", "render_document"]

# One sentence per line: Markdown joins them, and a diff shows the sentence that changed.
INTRODUCTION = """# Conventions

Every name that Stagelight emits, and the upstream names it recognises.
Generated from `instrumentation/stagelight/conventions/registry/*.yaml` by `make generate`; do not edit.

Columns:

* **label**: whether the attribute may be a metric label.
  `closed`: yes, Stagelight itself chooses the values.
  `bounded`: yes, but the values come from outside: a limited number keep their name, the rest becomes `other`.
  Empty: never.
* **sensitive**: `identity` is a pseudonym or an id of the application.
  `content` is what users and models said.
* **profile**: `released` is the default, what the official Python packages 1.3b0 emit.
  `latest` is upstream's main branch (`STAGELIGHT_SEMCONV=latest`).
  Empty: both.
* **demo**: whether `make demo` shows it.
  `not emitted`: Stagelight only recognises it.
* **Prometheus**: the name after Prometheus' OTLP receiver with its default translation.
  A histogram's series add `_bucket`, `_sum` and `_count`.

An upstream name links to the page that defines it.
"""

SPANS = """## Spans

Status is ERROR exactly when `error.type` is set; OK is never set.
Attributes marked ° are set when the span starts, if known, so that samplers see them.
"""

EVENTS = """## Events

Log records with an event name.
Every one says in `stagelight.record.kind` how long it is to be kept.
"""

GROUPS = """## Groups

Attributes that spans and events share.
"""

BUCKETS = """## Buckets

Upper bounds of the histograms, in the unit of the metric.
`OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` switches to exponential ones.
"""

LEVELS = (
    ("required", "Required"),
    ("conditionally_required", "Conditional"),
    ("recommended", "Recommended"),
    ("opt_in", "Opt-in"),
)
OWN = "stagelight"


def render_document(registry: Registry) -> str:
    """Return the text of ``docs/conventions.md``."""
    parts = [INTRODUCTION, SPANS, *map(_span, registry.spans), EVENTS, *map(_event, registry.events)]
    parts += [GROUPS, _groups(registry)]
    for title, namespaces in _chapters(registry).items():
        parts.append(f"## {title}\n")
        parts += [_namespace(registry, namespace) for namespace in namespaces]
    parts += [BUCKETS, _buckets(registry.metrics), _links(registry)]
    return "\n".join(parts)


def anchors(registry: Registry) -> set[str]:
    """Return the anchors of the document's sections that explain our own names."""
    headings = ["spans", "events", *(name for names in _chapters(registry).values() for name in names)]
    return {heading.replace(".", "") for heading in headings}


def _chapters(registry: Registry) -> dict[str, list[str]]:
    names = [row.key for row in registry.attributes] + [row.name for row in registry.metrics]
    namespaces = sorted({_namespace_of(name) for name in names})
    return {
        "Names of our own": [each for each in namespaces if each.startswith(OWN)],
        "Names of OpenTelemetry": [each for each in namespaces if not each.startswith(OWN)],
    }


def _namespace_of(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == OWN and len(parts) > 2 else parts[0]


def _namespace(registry: Registry, namespace: str) -> str:
    attributes = [row for row in registry.attributes if _namespace_of(row.key) == namespace]
    metrics = [row for row in registry.metrics if _namespace_of(row.name) == namespace]
    parts = [f"### {namespace}\n"]
    if metrics:
        parts.append(_metric_table(registry, metrics))
    if attributes:
        parts.append(_attribute_table(attributes))
    parts += [_members(row) for row in attributes if row.members]
    return "\n".join(parts)


def _attribute_table(rows: Sequence[Attribute]) -> str:
    heads = ("attribute", "type", "meaning", "stages", "label", "sensitive", "profile", "demo")
    return _table(
        heads,
        (
            (
                _linked(row.key + (".*" if row.is_template else ""), row.source),
                f"{row.type}, {row.unit}" if row.unit else row.type,
                _meaning(row.brief, row.note),
                ", ".join(row.stage),
                row.label if row.label != "never" else "",
                row.sensitive if row.sensitive != "none" else "",
                _profile(row.profiles),
                ("yes" if row.demo else "") if row.emitted else "not emitted",
            )
            for row in rows
        ),
    )


def _metric_table(registry: Registry, rows: Sequence[MetricRow]) -> str:
    heads = ("metric", "instrument, unit", "meaning", "labels", "Prometheus", "profile", "demo")
    return _table(
        heads,
        (
            (
                _linked(row.name, row.source),
                f"{row.instrument}, {row.unit}",
                _meaning(row.brief, row.note),
                ", ".join(f"`{each.key}`" for each in registry.resolve(row)),
                f"`{row.prometheus}`",
                _profile(row.profiles),
                "yes" if row.demo else "",
            )
            for row in rows
        ),
    )


def _members(row: Attribute) -> str:
    values = "\n".join(f"* `{member.value}`: {member.brief}" for member in row.members)
    return f"Values of `{row.key}`:\n\n{values}\n"


def _groups(registry: Registry) -> str:
    on_metrics = {each.key for row in registry.metrics for each in row.references if each.group}
    groups = [group for group in registry.groups if group.id not in on_metrics]
    lines = [f"**{group.id}**: {group.brief}\n\n" + "\n".join(_levels(group.references)) for group in groups]
    return "\n\n".join(lines) + "\n"


def _span(row: Span) -> str:
    name = f"* Name `{row.span_name}`, kind {row.kind.upper()}, stage `{row.stage[0]}`."
    return _signal(row, f"**{_linked(row.name, row.source)}**", name)


def _event(row: Event) -> str:
    return _signal(row, f"**{_linked(row.name, row.source)}**")


def _signal(row: Span | Event, title: str, *facts: str) -> str:
    groups = ", ".join(each.key for each in row.references if each.group)
    lines = [*facts, f"* Groups: {groups}.", *_levels(each for each in row.references if not each.group)]
    return f"{title}: {_meaning(row.brief, row.note)}\n\n" + "\n".join(lines) + "\n"


def _levels(references: Iterable[Reference]) -> list[str]:
    lines, each = [], list(references)
    for level, title in LEVELS:
        keys = [
            f"`{reference.key}`{'°' if reference.at_start else ''}"
            + (f" ({reference.condition})" if reference.condition else "")
            for reference in each
            if reference.level == level
        ]
        if keys:
            lines.append(f"* {title}: {', '.join(keys)}.")
    return lines


def _buckets(rows: Iterable[MetricRow]) -> str:
    shared: dict[tuple[float, ...], list[str]] = {}
    for row in rows:
        if row.buckets:
            shared.setdefault(row.buckets, []).append(f"`{row.name}`")
    return _table(
        ("bounds", "metrics"),
        ((", ".join(map(_bound, bounds)), ", ".join(names)) for bounds, names in shared.items()),
    )


def _bound(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _linked(name: str, source: str) -> str:
    return f"[`{name}`][{_link(source)}]" if source.startswith("https://") else f"`{name}`"


def _link(source: str) -> str:
    """Return a short name for an upstream page, so that the tables stay readable as text."""
    return "-".join(re.split(r"[^a-z0-9]+", source.removesuffix("/").removesuffix(".md").lower())[-2:])


def _links(registry: Registry) -> str:
    rows: list[Attribute | Signal] = [*registry.attributes, *registry.signals()]
    sources = sorted({row.source for row in rows if row.source.startswith("https://")})
    return "\n".join(f"[{_link(source)}]: {source}" for source in sources) + "\n"


def _meaning(brief: str, note: str) -> str:
    return f"{brief.removesuffix('.')}. {note}".strip()


def _profile(profiles: tuple[str, ...]) -> str:
    return "" if len(profiles) > 1 else profiles[0]
