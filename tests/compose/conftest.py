"""Fixtures of the compose tests: an engine with images of all programs at hand, and deployments on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from compose.deployment import Deployment, compose_file
from compose.engine import Engine
from compose.images import image_of, write_archive
from stack.programs import find

_PACKAGES = {
    "podman": "podman",
    "runc": "runc",
    "iptables": "iptables",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
    "/bin/busybox": "busybox-static",
    "nginx": "nginx-light",
}
"""What the tests need and the Debian package that has it."""

_WITHOUT_PROGRAM = {"grafana", "sim", "app", "visitors", "erase"}
"""Not started here: no program for Grafana, no base image for the demo; erase runs when it is asked to."""


@pytest.fixture(scope="session")
def services() -> tuple[str, ...]:
    """The services that can be started here."""
    left_out = _WITHOUT_PROGRAM | (set() if find("tempo") else {"tempo"})
    return tuple(name for name in compose_file()["services"] if name not in left_out)


@pytest.fixture(scope="module")  # only one runs at a time: tests in other processes wait for its end
def engine(tmp_path_factory: pytest.TempPathFactory, services: tuple[str, ...]) -> Iterator[Engine]:
    """A container engine that knows the images of the compose file."""
    if os.geteuid() != 0:
        pytest.skip("only root may start containers with networks of their own here")
    missing = [package for name, package in _PACKAGES.items() if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs what these Debian packages have: {' '.join(missing)}")
    images = {service: image_of(service) for service in services}  # skips before anything is started
    folder = tmp_path_factory.mktemp("engine")
    with Engine(folder) as running:
        for service, image in images.items():
            archive = folder / "image.tar"
            write_archive(image, archive)
            running.make_image(compose_file()["services"][service]["image"], archive, image.entrypoint)
            archive.unlink()
        yield running


@pytest.fixture(scope="module")
def deployment(engine: Engine, services: tuple[str, ...]) -> Iterator[Deployment]:
    """The shipped stack, started once for the tests of a module."""
    deployed = Deployment(engine, services)
    try:
        deployed.up()
        deployed.wait_until_healthy()
        yield deployed
    finally:
        deployed.run("--profile=*", "down", "--volumes", "--timeout=5")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the containers printed."""
    report: Any = yield
    deployed = getattr(item, "funcargs", {}).get("deployment")
    if report.failed and report.when != "teardown" and deployed is not None:
        report.sections.append(("end of the logs of the containers", deployed.logs()))
    return report  # type: ignore[no-any-return]  # pytest's hooks are not typed


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Where a backup goes."""
    return tmp_path / "stagelight.tar"
