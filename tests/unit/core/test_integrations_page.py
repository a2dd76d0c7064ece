"""The page of integrations is what they say of themselves, all of them, and its links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version
from stagelight import integrations_page
from stagelight.integrations_page import Entry, entries

ROOT = Path(__file__).resolve().parents[3]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MATRIX: dict[str, Any] = tomllib.loads((ROOT / "tests" / "matrix.toml").read_text(encoding="utf-8"))
TEXT = integrations_page.page()


def sections() -> dict[str, str]:
    """The parts of the page below a heading, by the name by which they are switched off."""
    parts = re.split(r"^##+ ", TEXT, flags=re.MULTILINE)
    return {name: part for part in parts for name in re.findall(r", switched off as `([\w-]+)`\.$", part, re.MULTILINE)}


def test_every_entry_point_is_on_the_page() -> None:
    """Each integration that is installed has a section with its versions, its calls and what is recorded."""
    found, listed = sections(), entries()
    missing = [
        (entry.name, text)
        for entry in listed
        for text in (
            f"`{entry.supported}`",
            *(call.partition(" (")[0] for call in entry.coverage.calls),
            *entry.coverage.recorded,
            *entry.coverage.not_recorded,
        )
        if text not in found[entry.name]
    ]

    assert found.keys() == PROJECT["entry-points"]["opentelemetry_instrumentor"].keys()
    assert missing == []
    assert [entry.name for entry in listed if not entry.coverage.recorded or not entry.coverage.not_recorded] == []


def test_every_stage_that_is_recorded_is_explained() -> None:
    """What calls of a stage have is said for the stages that integrations have, and no others."""
    explained = re.search(r"\| stage \| recorded \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT)
    assert explained is not None

    assert set(re.findall(r"^\| (\w+) \|", explained[1], re.MULTILINE)) == {
        stage for entry in entries() for stage in entry.stages
    }


def test_its_links_lead_somewhere() -> None:
    """Headings and pages that it points to exist."""
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)]*)\)", TEXT)
    within = [link for link in links if link.startswith("#") and link[1:] not in anchors]
    pages = {link.partition("#")[0] for link in links if not link.startswith("#")}

    assert within == []
    assert [page for page in pages if not (ROOT / "docs" / page).is_file()] == []


def extra(entry: Entry) -> Requirement | None:
    """What the extra of an integration's name asks of its library."""
    asked = map(Requirement, PROJECT["optional-dependencies"].get(entry.name.removeprefix("stagelight-"), ()))
    return next((one for one in asked if one.name == Requirement(entry.supported).name), None)


def test_extras_ask_for_the_supported_versions() -> None:
    """What an extra installs is recorded, and what is recorded is what it may install."""
    both = {entry.name: (Requirement(entry.supported).specifier, extra(entry)) for entry in entries()}
    pairs = {name: (supported, one.specifier) for name, (supported, one) in both.items() if one is not None}

    assert {"stagelight-openai", "stagelight-qdrant", "stagelight-langchain"} <= pairs.keys()
    assert {name: pair for name, pair in pairs.items() if pair[0] != pair[1]} == {}


def test_the_oldest_supported_versions_are_tested() -> None:
    """Where the matrix pins versions of a library, the lowest of them is where the supported ones begin."""
    pins = [Requirement(one) for row in MATRIX.values() for listed in row["environments"] for one in listed]
    pinned: dict[str, set[Version]] = {}
    for pin in pins:
        for one in pin.specifier:
            if one.operator == "==":
                pinned.setdefault(pin.name, set()).add(Version(one.version))
    oldest = {
        entry.name: (min(pinned[asked.name]), Version(one.version))
        for entry in entries()
        if (asked := Requirement(entry.supported)).name in pinned
        for one in asked.specifier
        if one.operator == ">="
    }

    assert {"stagelight-anthropic", "stagelight-bedrock", "stagelight-langchain-cache"} <= oldest.keys()
    assert {name: pair for name, pair in oldest.items() if pair[0] != pair[1]} == {}
