"""Doctor looks at settings, server and database, and shows no secret of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stack.substitution import free_port

from .conftest import Run

pytestmark = pytest.mark.usefixtures("bare_environment")

TOKEN = "not-a-secret-0123456789"


def findings_of(run: Run, source: Path) -> dict[str, tuple[str, str]]:
    """What doctor found, by what it is about."""
    result = run("doctor", "--json", "--source", source)
    findings: list[dict[str, Any]] = json.loads(result.out)["findings"]
    assert all(set(finding) == {"about", "state", "found", "advice"} for finding in findings)
    assert result.status == (1 if any(finding["state"] == "problem" for finding in findings) else 0)
    return {finding["about"]: (finding["state"], finding["found"]) for finding in findings}


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
