"""The pages that are made from code: the committed ones are those that would be written, and a stale one is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from stagelight import documentation
from stagelight.documentation import PAGES

COMMITTED = documentation.FOLDER


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_what_the_code_says(name: str) -> None:
    """Nobody edited it, and nobody forgot to write it anew."""
    assert (COMMITTED / name).read_text(encoding="utf-8") == PAGES[name]()


def test_stale_pages_are_found_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` changes nothing and fails, without a page and with an old one; else each is written, once."""
    monkeypatch.setattr(documentation, "FOLDER", tmp_path)
    codes = [documentation.main(["--check"])]
    assert list(tmp_path.iterdir()) == []

    codes += [documentation.main([])]
    old = tmp_path / "settings.md"
    old.write_text("old", encoding="utf-8")
    codes += [documentation.main(["--check"])]
    assert old.read_text(encoding="utf-8") == "old"
    codes += [documentation.main([]), documentation.main([]), documentation.main(["--check"])]

    assert codes == [1, 0, 1, 0, 0, 0]
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        name: page() for name, page in PAGES.items()
    }
    assert capsys.readouterr().out.splitlines() == [
        "docs/settings.md is stale: run make generate",
        "docs/integrations.md is stale: run make generate",
        "docs/settings.md written",
        "docs/integrations.md written",
        "docs/settings.md is stale: run make generate",
        "docs/settings.md written",
    ]
