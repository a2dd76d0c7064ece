"""What the panel of a span says: every attribute once, and the price with its arithmetic."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal

import pytest
from stagelight.conventions import attributes as names
from stagelight.cost import price as calculate
from stagelight.embedded.pages.arithmetic import Line, Price, price
from stagelight.embedded.pages.span_facts import Fact, Group, group, written
from stagelight.facts import Priced, Usage
from stagelight.sources.model import AttributeValue, SpanRow


def span(attributes: dict[str, AttributeValue], *, name: str = "chat", message: str | None = None) -> SpanRow:
    """A span with these attributes."""
    return SpanRow(
        trace_id="0" * 32, span_id="1" * 16, parent_id=None, name=name, service="app", kind="CLIENT",
        start_ns=0, duration_ns=1, status="ERROR" if message else "UNSET", status_message=message, stage="llm",
        attributes=attributes, events=(), links=(), resource={"service.name": "app"}, scope="tests",
    )  # fmt: skip


def plain(text: str) -> str:
    """With plain spaces."""
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def test_facts_are_grouped_by_question() -> None:
    """What was asked, what came back, tokens, errors and context are apart, with units; the rest keeps its name."""
    groups = group(
        span(
            {
                names.STAGELIGHT_STAGE: "llm",
                names.GEN_AI_REQUEST_MODEL: "gpt-4o-mini",
                names.GEN_AI_REQUEST_STREAM: True,
                names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.37,
                names.GEN_AI_RESPONSE_FINISH_REASONS: ["stop", "length"],
                names.GEN_AI_USAGE_INPUT_TOKENS: 1261,
                names.STAGELIGHT_RETRIEVAL_COUNT: 5,
                names.ERROR_TYPE: "timeout",
                names.STAGELIGHT_TENANT: "acme",
                names.STAGELIGHT_COST_AMOUNT: 0.1,
                "app.key": {"deep": [1, None]},
            },
            message="it broke",
        )
    )

    assert groups == Group(
        asked=[
            Fact("Model", "gpt-4o-mini", names.GEN_AI_REQUEST_MODEL),
            Fact("Streamed", "yes", names.GEN_AI_REQUEST_STREAM),
        ],
        answered=[
            Fact("Finish reasons", "stop, length", names.GEN_AI_RESPONSE_FINISH_REASONS),
            Fact("First chunk", "370\u00a0ms", names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
        ],
        tokens=[Fact("Input tokens", "1,261", names.GEN_AI_USAGE_INPUT_TOKENS)],
        retrieved=[Fact("Results", "5", names.STAGELIGHT_RETRIEVAL_COUNT)],
        failed=[Fact("Error type", "timeout", names.ERROR_TYPE), Fact("Status message", "it broke", "")],
        context=[Fact("Tenant", "acme", names.STAGELIGHT_TENANT)],
        other=[Fact("app.key", '{\n  "deep": [\n    1,\n    null\n  ]\n}', "app.key", is_long=True)],
        resource=[Fact("service.name", "app", "service.name")],
    )


@pytest.mark.parametrize("value", ["many", True, None, [1], {"a": 1}, float("nan"), 1e308, -5, "\x00"])
def test_any_value_under_any_name_is_text(value: AttributeValue) -> None:
    """A known attribute with a value of another type is shown as it came."""
    attributes = [item for name, item in vars(names).items() if name.isupper() and isinstance(item, str)]
    groups = group(span(dict.fromkeys(attributes, value)))

    shown = [fact for field in fields(Group) if field.name != "resource" for fact in getattr(groups, field.name)]
    assert all(isinstance(fact.value, str) and "\x00" not in fact.value for fact in shown)
    assert len({fact.attribute for fact in shown}) == len(shown)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.1 + 0.2, "0.3"), (True, "yes"), (7, "7"), (None, "None"), ("a\u202e", "a\\u202e"), (["a", 1], "a, 1")],
)
def test_values_are_written_plainly(value: AttributeValue, expected: str) -> None:
    """Numbers without noise, lists with commas, hidden characters visible."""
    assert written(value) == expected


def test_very_long_values_are_cut() -> None:
    """A captured document does not fill the page."""
    assert len(written("x" * 1_000_000)) < 4_100


def attributes_of(usage: dict[str, int], cost: Priced) -> dict[str, AttributeValue]:
    """What a span says about a priced call."""
    return {
        **usage,
        names.STAGELIGHT_COST_AMOUNT: float(cost.amount),
        names.STAGELIGHT_COST_CURRENCY: "USD",
        names.STAGELIGHT_COST_STATUS: cost.status,
        names.STAGELIGHT_COST_PRICE_SOURCE: cost.price_source,
        names.STAGELIGHT_COST_MODEL: cost.model,
    }


def test_price_is_written_out_as_it_was_made() -> None:
    """Quantities are those that were billed, rates those of the price list, and the lines are the total."""
    usage = Usage(input_tokens=1261, cache_read_tokens=512, output_tokens=163)
    cost = calculate(usage, provider="openai", request_model="gpt-4o-mini", at=1_790_000_000)
    assert isinstance(cost, Priced)
    given = attributes_of(
        {
            names.GEN_AI_USAGE_INPUT_TOKENS: 1261,
            names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 512,
            names.GEN_AI_USAGE_OUTPUT_TOKENS: 163,
        },
        cost,
    )
    bill = price(given, components=cost.components)
    assert bill is not None

    assert [tuple(map(plain, (line.part, line.quantity, line.rate, line.amount))) for line in bill.lines] == [
        ("input", "749 tokens", "0.15 per 1M tokens", "0.000 112 35"),
        ("cache read", "512 tokens", "0.075 per 1M tokens", "0.000 038 4"),
        ("output", "163 tokens", "0.60 per 1M tokens", "0.000 097 8"),
    ]
    assert (plain(bill.total or ""), bill.is_sum, bill.status) == ("0.000 248 55", True, "exact")


def test_speech_is_priced_by_length() -> None:
    """Characters and seconds have their own units."""
    characters = price(
        {
            names.STAGELIGHT_COST_STATUS: "exact",
            names.STAGELIGHT_COST_AMOUNT: 0.0042,
            names.STAGELIGHT_USAGE_CHARACTERS: 280,
        },
        components={"characters": Decimal("0.0042")},
    )
    seconds = price(
        {
            names.STAGELIGHT_COST_STATUS: "exact",
            names.STAGELIGHT_COST_AMOUNT: 0.006,
            names.STAGELIGHT_STT_AUDIO_SECONDS: 60.0,
        },
        components={"audio_seconds": Decimal("0.006")},
    )
    assert characters is not None
    assert seconds is not None

    assert characters.lines == (Line("characters", "280\u00a0characters", "15.00 per 1M characters", "0.004\u202f2"),)
    assert seconds.lines == (Line("audio seconds", "60\u00a0s", "0.36 per hour of audio", "0.006"),)


def test_unpriced_calls_have_a_reason_and_no_amount() -> None:
    """Nothing is shown as zero."""
    assert price({names.STAGELIGHT_COST_STATUS: "unpriced", names.STAGELIGHT_COST_REASON: "unknown_model"}) == Price(
        lines=(), more=0, total=None, is_sum=False, currency="USD", status="unpriced",
        reason="unknown_model", missing=None, source=None, model=None,
    )  # fmt: skip
    assert price({names.GEN_AI_REQUEST_MODEL: "gpt-4o-mini"}) is None


def test_lines_that_do_not_add_up_are_told() -> None:
    """A total that is not the sum of its lines is not called a sum."""
    bill = price(
        {
            names.STAGELIGHT_COST_STATUS: "partial",
            names.STAGELIGHT_COST_AMOUNT: 0.5,
            names.STAGELIGHT_COST_MISSING: ["audio_output"],
            names.GEN_AI_USAGE_INPUT_TOKENS: -3,
        },
        components={"input": Decimal("0.1")},
    )
    assert bill is not None

    assert (bill.is_sum, bill.missing, bill.lines) == (False, "audio_output", (Line("input", "", "", "0.10"),))


def test_turn_is_the_sum_of_its_calls() -> None:
    """A turn writes out what each of its calls cost, exactly."""
    calls = [
        span({names.STAGELIGHT_COST_AMOUNT: 0.1}, name="chat"),
        span({names.STAGELIGHT_COST_AMOUNT: 0.2}, name="speak"),
        span({}, name="search"),
    ]
    bill = price({names.STAGELIGHT_TURN_COST: 0.3, names.STAGELIGHT_TURN_COST_STATUS: "exact"}, calls)
    assert bill is not None

    assert [(line.part, line.amount) for line in bill.lines] == [("chat", "0.10"), ("speak", "0.20")]
    assert (bill.total, bill.is_sum) == ("0.30", Decimal("0.1") + Decimal("0.2") == Decimal("0.3"))
