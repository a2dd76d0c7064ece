"""The commands around a server: up, env, and tail on a live database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from stored import logs, record, span, store, traces

from .conftest import KEEP, PROGRAM, Run

pytestmark = pytest.mark.usefixtures("bare_environment")

TOKEN = "not-a-secret-0123456789"


def test_up_says_where_it_listens_and_what_to_set(served: dict[str, str], run: Run, tmp_path: Path) -> None:
    """The addresses work, Ctrl-C ends it in order, doctor sees it, and a second one on the port is told so."""
    address = served["OTLP over HTTP"]
    port = address.rpartition(":")[2]

    assert f"export OTEL_EXPORTER_OTLP_ENDPOINT={address}" in served
    assert served["pages"] == f"{address}   this machine only, no token"
    assert served["database"] == f"{tmp_path / 'up.db'}   keeps 7 days, 2 GiB; costs 400 days"
    with urllib.request.urlopen(f"{address}/healthz", timeout=60) as answer:  # noqa: S310  our own server
        assert answer.read() == b"ok\n"

    second = run("up", "--port", port, "--grpc-port", "0", "--db", tmp_path / "other.db")
    assert (second.status, second.out) == (1, "")
    assert second.err == (
        f"stagelight: port {port} on 127.0.0.1 (OTLP over HTTP) is already in use by another program. If that is "
        "another `stagelight up`, it is ready to use; otherwise choose a port with --port N (--port 0 takes any free "
        "one)\n"
    )
    third = run("up", "--port", "0", "--grpc-port", port, "--db", tmp_path / "other.db")
    assert "choose a port with --grpc-port N" in third.err
    assert not (tmp_path / "other.db").exists()


def test_up_needs_a_token_to_be_reached_from_elsewhere(run: Run, tmp_path: Path) -> None:
    """Listening on another address takes two decisions, and each refusal names the flags."""
    token = tmp_path / "token"
    token.write_text("short\n")

    alone = run("up", "--host", "0.0.0.0")  # noqa: S104
    without_token = run("up", "--host", "0.0.0.0", "--allow-remote")  # noqa: S104
    too_short = run("up", "--host", "0.0.0.0", "--allow-remote", "--token-file", token)  # noqa: S104
    unreadable = run("up", "--token-file", tmp_path / "none")

    assert [result.status for result in (alone, without_token, too_short, unreadable)] == [2, 2, 2, 2]
    assert "--allow-remote, --token-file" in alone.err
    assert "needs a token of 16 or more characters" in without_token.err
    assert "token has 5 characters" in too_short.err
    assert unreadable.err.endswith(f"cannot read {str(tmp_path / 'none')!r}: No such file or directory\n")


def test_a_missing_extra_is_one_sentence() -> None:
    """Without the server's packages `up` names the command that installs them."""
    script = "import sys; sys.modules['orjson'] = None; from stagelight.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "up", "--port", "0"], capture_output=True, text=True, timeout=120, check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "stagelight: `stagelight up` needs the extra 'server': pip install 'stagelight[server]'\n"


def test_env_can_be_evaluated_by_a_shell(run: Run, tmp_path: Path) -> None:
    """The lines set what an application needs, whatever is in a name; the token stays in its file."""
    token = tmp_path / "it's a token"
    token.write_text(TOKEN)

    lines = run("env", "--service", "my app", "--token-file", token)
    shell = f"{lines.out}\nenv | grep ^OTEL_ | sort"
    done = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=True, env={"PATH": os.defpath}
    )

    assert TOKEN not in lines.out
    assert done.stdout.splitlines() == [
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318",
        f"OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20{TOKEN}",
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        "OTEL_SERVICE_NAME=my app",
    ]


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["--shell", "fish"], "set -gx OTEL_EXPORTER_OTLP_ENDPOINT 'http://127.0.0.1:4318'\n"),
        (["--shell", "powershell"], "$env:OTEL_EXPORTER_OTLP_ENDPOINT = 'http://127.0.0.1:4318'\n"),
        (["--shell", "dotenv", "--protocol", "grpc"], "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317\n"),
        (["--json", "--endpoint", "https://box:99/"], '  "OTEL_EXPORTER_OTLP_ENDPOINT": "https://box:99",\n'),
        (
            ["--shell", "fish", "--token-file", "/t"],
            "set -gx OTEL_EXPORTER_OTLP_HEADERS 'authorization=Bearer%20'(cat '/t')\n",
        ),
        (
            ["--shell", "powershell", "--token-file", "/t"],
            "$env:OTEL_EXPORTER_OTLP_HEADERS = 'authorization=Bearer%20' + (Get-Content -Raw '/t').Trim()\n",
        ),
    ],
)
def test_env_speaks_the_shell_it_is_asked_for(words: list[str], output: str, run: Run) -> None:
    """Each shell gets its own syntax."""
    result = run("env", *words)

    assert (result.status, result.err) == (0, "")
    assert output in result.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--endpoint", "127.0.0.1:4318"], "accepted: a URL like http://127.0.0.1:4318"),
        (["--endpoint", "http://x:port"], "accepted: a URL like"),
        (["--endpoint", "http://x/$(id)`id`"], "accepted: a URL like"),
        (["--service", "a'b"], "accepted: letters, digits, spaces and . _ - /"),
        (["--json", "--token-file", "x"], "would have to print the token"),
        (["--shell", "dotenv", "--token-file", "x"], "would have to print the token"),
        (["--shell", "cmd"], "accepted: sh, fish, powershell, dotenv"),
    ],
)
def test_env_refuses_what_a_shell_could_misread(words: list[str], message: str, run: Run) -> None:
    """Nothing is printed that a shell would run or that would reveal a token."""
    result = run("env", *words)

    assert (result.status, result.out) == (2, "")
    assert message in result.err


def test_tail_follows_until_its_count(run: Run, tmp_path: Path) -> None:
    """What arrives while it runs is shown, in both kinds, and the count ends it."""
    path = tmp_path / "live.db"
    store(path, logs(record("before"), service="app"), retention=KEEP)
    following = subprocess.Popen(
        [*PROGRAM, "tail", "--since", "all", "--count", "2", "--utc", "--source", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with following:
        watchdog = threading.Timer(120, following.kill)
        watchdog.start()
        assert following.stdout is not None
        before = following.stdout.readline()
        store(path, traces(span(7, trace=7, at=1, lasts=0.25)), logs(record("after", at=3)), retention=KEEP)
        rest = following.stdout.read()
        watchdog.cancel()

    assert following.returncode == 0
    assert re.sub(" +", " ", before) == "2026-09-21 14:13:20Z INFO app before\n"
    assert re.sub(" +", " ", rest).splitlines() == [
        f"2026-09-21 14:13:21Z - app span 7 250 ms {7:032x}",
        "2026-09-21 14:13:23Z INFO app after",
    ]
