"""``doctor --app``: which client library is recorded, by whom, and what is missing; and which distribution wins."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stagelight import instrumentations

from .conftest import Run

DISABLED = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a distribution of a name, a version and entry points appear installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])

    def appear(name: str, version: str, *, requires: str = "", entry_points: str = "") -> None:
        information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        information.mkdir()
        required = f"Requires-Dist: {requires}\n" if requires else ""
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}")
        (information / "entry_points.txt").write_text(entry_points)

    return appear


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice is made."""
    for variable in (DISABLED, "OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR", "STAGELIGHT_INSTRUMENT", "PYTHONPATH"):
        monkeypatch.delenv(variable, raising=False)


def _document(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Libraries by name, findings by what they are about."""
    document = json.loads(run("doctor", "--app", "--json").out)
    return (
        {one["library"]: one for one in document["libraries"]},
        {one["about"]: one for one in document["findings"]},
    )


def test_every_library_says_who_records_it(run: Run) -> None:
    """Ours, the official ones, version and package; as a table and as a document."""
    libraries, _ = _document(run)
    table = run("doctor", "--app").out

    assert libraries["openai"]["recorded_by"][0].startswith("stagelight-openai (stagelight ")
    assert len(libraries["openai"]["recorded_by"]) == 1  # the official one is installed, and stays off
    assert libraries["httpx"]["recorded_by"][0].startswith("httpx (opentelemetry-instrumentation-httpx 0.")
    assert libraries["qdrant-client"]["missing"] == ""
    assert all(name in table for name in libraries)


def test_a_client_that_nobody_records_is_named(run: Run, install: Install) -> None:
    """A known client without an instrumentation, and an unsupported version, are said with the way out."""
    install("cohere", "5.1")
    install("openai", "0.28")
    libraries, _ = _document(run)

    assert libraries["cohere"] == {
        "library": "cohere",
        "version": "5.1",
        "recorded_by": [],
        "missing": "no instrumentation: put stagelight.llm(...) or the verb that fits around its calls",
    }
    assert libraries["openai"]["missing"].startswith("this version is not supported: openai >= 1")
    assert "nobody" in run("doctor", "--app").out


@pytest.mark.parametrize(
    ("variable", "value"), [(DISABLED, "stagelight-qdrant"), (DISABLED, "*"), ("STAGELIGHT_INSTRUMENT", "0")]
)
def test_what_is_switched_off_is_said(variable: str, value: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that keeps a library from being recorded is named."""
    monkeypatch.setenv(variable, value)
    libraries, _ = _document(run)

    assert libraries["qdrant-client"]["recorded_by"] == []
    assert variable in libraries["qdrant-client"]["missing"]


def test_double_counting_is_foreseen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another distribution the official instrumentation of a client would count its calls again."""
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "other")
    libraries, _ = _document(run)

    assert len(libraries["openai"]["recorded_by"]) == 2
    assert "counts them twice: export OTEL_PYTHON_DISTRO=stagelight" in libraries["openai"]["missing"]
    assert libraries["starlette"]["missing"] == ""


def test_another_distribution_that_wins_is_a_warning(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first distribution found wins; the variables that choose ours are the advice, and silence it."""
    assert "opentelemetry-instrument" not in _document(run)[1]

    install("other-distro", "1.0", entry_points="[opentelemetry_distro]\naaa = other:Distro\n")
    warned = _document(run)[1]["opentelemetry-instrument"]
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "stagelight")
    chosen = _document(run)[1]

    assert warned == {
        "about": "opentelemetry-instrument",
        "state": "warning",
        "found": "the distribution 'aaa' wins, not Stagelight",
        "advice": "export OTEL_PYTHON_DISTRO=stagelight OTEL_PYTHON_CONFIGURATOR=stagelight",
    }
    assert "opentelemetry-instrument" not in chosen


