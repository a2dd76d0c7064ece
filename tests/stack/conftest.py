"""Fixtures of the stack tests: one whole stack for the tests that only read, and the logs of a test that failed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from stack import demo
from stack.demo import Sent
from stack.gateway import Gateway, in_front_of
from stack.native import STACKS, Stack
from stack.outputs import Outputs, collecting


def pytest_configure() -> None:
    """End the programs also when the tests are ended from outside, as they are when somebody presses Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Every service that has a program here, and something in Tempo's place; for tests that stop and break nothing."""
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def sent(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """The demo's forty turns, sent to the stack; all that was acknowledged."""
    return demo.run(stack, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def gateway(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway in front of the whole stack."""
    with in_front_of(stack, tmp_path_factory.mktemp("gateway")) as one:
        yield one


@pytest.fixture(scope="module")
def collector_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Outputs]]:
    """One Collector for all tests of a module, and what comes out of it."""
    with collecting(tmp_path_factory.mktemp("collector")) as one:
        yield one


@pytest.fixture
def collector(collector_of_module: tuple[Stack, Outputs]) -> tuple[Stack, Outputs]:
    """A Collector from which nothing has come yet."""
    collector_of_module[1].forget()
    return collector_of_module


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the programs printed."""
    report: Any = yield
    if report.failed:
        for stack in STACKS:
            report.sections += [(f"end of the log of {name}", text) for name, text in stack.logs().items()]
    if report.when == "teardown":
        STACKS[:] = [stack for stack in STACKS if stack.is_running]
    return report  # type: ignore[no-any-return]  # pytest's hooks are not typed
