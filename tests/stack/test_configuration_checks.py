"""Every file passes the check of the program that reads it, and a mistake in it does not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from stack.native import PROGRAMS
from stack.programs import ROOT, program

CHECKS: dict[str, tuple[Path, Callable[[str], list[str]]]] = {
    "prometheus": (
        ROOT / "prometheus" / "prometheus.yml",
        lambda path: [str(program("promtool")), "check", "config", path],
    ),
    "loki": (
        ROOT / "loki" / "loki.yaml",
        lambda path: [str(program("loki")), f"-config.file={path}", "-verify-config"],
    ),
    "tempo": (
        ROOT / "tempo" / "tempo.yaml",
        lambda path: [str(program("tempo")), f"-config.file={path}", "-config.verify=true"],
    ),
    "alertmanager": (
        ROOT / "prometheus" / "alertmanager" / "alertmanager.yml",
        lambda path: [str(program("amtool")), "check-config", path],
    ),
}


def check(name: str, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the check of a service's program on a file."""
    command = CHECKS[name][1](str(path))
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", CHECKS)
def test_file_is_valid(name: str, tmp_path: Path) -> None:
    """The shipped file is accepted; the same file with a word that does not exist is refused, with the word."""
    shipped = CHECKS[name][0]
    accepted = check(name, shipped, tmp_path)
    mistaken = tmp_path / shipped.name
    mistaken.write_text(shipped.read_text().replace("rules/*.yml", "rules.yml") + "\nno_such_word: 1\n")
    refused = check(name, mistaken, tmp_path)

    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert refused.returncode != 0
    assert "no_such_word" in refused.stdout + refused.stderr


def test_every_service_is_checked() -> None:
    """No back end is left out here; the Collector has checks of its own."""
    assert set(CHECKS) == set(PROGRAMS) - {"collector"}


def test_examples_of_receivers(tmp_path: Path) -> None:
    """Alertmanager's examples in comments are valid once their comment signs are gone, and hold no secret."""
    shipped = CHECKS["alertmanager"][0].read_text()
    lines = shipped.splitlines()
    begin = lines.index("route:")
    used = "\n".join(re.sub(r"^(\s*)# (?= {2}|- |webhook_configs:)", r"\1", line) for line in lines[begin:])
    example = tmp_path / "alertmanager.yml"
    example.write_text(used)
    checked = check("alertmanager", example, tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "6 receivers" in checked.stdout
    assert re.findall(r"^.*(?:_url|_key|password|token): .*$", shipped, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=Watchdog", "severity=none"], "dead-mans-switch"),
        (["alertname=CollectorDown", "severity=critical"], "nobody"),
        (["alertname=SomebodysOwn", "service_name=Watchdog"], "nobody"),
    ],
)
def test_routes(labels: list[str], receiver: str) -> None:
    """Only the watchdog goes to the dead man's switch, and it goes nowhere else."""
    command = [str(program("amtool")), "config", "routes", "test", f"--config.file={CHECKS['alertmanager'][0]}"]
    done = subprocess.run([*command, *labels], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.split() == [receiver]


def test_loki_rules() -> None:
    """Loki's rules are in the folder that its ruler reads, under the name of its one tenant."""
    folders = [path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "loki" / "rules").rglob("*.yml")]

    assert folders == ["loki/rules/fake"]
    assert "directory: /etc/loki/rules" in (ROOT / "loki" / "loki.yaml").read_text()
