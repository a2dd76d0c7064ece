"""The registry's rows as records."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "Attribute",
    "Entity",
    "Event",
    "Group",
    "Member",
    "MetricRow",
    "Reference",
    "Registry",
    "RegistryError",
    "Signal",
    "Span",
]


class RegistryError(ValueError):
    """The registry breaks a rule; the message lists every problem as ``file: row: field: what is wrong``."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Member:
    """One value of an enumeration."""

    id: str
    value: str
    brief: str


@dataclass(frozen=True, slots=True)
class Reference:
    """An attribute on a signal, or with ``group`` set all attributes of a group."""

    key: str
    level: str = "recommended"
    condition: str = ""
    at_start: bool = False
    group: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One row of ``attributes``; the fields after ``members`` are our own columns."""

    where: str
    key: str
    type: str
    brief: str
    note: str
    stability: str
    members: tuple[Member, ...]
    stage: tuple[str, ...]
    unit: str
    sensitive: str
    label: str
    prometheus: str
    profiles: tuple[str, ...]
    emitted: bool
    demo: bool
    enum: str
    source: str

    @property
    def is_template(self) -> bool:
        """Whether the key is a prefix that takes a suffix of its own."""
        return self.type.startswith("template[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A list of references that signals share."""

    where: str
    id: str
    brief: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What metrics, spans and events have in common."""

    where: str
    name: str
    brief: str
    note: str
    stability: str
    references: tuple[Reference, ...]
    stage: tuple[str, ...]
    profiles: tuple[str, ...]
    demo: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow(Signal):
    """One row of ``metrics``."""

    instrument: str
    unit: str
    value_type: str
    buckets: tuple[float, ...]
    prometheus: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Signal):
    """One row of ``spans``; ``name`` is its type."""

    kind: str
    span_name: str
    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Signal):
    """One row of ``events``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """What telemetry is about: attributes of the resource."""

    where: str
    type: str
    brief: str
    references: tuple[Reference, ...]


@dataclass(slots=True)
class Registry:
    """All rows, in the order of the files and of the rows in them."""

    attributes: list[Attribute] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    metrics: list[MetricRow] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    entities: list[Entity] = field(default_factory=list)

    def signals(self) -> list[Signal]:
        """Return all metrics, spans and events."""
        return [*self.metrics, *self.spans, *self.events]

    def resolve(self, signal: Signal) -> tuple[Reference, ...]:
        """Return the references of ``signal`` with its groups opened; a direct reference replaces a group's."""
        groups = {group.id: group.references for group in self.groups}
        found: dict[str, Reference] = {}
        for reference in signal.references:
            for each in groups.get(reference.key, ()) if reference.group else (reference,):
                found[each.key] = each
        return tuple(found.values())
