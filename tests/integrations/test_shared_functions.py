"""Two integrations that wrap the same function of a library, as those of one AWS client do."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any, ClassVar

import pytest
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target


class _Noting(Instrumentor):
    """Notes its own name for each call."""

    distribution = "pytest"
    supported = "pytest"
    coverage = Coverage(title="Noting", calls={}, ways="")
    noted: ClassVar[list[str]] = []

    @property
    def targets(self) -> Sequence[Target]:
        def around(wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self.noted.append(type(self).__name__)
            return wrapped(*args, **kwargs)

        return (Target("string", "Template.substitute", around),)


class First(_Noting):
    """One integration."""


class Second(_Noting):
    """Another one."""


class Third(_Noting):
    """A third one."""


def called() -> list[str]:
    """Who noted one call, the outermost first."""
    _Noting.noted.clear()
    assert string.Template("$a tide").substitute(a="high") == "high tide"
    return list(_Noting.noted)


@pytest.mark.parametrize("order", list(permutations((First, Second, Third))))
def test_they_leave_in_any_order(order: tuple[type[Instrumentor], ...]) -> None:
    """Each notes every call once while it is on, whoever came or left before, and the last leaves the function."""
    original = vars(string.Template)["substitute"]
    for kind in (First, Second, Third):
        kind().instrument()
    assert called() == ["Third", "Second", "First"]

    for number, kind in enumerate(order):
        kind().uninstrument()
        assert sorted(called()) == sorted(one.__name__ for one in order[number + 1 :])

    assert vars(string.Template)["substitute"] is original


def test_one_that_comes_back_notes_once() -> None:
    """A wrapper that somebody has wrapped cannot be removed, and stays silent when its integration comes back."""
    original = vars(string.Template)["substitute"]
    First().instrument()
    ours = vars(string.Template)["substitute"]

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    string.Template.substitute = theirs  # type: ignore[method-assign]
    try:
        First().uninstrument()
        assert called() == []
        First().instrument()
        assert called() == ["First"]
        First().uninstrument()
        assert vars(string.Template)["substitute"] is theirs
    finally:
        string.Template.substitute = original  # type: ignore[method-assign]
