"""Reads the registry's YAML into records; what is wrong with it is collected, so that one run shows everything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

try:  # several times as fast, and part of the usual builds of PyYAML
    from yaml import CSafeLoader as Loader
except ImportError:
    from yaml import SafeLoader as Loader  # type: ignore[assignment]  # same interface, written in Python

from ._registry import Attribute, Entity, Event, Group, Member, MetricRow, Reference, Registry, RegistryError, Span

__all__ = ["REGISTRY", "read_registry"]

REGISTRY = Path(__file__).parent / "registry"
FILE_FORMAT = "definition/2"


class Row:
    """One mapping of the YAML that notes what is missing, mistyped or unknown in it."""

    def __init__(self, value: Any, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        self.value: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        self.read: set[str] = set()
        if not isinstance(value, Mapping):
            self.complain("", f"expected a mapping, got {value!r}")

    def complain(self, name: str, problem: str) -> None:
        self.problems.append(f"{self.where}: {name + ': ' if name else ''}{problem}")

    def text(self, name: str, *, optional: bool = False) -> str:
        self.read.add(name)
        value = self.value.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if value is not None:
            self.complain(name, f"expected a text, got {value!r}")
        elif not optional:
            self.complain(name, "is missing")
        return ""

    def flag(self, name: str, *, default: bool | None = None) -> bool:
        self.read.add(name)
        value = self.value.get(name, default)
        if not isinstance(value, bool):
            self.complain(name, "is missing" if value is None else f"expected true or false, got {value!r}")
        return value is True

    def texts(self, name: str) -> tuple[str, ...]:
        self.read.add(name)
        value = self.value.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            self.complain(name, "is missing" if value is None else f"expected a list of texts, got {value!r}")
            return ()
        return tuple(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        self.read.add(name)
        value = self.value.get(name, [])
        if not isinstance(value, list) or not all(type(each) in (int, float) for each in value):
            self.complain(name, f"expected a list of numbers, got {value!r}")
            return ()
        return tuple(value)

    def rows(self, name: str) -> list[Any]:
        self.read.add(name)
        value = self.value.get(name) or []
        if not isinstance(value, list):
            self.complain(name, f"expected a list, got {value!r}")
            return []
        return value

    def inner(self, name: str) -> Row:
        self.read.add(name)
        return Row(self.value.get(name, {}), f"{self.where}: {name}", self.problems)

    def finish(self, *ignored: str) -> None:
        """Complain about fields that nobody asked for: a misspelt field would otherwise be a silent default."""
        for name in sorted(self.value.keys() - self.read - set(ignored)):
            self.complain(str(name), "is not a known field")


def read_registry(folder: Path = REGISTRY) -> Registry:
    """Read all files of ``folder`` but the manifest.

    Raises:
        RegistryError: a file is not YAML or not of the format, or a row lacks a field, has an unknown one or a value
            of the wrong type.
    """
    registry, problems = Registry(), list[str]()
    for path in sorted(folder.glob("*.yaml")):
        if path.name == "manifest.yaml":
            continue
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
        except yaml.YAMLError as error:
            problems.append(f"{path.name}: not YAML: {error}")
            continue
        file = Row(content, path.name, problems)
        if (stated := file.text("file_format")) != FILE_FORMAT:
            file.complain("file_format", f"expected {FILE_FORMAT}, got {stated!r}")
        registry.attributes += [_attribute(row) for row in _rows(file, "attributes", "key")]
        registry.groups += [_group(row) for row in _rows(file, "attribute_groups", "id")]
        registry.metrics += [_metric(row) for row in _rows(file, "metrics", "name")]
        registry.spans += [_span(row) for row in _rows(file, "spans", "type")]
        registry.events += [_event(row) for row in _rows(file, "events", "name")]
        registry.entities += [_entity(row) for row in _rows(file, "entities", "type")]
        file.finish()
    if problems:
        raise RegistryError(problems)
    return registry


def _rows(file: Row, section: str, identity: str) -> list[Row]:
    rows = []
    for number, value in enumerate(file.rows(section), start=1):
        name = value.get(identity) if isinstance(value, dict) else None
        rows.append(Row(value, f"{file.where}: {section}: {name or f'row {number}'}", file.problems))
    return rows


def _attribute(row: Row) -> Attribute:
    kind, members = row.value.get("type"), tuple[Member, ...]()
    if isinstance(kind, dict):
        listed = row.inner("type")
        members = tuple(_member(listed, number, value) for number, value in enumerate(listed.rows("members"), start=1))
        listed.finish()
        kind = "string"
    else:
        kind = row.text("type")
    own = row.inner("annotations").inner("stagelight")
    attribute = Attribute(
        where=row.where,
        key=row.text("key"),
        type=kind,
        brief=row.text("brief"),
        note=row.text("note", optional=True),
        stability=row.text("stability"),
        members=members,
        stage=own.texts("stage"),
        unit=own.text("unit", optional=True),
        sensitive=own.text("sensitive"),
        label=own.text("label"),
        prometheus=own.text("prometheus", optional=True),
        profiles=own.texts("profiles"),
        emitted=own.flag("emitted", default=True),
        demo=own.flag("demo"),
        enum=own.text("enum", optional=True),
        source=own.text("source"),
    )
    row.finish("examples")
    own.finish()
    return attribute


def _member(parent: Row, number: int, value: Any) -> Member:
    row = Row(value, f"{parent.where}: member {number}", parent.problems)
    member = Member(row.text("id"), row.text("value"), row.text("brief"))
    row.finish("stability")
    return member


def _reference(parent: Row, section: str, number: int, value: Any) -> Reference:
    row = Row(value, f"{parent.where}: {section}: {number}", parent.problems)
    if "ref_group" in row.value:
        reference = Reference(row.text("ref_group"), group=True)
        row.finish()
        return reference
    level, condition = row.value.get("requirement_level"), ""
    if isinstance(level, dict) and len(level) == 1:
        (level, condition), *_ = level.items()
    row.read.add("requirement_level")
    if level not in ("required", "recommended", "opt_in", "conditionally_required") or not isinstance(condition, str):
        row.complain("requirement_level", f"is missing or not a level: {row.value.get('requirement_level')!r}")
    reference = Reference(
        row.text("ref"), str(level), str(condition), at_start=row.flag("sampling_relevant", default=False)
    )
    row.finish()
    return reference


def _references(row: Row, section: str = "attributes") -> tuple[Reference, ...]:
    return tuple(_reference(row, section, number, value) for number, value in enumerate(row.rows(section), start=1))


def _group(row: Row) -> Group:
    group = Group(where=row.where, id=row.text("id"), brief=row.text("brief"), references=_references(row))
    row.finish("visibility")
    return group


def _signal(row: Row, own: Row, identity: str) -> dict[str, Any]:
    return {
        "where": row.where,
        "name": row.text(identity),
        "brief": row.text("brief"),
        "note": row.text("note", optional=True),
        "stability": row.text("stability"),
        "references": _references(row),
        "stage": own.texts("stage"),
        "profiles": own.texts("profiles"),
        "demo": own.flag("demo"),
        "source": own.text("source"),
    }


def _metric(row: Row) -> MetricRow:
    annotations = row.inner("annotations")
    own, code = annotations.inner("stagelight"), annotations.inner("code_generation")
    metric = MetricRow(
        **_signal(row, own, "name"),
        instrument=row.text("instrument"),
        unit=row.text("unit"),
        value_type=code.text("metric_value_type"),
        buckets=own.numbers("buckets"),
        prometheus=own.text("prometheus"),
    )
    row.text("requirement_level")
    for each in (row, own, code, annotations):
        each.finish()
    return metric


def _span(row: Row) -> Span:
    own, name = row.inner("annotations").inner("stagelight"), row.inner("name")
    span = Span(
        **_signal(row, own, "type"),
        kind=row.text("kind"),
        span_name=name.text("note"),
        operation=own.text("operation", optional=True),
    )
    for each in (row, own, name):
        each.finish()
    return span


def _event(row: Row) -> Event:
    own = row.inner("annotations").inner("stagelight")
    event = Event(**_signal(row, own, "name"))
    row.text("requirement_level")
    row.finish()
    own.finish()
    return event


def _entity(row: Row) -> Entity:
    references = _references(row, "identity") + _references(row, "description")
    entity = Entity(where=row.where, type=row.text("type"), brief=row.text("brief"), references=references)
    row.finish("stability")
    return entity
