"""What the README says is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import stagelight
from stagelight.sim import Simulator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_public_name_is_on_the_screen() -> None:
    """The API section names every public word, and links lead somewhere."""
    section = README.split("## The API on one screen")[1].split("## The path of one call")[0]
    words = [name for name in stagelight.__all__ if not name.startswith("__")]
    missing = [word for word in words if not re.search(rf"\b{word}\b", section)]
    broken = [link for link in re.findall(r"\]\(([\w./-]+\.md)\)", README) if not (ROOT / link).is_file()]

    assert (missing, broken) == ([], [])
    assert len(section.splitlines()) <= 40


def test_it_is_short() -> None:
    """A newcomer reads it in minutes."""
    assert len(README.splitlines()) <= 150


def test_the_example_runs_as_written() -> None:
    """The Python example answers, against a simulated provider and with nothing listening for telemetry."""
    example = re.search(r"```python\nimport stagelight\nfrom openai.*?```", README, re.DOTALL)
    assert example is not None
    code = example[0].removeprefix("```python\n").removesuffix("```")
    with Simulator(latency="instant") as sim:
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": sim.url,
            "OPENAI_API_KEY": "any",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=180, check=False
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
