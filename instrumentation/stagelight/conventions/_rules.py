"""Rules between the registry's rows. Each returns its problems as ``file: row: field: what is wrong``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from ._document import anchors
from ._prometheus import UNITS, label_name, metric_name
from ._reader import REGISTRY, read_registry
from ._registry import Attribute, Entity, Group, Reference, Registry, RegistryError, Signal
from ._render import constant

__all__ = ["check_registry", "load_registry"]

Problems = Iterator[str]

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
TYPES = {"string", "int", "double", "boolean", "string[]", "any", "template[string]", "template[double]"}
NUMERIC = {"int", "double", "template[double]"}
STABILITY = {"development", "stable"}
PROFILES = {"released", "latest"}
SENSITIVE = {"none", "identity", "content"}
LABEL = {"never", "closed", "bounded"}
INSTRUMENTS = {"counter", "gauge", "histogram", "updowncounter"}
KINDS = {"client", "internal"}
VALUE_TYPES = {"int", "double"}
ANY_STAGE = "any"
STAGE_KEY = "stagelight.stage"
OPERATION_KEY = "gen_ai.operation.name"


def load_registry(folder: Path = REGISTRY) -> Registry:
    """Read ``folder`` and check it.

    Raises:
        RegistryError: it is not well-formed or breaks a rule.
    """
    registry = read_registry(folder)
    if problems := check_registry(registry):
        raise RegistryError(problems)
    return registry


def check_registry(registry: Registry) -> list[str]:
    """Return all problems; empty for a registry that may be generated from."""
    return [problem for rule in RULES for problem in rule(registry)]


def _one_of(where: str, field: str, value: str, allowed: Iterable[str]) -> Problems:
    if value not in allowed:
        yield f"{where}: {field}: expected one of {', '.join(sorted(allowed))}; got {value!r}"


def _unit(where: str, unit: str) -> Problems:
    if not (unit.startswith("{") and unit.endswith("}")) and unit not in UNITS:
        yield f"{where}: unit: expected one of {', '.join(UNITS)} or a word in braces; got {unit!r}"


def _values(registry: Registry, key: str) -> set[str]:
    return {member.value for row in registry.attributes if row.key == key for member in row.members}


def _unique(rows: Iterable[tuple[str, str]], what: str) -> Problems:
    seen: dict[str, str] = {}
    for where, value in rows:
        if value in seen:
            yield f"{where}: {what} {value!r} is already taken by {seen[value]}"
        seen.setdefault(value, where)


def names_are_unique(registry: Registry) -> Problems:
    """No two rows share a name, a constant, an enumeration or a name in Prometheus."""
    yield from _unique(((row.where, row.key) for row in registry.attributes), "key")
    yield from _unique(((row.where, row.id) for row in registry.groups), "id")
    for signals in (registry.metrics, registry.spans, registry.events):
        yield from _unique(((row.where, row.name) for row in signals), "name")
    yield from _unique(((row.where, constant(row.key)) for row in registry.attributes), "constant")
    yield from _unique(((row.where, constant(row.name)) for row in registry.metrics), "constant")
    yield from _unique(((row.where, row.enum) for row in registry.attributes if row.enum), "enum")
    yield from _unique(((row.where, row.prometheus) for row in registry.metrics), "prometheus")
    yield from _unique(((row.where, row.stage[0]) for row in registry.spans), "stage")
    for row in registry.attributes:
        yield from _unique(((row.where, member.value) for member in row.members), "member")


def names_are_no_namespaces(registry: Registry) -> Problems:
    """A name is never the beginning of another one: queries and stores take a dotted name for a path."""
    keys = [(row.where, row.key) for row in registry.attributes]
    metrics = [(row.where, row.name) for row in registry.metrics]
    for where, name in keys:
        for _, other in keys:
            if other.startswith(name + "."):
                yield f"{where}: key: is also the namespace of the attribute {other}"
    for where, name in metrics:
        for _, other in metrics + keys:
            if other.startswith(name + "."):
                yield f"{where}: name: is also the namespace of {other}"
        templates = {row.key for row in registry.attributes if row.is_template}
        if name in templates:
            yield f"{where}: name: is also the prefix of the template attribute {name}"


def names_are_well_formed(registry: Registry) -> Problems:
    """Names are dotted lower case; own names say where they are explained here, the others where upstream is."""
    known = anchors(registry)
    rows = [(row.where, row.key, row.source) for row in registry.attributes]
    rows += [(row.where, row.name, row.source) for row in registry.signals()]
    for where, name, source in rows:
        if not NAME.fullmatch(name):
            yield f"{where}: expected dotted lower-case words, got {name!r}"
        if source.startswith("https://"):
            continue
        document, _, anchor = source.partition("#")
        if document != "docs/conventions.md" or anchor not in known:
            yield f"{where}: source: expected https://... or docs/conventions.md#<section>, got {source!r}"


def columns_hold_known_values(registry: Registry) -> Problems:
    """Columns with a fixed vocabulary hold words of it."""
    stages = _values(registry, STAGE_KEY) | {ANY_STAGE}
    for attribute in registry.attributes:
        yield from _one_of(attribute.where, "type", attribute.type, TYPES)
        yield from _one_of(attribute.where, "sensitive", attribute.sensitive, SENSITIVE)
        yield from _one_of(attribute.where, "label", attribute.label, LABEL)
        if attribute.enum and not attribute.members:
            yield f"{attribute.where}: enum: the attribute lists no members"
    rows: list[Attribute | Signal] = [*registry.attributes, *registry.signals()]
    for row in rows:
        yield from _one_of(row.where, "stability", row.stability, STABILITY)
        for profile in row.profiles:
            yield from _one_of(row.where, "profiles", profile, PROFILES)
        for stage in row.stage:
            yield from _one_of(row.where, "stage", stage, stages)


def attributes_are_sound(registry: Registry) -> Problems:
    """Numbers have units, labels have a name in Prometheus, and nothing that names somebody is a label."""
    for row in registry.attributes:
        if row.type in NUMERIC and not row.unit:
            yield f"{row.where}: unit: is missing for a number"
        elif row.type in NUMERIC:
            yield from _unit(row.where, row.unit)
        elif row.unit:
            yield f"{row.where}: unit: {row.unit!r} makes no sense for the type {row.type}"
        expected = "" if row.label == "never" else label_name(row.key)
        if row.prometheus != expected:
            yield f"{row.where}: prometheus: expected {expected!r}, got {row.prometheus!r}"
        if row.label != "never" and (row.sensitive != "none" or row.is_template):
            reason = "a template" if row.is_template else row.sensitive
            yield f"{row.where}: label: is {row.label}, but the attribute is {reason}: it must be never"
        if row.demo and not row.emitted:
            yield f"{row.where}: demo: is true for an attribute that is not emitted"


def references_resolve(registry: Registry) -> Problems:
    """Every reference names a row that is emitted, groups of a signal do not collide, and no row is left over."""
    attributes = {row.key: row for row in registry.attributes}
    groups = {group.id: group for group in registry.groups}
    used, opened = set[str](), set[str]()
    rows: list[Group | Entity | Signal] = [*registry.groups, *registry.entities, *registry.signals()]
    for row in rows:
        from_groups: dict[str, str] = {}
        for reference in row.references:
            if not reference.group:
                used.add(reference.key)
                yield from _reference(row.where, reference, attributes)
            elif reference.key not in groups:
                yield f"{row.where}: attributes: ref_group {reference.key!r} is not defined"
            else:
                opened.add(reference.key)
                for each in groups[reference.key].references:
                    if each.key in from_groups:
                        yield f"{row.where}: attributes: {each.key} is in {from_groups[each.key]} and {reference.key}"
                    from_groups[each.key] = reference.key
    for attribute in registry.attributes:
        if attribute.emitted and attribute.key not in used:
            yield f"{attribute.where}: is emitted, but no metric, span, event or entity refers to it"
    for group in registry.groups:
        if group.id not in opened:
            yield f"{group.where}: nothing refers to this group"


def _reference(where: str, reference: Reference, attributes: dict[str, Attribute]) -> Problems:
    attribute = attributes.get(reference.key)
    if attribute is None:
        yield f"{where}: attributes: ref {reference.key!r} is not defined"
    elif not attribute.emitted:
        yield f"{where}: attributes: {reference.key} is marked as not emitted"


def metrics_are_sound(registry: Registry) -> Problems:
    """Units and names in Prometheus fit, histograms and only they have ascending bounds, labels are allowed ones."""
    attributes = {row.key: row for row in registry.attributes}
    for row in registry.metrics:
        yield from _one_of(row.where, "instrument", row.instrument, INSTRUMENTS)
        yield from _one_of(row.where, "metric_value_type", row.value_type, VALUE_TYPES)
        if unit := list(_unit(row.where, row.unit)):
            yield from unit
        elif row.prometheus != (expected := metric_name(row.name, row.unit, row.instrument)):
            yield f"{row.where}: prometheus: expected {expected!r}, got {row.prometheus!r}"
        if (row.instrument == "histogram") != bool(row.buckets):
            yield f"{row.where}: buckets: a histogram needs them, nothing else has them"
        if not all(map(math.isfinite, row.buckets)) or any(low >= high for low, high in pairwise(row.buckets)):
            yield f"{row.where}: buckets: expected ascending finite bounds, got {list(row.buckets)}"
        for reference in registry.resolve(row):
            label = attributes.get(reference.key)
            if label and label.label == "never":
                yield f"{row.where}: attributes: {reference.key} is not allowed as a metric label"
            if label and not set(row.profiles) <= set(label.profiles):
                yield f"{row.where}: attributes: {reference.key} does not exist in all of {', '.join(row.profiles)}"


def spans_are_sound(registry: Registry) -> Problems:
    """Kinds and operations are known, each span has one stage, and its name is built from its own attributes."""
    operations = _values(registry, OPERATION_KEY)
    for row in registry.spans:
        yield from _one_of(row.where, "kind", row.kind, KINDS)
        if row.operation:
            yield from _one_of(row.where, "operation", row.operation, operations)
        if len(row.stage) != 1 or row.stage[0] == ANY_STAGE:
            yield f"{row.where}: stage: expected exactly one stage, got {list(row.stage)}"
        keys = {reference.key for reference in registry.resolve(row)}
        for key in re.findall(r"\{([^}]*)\}", row.span_name):
            if key not in keys:
                yield f"{row.where}: name: {key} is not an attribute of this span"
    spans = {row.stage[0] for row in registry.spans}
    for stage in sorted(_values(registry, STAGE_KEY) - {"other"} - spans):
        yield f"{STAGE_KEY}: the stage {stage} has no span"


RULES: tuple[Callable[[Registry], Problems], ...] = (
    names_are_unique,
    names_are_no_namespaces,
    names_are_well_formed,
    columns_hold_known_values,
    attributes_are_sound,
    references_resolve,
    metrics_are_sound,
    spans_are_sound,
)
