"""The commands around the server and prices: up, env, doctor, tail on a live database, prices."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stack.substitution import free_port
from stagelight import cost
from stored import logs, record, span, store, traces

from .conftest import KEEP, Run

PROGRAM = (sys.executable, "-m", "stagelight")
TOKEN = "not-a-secret-0123456789"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the environment of the tests is taken for an application's, and no price stays behind."""
    for variable in list(os.environ):
        if variable.startswith(("OTEL_", "STAGELIGHT_")):
            monkeypatch.delenv(variable)
    yield
    cost.configure(None)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server that `stagelight up` started; yields what it announced, line by title."""
    command = [*PROGRAM, "up", "--port", "0", "--grpc-port", "0", "--db", str(tmp_path / "up.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        announced: dict[str, str] = {}
        for line in up.stdout:
            if line.startswith("  export OTEL_EXPORTER_OTLP_PROTOCOL="):
                break
            title, _, rest = line.strip().partition("  ")
            announced[title] = rest.strip()
        yield announced
        up.send_signal(signal.SIGINT)
        _, err = up.communicate(timeout=60)

    assert (up.returncode, err) == (0, "Stopped. Whatever was accepted is in the database.\n")


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


def test_doctor_asks_the_server_that_is_set(
    served: dict[str, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running server is found well, and a password in the address is not shown."""
    port = served["OTLP over HTTP"].rpartition(":")[2]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:password@127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{TOKEN}")

    findings = findings_of(run, tmp_path / "up.db")

    assert findings["server"] == ("ok", f"Stagelight at 127.0.0.1:{port} is well")
    assert findings["OTEL_EXPORTER_OTLP_ENDPOINT"] == ("ok", f"http://127.0.0.1:{port}")
    assert findings["OTEL_EXPORTER_OTLP_HEADERS"] == ("ok", "set (not shown)")
    assert findings["database"] == ("warning", f"{tmp_path / 'up.db'}: empty")


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


def findings_of(run: Run, source: Path) -> dict[str, tuple[str, str]]:
    """What doctor found, by what it is about."""
    result = run("doctor", "--json", "--source", source)
    findings: list[dict[str, Any]] = json.loads(result.out)["findings"]
    assert all(set(finding) == {"about", "state", "found", "advice"} for finding in findings)
    assert result.status == (1 if any(finding["state"] == "problem" for finding in findings) else 0)
    return {finding["about"]: (finding["state"], finding["found"]) for finding in findings}


def test_doctor_on_a_bare_machine_warns_and_advises(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set and nothing runs: no problem, but the next steps."""
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")

    findings = findings_of(run, tmp_path / "none.db")

    assert findings["user ids"] == ("warning", "no key: user and session ids are dropped")
    assert findings["server"][0] == "warning"
    assert findings["server"][1].startswith(f"nothing answers at 127.0.0.1:{port}: ")
    assert findings["database"][0] == "warning"
    assert findings["price data"][0] in {"ok", "warning"}
    assert {state for state, _ in findings.values()} <= {"ok", "warning"}


def test_doctor_finds_settings_that_do_not_work(
    run: Run, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that are not accepted are problems, and secrets are not repeated."""
    prices = tmp_path / "prices.yaml"
    prices.write_text("prices:\n  - {provider: acme, model: house-model, prices: {per_1m_wishes: 3}}\n")
    for variable, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke", "OTEL_SDK_DISABLED": "true",
        "STAGELIGHT_ID_KEY": "tooshortkey", "STAGELIGHT_SEMCONV": "newest", "STAGELIGHT_PRICES": str(prices),
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)

    findings = findings_of(run, scene)

    assert {about for about, (state, _) in findings.items() if state == "problem"} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "STAGELIGHT_ID_KEY", "STAGELIGHT_SEMCONV",
        "your prices",
    }  # fmt: skip
    assert f"{prices}, line 2" in findings["your prices"][1]
    assert findings["OTEL_SDK_DISABLED"][0] == "warning"
    assert findings["database"][0] == "ok"
    assert "tooshortkey" not in run("doctor", "--source", scene).out


