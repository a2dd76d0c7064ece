"""The page of settings is what the tables say, and its figures are those in force."""

from __future__ import annotations

from stagelight import settings_page, standard
from stagelight.export.batches import Limits
from stagelight.export.providers import METRIC_INTERVAL_MS, VALUE_CHARACTERS
from stagelight.settings import ROWS


def test_the_page_names_every_setting() -> None:
    """Each with its keyword and its variable."""
    text = settings_page.page()

    assert [row.field for row in ROWS if f"| `{row.field}` | `{row.variable}` |" not in text] == []


def test_the_defaults_of_numbers_are_those_in_force() -> None:
    """The page says what queues, pushes and values are bounded by."""
    said = {row.variable: row.default for row in standard.NUMBERS}

    assert said["OTEL_BSP_MAX_QUEUE_SIZE"] == str(Limits().items)
    assert said["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] == str(Limits().batch)
    assert said["OTEL_BSP_SCHEDULE_DELAY"] == f"{Limits().delay_s * 1000:g}"
    assert said["OTEL_METRIC_EXPORT_INTERVAL"] == str(METRIC_INTERVAL_MS)
    assert said["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"] == str(VALUE_CHARACTERS)
