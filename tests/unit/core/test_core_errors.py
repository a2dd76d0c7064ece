"""Errors of the host pass through untouched and leave only their class; misuse is one warning; our errors stay ours."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stagelight
from opentelemetry.trace import StatusCode
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Captured, capture

SECRET = "sk-live-secret-prompt"
MODEL = {"provider": "openai", "model": "gpt-4o-mini"}


class RefusedError(Exception):
    """An error of the host with a secret in its message."""


class Fatal(BaseException):
    """An error that is not of class ``Exception``."""


class ReadTimeout(RefusedError):  # noqa: N818 - named as client libraries name theirs
    """A client library's timeout, told by its name."""


OUTCOMES: dict[str, tuple[BaseException, str, str | None]] = {
    "error": (RefusedError(SECRET), "error", f"{__name__}.RefusedError"),
    "builtin": (KeyError(SECRET), "error", "KeyError"),
    "base": (Fatal(SECRET), "error", f"{__name__}.Fatal"),
    "timeout": (TimeoutError(SECRET), "timeout", "TimeoutError"),
    "client timeout": (ReadTimeout(SECRET), "timeout", f"{__name__}.ReadTimeout"),
    "cancelled": (asyncio.CancelledError(SECRET), "cancelled", None),
    "future cancelled": (concurrent.futures.CancelledError(SECRET), "cancelled", None),
    "interrupt": (KeyboardInterrupt(SECRET), "cancelled", None),
    "exit": (SystemExit(SECRET), "cancelled", None),
    "closed": (GeneratorExit(SECRET), "client_abandoned", None),
}


def _sync(make: Callable[[], Any], error: BaseException) -> None:
    with make():
        raise error


def _async(make: Callable[[], Any], error: BaseException) -> None:
    async def main() -> BaseException:
        try:
            async with make():
                raise error
        except BaseException as caught:  # noqa: BLE001 - a loop must not see an interrupt or an exit
            return caught
        return AssertionError("the error was swallowed")

    raise asyncio.run(main())


def _failed(make: Callable[[], Any], error: BaseException) -> None:
    call = make().start()
    call.fail(error)
    raise error


def _all_that_left(captured: Captured) -> str:
    """Everything exported, as one text."""
    spans = [json.loads(span.to_json()) for span in captured.spans]
    return repr((spans, captured.events, captured.metrics()))


@pytest.mark.parametrize("use", [_sync, _async, _failed])
@pytest.mark.parametrize(("error", "outcome", "kind"), OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize(
    "make", [lambda: stagelight.llm(**MODEL), lambda: stagelight.turn("answer")], ids=["llm", "turn"]
)
def test_an_error_is_the_hosts(
    make: Callable[[], Any], error: BaseException, outcome: str, kind: str | None, use: Callable[..., None]
) -> None:
    """The same object leaves the block; ``error.type`` and status ERROR appear together; no message is anywhere."""
    with capture() as captured:
        with pytest.raises(type(error)) as raised:
            use(make, error)
        (span,) = captured.spans
        attributes = dict(span.attributes or {})

        assert raised.value is error
        assert (attributes[a.STAGELIGHT_OUTCOME], attributes.get(a.ERROR_TYPE)) == (outcome, kind)
        assert span.status.status_code is (StatusCode.UNSET if kind is None else StatusCode.ERROR)
        assert (span.status.description, span.events) == (None, ())
        assert SECRET not in _all_that_left(captured)


def test_a_failed_call_labels_its_duration() -> None:
    """The error class is a label of the duration; without usage a failed call costs nothing and bills nothing."""
    with capture() as captured:
        with pytest.raises(RefusedError), stagelight.llm(**MODEL):
            raise RefusedError(SECRET)
        (point,) = captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION)

        assert point.attributes[a.ERROR_TYPE] == f"{__name__}.RefusedError"
        assert captured.ledger == ()


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ("completed", None),
        ("client_abandoned", None),
        ("cancelled", None),
        ("length_cut", None),
        ("timeout", "timeout"),
        ("provider_aborted", "_OTHER"),
        ("error", "_OTHER"),
    ],
)
def test_a_stated_outcome_has_the_status_it_means(outcome: Any, kind: str | None) -> None:
    """``end(outcome=...)`` sets an error's type and status exactly for the outcomes that are errors."""
    with capture() as captured:
        call = stagelight.llm.start(**MODEL)
        call.end(outcome=outcome)
        (span,) = captured.spans

    assert (captured.call("llm").outcome, captured.call("llm").error_type) == (outcome, kind)
    assert span.status.status_code is (StatusCode.UNSET if kind is None else StatusCode.ERROR)


