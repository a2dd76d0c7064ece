"""Scenario files: which requests meet which fault, in YAML, checked before anything starts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

import yaml

from stagelight.sim.faults import Fault, FaultError
from stagelight.sim.models import LATENCIES

__all__ = ["Counting", "Rule", "Scenario", "ScenarioError"]

_CONDITIONS = ("path", "model", "requests", "every", "probability")


class ScenarioError(ValueError):
    """A scenario file that cannot be used; the message names file, line, value received and values accepted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault and the requests that meet it; a condition left out accepts every request.

    Args:
        fault: What happens.
        path: Pattern for the path, ``*`` and ``?`` allowed: ``/v1/chat/*``.
        model: Pattern for the model as the caller wrote it.
        requests: Numbers of the requests that meet it, counted from 1 over those with this path and model.
        every: Only each n-th of those.
        probability: Share of those, 0 to 1, drawn with the seed.
    """

    fault: Fault
    path: str = "*"
    model: str = "*"
    requests: tuple[int, ...] | None = None
    every: int = 1
    probability: float = 1.0

    def applies_to(self, path: str, model: str) -> bool:
        """Say whether a request is one of those this rule counts."""
        return fnmatchcase(path, self.path) and fnmatchcase(model, self.model)

    def strikes(self, number: int, chance: float) -> bool:
        """Say whether the n-th counted request meets the fault; ``chance`` is from 0 to 1."""
        listed = self.requests is None or number in self.requests
        return listed and number % self.every == 0 and chance < self.probability


@dataclass(frozen=True, slots=True)
class Scenario:
    """Rules, and models that are faster or slower than usual."""

    rules: tuple[Rule, ...] = ()
    latency: dict[str, str] = field(default_factory=dict)
    """Name of a latency row per model pattern; the first that fits wins."""

    @classmethod
    def read(cls, path: str | Path) -> Scenario:
        """Read a scenario file.

        Raises:
            ScenarioError: when the file is missing or wrong.
        """
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"), name=str(path))
        except OSError as error:
            raise ScenarioError(f"{path}: {error.strerror}") from None

    @classmethod
    def parse(cls, text: str, *, name: str = "scenario") -> Scenario:
        """Read a scenario from text; ``name`` stands in the errors.

        Raises:
            ScenarioError: when it is wrong.
        """
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise ScenarioError(f"{name}: not readable as YAML: {error}") from None
        if root is None:
            return cls()
        fields = _Node(name, "scenario", root).mapping(("rules", "latency"))
        rules = fields["rules"].items() if "rules" in fields else []
        latency = fields["latency"].mapping(None) if "latency" in fields else {}
        return cls(
            tuple(_rule(node) for node in rules),
            {model: node.one_of(tuple(LATENCIES)) for model, node in latency.items()},
        )

    def latency_of(self, model: str) -> str | None:
        """Return the name of the latency row for a model, or ``None`` for the usual one."""
        return next((row for pattern, row in self.latency.items() if fnmatchcase(model, pattern)), None)


class Counting:
    """The rules of a scenario at work: counts requests and draws chances."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._rules = scenario.rules
        self._seed = seed
        self._counts = [0] * len(self._rules)
        self._lock = threading.Lock()

    def faults(self, path: str, model: str) -> tuple[Fault, ...]:
        """Return the faults that the next request with this path and model meets."""
        with self._lock:
            return tuple(
                rule.fault for index, rule in enumerate(self._rules) if self._strikes(index, rule, path, model)
            )

    def _strikes(self, index: int, rule: Rule, path: str, model: str) -> bool:
        if not rule.applies_to(path, model):
            return False
        self._counts[index] += 1
        number = self._counts[index]
        return rule.strikes(number, Random(f"{self._seed}:{index}:{number}").random())


@dataclass(frozen=True, slots=True)
class _Node:
    """A place in the file."""

    file: str
    name: str
    node: yaml.Node

    def wrong(self, accepted: str) -> ScenarioError:
        value = self.node.value if isinstance(self.node, yaml.ScalarNode) else "a list or mapping"
        line = self.node.start_mark.line + 1
        return ScenarioError(f"{self.file}:{line}: {self.name} is {value!r}; accepted: {accepted}")

    def mapping(self, accepted: tuple[str, ...] | None) -> dict[str, _Node]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong("a mapping" + (f" with {', '.join(accepted)}" if accepted else ""))
        fields = {str(key.value): (key, value) for key, value in self.node.value}
        for key, (node, _) in fields.items():
            if accepted is not None and key not in accepted:
                raise _Node(self.file, f"key of {self.name}", node).wrong(", ".join(accepted))
        return {key: _Node(self.file, f"{self.name}.{key}", value) for key, (_, value) in fields.items()}

    def items(self) -> list[_Node]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong("a list")
        return [_Node(self.file, f"{self.name}[{index}]", node) for index, node in enumerate(self.node.value)]

    def value(self) -> Any:
        return yaml.safe_load(yaml.serialize(self.node))

    def text(self) -> str:
        value = self.value()
        if not isinstance(value, str) or not value:
            raise self.wrong("text")
        return value

    def one_of(self, accepted: tuple[str, ...]) -> str:
        value = self.value()
        if value not in accepted:
            raise self.wrong(", ".join(accepted))
        return str(value)

    def number(self, low: float, high: float) -> float:
        value = self.value()
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(f"a number from {low:g} to {high:g}")
        return value

    def count(self) -> int:
        value = self.value()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong("a whole number, 1 or more")
        return value


def _rule(node: _Node) -> Rule:
    fields = node.mapping(("fault", "when"))
    if "fault" not in fields:
        raise node.wrong("a mapping with fault and, if not for every request, when")
    when = fields["when"].mapping(_CONDITIONS) if "when" in fields else {}
    requests = when.get("requests")
    return Rule(
        fault=_fault(fields["fault"]),
        path=when["path"].text() if "path" in when else "*",
        model=when["model"].text() if "model" in when else "*",
        requests=None if requests is None else _numbers(requests),
        every=when["every"].count() if "every" in when else 1,
        probability=when["probability"].number(0, 1) if "probability" in when else 1.0,
    )


def _numbers(node: _Node) -> tuple[int, ...]:
    if isinstance(node.node, yaml.SequenceNode):
        return tuple(item.count() for item in node.items())
    return (node.count(),)


def _fault(node: _Node) -> Fault:
    if isinstance(node.node, yaml.ScalarNode):
        kind, options = node.text(), {}
    else:
        fields = node.mapping(None)
        if "kind" not in fields:
            raise node.wrong("the name of a fault, or a mapping with kind and its options")
        kind = fields.pop("kind").text()
        options = {name: option.number(0, float("inf")) for name, option in fields.items()}
    try:
        return Fault(kind, options)
    except FaultError as error:
        raise ScenarioError(f"{node.file}:{node.node.start_mark.line + 1}: {node.name}: {error}") from None
