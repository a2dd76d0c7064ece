"""Labels stay few however many values come, and the values that matter keep their names."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest
import stagelight
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import NoOpLogger
from opentelemetry.trace import NoOpTracer
from stagelight import _runtime
from stagelight._bounds import LIMITS, OTHER, PROMOTE_AFTER, LabelBounds, Places, SeriesBudget
from stagelight._handover import Handover
from stagelight._labels import LABEL_KEYS, BoundedLabels
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.conventions.metrics import METRICS
from stagelight.export.accumulators import Accumulators
from stagelight.instruments import Instruments
from stagelight.settings import Settings
from stagelight.testing import capture

MOST_SERIES = 2000


@pytest.fixture
def accumulators() -> Iterator[Accumulators]:
    """What calls of the test record into, with nothing exported."""
    made = Accumulators()
    runtime = _runtime.Runtime(
        tracer=NoOpTracer(),
        instruments=Instruments(made),
        logger=NoOpLogger("test"),
        handover=Handover(inline=True),
        settings=Settings(),
        configured=True,
    )
    with _runtime.replaced(runtime):
        yield made


def call(model: str, feature: str, tenant: str, route: str) -> None:
    """One call in a turn."""
    turn = stagelight.turn("answer", feature=feature, tenant=tenant, route=route)
    with turn, stagelight.llm(provider="acme", model=model) as made:
        made.usage(input_tokens=9, output_tokens=3)


def distinct(number: int) -> tuple[str, str, str, str]:
    """Four values that never come again."""
    return f"model-{number}", f"feature-{number}", f"tenant-{number}", f"route-{number}"


def test_distinct_values_of_everything_take_few_series_and_little_memory(accumulators: Accumulators) -> None:
    """Whole calls whose model, feature, tenant and route are always new stay below the limits from the start on."""
    call(*distinct(-1))
    tracemalloc.start()
    try:
        for number in range(6000):
            call(*distinct(number))
            if number == 2000:
                gc.collect()  # a turn and its context know each other
                early = tracemalloc.get_traced_memory()[0]
        gc.collect()
        late = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert max(len(series) for _, series in accumulators.all()) <= MOST_SERIES
    assert late < 8e6
    assert late - early < 0.5e6  # and memory does not grow any more


def test_many_combinations_of_few_values_are_bounded(accumulators: Accumulators) -> None:
    """Values that all keep their names still cannot multiply to more series than a metric may have."""
    draw = random.Random(1)
    for _ in range(5000):
        call(*(f"{kind}-{draw.randrange(60)}" for kind in ("model", "feature", "tenant", "route")))

    assert max(len(series) for _, series in accumulators.all()) <= MOST_SERIES


def test_the_same_holds_for_the_instruments_of_the_sdk() -> None:
    """A user's capture and a host's own providers see bounded labels, too, and the rest is counted."""
    with capture() as captured:
        for number in range(300):
            call(*distinct(number))
        points = captured.metrics()

    models = {point.attributes[a.GEN_AI_REQUEST_MODEL] for point in points[m.GEN_AI_CLIENT_OPERATION_DURATION]}
    bounded = {str(p.attributes[a.STAGELIGHT_LABEL]): p.value for p in points[m.STAGELIGHT_LABELS_BOUNDED]}
    assert len(models) <= LIMITS["model"] + 1
    assert OTHER in models
    assert {kind for kind, count in bounded.items() if count} == {"model", "feature", "tenant", "route"}
    assert bounded.keys() == LIMITS.keys()
    assert sum(point.count or 0 for point in points[m.GEN_AI_CLIENT_OPERATION_DURATION]) == 300


def test_a_model_that_becomes_important_late_gets_its_name(accumulators: Accumulators) -> None:
    """After thousands of other values, one that makes up a tenth of the calls is shown by name."""
    draw = random.Random(2)
    for number in range(4000):
        model = "late" if number > 2000 and number % 10 == 0 else f"model-{int(draw.paretovariate(0.4))}"
        call(model, *(f"{kind}-{int(draw.paretovariate(0.4))}" for kind in ("feature", "tenant", "route")))

    (durations,) = [
        series for metric, series in accumulators.all() if metric.name == m.GEN_AI_CLIENT_OPERATION_DURATION
    ]
    assert "late" in {one.labels[a.GEN_AI_REQUEST_MODEL] for one in durations}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=400), st.integers(1, 12))
def test_places_are_never_more_than_the_limit_nor_taken_back(values: list[int], limit: int) -> None:
    """Whoever was admitted stays; the first three quarters of the places go to the first values."""
    places = Places(limit)
    admitted = set[int]()
    for value in values:
        assert places.admit(value) or value not in admitted
        if value in places.admitted:
            admitted.add(value)
        assert len(places.admitted) <= limit
    firsts = list(dict.fromkeys(values))[: limit - limit // 4]
    assert set(firsts) <= places.admitted


def test_what_is_recorded_as_other_is_counted() -> None:
    """Every occurrence is either named or counted."""
    bounds = LabelBounds({"tenant": 8})

    answers = Counter(bounds.admit("tenant", f"tenant-{number % 20}") for number in range(60))

    assert answers[OTHER] == bounds.limited["tenant"] == sum(answers.values()) - (6 * 3)
    assert len(answers) == 6 + 1


def test_a_frequent_value_is_found_among_thousands() -> None:
    """A value with every tenth occurrence is promoted, values that come once are not."""
    places = Places(4)
    for value in "abc":
        places.admit(value)

    seen = sum(places.admit("often" if number % 10 == 0 else number) for number in range(10 * PROMOTE_AFTER * 2))

    assert places.admitted == {"a", "b", "c", "often"}
    assert 0 < seen <= PROMOTE_AFTER * 2


@pytest.mark.parametrize("value", ["", "x" * 100_000, "a\ud800b", "\x00", "😀" * 200])
def test_any_text_is_a_label(value: str) -> None:
    """Long values are cut and lone surrogates replaced, so that every label has a UTF-8 form."""
    bounds = LabelBounds()

    admitted = bounds.admit("tenant", value)

    assert len(admitted) <= 128
    assert admitted.encode() == value[:128].encode("utf-8", "replace")
    assert bounds.admit("tenant", value) == admitted


def test_one_kind_of_name_does_not_use_up_anothers_places() -> None:
    """A thousand tools leave operations and workflows their names."""
    labels = BoundedLabels(LabelBounds())
    for number in range(1000):
        labels.bound(m.GEN_AI_EXECUTE_TOOL_DURATION, {a.GEN_AI_TOOL_NAME: f"tool-{number}"})

    given = {a.GEN_AI_OPERATION_NAME: "chat", a.GEN_AI_REQUEST_MODEL: "gpt"}
    assert labels.bound(m.GEN_AI_CLIENT_OPERATION_DURATION, given) == given


def test_owners_give_way_before_models() -> None:
    """When a metric's budget is spent, spend is still shown by model."""
    labels = BoundedLabels(LabelBounds({**LIMITS, "tenant": 10_000}))
    for number in range(3000):
        labels.bound(m.STAGELIGHT_USAGE_COST, {a.GEN_AI_REQUEST_MODEL: "gpt", a.STAGELIGHT_TENANT: f"tenant-{number}"})

    found = labels.bound(m.STAGELIGHT_USAGE_COST, {a.GEN_AI_REQUEST_MODEL: "gpt", a.STAGELIGHT_TENANT: "new"})

    assert found == {a.GEN_AI_REQUEST_MODEL: "gpt", a.STAGELIGHT_TENANT: OTHER}