@pytest.mark.parametrize(
    ("protocol", "endpoint", "shown"),
    [
        ("", "bob:S3CRET@127.0.0.1:1", "not a URL (not shown)"),
        ("", "bob:S3CRET@127.0.0.1", "not a URL (not shown)"),
        ("grpc", "bob:S3CRET@127.0.0.1:1", "127.0.0.1:1"),
        ("grpc", "S3CRET@[::1]:1", "[::1]:1"),
        ("", "http://bob:S3CRET@127.0.0.1:1/v1/S3CRET?token=S3CRET#S3CRET", "http://127.0.0.1:1"),
        ("", "http://bob:S3:CRET@127.0.0.1:1", "http://127.0.0.1:1"),
        ("", "http://bob:S3CRET@127.0.0.1:port", "not a URL (not shown)"),
        ("", "https://S3CRET@[::1", "not a URL (not shown)"),
    ],
)
def test_doctor_shows_no_credentials_of_an_address(
    run: Run, scene: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, endpoint: str, shown: str
) -> None:
    """Of an address only scheme, host and port are shown, however it is written."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)

    assert findings_of(run, scene)["OTEL_EXPORTER_OTLP_ENDPOINT"][1] == shown
    for flags in ((), ("--json",)):
        result = run("doctor", "--source", scene, *flags)
        assert "S3CRET" not in result.out + result.err


@pytest.mark.parametrize(
    ("hosts", "state", "shown"),
    [
        ("proxy.example=openai, [::1]:8080=groq", "ok", "proxy.example=openai, [::1]:8080=groq"),
        ("bob:S3CRET@proxy.example:8080=openai", "ok", "proxy.example:8080=openai"),
        ("https://bob:S3CRET@proxy.example/S3CRET=openai", "ok", "proxy.example=openai"),
        ("bob:S3CRET=openai", "ok", "(not shown)=openai"),
        ("bob:S3CRET@proxy.example", "problem",
         "not accepted (not shown); accepted: host=provider pairs separated by commas"),
    ],
)  # fmt: skip
def test_doctor_shows_no_credentials_of_hosts(
    run: Run, scene: Path, monkeypatch: pytest.MonkeyPatch, hosts: str, state: str, shown: str
) -> None:
    """Hosts are shown with their ports and providers, and nothing else of what is written there."""
    monkeypatch.setenv("STAGELIGHT_PROVIDER_HOSTS", hosts)

    assert findings_of(run, scene)["STAGELIGHT_PROVIDER_HOSTS"] == (state, shown)
    assert "S3CRET" not in run("doctor", "--source", scene).out


def test_doctor_finds_variables_without_effect(run: Run, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Misspelt settings and standard variables with impossible values are problems, and say what is accepted."""
    wrong = {
        "STAGELIGHT_SEMCOV": "latest", "OTEL_METRIC_EXPORT_INTERVAL": "15s", "OTEL_BSP_SCHEDULE_DELAY": "0",
        "OTEL_BSP_MAX_QUEUE_SIZE": "-1", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "0.5", "OTEL_BLRP_EXPORT_TIMEOUT": "nan",
        "OTEL_TRACES_SAMPLER": "sometimes",
    }  # fmt: skip
    right = {
        "STAGELIGHT_SOURCE": str(scene), "STAGELIGHT_SERVER_TOKEN": TOKEN, "STAGELIGHT_SEMCONV": "latest",
        "OTEL_METRIC_EXPORT_TIMEOUT": "5000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "64", "STAGELIGHT_TYPO": " ",
    }  # fmt: skip
    for variable, value in {**wrong, **right}.items():
        monkeypatch.setenv(variable, value)

    document = json.loads(run("doctor", "--json", "--source", scene).out)

    assert {item["about"]: (item["found"], item["advice"]) for item in document["findings"]
            if item["state"] == "problem"} == {
        "STAGELIGHT_SEMCOV": ("no setting of this version", "correct or unset it; accepted: STAGELIGHT_SEMCONV"),
        "OTEL_METRIC_EXPORT_INTERVAL": ("'15s' is not accepted", "accepted: a number of milliseconds above 0"),
        "OTEL_BSP_SCHEDULE_DELAY": ("'0' is not accepted", "accepted: a number of milliseconds above 0"),
        "OTEL_BSP_MAX_QUEUE_SIZE": ("'-1' is not accepted", "accepted: a number from 1 on"),
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": ("'0.5' is not accepted", "accepted: a number from 1 on"),
        "OTEL_BLRP_EXPORT_TIMEOUT": ("'nan' is not accepted", "accepted: a number of milliseconds above 0"),
        "OTEL_TRACES_SAMPLER": (
            "'sometimes' is not accepted",
            "accepted: always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, "
            "parentbased_traceidratio, or an installed one",
        ),
    }  # fmt: skip


