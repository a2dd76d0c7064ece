"""The how-to of a new integration works as written, for the client that it speaks of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add-an-integration.md").read_text(encoding="utf-8")

CLIENT = '''\
from dataclasses import dataclass

class AcmeError(Exception):
    """The client's own."""

@dataclass
class Usage:
    input_tokens: int
    output_tokens: int

@dataclass
class Answer:
    model: str
    text: str
    finish_reason: str
    usage: Usage

def _answered(model, prompt):
    if model != "acme-large":
        raise AcmeError("no such model")
    return Answer(model, "One request.", "stop", Usage(len(prompt.split()), 3))

class Acme:
    def __init__(self, key):
        self.key = key

    def complete(self, *, model, prompt, max_tokens=None):
        return _answered(model, prompt)

class AsyncAcme(Acme):
    async def complete(self, *, model, prompt, max_tokens=None):
        return _answered(model, prompt)
'''
"""A third party's client, with what the page says of it."""

BESIDE = "import stagelight.integrations\nstagelight.integrations.__path__.append({!r})\n"
"""The new file stands beside the others."""


def blocks(language: str) -> list[str]:
    """The page's examples in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the client installed in ``folder``."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "STAGELIGHT_STRICT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_steps_suffice(tmp_path: Path) -> None:
    """The file of step 1 records the client, as the test of step 3 says."""
    use, integration, test, _ = blocks("python")
    (tmp_path / "acme_ai.py").write_text(CLIENT)
    installed = tmp_path / "acme_ai-1.4.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-ai\nVersion: 1.4.0\n")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "acme.py").write_text(integration)
    (tmp_path / "conftest.py").write_text(BESIDE.format(str(tmp_path / "new")))
    (tmp_path / "test_acme_calls.py").write_text(test)

    used = python(tmp_path, "-c", use)
    options = ("-q", "-p", "no:cacheprovider", "-W", "error", f"--basetemp={tmp_path / 'pytest'}")
    tested = python(tmp_path, "-m", "pytest", *options, "test_acme_calls.py")

    assert (used.stdout, used.stderr) == ("One request. 4 3\n", "")
    assert (tested.returncode, tested.stderr) == (0, ""), tested.stdout
    assert "2 passed" in tested.stdout


def test_its_tables_and_rows_are_those_of_the_project() -> None:
    """What is to be written into other files has the shape of what is there, and every file it names exists."""
    project, matrix = map(tomllib.loads, blocks("toml"))
    real = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows = tomllib.loads((ROOT / "tests" / "matrix.toml").read_text(encoding="utf-8"))
    shelf = ROOT / "instrumentation" / "stagelight" / "integrations"
    named = {name for name in re.findall(r"`(\w+\.py)`", PAGE) if "acme" not in name} - {"_base_client.py"}
    known = {path.name for folder in (shelf, ROOT / "tests" / "integrations") for path in folder.glob("*.py")}
    paths = {path for path in re.findall(r"`((?:tests|instrumentation)/[\w./]+)`", PAGE) if "acme" not in path}

    assert project["project"].keys() <= real["project"].keys()
    assert project["project"]["entry-points"].keys() <= real["project"]["entry-points"].keys()
    assert project["dependency-groups"].keys() <= real["dependency-groups"].keys()
    assert matrix["acme"].keys() <= set().union(*(row.keys() for row in rows.values()))
    assert (named - known, {path for path in paths if not (ROOT / path).exists()}) == (set(), set())
