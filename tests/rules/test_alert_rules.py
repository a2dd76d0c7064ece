"""Alert and recording rules: checked and run by promtool, explained by runbooks, and never wrong about money."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from stack.programs import ROOT, program
from stagelight.conventions.metrics import METRICS
from stagelight.export.accounting import DropReason

RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
LOKI_RULES = sorted((ROOT / "loki" / "rules").rglob("*.yml"))
CASES = sorted(Path(__file__).parent.glob("*.test.yml"))
RUNBOOKS = ROOT / "prometheus" / "runbooks"

GROWTH = re.compile(r"\b(?:increase|rate|irate|delta|idelta|deriv|resets)\s*\(")
MONEY = {metric.prometheus for metric in METRICS.values() if metric.unit == "USD" and metric.instrument == "counter"}


def rules(kind: str, files: Iterable[Path] = RULES) -> dict[str, dict[str, Any]]:
    """All rules of a kind, ``alert`` or ``record``, by name."""
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def cases() -> Iterator[dict[str, Any]]:
    """All cases for promtool."""
    for path in CASES:
        yield from yaml.safe_load(path.read_text())["tests"]


def misused(text: str) -> list[str]:
    """Calls in which the growth of a cost counter is asked for; they lose what short-lived processes spent."""
    found = []
    for call in GROWTH.finditer(text):
        depth, end = 1, call.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        inside = text[call.end() : end]
        if "stagelight:spend" in inside or any(name in inside for name in MONEY):
            found.append(text[call.start() : end])
    return found


def promtool(*arguments: str) -> None:
    """Run promtool; fails with what it printed."""
    done = subprocess.run(
        [str(program("promtool")), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid() -> None:
    """Promtool accepts every rule file."""
    promtool("check", "rules", "--lint-fatal", *map(str, RULES))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_cases(path: Path) -> None:
    """Alerts fire and stay silent, and recorded values are, as the cases say."""
    promtool("test", "rules", str(path))


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    """For every alert some case expects it and some other time expects nothing."""
    expected = {
        (one["alertname"], bool(one["exp_alerts"])) for case in cases() for one in case.get("alert_rule_test", ())
    }

    assert expected == {(name, fires) for name in rules("alert") for fires in (True, False)}


def test_every_recorded_series_has_a_case() -> None:
    """Every recording rule is asked for in a case that expects values."""
    asked = {one["expr"] for case in cases() for one in case.get("promql_expr_test", ()) if one["exp_samples"]}

    assert asked == set(rules("record"))


def test_alerts_are_explained() -> None:
    """Every alert has a severity, a summary, a description, and a runbook with the four sections; none is left over.

    Watchdog is no reason to act, and therefore of no severity.
    """
    alerts = {**rules("alert"), **rules("alert", LOKI_RULES)}
    described = {
        name: (
            rule["labels"]["severity"] in ({"none"} if name == "Watchdog" else {"critical", "warning"}),
            set(rule["annotations"]),
        )
        for name, rule in alerts.items()
    }
    sections = {path.stem: re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE) for path in RUNBOOKS.glob("*.md")}

    assert described == {name: (True, {"summary", "description", "runbook"}) for name in alerts}
    assert {name: rule["annotations"]["runbook"] for name, rule in alerts.items()} == {
        name: f"prometheus/runbooks/{name}.md" for name in alerts
    }
    assert sections == {name: ["Meaning", "Impact", "Diagnosis", "Mitigation"] for name in alerts}


def test_runbooks_lead_somewhere() -> None:
    """Every file and every other runbook that a runbook names is there, and so is every reason for dropping."""
    text = "\n".join(path.read_text() for path in sorted(RUNBOOKS.glob("*.md")))
    files = set(re.findall(r"(?<![\w/.])(?:docs|prometheus|loki|tempo|collector|tests)/[\w./*-]*\w", text))
    others = set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", text)) - {"ExitCode"}
    reasons = re.findall(r"^\* `(\w+)`:", (RUNBOOKS / "ApplicationDropsTelemetry.md").read_text(), re.MULTILINE)

    assert len(files) > 5
    assert {name for name in files if not list(ROOT.glob(name))} == set()
    assert others <= {path.stem for path in RUNBOOKS.glob("*.md")}
    assert set(reasons) == set(get_args(DropReason)) - {"fork"}  # which nothing counts


def test_names_are_those_of_the_conventions() -> None:
    """Every metric of ours that a rule reads is in the registry under exactly that name."""
    known = {metric.prometheus + suffix for metric in METRICS.values() for suffix in ("", "_bucket", "_sum", "_count")}
    expressions = [rule["expr"] for kind in ("alert", "record") for rule in rules(kind).values()]
    used = {name for text in expressions for name in re.findall(r"\b(?:stagelight|gen_ai)_\w+(?=[\[{]|\s*$)", text)}

    assert used
    assert used <= known


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sum(increase(stagelight_usage_cost_USD_total[1h]))", ["increase(stagelight_usage_cost_USD_total[1h])"]),
        ("rate (sum(stagelight_usage_cost_USD_total)[5m:])", ["rate (sum(stagelight_usage_cost_USD_total)[5m:])"]),
        ("rate(stagelight:spend_usd:1h[5m])", ["rate(stagelight:spend_usd:1h[5m])"]),
        ("max_over_time(stagelight_usage_cost_USD_total[1h]) - rate(up[5m])", []),
        ("rate(stagelight_turn_cost_USD_bucket[5m])", []),
    ],
)
def test_misuse_is_found(text: str, found: list[str]) -> None:
    """The growth of a cost counter is found in an expression; that of other metrics is left alone."""
    assert misused(text) == found


def test_the_documented_spend_is_the_recorded_one() -> None:
    """What the README tells people to ask is the rule's expression, but for the window and the labels of the sum."""
    readme = (ROOT / "prometheus" / "README.md").read_text()
    (documented,) = re.findall(r"```promql\n(.*?)```", readme, re.DOTALL)

    def difference(text: str) -> str:
        return re.sub(r"\s", "", text[text.index("clamp_min(") :]).rstrip(")")

    assert difference(documented).replace("7d", "1d") == difference(rules("record")["stagelight:spend_usd:1d"]["expr"])


def test_spend_is_never_an_increase() -> None:
    """No rule and no dashboard asks for the growth of a cost counter."""
    folders = [ROOT / "prometheus" / "rules", ROOT / "loki", ROOT / "grafana"]
    files = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in {".yml", ".yaml", ".json", ".py"}
    ]
    expressions = {
        path: "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for path in files
    }

    assert {"stagelight_usage_cost_USD_total"} == MONEY
    assert expressions
    assert {path: calls for path, text in expressions.items() if (calls := misused(text))} == {}
