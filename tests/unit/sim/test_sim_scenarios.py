"""Scenario files: which requests fail, and what is said of a wrong file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from stagelight.sim import Scenario, ScenarioError, Simulator

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a turn?"}]}

SCENARIO = """
latency:
  gpt-4o*: instant
rules:
  - fault: {kind: rate_limit, retry_after: 0}
    when: {path: /v1/chat/*, requests: [2, 3]}
  - fault: server_error
    when: {model: text-embedding-*, every: 2}
  - fault: {kind: server_error, status: 502}
    when: {path: /v1/responses, probability: 0.5}
"""


def statuses(call: Callable[[], Any], count: int) -> list[int]:
    """Status of each of several calls."""
    found = []
    for _ in range(count):
        try:
            call()
            found.append(200)
        except openai.APIStatusError as error:
            found.append(error.status_code)
    return found


def test_a_scenario_decides_which_requests_fail(tmp_path: Path) -> None:
    """Rules count the requests they match: by number, every n-th, or by a chance that the seed decides."""
    file = tmp_path / "faults.yaml"
    file.write_text(SCENARIO, encoding="utf-8")

    def play(seed: int) -> list[list[int]]:
        with (
            Simulator(seed=seed, latency="instant", scenario=file) as simulator,
            OpenAI(base_url=simulator.url, api_key="any", max_retries=0) as client,
        ):
            return [
                statuses(lambda: client.chat.completions.create(**CHAT), 4),
                statuses(lambda: client.embeddings.create(model="text-embedding-3-small", input="a"), 4),
                statuses(lambda: client.responses.create(model="gpt-4o", input="a"), 12),
            ]

    first = play(1)
    assert first[:2] == [[200, 429, 429, 200], [200, 500, 200, 500]]
    assert set(first[2]) == {200, 502}
    assert play(1) == first
    assert play(2)[2] != first[2]


def test_the_clients_own_retry_gets_through() -> None:
    """A retry is a request of its own: after one 429 the second attempt succeeds."""
    rules = Scenario.parse("rules: [{fault: {kind: rate_limit, retry_after: 0.01}, when: {requests: 1}}]")
    with (
        Simulator(latency="instant", scenario=rules) as simulator,
        OpenAI(base_url=simulator.url, api_key="any", max_retries=2) as client,
    ):
        client.chat.completions.create(**CHAT)

        assert [request.header("x-stainless-retry-count") for request in simulator.requests] == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: 3", "s.yaml:1: scenario.rules is '3'; accepted: a list"),
        ("speed: 3", "s.yaml:1: key of scenario is 'speed'; accepted: rules, latency"),
        ("latency:\n  gpt-4o: warp", "s.yaml:2: scenario.latency.gpt-4o is 'warp'; accepted: instant, fast-chat"),
        (
            "rules:\n  - when: {every: 2}",
            "s.yaml:2: scenario.rules[0] is 'a list or mapping'; accepted: a mapping with fault",
        ),
        ("rules:\n  - fault: flood", "s.yaml:2: scenario.rules[0].fault: fault is 'flood'; accepted: rate_limit"),
        (
            "rules:\n  - fault: quota\n    when:\n      probability: 2",
            "s.yaml:4: scenario.rules[0].when.probability is '2'; accepted: a number from 0 to 1",
        ),
        (
            "rules:\n  - fault: quota\n    when: {requests: [1, 0]}",
            "s.yaml:3: scenario.rules[0].when.requests[1] is '0'; accepted: a whole number, 1 or more",
        ),
        (
            "rules:\n  - fault: {kind: quota, after: 3}",
            "s.yaml:2: scenario.rules[0].fault: quota has no option 'after'",
        ),
        ("rules: [", "s.yaml: not readable as YAML"),
    ],
)
def test_a_wrong_scenario_says_where_and_what_is_accepted(text: str, message: str) -> None:
    """Errors of scenario files name file, line, value and the values accepted."""
    with pytest.raises(ScenarioError) as caught:
        Scenario.parse(text, name="s.yaml")

    assert str(caught.value).startswith(message)


def test_a_missing_scenario_file_is_one_sentence(tmp_path: Path) -> None:
    """A scenario that does not exist is an error of its own kind; an empty one has no rules."""
    with pytest.raises(ScenarioError, match="No such file"):
        Scenario.read(tmp_path / "none.yaml")

    assert Scenario.parse("") == Scenario()
