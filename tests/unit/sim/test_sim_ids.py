"""Ids of answers: a provider gives each answer one of its own, however it is asked for."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from stagelight.sim import Simulator

LIMIT_S = 30


def test_a_streamed_answer_has_an_id_of_its_own() -> None:
    """With new ids, a question that is asked plain and streamed has as many ids as answers."""
    asked: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
    with (
        Simulator(seed=7, latency="instant", new_ids=True) as simulator,
        OpenAI(base_url=simulator.url, api_key="any", timeout=LIMIT_S) as client,
    ):
        plain = [client.chat.completions.create(**asked).id for _ in range(2)]
        streamed = [{chunk.id for chunk in client.chat.completions.create(stream=True, **asked)} for _ in range(2)]

    ids = [*plain, *(name for names in streamed for name in names)]
    assert len(ids) == len(set(ids)) == 4
