"""What the tests run is what compose mounts: only addresses and paths differ, and they can be turned back."""

from __future__ import annotations

from pathlib import Path

import pytest
from stack.composition import service
from stack.native import PROGRAMS
from stack.substitution import PORTS, Substitution, free_places


def prepared(name: str, folder: Path) -> Substitution:
    """The substitution of a service, its paths in a folder."""
    described = service(name, {})
    targets = (*described.files, *described.volumes)
    return Substitution(name, free_places(), {path: folder / path.strip("/").replace("/", "-") for path in targets})


@pytest.mark.parametrize("name", PROGRAMS)
def test_only_addresses_and_paths_differ(name: str, tmp_path: Path) -> None:
    """Every mounted file and every flag, substituted and turned back, is byte for byte what compose has."""
    substitution = prepared(name, tmp_path)
    described = service(name, {})
    texts = {"command line": "\0".join(described.command), **described.environment}
    for folder in described.files.values():
        texts |= {str(path): path.read_text() for path in sorted(folder.rglob("*.y*ml"))}

    assert {key: substitution.in_container(substitution.here(text)) for key, text in texts.items()} == texts


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_listens_elsewhere(name: str, tmp_path: Path) -> None:
    """Nothing is left that listens on every interface or on a port of the containers, or writes to their paths."""
    substitution = prepared(name, tmp_path)
    described = service(name, {})
    for folder in described.files.values():
        for path in sorted(folder.rglob("*.y*ml")):
            here = substitution.here(path.read_text())
            left = [f"{other}:{port}" for other, ports in PORTS.items() for port in ports]
            left += ["0.0.0.0", *(f"port: {port}" for port in PORTS[name])]  # noqa: S104 - that is the case

            assert [address for address in left if address in here] == []


def test_replacements() -> None:
    """Addresses are replaced wherever they stand, and no part of a longer name or path is."""
    places = {("loki", 3100): 11111, ("loki", 9095): 12222, ("prometheus", 9090): 13333}
    substitution = Substitution("loki", places, {"/loki": Path("/t/data"), "/etc/loki": Path("/t/etc")})
    text = "http://loki:3100/loki/api loki:31001 my-loki:3100 0.0.0.0:9095 http_listen_port: 3100 0.0.0.0 /loki/a"
    more = "-f=/etc/loki/loki.yaml /lokis http://prometheus:9090/x 10.0.0.0 port: 31000 ${file:/etc/loki/x}"

    assert substitution.here(text) == (
        "http://localhost:11111/loki/api loki:31001 my-loki:3100 127.0.0.1:12222 http_listen_port: 11111 127.0.0.1 "
        "/t/data/a"
    )
    assert substitution.here(more) == (
        "-f=/t/etc/loki.yaml /lokis http://localhost:13333/x 10.0.0.0 port: 31000 ${file:/t/etc/x}"
    )
    assert substitution.in_container(substitution.here(text)) == text
    assert substitution.in_container(substitution.here(more)) == more
