"""What somebody meets who runs make for the first time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in the checkout."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_help_lists_every_verb() -> None:
    """Plain make and make help say what there is."""
    listed = [line.split()[1] for line in make("help").stdout.splitlines()]

    assert listed == [
        "help",
        "demo",
        "test",
        "test-compose",
        "coverage",
        "soak",
        "noninterference",
        "test-integrations",
        "check",
        "generate",
        "tools",
        "bench",
        "clean",
    ]
    assert make().stdout == make("help").stdout


def test_without_python_there_is_one_sentence(tmp_path: Path) -> None:
    """A machine without Python 3.11 is told what to do, and nothing is made."""
    done = make(f"VENV={tmp_path / 'venv'}", "PYTHON=", "demo")

    assert done.returncode != 0
    assert "Stagelight needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    """A Python that is named and too old is refused by name."""
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(f"VENV={tmp_path / 'venv'}", f"PYTHON={old}", "test")

    assert done.returncode != 0
    assert f"{old} is not Python 3.11 or newer" in done.stderr
