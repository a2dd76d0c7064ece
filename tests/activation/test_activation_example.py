"""The example application without a word of Stagelight gives the same stages, metrics and costs as with the API."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from activated import PATIENCE_S, answers, spans, started, terminate, until, variables, with_autopath
from sinks import Sink, receiving
from stack.substitution import free_port
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.sim import Simulator

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "voice_assistant"
QUESTIONS = ("What is a turn?", "What does an answer cost?", "Where do prices come from?")

STRIPPED = (
    (r"^import stagelight\n", ""),
    (r"^stagelight\.configure\(\)\n", ""),
    (r"^ *stagelight\.identify\(.*\)\n", ""),
    (r"with stagelight\.(job|turn)\(.*\)( as turn)?:", "if True:"),
    (r"turn\.stream\((.*)\), media", r"\1, media"),
)
COUNTED = (
    m.GEN_AI_CLIENT_OPERATION_DURATION,
    m.GEN_AI_CLIENT_TOKEN_USAGE,
    m.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
    m.STAGELIGHT_RETRIEVAL_RESULTS,
    m.STAGELIGHT_RETRIEVAL_TOP_SCORE,
    m.STAGELIGHT_TTS_REAL_TIME_FACTOR,
    m.STAGELIGHT_TURN_DURATION,
    m.STAGELIGHT_TURN_COST,
    m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN,
    m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO,
)
SUMMED = (
    m.STAGELIGHT_USAGE_COST,
    m.STAGELIGHT_USAGE_UNPRICED,
    m.STAGELIGHT_TTS_CHARACTERS,
    m.STAGELIGHT_TTS_AUDIO_SECONDS,
    m.STAGELIGHT_RETRIEVAL_SEARCHES,
    m.STAGELIGHT_STREAM_OUTCOMES,
)
OF_THE_RUN = {
    a.SERVER_PORT,
    a.GEN_AI_RESPONSE_ID,
    a.STAGELIGHT_REQUEST_ID,
    a.STAGELIGHT_STREAM_CHUNKS,
    a.STAGELIGHT_FEATURE,
    a.STAGELIGHT_ROUTE,
    a.GEN_AI_WORKFLOW_NAME,
}
"""What differs between two runs, and the words that only the program has for its requests."""


class Told(NamedTuple):
    """What a run of the application told."""

    stages: Counter[str]
    """Spans of stages and turns, written out without times."""
    counts: dict[str, int]
    """Measurements of each histogram."""
    sums: dict[str, float]
    events: Counter[str]
    """Usage events."""
    turn_costs: list[float]


def _stripped(text: str) -> str:
    for pattern, instead in STRIPPED:
        text, times = re.subn(pattern, instead, text, flags=re.MULTILINE)
        assert times, pattern
    assert "stagelight" not in text.partition('"""\n\n')[2]
    return text


def _ask(url: str, question: str) -> int:
    body = json.dumps({"question": question}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 - as above
        return len(answer.read())


def _told(sink: Sink) -> Told:
    # The program calls the loading of its pages a job; nothing else can know that.
    ours = [one for one in spans(sink) if one.scope == "stagelight" and a.STAGELIGHT_JOB_NAME not in one.attributes]
    turns = [span for span in ours if span.attributes.get(a.STAGELIGHT_STAGE) == "turn"]
    last: dict[str, Any] = {}
    for push in sink.pushes:
        last |= push
    return Told(
        Counter(_written("turn" if span in turns else span.name, span.attributes) for span in ours),
        {name: sum(point.count for point in last[name].histogram.data_points) for name in COUNTED if name in last},
        {name: round(sum(_value(point) for point in last[name].sum.data_points), 9) for name in SUMMED if name in last},
        Counter(
            _written(record.event_name, {one.key: _plain(one.value) for one in record.attributes})
            for record in sink.logs
        ),
        sorted(round(span.attributes[a.STAGELIGHT_TURN_COST], 9) for span in turns),
    )


def _written(name: str, attributes: Any) -> str:
    kept = {
        key: value
        for key, value in attributes.items()
        if key not in OF_THE_RUN and not (isinstance(value, float) and "cost" not in key)
    }
    return f"{name} {json.dumps(kept, sort_keys=True, default=str)}"


def _value(point: Any) -> float:
    return float(point.as_double or point.as_int)


def _plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _run(folder: Path, *, is_stripped: bool) -> Told:
    shutil.copytree(EXAMPLE, folder)
    if is_stripped:
        program = folder / "app.py"
        program.write_text(_stripped(program.read_text(encoding="utf-8")), encoding="utf-8")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Simulator(seed=7, latency="instant") as simulator, receiving() as sink:
        provider = f"{urllib.parse.urlsplit(simulator.url).netloc}=openai"
        environment = variables(
            sink.http, simulator.url, OTEL_PYTHON_EXCLUDED_URLS="healthz", STAGELIGHT_PROVIDER_HOSTS=provider
        )
        if is_stripped:
            environment = with_autopath(environment)
        with started(["uvicorn", "app:app", "--port", str(port)], environment, folder) as process:
            until(lambda: answers(f"{url}/healthz"), "the application's answer", folder)
            assert all(_ask(f"{url}/{way}", question) for way in ("ask", "chat") for question in QUESTIONS)
            terminate(process)
        return _told(sink)


def test_the_stripped_example_tells_the_same(tmp_path: Path) -> None:
    """Spans of stages, histograms, costs, usage events and the cost of each turn are those of the explicit API."""
    explicit = _run(tmp_path / "explicit", is_stripped=False)
    stripped = _run(tmp_path / "stripped", is_stripped=True)

    assert (len(explicit.turn_costs), explicit.counts[m.STAGELIGHT_TURN_COST]) == (2 * len(QUESTIONS),) * 2
    assert explicit.sums[m.STAGELIGHT_USAGE_COST] > 0
    assert stripped._asdict() == explicit._asdict()
