"""Functions of a client are copied and pickled with us as without us."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
import qdrant_client
import wrapt
from qdrant_client.models import Distance, VectorParams
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.integrations.qdrant import QdrantInstrumentor
from stagelight.testing import capture

Client = qdrant_client.QdrantClient


@pytest.fixture(params=["wrapped", "bare"])
def wrapped(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Everything below holds with the client instrumented, and without."""
    instrumentors = (QdrantInstrumentor(), OpenAIInstrumentor())
    if request.param == "wrapped":
        for instrumentor in instrumentors:
            assert instrumentor.switch_on()
    yield request.param == "wrapped"
    for instrumentor in instrumentors:
        if request.param == "wrapped":
            instrumentor.uninstrument()


class Small(Client):
    """A client that can be pickled, which the real one cannot."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return Small, (self.name,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Small:
        return memo.setdefault(id(self), Small(f"copy of {self.name}"))


def test_a_function_is_its_own_copy(wrapped: bool) -> None:
    """Copies of a function are the function."""
    function = Client.query_points

    assert isinstance(function, wrapt.FunctionWrapper | wrapt.BoundFunctionWrapper) is wrapped
    assert copy.copy(function) is function
    assert copy.deepcopy(function) is function
    assert copy.deepcopy({"f": function})["f"] is function
    assert copy.deepcopy(vars(Client)["query_points"]) is copy.copy(vars(Client)["query_points"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_function_is_pickled_by_its_name(wrapped: bool, protocol: int) -> None:
    """A pickled function is the one that its class has where it is read, inherited or not."""
    for function in (Client.query_points, Small.query_points, vars(Client)["query_points"],
                     openai._base_client.AsyncAPIClient.request, openai.Stream.__init__):  # fmt: skip
        again = pickle.loads(pickle.dumps(function, protocol))  # noqa: S301 - our own
        assert again == function


def test_a_pickle_is_read_where_nothing_is_wrapped(wrapped: bool) -> None:
    """What an instrumented process has pickled, another one reads without us."""
    read = "import pickle, sys; f = pickle.load(sys.stdin.buffer); print(f, 'stagelight' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", read],
        input=pickle.dumps(Client.query_points),
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.decode().startswith("<function QdrantClient.query_points at ")
    assert done.stdout.decode().rstrip().endswith(" False")


def test_a_bound_method_is_copied_with_its_client(wrapped: bool) -> None:
    """A copy is bound to the same client, a deep copy to a copy of it, wherever the method is kept."""
    client = Small("a")
    method = client.query_points

    assert copy.copy(method) == method
    assert copy.copy(method).__self__ is client
    copies: list[Callable[..., Any]] = [
        copy.deepcopy(method),
        copy.deepcopy({"search": method})["search"],
        copy.deepcopy(functools.partial(method, "docs")).func,
    ]
    assert [(one.__self__.name, one.__name__) for one in copies] == [("copy of a", "query_points")] * 3
    together = copy.deepcopy([client, method])
    assert together[1].__self__ is together[0]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bound_method_is_pickled_with_its_client(wrapped: bool, protocol: int) -> None:
    """The client is pickled as it wants to be, and the method is found in it again."""
    method = Small("a").query_points

    again = pickle.loads(pickle.dumps({"search": method}, protocol))["search"]  # noqa: S301 - our own

    assert (again.__self__.name, again.__name__) == ("a", "query_points")


def test_what_cannot_be_pickled_says_so_as_before(wrapped: bool) -> None:
    """The error is the client's own."""
    with (
        openai.OpenAI(api_key="key") as client,
        pytest.raises(TypeError, match=r"cannot pickle '_thread.RLock' object"),
    ):
        pickle.dumps(client.request)


def test_a_copy_is_recorded(wrapped: bool) -> None:
    """Calls of a copied method are calls."""
    client = Client(":memory:")
    try:
        client.create_collection("docs", vectors_config=VectorParams(size=2, distance=Distance.COSINE))
        with capture() as captured:
            copy.copy(client.query_points)("docs", query=[1.0, 0.0])
    finally:
        client.close()

    assert len(captured.calls) == wrapped