def test_a_port_is_a_number_or_absent() -> None:
    """Tens of thousands of ports take bounded series; a port without a place is left out."""
    labels = BoundedLabels(LabelBounds())

    found = {
        labels.bound(m.GEN_AI_CLIENT_OPERATION_DURATION, {a.SERVER_PORT: port}).get(a.SERVER_PORT)
        for port in range(5000)
    }

    assert len(found) <= LIMITS["port"] + 1
    assert {type(port) for port in found} == {int, type(None)}


def test_a_budget_is_per_metric() -> None:
    """A metric with many series does not cost another its own."""
    budget = SeriesBudget(limit=4)

    assert [budget.allows("one", (number,)) for number in range(5)] == [True, True, True, False, False]
    assert budget.allows("two", (0,))
    assert budget.allows("one", (0,))


@pytest.mark.parametrize("name", sorted(LABEL_KEYS))
def test_labels_are_those_of_the_registry(name: str) -> None:
    """A metric is recorded with the labels that the registry allows it, and no others."""
    assert sorted(LABEL_KEYS[name]) == sorted(set(METRICS[name].labels))


OBSERVED = {
    m.STAGELIGHT_LABELS_BOUNDED,
    m.STAGELIGHT_MISUSES,
    m.STAGELIGHT_INTERNAL_ERRORS,
    m.STAGELIGHT_TELEMETRY_MADE,
    m.STAGELIGHT_TELEMETRY_DELIVERED,
    m.STAGELIGHT_TELEMETRY_DROPPED,
    *(name for name, metric in METRICS.items() if metric.instrument in {"gauge", "updowncounter"}),
}
"""Read by callbacks, which give the labels themselves."""


def test_every_metric_has_its_labels_listed() -> None:
    """What is not observed by a callback is recorded with listed labels."""
    assert METRICS.keys() - OBSERVED == LABEL_KEYS.keys()


def test_nobody_is_a_label() -> None:
    """Ids of users, sessions and conversations and the voice are no labels of any metric."""
    somebody = {a.USER_HASH, a.SESSION_ID, a.GEN_AI_CONVERSATION_ID, a.STAGELIGHT_TTS_VOICE, a.GEN_AI_RESPONSE_ID}

    with capture(id_key="0123456789abcdef" * 2) as captured:
        turn = stagelight.turn("answer", user_id="u", session_id="s", conversation_id="c")
        with turn, stagelight.tts(provider="acme", model="m", voice="coral") as made:
            made.response(id="r")
            made.usage(characters=5)
        keys = {key for points in captured.metrics().values() for point in points for key in point.attributes}

    assert not keys & somebody
    assert not {key for keys in LABEL_KEYS.values() for key in keys} & somebody