def test_an_outcome_stated_after_a_broken_stream_wins() -> None:
    """A caller who knows better may say that a call whose stream broke is completed: no error remains."""

    def source() -> Iterator[str]:
        yield "a"
        raise RefusedError

    with capture() as captured:
        call = stagelight.llm.start(**MODEL)
        with pytest.raises(RefusedError):
            list(call.stream(source()))
        call.end(outcome="completed")
        (span,) = captured.spans

    assert (captured.call("llm").outcome, captured.call("llm").error_type) == ("completed", None)
    assert span.status.status_code is StatusCode.UNSET


def test_only_the_layers_an_error_leaves_fail() -> None:
    """An error caught inside the turn is the call's alone."""
    with capture() as captured, stagelight.turn("answer"), pytest.raises(RefusedError), stagelight.llm(**MODEL):
        raise RefusedError

    assert (captured.call("llm").outcome, captured.turn("answer").outcome) == ("error", "completed")


WRONG: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "text as count": (
        "type",
        lambda call: call.usage(input_tokens="12"),
        "usage(): input_tokens is '12'; accepted: an integer >= 0",
    ),
    "fraction": (
        "type",
        lambda call: call.usage(input_tokens=1.5),
        "usage(): input_tokens is 1.5; accepted: an integer >= 0",
    ),
    "truth": (
        "type",
        lambda call: call.usage(output_tokens=True),
        "usage(): output_tokens is True; accepted: an integer >= 0",
    ),
    "negative": (
        "range",
        lambda call: call.usage(output_tokens=-1),
        "usage(): output_tokens is -1; accepted: an integer >= 0",
    ),
    "unknown": (
        "unknown_key",
        lambda call: call.usage(tokens=1),
        "usage(): unknown quantity 'tokens'; accepted: input_tokens, ",
    ),
    "seconds": (
        "range",
        lambda call: call.usage(audio_seconds=float("nan")),
        "usage(): audio_seconds is nan; accepted: seconds, a number >= 0",
    ),
    "time to live": (
        "type",
        lambda call: call.usage(cache_write_tokens={"5m": "1"}),
        "usage(): cache_write_tokens['5m'] is '1'; accepted: an integer >= 0",
    ),
    "reasons": (
        "type",
        lambda call: call.response(finish_reasons="stop"),
        "response(): finish_reasons is 'stop'; accepted: a sequence of texts",
    ),
    "model": ("type", lambda call: call.response(model=4), "response(): model is 4; accepted: a non-empty text"),
    "scores": (
        "type",
        lambda call: call.results(scores=["high"]),
        "results(): scores is a list of 1; accepted: a sequence of numbers",
    ),
    "no results": (
        "type",
        lambda call: call.results(),
        "results(): neither scores nor count is given; accepted: at least one of them",
    ),
    "count": ("type", lambda call: call.results(count=-1), "results(): count is -1; accepted: an integer >= 0"),
    "amount": ("range", lambda call: call.cost("-1"), "cost(): amount is '-1'; accepted: a decimal number >= 0"),
    "no amount": ("type", lambda call: call.cost("free"), "cost(): amount is 'free'; accepted: a decimal number >= 0"),
    "currency": ("range", lambda call: call.cost(1, "EUR"), "cost(): currency is 'EUR'; accepted: USD"),
    "response": (
        "unreadable",
        lambda call: call.record({"id": 1}),
        "record(): cannot read builtins.dict; accepted: responses of the supported clients",
    ),
    "outcome": (
        "range",
        lambda call: call.end(outcome="done"),
        "end(): outcome is 'done'; accepted: completed, error, ",
    ),
    "no error": ("type", lambda call: call.fail("oops"), "fail(): error is 'oops'; accepted: an exception"),
    "temperature": (
        "type",
        lambda _: stagelight.llm(**MODEL, temperature="0.7"),
        "llm(): temperature is '0.7'; accepted: a number",
    ),
    "top_k": (
        "type",
        lambda _: stagelight.retrieval(provider="q", top_k="5"),
        "retrieval(): top_k is '5'; accepted: an integer",
    ),
    "provider": ("type", lambda _: stagelight.llm(provider=3, model="m"), "llm(): provider is 3; accepted: a text"),
    "turn": ("type", lambda _: stagelight.turn(""), "turn(): name is ''; accepted: a non-empty text"),
    "tenant": (
        "type",
        lambda _: stagelight.turn("answer", tenant=7),
        "turn(): tenant is 7; accepted: a non-empty text",
    ),
    "score": (
        "type",
        lambda _: stagelight.feedback(score="good"),
        "feedback(): score is 'good'; accepted: a finite number",
    ),
    "judgement": (
        "type",
        lambda _: stagelight.evaluation("x", score=float("inf")),
        "evaluation(): score is inf; accepted: a finite number",
    ),
    "outside": (
        "state",
        lambda _: stagelight.identify(tenant="acme"),
        "identify(): outside a turn it has no effect; accepted: inside a turn, job or request",
    ),
}


