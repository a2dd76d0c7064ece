"""All tests run strict: misuse and our own failures raise. In CI a skipped test is a failure, but for Tempo's."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from stagelight import _guard

# The same examples in every run, however busy the machine is.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("tests")

WAITING = "tests/stack/"
"""Folder of the tests that mostly wait for programs."""
UNBUILDABLE = "cannot be built from the Go module proxy"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that wait among those that compute, so that no processor idles beside several that wait."""
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    waiting = [name for name in files if name.startswith(WAITING)]
    computing = [name for name in files if not name.startswith(WAITING)]
    # Not up to the end, when others would wait for the last of them.
    apart = 0.7 * len(computing) / max(len(waiting), 1)
    places = dict(zip(computing, range(len(computing)), strict=True))
    places |= {name: index * apart for index, name in enumerate(waiting)}
    items[:] = [item for name in sorted(files, key=places.__getitem__) for item in files[name]]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Raise where a user's process would log."""
    _guard.set_strict(True)
    yield
    _guard.set_strict(True)


@pytest.fixture(autouse=True)
def excused_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what a test may leave open, as its mark says, while the mark holds."""
    yield
    marks = request.node.iter_markers("filterwarnings")
    if any("PytestUnraisableExceptionWarning" in str(mark.args) for mark in marks):
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def own_garbage() -> Iterator[None]:
    """Let what a module leaves open be found with it, not with whichever test makes the next collection happen."""
    yield
    gc.collect()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run when CI skipped a test: CI has everything that any test needs, and can build all but Tempo."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter is not None else []
    skipped = [report for report in reports if UNBUILDABLE not in str(report.longrepr)]
    if os.environ.get("STAGELIGHT_CI") and skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} tests were skipped; in CI all of them must run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
