"""The volumes of the stack's version before this one serve this one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose.deployment import Deployment, compose_file
from compose.engine import Engine
from compose.telemetry import send_counter, send_record, stored_texts, stored_total
from stack.programs import ROOT
from stack.waiting import settled

STACK = ("docker-compose.yml", "deploy/compose", "collector", "prometheus", "loki", "tempo", "grafana")


def git(*arguments: str) -> bytes:
    """What a git command prints."""
    command = ["git", "-c", "safe.directory=*", *arguments]  # the tests' user may not be the owner of the clone
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The files of the stack before the last commit that changed them; of the only version where there is one."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone: the version before this one is in its history")
    commits = git("log", "--format=%H", "--max-count=2", "--", *STACK).decode().split()
    archive = git("archive", commits[-1], *STACK)
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive, check=True, timeout=60)
    return tmp_path


@pytest.fixture
def upgraded(engine: Engine, services: tuple[str, ...], previous: Path) -> Iterator[Deployment]:
    """A deployment that runs the version before."""
    now, before = compose_file()["services"], compose_file(previous)["services"]
    common = tuple(name for name in services if name in before)
    for name in common:
        engine.podman("tag", now[name]["image"], before[name]["image"])  # there is one program for both versions
    deployed = Deployment(engine, common)
    deployed.root = previous
    try:
        deployed.up()
        deployed.wait_until_healthy()
        yield deployed
    finally:
        deployed.run("--profile=*", "down", "--volumes", "--timeout=5")


def test_an_upgrade_keeps_data_and_tokens(upgraded: Deployment, services: tuple[str, ...]) -> None:
    """What was stored before is found after, and applications need not be told anything."""
    exports = upgraded.setup("env")
    otlp, gateway = exports.partition("Bearer%20")[2].partition("'")[0], upgraded.setup("gateway-token").strip()

    def stored() -> tuple[str | None, list[str]]:
        return stored_total(upgraded, token=gateway), stored_texts(upgraded, token=gateway)

    sent = [send_counter(upgraded, 11, token=otlp), send_record(upgraded, "before", token=otlp)]
    before = settled(stored, ("11", ["before"]))
    upgraded.root, upgraded.services = ROOT, services
    upgraded.up()
    upgraded.wait_until_healthy()
    more = send_record(upgraded, "after", token=otlp)

    assert [answer.status for answer in (*sent, more)] == [200, 200, 200]
    assert before == ("11", ["before"])
    assert settled(stored, ("11", ["before", "after"])) == ("11", ["before", "after"])
    assert upgraded.setup("env") == exports