@pytest.mark.parametrize(("kind", "wrong", "message"), WRONG.values(), ids=WRONG)
def test_misuse_raises_when_strict(kind: str, wrong: Callable[[Any], object], message: str) -> None:
    """In strict mode the message names what was given and what is accepted."""
    with capture(), pytest.raises(_guard.MisuseError) as raised, stagelight.llm(**MODEL) as call:
        wrong(call)

    assert str(raised.value).startswith(message)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a user's process, with nothing reported yet."""
    _guard.set_strict(False)
    monkeypatch.setattr(_guard, "_logged", set())


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(("kind", "wrong", "message"), WRONG.values(), ids=WRONG)
def test_misuse_is_one_warning_otherwise(
    kind: str, wrong: Callable[[Any], object], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Outside strict mode: one warning however often, a counter, and everything else of the call is kept."""
    with capture() as captured:
        before = _guard.misuses().get(kind, 0)
        with stagelight.llm(**MODEL) as call:
            call.usage(input_tokens=100, output_tokens=10)
            for _ in range(3):
                wrong(call)
        found = captured.call("llm")

    assert [record.getMessage().startswith(f"stagelight: {message}") for record in caplog.records] == [True]
    ends = message.startswith(("end()", "fail()"))  # the first one ends the call, the rest says nothing more
    assert _guard.misuses()[kind] - before == (1 if ends else 3)
    assert (found.attributes[a.GEN_AI_USAGE_INPUT_TOKENS], found.cost_status) == (100, "exact")


@pytest.mark.usefixtures("lenient")
def test_misuse_with_many_values_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong type in a hot loop does not fill the log, whatever the values are, nor use up later warnings."""
    with capture(), stagelight.llm(**MODEL) as call:
        for number in range(1000):
            call.usage(input_tokens=str(number))  # type: ignore[arg-type]  # the misuse
        call.usage(output_tokens=-1)

    assert len(caplog.records) == 2


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("name", ["user_id", "session_id"])
def test_a_wrong_id_is_never_shown(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The warning about an id that is no text names its type, not its value."""
    wrong: dict[str, Any] = {name: 4711_0815}
    with capture(id_key="0123456789abcdef" * 2) as captured, stagelight.turn("answer"):
        stagelight.identify(**wrong)

    assert [record.getMessage() for record in caplog.records] == [
        f"stagelight: identify(): {name} is of type int; accepted: a non-empty text"
    ]
    assert "47110815" not in _all_that_left(captured)


class _Hostile:
    """An item that breaks whoever looks at it."""

    def __bool__(self) -> bool:
        raise ValueError(SECRET)

    def __len__(self) -> int:
        raise ValueError(SECRET)


def test_an_item_is_not_looked_into() -> None:
    """Items of any type pass a stream, also those that cannot be tested for truth, as arrays of numbers."""
    items = [_Hostile(), _Hostile()]
    with capture() as captured, stagelight.llm(**MODEL) as call:
        assert list(call.stream(iter(items))) == items

    assert captured.call("llm").attributes[a.STAGELIGHT_STREAM_CHUNKS] == 2


@pytest.mark.usefixtures("lenient")
def test_an_error_of_ours_stays_ours(caplog: pytest.LogCaptureFixture) -> None:
    """An error inside the library is logged once with its frames, counted, and does not reach the host."""
    before = _guard.errors().get("results", 0)
    with capture() as captured, stagelight.retrieval(provider="q") as call:
        for _ in range(2):
            call.results(scores=Scores())
        call.results(count=1)

    assert _guard.errors()["results"] - before == 2
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.ERROR, None)
    assert "failed in results with RuntimeError" in record.getMessage()
    assert f"{__file__}:" in record.getMessage()
    assert "hostile" not in record.getMessage()
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 1


class Scores(list[float]):
    """Scores that break whoever reads them."""

    def __iter__(self) -> Iterator[float]:
        raise RuntimeError("hostile")
