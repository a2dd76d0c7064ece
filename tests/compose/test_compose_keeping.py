"""What a deployment keeps: data and secrets over down and up, everything in a backup, nothing after down -v."""

from __future__ import annotations

import subprocess
from pathlib import Path

from compose.deployment import Deployment
from compose.telemetry import send_counter, send_record, stored_texts, stored_total
from stack.waiting import settled


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
    return [name for name in names if name.startswith((deployment.project, "stagelight-ingest"))]


def test_data_and_secrets_outlive_the_containers(deployment: Deployment, archive: Path) -> None:
    """Down and up keep everything; a backup brings everything back after down -v, which had left nothing."""
    token = deployment.setup("env").partition("Bearer%20")[2].partition("'")[0]
    sent = [send_counter(deployment, 7, token=token), send_record(deployment, "keep me", token=token)]
    exports, password = deployment.setup("env"), deployment.setup("password")
    before = settled(lambda: kept(deployment), (exports, password, "7", ["keep me"]))
    everything = volumes(deployment)

    deployment.run("down")
    kept_volumes = volumes(deployment)
    deployment.up()
    deployment.wait_until_healthy()
    after = settled(lambda: kept(deployment), before)

    deployment.run("stop")
    deployment.backup(archive)
    deployment.run("down", "--volumes")
    left_over = left(deployment)
    refusal = deployment.restore(Path(__file__))
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