@pytest.mark.parametrize("is_link", [False, True])
def test_the_path_is_seen(is_link: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the folder of ``autopath`` on the path, also by another name, activation is by that."""
    folder = run("autopath").out.strip()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere:{tmp_path / 'link' if is_link else folder}")

    assert _document(run)[1]["activation"]["found"] == "PYTHONPATH has the folder of `stagelight autopath`"


def test_run_needs_a_program(run: Run) -> None:
    """Without one, or with one that does not exist, a sentence says so."""
    empty, missing = run("run", "--"), run("run", "no-such-program-anywhere")

    assert (empty.status, empty.err) == (2, "stagelight: no command given: stagelight run -- python app.py\n")
    assert (missing.status, missing.err) == (
        1,
        "stagelight: 'no-such-program-anywhere' is no program that can be run\n",
    )


def test_a_framework_is_recorded_with_the_library_below(run: Run, install: Install) -> None:
    """Of LangChain ours names the core, the official one the whole: the calls are the same, and recorded by one."""
    install(
        "opentelemetry-instrumentation-genai-langchain",
        "1.3b0",
        requires="langchain<2,>=0.3.22; extra == 'instruments'",
        entry_points="[opentelemetry_instrumentor]\nlangchain = official:LangChainInstrumentor\n",
    )
    libraries, _ = _document(run)
    found = {one.name: one for one in instrumentations.installed()}

    assert libraries["langchain"]["recorded_by"] == libraries["langchain-core"]["recorded_by"]
    assert {one.partition(" ")[0] for one in libraries["langchain"]["recorded_by"]} == {
        "stagelight-langchain",
        "stagelight-langchain-cache",
    }
    official = found["langchain"].entry
    assert instrumentations.stands_for(official, instrumentations.libraries_of(["langchain"])) == "langchain"
    assert instrumentations.stands_for(official, instrumentations.libraries_of(["langchain-cache"])) is None


def test_who_only_takes_a_request_along_replaces_nobody(run: Run) -> None:
    """The spans of Celery's tasks are the official instrumentation's, which stays on beside ours."""
    libraries, _ = _document(run)
    [official] = [one.entry for one in instrumentations.installed() if one.name == "celery"]

    assert [one.partition(" ")[0] for one in libraries["celery"]["recorded_by"]] == ["stagelight-celery", "celery"]
    assert libraries["celery"]["missing"] == ""
    assert instrumentations.stands_for(official, instrumentations.libraries_of(["celery"])) is None


RECORDER = """
import functools
import wrapt

class Around:
    def __call__(self, wrapped, instance, args, kwargs):
        return wrapped(*args, **kwargs)

def wrap_a_class():
    wrapt.wrap_function_wrapper("openai.resources.embeddings", "Embeddings.create", Around())

def wrap_a_client(client):
    inner = client.request

    @functools.wraps(inner)
    def request(*args, **kwargs):
        return inner(*args, **kwargs)

    client.request = request
"""
APPLICATION = """
print("hello")
import threading
import anthropic
import openai
import qdrant_client
import recorder

recorder.wrap_a_class()
client = anthropic.Anthropic(api_key="any")
recorder.wrap_a_client(client)

inner = qdrant_client.QdrantClient.query_points
qdrant_client.QdrantClient.query_points = lambda *args, **kwargs: inner(*args, **kwargs)
threading.Thread(target=threading.Event().wait).start()
"""


@pytest.fixture
def application(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that switches on a package without an entry point, and does not end by itself."""
    install("recorder-sdk", "2.1")
    (tmp_path / "site" / "recorder_sdk-2.1.dist-info" / "top_level.txt").write_text("recorder\n")
    (tmp_path / "site" / "recorder.py").write_text(RECORDER)
    (tmp_path / "shop_app.py").write_text(APPLICATION)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{tmp_path / 'site'}")
    return "shop_app"


def test_what_the_code_switches_on_is_seen(application: str, run: Run) -> None:
    """Wrappers on a class and on one client are named with their package; the application's own ones are not."""
    document = json.loads(run("doctor", "--app", f"{application}:app", "--json").out)
    libraries = {one["library"]: one for one in document["libraries"]}
    by_code = "recorder-sdk 2.1, by the application's code"

    assert {name for name, one in libraries.items() if by_code in one["recorded_by"]} == {"openai", "anthropic"}
    assert libraries["openai"]["recorded_by"][0].startswith("stagelight-openai ")
    assert libraries["openai"]["missing"] == (
        "the code switches on recorder-sdk 2.1 for the same calls: they count twice, or without costs where it "
        "silences others; take that out, or ours by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=stagelight-openai"
    )
    assert libraries["qdrant-client"]["missing"] == ""
    assert document["findings"][0] == {
        "about": "application",
        "state": "ok",
        "found": "shop_app:app was imported, as under `stagelight run`",
        "advice": "",
    }


def test_what_cannot_be_seen_without_the_code_is_said(run: Run, install: Install) -> None:
    """A package that only code switches on is a warning, and the way to see it is the advice."""
    assert "logfire" not in _document(run)[1]
    install("logfire", "5.4.0")

    assert _document(run)[1]["logfire"] == {
        "about": "logfire",
        "state": "warning",
        "found": "5.4.0 is installed; whether your code switches it on cannot be seen",
        "advice": "to see it, name the application's module, which is imported then: stagelight doctor --app shop.main",
    }


def test_an_application_that_cannot_be_imported_is_a_problem(application: str, run: Run, tmp_path: Path) -> None:
    """The last line of the failure is told, and the libraries are listed as without the application."""
    (tmp_path / f"{application}.py").write_text("raise RuntimeError('no database')")
    result = run("doctor", "--app", application, "--json")
    document = json.loads(result.out)

    assert result.status == 1
    assert document["findings"][0] == {
        "about": "application",
        "state": "problem",
        "found": "shop_app cannot be imported: RuntimeError: no database",
        "advice": "name it as a server would, shop.main or shop.main:app, from the folder where it is started",
    }
    assert "openai" in {one["library"] for one in document["libraries"]}
