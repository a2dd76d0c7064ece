"""A user of the Google Gen AI client cannot tell whether it is observed."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest
from google.genai import _extra_utils
from google.genai._api_client import BaseApiClient
from google.genai.models import AsyncModels, Models
from google_genai_uses import CALLS, USES
from stagelight.integrations.google_genai import GoogleGenAIInstrumentor
from stagelight.testing import capture

CLIENT = "google_genai"
PATCHED: list[tuple[Any, str]] = [
    *[(owner, name) for owner in (Models, AsyncModels) for name in ("_generate_content", "_generate_content_stream")],
    *[(owner, "embed_content") for owner in (Models, AsyncModels)],
    (BaseApiClient, "request"),
    (BaseApiClient, "async_request"),
    (_extra_utils, "invoke_function_from_dict_args"),
]


def used(world: Any, script: Any, name: str) -> tuple[Any, Any]:
    """What the caller saw and the server got."""
    world.simulator.forget()
    seen = world.play(lambda client: USES[name](client, script))
    return seen, world.simulator.requests


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the client's own asynchronous generators
@pytest.mark.parametrize("name", USES)
def test_the_caller_and_the_server_see_the_same(world: Any, script: Any, name: str) -> None:
    """Types, texts, exceptions, and every byte and header that is sent are those of the client alone."""
    alone = used(world, script, name)
    instrumentor = GoogleGenAIInstrumentor()
    instrumentor.switch_on()
    try:
        with capture() as captured:
            observed = used(world, script, name)
    finally:
        instrumentor.uninstrument()

    assert alone[0]
    assert observed == alone
    assert len(captured.calls) == CALLS.get(name, 1)


def test_uninstrument_restores_the_same_functions() -> None:
    """Switching on and off, twice, leaves the very functions that were there, which look like themselves."""
    before = [vars(owner)[name] for owner, name in PATCHED]
    instrumentor = GoogleGenAIInstrumentor()

    for _ in range(2):
        assert instrumentor.switch_on()
        for (owner, name), original in zip(PATCHED, before, strict=True):
            function = vars(owner)[name]
            assert function is not original
            assert inspect.signature(function) == inspect.signature(original)
            assert inspect.iscoroutinefunction(function) == inspect.iscoroutinefunction(original)
        instrumentor.uninstrument()
        assert [vars(owner)[name] for owner, name in PATCHED] == before


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("owner", "name"), PATCHED)
def test_functions_are_copied_and_pickled_as_they_are(owner: Any, name: str) -> None:
    """A function of a class or module is its own copy, and a pickle of it is read as the function again."""
    function = getattr(owner, name)

    assert copy.deepcopy(function) is function
    assert pickle.loads(pickle.dumps(function)) == function  # noqa: S301 - our own


LAZY = """
import sys
from stagelight.integrations.google_genai import GoogleGenAIInstrumentor
assert GoogleGenAIInstrumentor().switch_on()
assert "google.genai" not in sys.modules
from google.genai import _extra_utils, models
assert hasattr(models.Models._generate_content, "__wrapped__")
assert hasattr(_extra_utils.invoke_function_from_dict_args, "__wrapped__")
"""


def test_switching_on_is_lazy() -> None:
    """Switching on imports nothing and takes effect at the import."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
