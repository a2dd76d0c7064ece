"""Retention, by data with old timestamps, on the shipped configurations."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from stack.native import Stack
from stack.programs import ROOT, program
from stack.queries import lines, number, request, series
from stack.waiting import eventually, settled
from stagelight.conventions.attributes import STAGELIGHT_RECORD_KIND
from stored import pairs

DAY_S = 86_400
PROTOBUF = {"content-type": "application/x-protobuf"}

KEPT_DAYS = {"TRACE": 7, "DEBUG": 7, "INFO": 30, "": 30, "WARN": 60, "ERROR": 90, "FATAL": 90}
"""How long a record of an application is kept, by level; the last row of the table in loki/README.md."""
LEDGER_DAYS = 400
"""How long a record of usage or of an audit is kept, whatever its level."""


def old_records(days: Iterable[tuple[str, str, float]]) -> bytes:
    """A request with a record for each level, kind and age in days; its text says what it is."""
    logs = ExportLogsServiceRequest()
    group = logs.resource_logs.add()
    group.resource.attributes.extend(pairs({"service.name": "old"}))
    scope = group.scope_logs.add()
    now = time.time()
    for level, kind, age in days:
        record = scope.log_records.add(time_unix_nano=round((now - age * DAY_S) * 1e9), severity_text=level)
        record.body.string_value = f"{kind} {level} {age}"
        record.attributes.extend(pairs({STAGELIGHT_RECORD_KIND: kind}))
    return bytes(logs.SerializeToString())


def stored(loki: str) -> set[str]:
    """The texts of all records of the last 405 days, asked for in two parts: a query may be 400 days long."""
    now = time.time()
    parts = ((now - 405 * DAY_S, now - 200 * DAY_S), (now - 200 * DAY_S, now))
    return {line.text for start, end in parts for line in lines(loki, '{service_name="old"}', start=start, end=end)}


def test_records_by_level_and_kind(tmp_path: Path) -> None:
    """A record is there the day before its time is over and gone the day after, for every level and kind."""
    app = {(level, "app", days + off) for level, days in KEPT_DAYS.items() for off in (-1, 1)}
    ledger = {
        (level, kind, LEDGER_DAYS + off)
        for level in ("INFO", "DEBUG")
        for kind in ("usage", "audit")
        for off in (-1, 1)
    }
    kept = {f"{kind} {level} {age}" for level, kind, age in app if age < KEPT_DAYS[level]}
    kept |= {f"{kind} {level} {age}" for level, kind, age in ledger if age < LEDGER_DAYS}
    # As shipped, records of 401 days are refused, and the compactor works every ten minutes.
    flags = {"loki": ("-validation.reject-old-samples=false", "-compactor.compaction-interval=1s")}
    with Stack(tmp_path, ["loki"], flags=flags) as stack:
        loki = stack.url("loki")
        everything = {f"{kind} {level} {age}" for level, kind, age in app | ledger}
        request("POST", f"{loki}/otlp/v1/logs", old_records(app | ledger), PROTOBUF)
        assert settled(lambda: stored(loki), everything) == everything

        request("POST", f"{loki}/flush", b"")
        chunks = stack.path("loki", "/loki/chunks/fake")
        eventually(lambda: files(chunks), lambda count: count == len(everything))
        stack.stop("loki")  # at its start the index of what was flushed goes to the store
        stack.start("loki")
        index, today = stack.path("loki", "/loki/chunks/index"), time.time() / DAY_S
        tables = {f"index_{int(today - float(text.split()[-1]))}" for text in kept}
        eventually(lambda: lasting(index), lambda found: found == tables)
        stack.kill("loki")  # an orderly end would put the index there once more, for the compactor to clean again
        for own in ("tsdb-shipper-active", "tsdb-shipper-cache", "wal"):  # what the store does not need
            shutil.rmtree(stack.path("loki", f"/loki/{own}"))
        stack.start("loki")

        assert settled(lambda: stored(loki), kept) == kept


def lasting(folder: Path) -> set[str] | None:
    """The names in a folder, when they stay the same for five runs of the compactor."""
    names = {path.name for path in folder.glob("index_*")}
    until = time.monotonic() + 5
    while time.monotonic() < until:
        time.sleep(0.1)
        if {path.name for path in folder.glob("index_*")} != names:
            return None
    return names


def files(folder: Path) -> int:
    """How many files there are below a folder."""
    return sum(path.is_file() for path in folder.rglob("*"))


def test_old_records_are_not_taken(tmp_path: Path) -> None:
    """As shipped, Loki takes what is less than 400 days old."""
    with Stack(tmp_path, ["loki"]) as stack:
        loki = stack.url("loki")
        request("POST", f"{loki}/otlp/v1/logs", old_records([("INFO", "usage", 399)]), PROTOBUF)
        answer = ""
        try:
            request("POST", f"{loki}/otlp/v1/logs", old_records([("INFO", "usage", 401)]), PROTOBUF)
        except AssertionError as refused:
            answer = str(refused)

        assert "has timestamp too old" in answer
        assert settled(lambda: stored(loki), {"usage INFO 399"}) == {"usage INFO 399"}


def test_samples(tmp_path: Path) -> None:
    """Prometheus keeps blocks of the last 40 days and removes older ones."""
    with Stack(tmp_path, ["prometheus"]) as stack:
        prometheus, now = stack.url("prometheus"), time.time()
        ages = (45, 39, 1)
        stack.stop("prometheus")
        exposition = tmp_path / "old.txt"
        samples = [f"old_sample {age} {round(now - age * DAY_S)}" for age in ages]
        exposition.write_text("\n".join(["# TYPE old_sample gauge", *samples, "# EOF\n"]))
        data = str(stack.path("prometheus", "/prometheus"))
        command = [str(program("promtool")), "tsdb", "create-blocks-from", "openmetrics", str(exposition), data]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        stack.start("prometheus")
        found = {age: number(prometheus, "old_sample", at=now - age * DAY_S + 60) for age in ages}
        eventually(
            lambda: series(prometheus, "prometheus_tsdb_time_retentions_total"),
            lambda seen: max(seen.values(), default=0) > 0,
        )

    assert found == {45: None, 39: 39, 1: 1}


def test_tempo_refuses_what_it_cannot_take() -> None:
    """No limit that discards what was acknowledged; those that refuse are Tempo's own, and say when to try again."""
    tempo = yaml.safe_load((ROOT / "tempo" / "tempo.yaml").read_text())

    collector = yaml.safe_load((ROOT / "collector" / "collector.yaml").read_text())
    largest = collector["exporters"]["otlp_grpc/tempo"]["sending_queue"]["batch"]["max_size"]

    assert tempo["overrides"]["defaults"]["ingestion"] == {"max_traces_per_user": 0, "burst_size_bytes": 32 << 20}
    assert largest < 32 << 20
    assert "retry_after_on_resource_exhausted" not in tempo["distributor"]  # five seconds by default


def test_scheduler_and_worker_of_tempo_agree() -> None:
    """Tempo's file says 14 days in both places; that Tempo follows it is in test_retention_of_traces.py."""
    tempo = yaml.safe_load((ROOT / "tempo" / "tempo.yaml").read_text())
    scheduler = tempo["backend_scheduler"]["provider"]["compaction"]["compaction"]["block_retention"]

    assert (scheduler, tempo["backend_worker"]["compaction"]["block_retention"]) == ("336h", "336h")
