"""What the installed ``openai`` client has: versions differ in HTTP library, endpoints and helpers."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import openai
import pytest
from openai.resources.audio import Speech, Transcriptions

__all__ = [
    "HAS_RESPONSES", "HTTP", "helpers", "needs_responses", "needs_speech_events", "needs_streamed_transcripts",
]  # fmt: skip

HTTP: Any = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
"""``httpx``, or ``httpx2`` since openai 3."""

HAS_RESPONSES = hasattr(openai.OpenAI, "responses") or "responses" in openai.OpenAI.__annotations__


def _without(function: Callable[..., Any], argument: str) -> pytest.MarkDecorator:
    lacks = argument not in inspect.signature(function).parameters
    return pytest.mark.skipif(lacks, reason=f"this client has no {function.__qualname__}({argument}=)")


needs_responses = pytest.mark.skipif(not HAS_RESPONSES, reason="this client has no responses API")
needs_speech_events = _without(Speech.create, "stream_format")
needs_streamed_transcripts = _without(Transcriptions.create, "stream")


def helpers(client: Any) -> Any:
    """Chat completions with the helpers ``parse`` and ``stream``, which were beta at first."""
    completions = client.chat.completions
    return completions if hasattr(completions, "parse") else client.beta.chat.completions
