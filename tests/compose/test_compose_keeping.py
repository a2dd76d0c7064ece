"""What a deployment keeps: data and secrets over an upgrade, everything in a backup, nothing after down -v."""

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


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the stack before the last commit that changed them; of the only version where there is one."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone: the version before this one is in its history")
    folder = tmp_path_factory.mktemp("previous")
    commits = git("log", "--format=%H", "--max-count=2", "--", *STACK).decode().split()
    subprocess.run(["tar", "-x", "-C", folder], input=git("archive", commits[-1], *STACK), check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def deployment(engine: Engine, services: tuple[str, ...], previous: Path) -> Iterator[Deployment]:
    """The version of the stack before this one, up and healthy."""
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


def git(*arguments: str) -> bytes:
    """What a git command prints."""
    command = ["git", "-c", "safe.directory=*", *arguments]  # the tests' user may not be the owner of the clone
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout


def kept(deployment: Deployment) -> tuple[str, str, str | None, list[str]]:
    """Exports for applications, the administrator's password, and the telemetry that is stored."""
    token = deployment.setup("gateway-token").strip()
    total, texts = stored_total(deployment, token=token), stored_texts(deployment, token=token)
    return deployment.setup("env"), deployment.setup("password"), total, texts


def volumes(deployment: Deployment) -> list[str]:
    """The names of the project's volumes."""
    listed = deployment.engine.podman("volume", "ls", "--quiet").split()
    return sorted(name.removeprefix(f"{deployment.project}_") for name in listed if name.startswith(deployment.project))


def left(deployment: Deployment) -> list[str]:
    """Containers, volumes and networks of the project."""
    engine = deployment.engine
    names = [
        *engine.podman("ps", "--all", "--format={{.Names}}").split(),
        *engine.podman("volume", "ls", "--quiet").split(),
        *engine.podman("network", "ls", "--format={{.Name}}").split(),
    ]
    return [name for name in names if name.startswith(deployment.project)]


def test_data_and_secrets_outlive_the_containers(
    deployment: Deployment, services: tuple[str, ...], archive: Path
) -> None:
    """Down and up keep all, also with another version; a backup brings it back after down -v, which leaves nothing."""
    token = deployment.setup("env").partition("Bearer%20")[2].partition("'")[0]
    sent = [send_counter(deployment, 7, token=token), send_record(deployment, "keep me", token=token)]
    exports, password = deployment.setup("env"), deployment.setup("password")
    before = settled(lambda: kept(deployment), (exports, password, "7", ["keep me"]))
    everything = volumes(deployment)

    deployment.run("down")
    kept_volumes = volumes(deployment)
    deployment.root, deployment.services = ROOT, services
    deployment.up()
    deployment.wait_until_healthy()
    after = settled(lambda: kept(deployment), before)

    deployment.run("stop")
    deployment.backup(archive)
    deployment.run("down", "--volumes")
    left_over = left(deployment)
    refusal = deployment.restore(Path(__file__))
    cut_off = archive.with_suffix(".cut-off")
    cut_off.write_bytes(archive.read_bytes()[:20_000])
    damage = deployment.restore(cut_off)
    restored = deployment.restore(archive)
    deployment.up()
    deployment.wait_until_healthy()
    again = settled(lambda: kept(deployment), before)

    assert [answer.status for answer in sent] == [200, 200]
    assert before == (exports, password, "7", ["keep me"])
    assert kept_volumes == everything
    assert after == before
    assert left_over == []
    assert "standard input is no archive that setup backup wrote; nothing was changed" in refusal
    assert "the archive is damaged or not whole" in damage
    assert "Everything is as it was when the backup was made." in restored
    assert again == before


def test_a_backup_is_an_ordinary_archive(deployment: Deployment, archive: Path) -> None:
    """Anyone can see what is in it: the secrets once, and every data volume."""
    deployment.backup(archive)
    listed = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout.split()

    folders = {"/".join(name.split("/")[:2]) for name in listed}
    services = ("collector", "prometheus", "loki", "tempo", "alertmanager", "grafana")
    assert folders == {"secrets/all", *(f"data/{service}" for service in services)}
    assert "secrets/all/id_key" in listed
