"""Usage as servers tell it: in other shapes, in other places, and counts that are none."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import stagelight
from integrations.openai_answers import completion
from openai_client import HTTP
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.facts import Response, Usage
from stagelight.integrations.openai import OPERATIONS
from stagelight.testing import capture


def usage_of(told: Any) -> Usage | None:
    """The usage read from an answer's own."""
    return OPERATIONS["/chat/completions"].response(completion(usage=told), stagelight.facts.Request()).usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, Usage(input_tokens=10, output_tokens=5)),
        # xAI: reasoning beside the output
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(input_tokens=10, output_tokens=25, reasoning_tokens=20),
        ),
        # Gemini: thoughts in the total only
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35},
            Usage(input_tokens=10, output_tokens=25, reasoning_tokens=20),
        ),
        # DeepSeek
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_cache_hit_tokens": 4},
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=4),
        ),
        # Moonshot, and what DeepSeek tells in both places
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 6},
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=6),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 0},
                "prompt_cache_hit_tokens": 0,
            },
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=0),
        ),
        # Mistral
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "num_cached_tokens": 9},
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=9),
        ),
        # whole numbers with a fraction of zero, and others
        ({"prompt_tokens": 10.0, "completion_tokens": 5.5}, Usage(input_tokens=10)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, Usage()),
        # text told beside audio
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"audio_tokens": 6, "text_tokens": 4},
                "completion_tokens_details": {"audio_tokens": 3, "text_tokens": 2},
            },
            Usage(
                input_tokens=10,
                output_tokens=5,
                audio_input_tokens=6,
                audio_output_tokens=3,
                text_input_tokens=4,
                text_output_tokens=2,
            ),
        ),
        # audio in and out
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"audio_tokens": 6, "cached_tokens": 0},
                "completion_tokens_details": {"audio_tokens": 5, "reasoning_tokens": 0},
            },
            Usage(
                input_tokens=10,
                output_tokens=5,
                cache_read_tokens=0,
                reasoning_tokens=0,
                audio_input_tokens=6,
                audio_output_tokens=5,
            ),
        ),
        # the names of the responses API
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "total_tokens": 15,
                "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=8, cache_write_tokens=2, reasoning_tokens=3),
        ),
        # as recorded by opentelemetry-python-genai's tests of its openai instrumentation:
        # test_chat_completion_reasoning_tokens.yaml, commit af5b97a, with what Azure's gateway adds
        (
            {
                "completion_tokens": 85,
                "completion_tokens_details": {
                    "accepted_prediction_tokens": 0,
                    "audio_tokens": 0,
                    "reasoning_tokens": 19,
                    "rejected_prediction_tokens": 0,
                },
                "latency_checkpoint": {"engine_ttft_ms": 310, "user_visible_ttft_ms": 926},
                "prompt_tokens": 29,
                "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
                "total_tokens": 114,
            },
            Usage(input_tokens=29, output_tokens=85, cache_read_tokens=0, reasoning_tokens=19),
        ),
        # as recorded by opentelemetry-python-contrib's tests of its openai-v2 instrumentation:
        # test_responses_create_reports_reasoning_tokens[content_mode0].yaml, commit 7ef25fd
        (
            {
                "input_tokens": 44,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 288,
                "output_tokens_details": {"reasoning_tokens": 9},
                "total_tokens": 332,
            },
            Usage(input_tokens=44, output_tokens=288, cache_read_tokens=0, reasoning_tokens=9),
        ),
        # no counts
        ({"prompt_tokens": 10**30, "completion_tokens": 5}, Usage(output_tokens=5)),
        ({"prompt_tokens": 2**53, "completion_tokens": 2**53 + 1}, Usage(input_tokens=2**53)),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 10**30},
            Usage(input_tokens=10, output_tokens=5),
        ),
        ({"prompt_tokens": 10**30, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": "10", "completion_tokens": -1, "total_tokens": True}, Usage()),
        (None, None),
    ],
)
def test_usage_is_read_inclusively(told: Any, usage: Usage | None) -> None:
    """Counts are inclusive whoever reports them; what is no count is not known."""
    assert usage_of(told) == usage


def test_usage_in_the_last_choice() -> None:
    """Moonshot's streams tell the usage inside the choice that ends them."""
    items = OPERATIONS["/chat/completions"].items()
    used = {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32}
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": used}
    items.take({"id": "c1", "model": "kimi-k2.5", "choices": [choice]})
    told = items.response()

    assert told is not None
    assert told.usage == Usage(input_tokens=19, output_tokens=13)


def test_billed_calls_of_the_responses_api() -> None:
    """Searches and tools that cost money beside the tokens are counted."""
    answer = {
        "id": "r1",
        "model": "m-1",
        "status": "completed",
        "output": [
            {"type": "web_search_call"}, {"type": "web_search_call"}, {"type": "file_search_call"},
            {"type": "message"},
        ],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    }  # fmt: skip

    assert OPERATIONS["/responses"].response(answer, stagelight.facts.Request()) == Response(
        model="m-1",
        id="r1",
        finish_reasons=("stop",),
        usage=Usage(input_tokens=1, output_tokens=2, searches=2, tools=1),
    )


def test_pages_that_are_opened_are_no_searches() -> None:
    """Of the web tool's actions only searches are billed."""
    actions = ["search", "open_page", "find_in_page", "search"]
    answer = {
        "status": "completed",
        "output": [{"type": "web_search_call", "action": {"type": action}} for action in actions],
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    told = OPERATIONS["/responses"].response(answer, stagelight.facts.Request())

    assert told.usage == Usage(input_tokens=1, output_tokens=2, searches=2)


@pytest.mark.usefixtures("recorded")
def test_numbers_beyond_every_format() -> None:
    """Numbers that no telemetry format holds are not recorded: neither the caller's nor the provider's."""
    huge = 10**400

    def reply(_: Any) -> Any:
        left = {"x-ratelimit-remaining-requests": "9" * 5000, "x-ratelimit-remaining-tokens": "9" * 16}
        return HTTP.Response(200, json=completion(usage={"prompt_tokens": huge}), headers=left)

    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=http) as client:
        client.chat.completions.create(model="m-1", messages=[], temperature=huge, max_tokens=huge, seed=2**63, n=-huge)
    call = captured.call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_COST_REASON]) == ("completed", "no_usage")
    assert [value for value in call.attributes.values() if type(value) in {int, float}] == []
    assert captured.metric(m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS) == ()
