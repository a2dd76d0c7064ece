"""An answer that is recorded a second time is said once a minute, with what to do about it."""

from __future__ import annotations

import pytest
import stagelight
from opentelemetry.trace import Tracer
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Captured, capture


def _by_us() -> None:
    with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
        call.response(id="answer-1")


def _by_another(tracer: Tracer) -> None:
    with tracer.start_as_current_span("chat") as span:
        span.set_attributes({a.GEN_AI_RESPONSE_ID: "answer-1", a.GEN_AI_PROVIDER_NAME: "openai"})


@pytest.mark.parametrize(
    ("another", "advice"),
    [(True, "switch one of them off"), (False, "a cache may repeat answers, or two calls be one")],
)
def test_the_advice_fits_who_recorded(
    another: bool, advice: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing to switch off where both were recorded by us."""
    monkeypatch.setattr(_guard, "_reported_s", {})  # another test may have warned within this minute
    with capture() as captured:
        _by_us()
        if another:
            _by_another(captured.tracer_provider.get_tracer("another"))
        else:
            _by_us()
        counted = _counted(captured)

    both = "another + stagelight" if another else "stagelight + stagelight"
    assert counted == [(both, 1)]
    assert [record.message for record in caplog.records if "twice" in record.message] == [
        f"stagelight: a call of openai was recorded twice, by {both}: {advice}"
    ]


def _counted(captured: Captured) -> list[tuple[object, float]]:
    points = captured.metric(m.STAGELIGHT_DOUBLE_COUNTED)
    return [(point.attributes[a.STAGELIGHT_INSTRUMENTATIONS], point.value) for point in points]
