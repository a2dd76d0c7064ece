"""The wheel holds everything a user needs: types, prices, registry, pages, demo and example."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NEEDED = (
    "stagelight/py.typed",
    "stagelight/conventions/registry/manifest.yaml",
    "stagelight/demo/scenario.yaml",
    "stagelight/embedded/pages/static/pages.css",
    "stagelight/_examples/voice_assistant/app.py",
    "stagelight/_examples/voice_assistant/questions.txt",
    "stagelight/_examples/voice_assistant/docs/turns.md",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    [built] = folder.glob("*.whl")
    return built


def test_it_contains_what_is_needed(wheel: Path) -> None:
    """Data files are in, tests are not."""
    names = set(zipfile.ZipFile(wheel).namelist())

    assert set(NEEDED) <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_the_demo_runs_from_it(wheel: Path, tmp_path: Path) -> None:
    """Installed beside no checkout, the demo asks its questions and says what it saw."""
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(target), "XDG_DATA_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-P", "-m", "stagelight", "demo", "--turns", "8", "--speed", "20", "--port", "0"]
    done = subprocess.run(
        [*command, "--grpc-port", "0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "8 questions asked" in done.stdout
    for stage in ("turn", "tts", "llm", "embedding", "retrieval"):
        assert f"\n{stage} " in done.stdout
    assert "exact" in done.stdout
    assert str(tmp_path / "data" / "stagelight" / "demo.db") in done.stdout
