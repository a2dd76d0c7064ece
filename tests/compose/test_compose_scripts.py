"""What the scripts of the compose file refuse, each by name and before anything is changed."""

from __future__ import annotations

import subprocess

import pytest
from stack.programs import ROOT

SETUP = ROOT / "deploy" / "compose" / "setup" / "setup.sh"
ERASE = ROOT / "deploy" / "compose" / "erase" / "erase.sh"
VERBS = "create, env, password, gateway-token, rotate, rotate-id-key, store, backup, restore"
QUERY = '{service_name="shop"}'
NO_QUERY = 'is not accepted; accepted: list, or a LogQL query like \'{service_name="shop"} |= "order 17"\''
NO_TIME = "is not accepted; accepted: 1793491200 or 2026-11-01T00:00:00Z"


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (SETUP, ["renew"], f"setup: 'renew' is not accepted; accepted:\n  {VERBS}"),
        (
            SETUP,
            ["env", "http://a b"],
            "setup: env: 'http://a b' is not accepted; accepted: an address like http://collector:4318",
        ),
        (
            SETUP,
            ["env", "http://a:1\n$(id)"],
            "setup: env: 'http://a:1\n$(id)' is not accepted; accepted: an address like http://collector:4318",
        ),
        (
            SETUP,
            ["store", "loki", "key"],
            "setup: store: service 'loki' is not accepted; accepted: alertmanager, collector",
        ),
        (
            SETUP,
            ["store", "alertmanager", "../x"],
            "setup: store: name '../x' is not accepted; accepted: lower-case letters, digits and _",
        ),
        (
            SETUP,
            ["store", "collector", "id_key"],
            "setup: store: name 'id_key' is taken by a secret that setup makes itself",
        ),
        (ERASE, [], f"erase: '' {NO_QUERY}"),
        (ERASE, ["order 17", "1793491200"], f"erase: 'order 17' {NO_QUERY}"),
        (ERASE, [QUERY], f"erase: time '' {NO_TIME}"),
        (ERASE, [QUERY, "yesterday"], f"erase: time 'yesterday' {NO_TIME}"),
        (ERASE, [QUERY, "1793491200\n0"], f"erase: time '1793491200\n0' {NO_TIME}"),
        (ERASE, [QUERY, "1793491200", "now"], f"erase: time 'now' {NO_TIME}"),
    ],
    ids=[
        "verb",
        "address",
        "second line",
        "service",
        "name",
        "own name",
        "nothing",
        "no selector",
        "no start",
        "start",
        "second line of start",
        "end",
    ],
)
def test_wrong_arguments_are_refused_by_name(script: str, arguments: list[str], message: str) -> None:
    """The message says what was received and what is accepted; nothing is printed that a shell would evaluate."""
    done = subprocess.run(["sh", script, *arguments], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{message}\n")
