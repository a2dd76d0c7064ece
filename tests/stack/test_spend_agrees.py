"""Spend is the same sum wherever it is read: in Prometheus, in Loki's usage events, and in the embedded store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from receiving import options
from stack.native import Stack
from stack.programs import ROOT
from stack.queries import lines, number
from stack.waiting import settled
from stagelight.conventions import attributes as names
from stagelight.cost import price
from stagelight.embedded.background import EmbeddedServer
from stagelight.facts import Priced, Usage
from stagelight.sources import open_source
from stagelight.sources.model import Window

WORKERS = 40
AT_ONCE = 4
LIMIT_S = 120.0
SERVICE = "worker"
MODELS = ("gpt-4o-mini", "gpt-4o", "o3-mini", "text-embedding-3-small")
WITHIN = Decimal("0.001")
"""Share by which Prometheus, whose samples are doubles, may differ."""

WORKER = """
import sys, stagelight
stagelight.configure()
number = int(sys.argv[1])
with stagelight.turn("work", tenant=f"tenant-{number % 3}"):
    for at in range(number % 5 + 1):
        model = sys.argv[2].split(",")[(number + at) % 4]
        verb = stagelight.embedding if "embedding" in model else stagelight.llm
        with verb(provider="openai", model=model) as call:
            call.usage(input_tokens=1000 + 37 * number + at, output_tokens=None if "embedding" in model else number)
assert stagelight.shutdown(60)  # as at the end of the process, with time for a busy machine
"""


def spent_by(number: int) -> Decimal:
    """What a worker's calls cost, by the price table itself."""
    total = Decimal(0)
    for at in range(number % 5 + 1):
        model = MODELS[(number + at) % 4]
        is_embedding = "embedding" in model
        usage = Usage(input_tokens=1000 + 37 * number + at, output_tokens=None if is_embedding else number)
        cost = price(usage, provider="openai", request_model=model)
        assert isinstance(cost, Priced)
        total += cost.amount
    return total


@dataclass(frozen=True, slots=True)
class Totals:
    """The same sum from three sides."""

    expected: Decimal
    events: Decimal
    prometheus: Decimal
    embedded: Decimal


def run(number: int, variables: Mapping[str, str]) -> None:
    """One short-lived process that spends and ends."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "STAGELIGHT_"))}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(number), ",".join(MODELS)],
        env={**own, "OTEL_SERVICE_NAME": SERVICE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def run_all(numbers: range, variables: Mapping[str, str]) -> None:
    """Many of them, a few at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for finished in [pool.submit(run, number, variables) for number in numbers]:
            finished.result()


def documented_query() -> str:
    """The expression of the recording rule for a day's spend, summed over everything."""
    groups = yaml.safe_load((ROOT / "prometheus" / "rules" / "spend.yml").read_text())["groups"]
    (rule,) = (rule for group in groups for rule in group["rules"] if rule["record"] == "stagelight:spend_usd:1d")
    return f"sum({rule['expr']})"


def in_loki(stack: Stack) -> Decimal:
    """Sum of the usage events, exact."""
    found = lines(stack.url("loki"), f'{{service_name="{SERVICE}", stagelight_record_kind="usage"}}')
    key = names.STAGELIGHT_COST_AMOUNT.replace(".", "_")
    return sum((Decimal(one.metadata[key]) for one in found if key in one.metadata), Decimal(0))


def in_prometheus(stack: Stack) -> Decimal:
    """A day's spend by the rule's expression."""
    return Decimal(str(number(stack.url("prometheus"), documented_query()) or 0))


def in_embedded_store(folder: Path) -> Decimal:
    """The same workers once more, sent to the embedded server."""
    with EmbeddedServer(options(folder)) as server:
        run_all(range(WORKERS), {"OTEL_EXPORTER_OTLP_ENDPOINT": server.addresses.http_url})
        with closing(open_source(str(server.addresses.database))) as source:
            window = Window(0, time.time_ns() + 10**12)
            return sum((row.cost or Decimal(0) for row in source.cost(window, "model")), Decimal(0))


@pytest.fixture(scope="module")
def totals(tmp_path_factory: pytest.TempPathFactory) -> Totals:
    """Forty workers; between two of them the Collector is killed and Prometheus restarted."""
    expected = sum((spent_by(number) for number in range(WORKERS)), Decimal(0))
    with Stack(tmp_path_factory.mktemp("stack"), ("collector", "prometheus", "loki", "tempo")) as stack:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.url("collector", 4318),
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={quote(f'Bearer {stack.token}')}",
        }
        run_all(range(WORKERS // 2), variables)
        stack.kill("collector")
        stack.stop("prometheus")
        stack.start("prometheus")
        stack.start("collector")
        run_all(range(WORKERS // 2, WORKERS), variables)
        events = settled(lambda: in_loki(stack), expected)
        near = settled(lambda: round(in_prometheus(stack), 9), round(expected, 9))
    return Totals(expected, events, near, in_embedded_store(tmp_path_factory.mktemp("embedded")))


def test_usage_events_are_the_exact_sum(totals: Totals) -> None:
    """Invoices and budgets are read from the ledger, in Loki or embedded: to the last digit."""
    assert totals.expected > 0
    assert (totals.events, totals.embedded) == (totals.expected, totals.expected)


def test_prometheus_is_within_a_thousandth(totals: Totals) -> None:
    """The documented query sees processes that lived for a second and sent one value."""
    assert abs(totals.prometheus - totals.expected) <= totals.expected * WITHIN