@pytest.mark.parametrize(("share", "problems"), [("0.1", 0), ("1.5", 1), ("all", 1)])
def test_doctor_reads_the_share_of_a_ratio_sampler(
    run: Run, scene: Path, monkeypatch: pytest.MonkeyPatch, share: str, problems: int
) -> None:
    """The share of traces that are kept is a number from 0 to 1."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)

    found = [item for about, item in findings_of(run, scene).items() if about == "OTEL_TRACES_SAMPLER_ARG"]

    assert found == [("problem", f"'{share}' is not accepted")] * problems


def test_doctor_sees_the_key_of_the_ids(run: Run, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, directly or in a file, is told by its effect and not shown."""
    monkeypatch.setenv("STAGELIGHT_ID_KEY", "0123456789abcdef" * 2)
    assert findings_of(run, scene)["user ids"] == ("ok", "kept as pseudonyms, made with your key")

    key = tmp_path / "key"
    key.write_text("short")
    monkeypatch.delenv("STAGELIGHT_ID_KEY")
    monkeypatch.setenv("STAGELIGHT_ID_KEY_FILE", str(key))
    assert findings_of(run, scene)["user ids"][0] == "problem"


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


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """A price file of a user."""
    path = tmp_path / "prices.yaml"
    path.write_text(
        "prices:\n"
        "  - {provider: acme, model: house-model, prices: {input_per_1m_tokens: 2, output_per_1m_tokens: 8.5}}\n"
    )
    return path


def test_prices_shows_the_price_and_the_arithmetic(run: Run, prices: Path) -> None:
    """Where a price is from, what each unit costs, and one call of it multiplied out."""
    words = ("--input-tokens", "1500", "--output-tokens", "200", "--prices", prices)
    result = run("prices", "house-model", "--provider", "acme", *words)

    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "house-model at acme\n"
        "  exact, from override\n"
        "\n"
        "unit     USD   per\n"
        "input      2   1M tokens\n"
        "output   8.5   1M tokens\n"
        "\n"
        "This call\n"
        "  input: 1,500 x 2 / 1,000,000 = 0.003 USD\n"
        "  output: 200 x 8.5 / 1,000,000 = 0.0017 USD\n"
        "  total 0.0047 USD (exact)\n"
    )


def test_prices_in_json_keeps_amounts_as_text(run: Run, prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a program, with the file named by the environment."""
    monkeypatch.setenv("STAGELIGHT_PRICES", str(prices))
    document = json.loads(run("prices", "house-model", "--provider", "acme", "--input-tokens", "9", "--json").out)

    assert set(document) == {"model", "currency", "rows", "call"}
    assert [(row["provider"], row["status"], row["wins"]) for row in document["rows"]] == [("acme", "exact", True)]
    assert document["call"]["amount"] == "0.000018"
    assert set(document["call"]) == {"amount", "status", "reason", "lines"}


def test_prices_of_an_unknown_model_is_not_zero(run: Run) -> None:
    """No price is said as such, with the next step, and as exit code 1."""
    result = run("prices", "no-such-model", "--provider", "acme", "--characters", "7")

    assert result.status == 1
    assert result.out == (
        "No price is known for 'no-such-model' at 'acme': its calls are unpriced, not free.\n"
        "Put your own price into a YAML file and name it in STAGELIGHT_PRICES: see docs/pricing.md.\n"
    )


def test_prices_says_where_a_price_file_is_wrong(run: Run, tmp_path: Path) -> None:
    """The error of a file names file, line, field and what is accepted."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("prices:\n  - {provider: acme, model: m, prices: {input_per_1m_tokens: cheap}}\n")

    result = run("prices", "m", "--prices", wrong)

    assert (result.status, result.out) == (1, "")
    assert result.err.startswith(f"stagelight: {wrong}, line 2: ")
