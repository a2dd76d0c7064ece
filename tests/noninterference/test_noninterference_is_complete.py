"""Every call that an integration says it records has a row here, and the rows that should run do."""

from __future__ import annotations

import os
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from noninterference.clients import CLIENTS, INSTALLED
from stagelight.integrations._instrumentor import Instrumentor

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
HOSTS = {"stagelight-arq", "stagelight-asgi", "stagelight-celery"}
"""Not clients of anything: they carry requests and tasks, and have tests of their own."""

HEAVY = {"chromadb", "sentence_transformers"}
"""Too large for the main environment: their rows run in environments of ``tests/matrix.toml``."""


def registered() -> dict[str, type[Instrumentor]]:
    """The integrations by entry point."""
    points = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["opentelemetry_instrumentor"]
    found = {}
    for name, place in points.items():
        module, _, kind = place.partition(":")
        found[name] = getattr(import_module(module), kind)
    return found


ENTRIES = registered()


@pytest.mark.parametrize("entry", sorted(ENTRIES.keys() - HOSTS))
def test_every_call_of_an_integration_has_a_row(entry: str) -> None:
    """What is documented as recorded is compared, and nothing is compared under another name."""
    integration = ENTRIES[entry]
    covered = [use.covers for client in CLIENTS if client.instrumentor == integration.__name__ for use in client.uses]

    assert set(covered) == set(integration.coverage.calls)


def test_hosts_of_requests_make_no_calls() -> None:
    """What has no rows records no calls of its own."""
    assert {entry: dict(ENTRIES[entry].coverage.calls) for entry in HOSTS} == {entry: {} for entry in HOSTS}


def test_clients_are_registered() -> None:
    """Each client of the suite is one of the integrations."""
    names = {kind.__name__ for kind in ENTRIES.values()}

    assert {client.instrumentor for client in CLIENTS} <= names


def test_the_clients_of_this_environment_are_here() -> None:
    """Rows of a client that is not installed are left out: in the main environment only those of heavy ones are."""
    missing = {client.integration for client in CLIENTS} - {client.integration for client in INSTALLED}

    assert INSTALLED
    assert missing <= HEAVY or "STAGELIGHT_CLIENT" in os.environ  # made for a client, it has only that
