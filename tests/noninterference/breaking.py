"""Ways in which Stagelight, and what it depends on, can be broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from inspect import isclass
from typing import Any

import pytest
import stagelight
from noninterference.uses import Client
from opentelemetry.sdk.trace import SpanProcessor
from sinks import delivering, refused
from stagelight import cost, facts
from stagelight._calls import Call
from stagelight._identity import Pseudonyms
from stagelight._lifecycle import Scope
from stagelight.export import urls
from stagelight.integrations._watching import Chunks
from stagelight.testing import capture

__all__ = ["BREAKAGES", "Breakage"]

Breakage = Callable[[Client, Mapping[str, str]], AbstractContextManager[None]]
"""Client and the hosts of its provider -> the block in which something is broken."""

KEY = "an id key of thirty-two characters!"


class OursError(Exception):
    """What ought not to reach anybody."""


def _raise(*_: Any, **__: Any) -> Any:
    raise OursError


@contextmanager
def _patched(client: Client, hosts: Mapping[str, str], *places: tuple[Any, str]) -> Iterator[None]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for owner, name in places:
            patch.setattr(owner, name, _raise)
        stack.enter_context(capture(provider_hosts=hosts, id_key=KEY))
        yield


def _broken(*places: tuple[Any, str]) -> Breakage:
    return lambda client, hosts: _patched(client, hosts, *places)


def _takers() -> list[Any]:
    """Every class that takes the chunks of a stream."""
    modules = [module for name, module in sys.modules.items() if name.startswith("stagelight.integrations.")]
    kinds = {kind for module in modules for kind in vars(module).values() if isclass(kind)}
    return [kind for kind in kinds if hasattr(kind, "take") and hasattr(kind, "response") and kind is not Chunks]


def _chunks(name: str) -> Breakage:
    def block(client: Client, hosts: Mapping[str, str]) -> AbstractContextManager[None]:
        client.instrumentation()  # imports what is its own
        return _patched(client, hosts, *((kind, name) for kind in _takers() if name in vars(kind)))

    return block


@contextmanager
def _dead_exporter(_client: Client, _hosts: Mapping[str, str]) -> Iterator[None]:
    with delivering(refused()) as (providers, _):
        yield
    spans = providers.balances["traces"]()
    assert spans.made == sum(spans.dropped.values()) > 0


@contextmanager
def _no_redaction(_client: Client, _hosts: Mapping[str, str]) -> Iterator[None]:
    asked = {"url.full": "http://user:password@example.test/?key=secret"}
    with delivering(refused()) as (providers, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(urls, "remove_secrets", _raise)
        with providers.tracer_provider.get_tracer("somebody's own").start_as_current_span("GET", attributes=asked):
            yield


@contextmanager
def _no_pseudonyms(client: Client, hosts: Mapping[str, str]) -> Iterator[None]:
    with _patched(client, hosts, (Pseudonyms, "_of")), stagelight.turn("answer", user_id="somebody"):
        stagelight.identify(session_id="some session")
        yield


class _Processor(SpanProcessor):
    """Somebody's own, and broken."""

    on_start = on_end = _raise


@contextmanager
def _broken_processor(_client: Client, hosts: Mapping[str, str]) -> Iterator[None]:
    with capture(provider_hosts=hosts) as captured:
        captured.tracer_provider.add_span_processor(_Processor())
        yield


BREAKAGES: Mapping[str, Breakage] = {
    "dead exporter": _dead_exporter,
    "broken span processor": _broken_processor,
    "broken pseudonyms": _no_pseudonyms,
    "broken redaction of URLs": _no_redaction,
    "broken prices": _broken((cost, "price")),
    "broken request extractors": _broken((facts.Request, "__new__")),
    "broken response extractors": _broken((facts.Response, "__new__"), (facts.Retrieved, "__new__")),
    "broken usage extractors": _broken((facts.Usage, "__new__")),
    "broken takers of chunks": _chunks("take"),
    "broken readers of chunks": _chunks("response"),
    "broken start": _broken((Call, "_start")),
    "broken facts": _broken((Call, "absorb")),
    "broken clock of chunks": _broken((Call, "tick")),
    "broken end": _broken((Call, "_record")),
    "broken stream end": _broken((Scope, "stream_ended")),
}
"""What is broken, by name."""
