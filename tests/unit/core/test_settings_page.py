"""The page of settings is what the tables say, and its figures are those in force."""

from __future__ import annotations

from pathlib import Path

import pytest
from stagelight import settings_page, standard
from stagelight.export.batches import Limits
from stagelight.export.providers import METRIC_INTERVAL_MS, VALUE_CHARACTERS
from stagelight.settings import ROWS


def test_the_page_is_the_tables() -> None:
    """The committed page is the one that would be written, and names every setting with its keyword."""
    text = settings_page.PAGE.read_text(encoding="utf-8")

    assert text == settings_page.page()
    assert [row.field for row in ROWS if f"| `{row.field}` | `{row.variable}` |" not in text] == []


def test_a_stale_page_is_found_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` changes nothing and fails; without it the page is written, once."""
    page = tmp_path / "settings.md"
    monkeypatch.setattr(settings_page, "PAGE", page)

    codes = [settings_page.main(["--check"])]
    assert not page.exists()
    codes += [settings_page.main([]), settings_page.main([]), settings_page.main(["--check"])]

    assert codes == [1, 0, 0, 0]
    assert page.read_text(encoding="utf-8") == settings_page.page()
    assert capsys.readouterr().out.splitlines() == [
        "docs/settings.md is stale: run make generate",
        "docs/settings.md written",
    ]


def test_the_defaults_of_numbers_are_those_in_force() -> None:
    """The page says what queues, pushes and values are bounded by."""
    said = {row.variable: row.default for row in standard.NUMBERS}

    assert said["OTEL_BSP_MAX_QUEUE_SIZE"] == str(Limits().items)
    assert said["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] == str(Limits().batch)
    assert said["OTEL_BSP_SCHEDULE_DELAY"] == f"{Limits().delay_s * 1000:g}"
    assert said["OTEL_METRIC_EXPORT_INTERVAL"] == str(METRIC_INTERVAL_MS)
    assert said["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"] == str(VALUE_CHARACTERS)
