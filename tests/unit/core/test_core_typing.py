"""The public API as a type checker sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

FOLDER = Path(__file__).parents[2] / "typing"
OPTIONS = ["--strict", "--no-error-summary", "--hide-error-context"]


@pytest.fixture(scope="module")
def reported() -> dict[str, set[int]]:
    """Lines with an error, by file."""
    root = Path(__file__).parents[3]
    output, _, _ = api.run(
        [*OPTIONS, "--config-file", str(root / "pyproject.toml"), *map(str, sorted(FOLDER.glob("*.py")))]
    )
    found: dict[str, set[int]] = {"public_api.py": set(), "wrong_use.py": set()}
    for line in filter(lambda one: ": note: " not in one, output.splitlines()):
        match = re.match(r"(?:.*/)?(\w+\.py):(\d+): error:", line)
        assert match is not None, line
        found[match[1]].add(int(match[2]))
    return found


def test_right_use_is_accepted(reported: dict[str, set[int]]) -> None:
    """Every public call type-checks in strict mode, with the types a user expects."""
    assert reported["public_api.py"] == set()


def test_wrong_use_is_refused(reported: dict[str, set[int]]) -> None:
    """Every marked line is an error, and no other."""
    lines = (FOLDER / "wrong_use.py").read_text().splitlines()

    assert reported["wrong_use.py"] == {number for number, line in enumerate(lines, 1) if "# error:" in line}


def test_every_public_name_is_used() -> None:
    """A new public name needs a use here."""
    import stagelight

    text = (FOLDER / "public_api.py").read_text()

    assert [name for name in stagelight.__all__ if f"stagelight.{name}" not in text] == []
