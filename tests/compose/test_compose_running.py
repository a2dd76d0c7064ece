"""The shipped compose file, up and healthy: secrets, confinement, networks, ports, tokens."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
from pathlib import Path

import grpc
import pytest
from compose.deployment import Deployment, compose_file
from compose.engine import Engine
from compose.gateway_paths import ALLOWED, REFUSED
from compose.telemetry import send_counter, send_record, stored_texts, stored_total
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from stack.waiting import settled
from stagelight._identity import Pseudonyms

BUSYBOX = compose_file()["services"]["setup"]["image"]


@pytest.fixture(scope="module")
def otlp_token(deployment: Deployment) -> str:
    """The token that applications send with."""
    found = re.search(r"Bearer%20([0-9a-f]{64})'", deployment.setup("env"))
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def gateway_token(deployment: Deployment) -> str:
    """The token that readers show to the gateway."""
    return deployment.setup("gateway-token").strip()


def volume(deployment: Deployment, name: str) -> Path:
    """Where a volume is on this machine."""
    full_name = f"{deployment.project}_{name}"
    return Path(deployment.engine.podman("volume", "inspect", "--format={{.Mountpoint}}", full_name).strip())


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Owner and mode of every file."""
    return {
        path.name: (path.stat().st_uid, oct(stat.S_IMODE(path.stat().st_mode))) for path in sorted(folder.iterdir())
    }


def process(deployment: Deployment, service: str) -> Path:
    """The folder of the service's first process in /proc."""
    return Path("/proc") / str(deployment.engine.inspect(deployment.container(service))["State"]["Pid"])


def answers_from_inside(engine: Engine, network: str, addresses: list[str]) -> dict[str, str]:
    """What a container on a network gets for HTTP requests, or the error message when nobody answers, by address."""
    ask = """
        for address in "$@"; do
          answer=$(timeout 20 wget -O - "http://$address" 2>&1 || echo no answer) && echo "$address" $answer &
        done
        wait
    """
    printed = engine.podman("run", "--rm", f"--network={network}", BUSYBOX, "sh", "-c", ask, "sh", *addresses)
    return dict(line.split(" ", 1) for line in printed.splitlines())


def channel_to(deployment: Deployment) -> grpc.Channel:
    """A channel to the published OTLP/gRPC port."""
    return grpc.insecure_channel(f"127.0.0.1:{deployment.ports['OTLP_GRPC_PORT']}")


def test_every_health_check_turns_green(deployment: Deployment) -> None:
    """What is started is healthy, and set-up has ended well."""
    state = deployment.engine.inspect(deployment.container("setup"))["State"]

    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    assert deployment.health() == dict.fromkeys(deployment.checked, "healthy")


def test_secrets_belong_to_the_one_service_that_uses_them(deployment: Deployment) -> None:
    """One volume per consumer; every file is readable by its owner only."""
    own = "0o400"
    found = {
        name: contents(volume(deployment, name))
        for name in (
            "secrets",
            *(f"{name}-secrets" for name in ("collector", "gateway", "grafana", "alertmanager", "app")),
        )
    }

    found["secrets"].pop("alertmanager.slack_url", None)  # of a test below
    found["alertmanager-secrets"].pop("slack_url", None)

    assert found == {
        "secrets": dict.fromkeys(
            ("gateway_tokens", "grafana_admin_password", "grafana_secret_key", "id_key", "otlp_tokens"), (0, own)
        ),
        "collector-secrets": dict.fromkeys(("id_key", "id_key_id", "otlp_tokens"), (10001, own)),
        "gateway-secrets": {"gateway_tokens": (101, own)},
        "grafana-secrets": dict.fromkeys(("admin_password", "secret_key"), (472, own)),
        "alertmanager-secrets": {},
        "app-secrets": dict.fromkeys(("environment", "gateway_token", "id_key", "otlp_token"), (10002, own)),
    }


def test_the_collector_knows_the_key_id_that_the_package_computes(deployment: Deployment) -> None:
    """Pseudonyms made in the process and in the Collector are the same."""
    folder = volume(deployment, "collector-secrets")

    assert (folder / "id_key_id").read_text() == Pseudonyms((folder / "id_key").read_text()).key_id


def test_a_shell_takes_what_env_prints(deployment: Deployment) -> None:
    """Standard output holds exports and nothing else; the containers' own file differs in the address only."""
    printed = deployment.setup("env")
    inside = (volume(deployment, "app-secrets") / "environment").read_text()
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_HEADERS")
    shown = f'echo "{"|".join(f"${name}" for name in (*names, "STAGELIGHT_ID_KEY"))}"'
    taken = subprocess.run(["sh", "-euc", f"{printed}\n{shown}"], capture_output=True, text=True, check=True).stdout
    token = (volume(deployment, "app-secrets") / "otlp_token").read_text().strip()
    key = (volume(deployment, "app-secrets") / "id_key").read_text()

    address = f"http://127.0.0.1:{deployment.ports['OTLP_HTTP_PORT']}"
    assert taken == f"{address}|http/protobuf|authorization=Bearer%20{token}|{key}\n"
    assert all(line.startswith("export ") for line in printed.splitlines())
    assert inside == printed.replace(address, "http://collector:4318")


def test_a_secret_of_ones_own_is_kept_for_a_service(deployment: Deployment) -> None:
    """Alertmanager's receivers and the Collector's further exporters read theirs like those that set-up makes."""
    said = deployment.store("alertmanager", "slack_url", "https://hooks.example.com/1\n")
    folder = volume(deployment, "alertmanager-secrets")

    assert "Kept as /run/secrets/slack_url of alertmanager" in said
    assert contents(folder) == {"slack_url": (65534, "0o400")}
    assert (folder / "slack_url").read_text() == "https://hooks.example.com/1\n"


def test_nothing_that_runs_is_root_or_can_write_its_root(deployment: Deployment) -> None:
    """Every process: not root, no capability left to gain, no new privileges, a read-only root."""
    declared = compose_file()["services"]
    seen, expected = {}, {}
    for service in deployment.services:
        if service == "setup":
            continue  # the only root, and ended
        folder = process(deployment, service)
        status = dict(re.findall(r"^(\w+):\s+(.*)$", (folder / "status").read_text(), re.MULTILINE))
        mounts = [line.split() for line in (folder / "mounts").read_text().splitlines()]
        [root_options] = [fields[3].split(",") for fields in mounts if fields[1] == "/"]
        seen[service] = (set(status["Uid"].split()), status["CapBnd"], status["NoNewPrivs"], root_options[0])
        expected[service] = ({declared[service]["user"].partition(":")[0]}, "0" * 16, "1", "ro")

    assert seen == expected


def test_memory_and_processes_are_bounded(deployment: Deployment) -> None:
    """The limits of the compose file are those of the containers."""
    declared = compose_file()["services"]
    limits = {}
    for service in deployment.services:
        host = deployment.engine.inspect(deployment.container(service))["HostConfig"]
        limits[service] = (f"{host['Memory'] >> 20}m", host["PidsLimit"])

    assert limits == {name: (declared[name]["mem_limit"], declared[name]["pids_limit"]) for name in deployment.services}


def test_networks_are_separate(deployment: Deployment) -> None:
    """Who is on ingest reaches the Collector and no back end, neither by name nor by address; ui is closed, too."""
    engine, backend = deployment.engine, f"{deployment.project}_backend"
    paths = {"prometheus": ":9090/-/ready", "loki": ":3100/ready", "alertmanager": ":9093/-/ready"}
    networks = {name: engine.inspect(deployment.container(name))["NetworkSettings"]["Networks"] for name in paths}
    names = [name + path for name, path in paths.items()]
    addresses = [networks[name][backend]["IPAddress"] + path for name, path in paths.items()]
    collector = "collector:4318/v1/traces"

    from_ingest = answers_from_inside(engine, f"{deployment.project}-ingest", [collector, *names, *addresses])
    from_ui = answers_from_inside(engine, f"{deployment.project}_ui", [*names, *addresses])
    from_backend = answers_from_inside(engine, backend, [*names, *addresses])

    assert "401 Unauthorized" in from_ingest[collector]
    for answers in (from_ingest, from_ui):
        assert ["bad address" in answers[name] for name in names] == [True] * len(names)
        assert [answers[address].endswith("no answer") for address in addresses] == [True] * len(addresses)
    assert {address for address, answer in from_backend.items() if "no answer" in answer} == set()


def test_only_the_documented_ports_answer(deployment: Deployment) -> None:
    """OTLP twice and the gateway, on this machine only."""
    published = {
        (service, inner, outer["HostIp"], int(outer["HostPort"]))
        for service in deployment.services
        for inner, bound in deployment.engine.inspect(deployment.container(service))["NetworkSettings"]["Ports"].items()
        for outer in bound or ()
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells by which address this machine reaches others
        elsewhere = probe.getsockname()[0]

    ports = deployment.ports
    assert published == {
        ("collector", "4317/tcp", "127.0.0.1", ports["OTLP_GRPC_PORT"]),
        ("collector", "4318/tcp", "127.0.0.1", ports["OTLP_HTTP_PORT"]),
        ("gateway", "8080/tcp", "127.0.0.1", ports["GATEWAY_PORT"]),
    }
    assert elsewhere != "127.0.0.1"
    for *_, port in published:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((elsewhere, port), timeout=3)


@pytest.mark.parametrize("token", [None, "", "0" * 64], ids=["none", "empty", "wrong"])
def test_telemetry_without_the_token_is_refused(deployment: Deployment, token: str | None) -> None:
    """By HTTP and by gRPC."""
    sent = send_record(deployment, "never stored", token=token)
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with channel_to(deployment) as channel, pytest.raises(grpc.RpcError) as refused:
        TraceServiceStub(channel).Export(ExportTraceServiceRequest(), metadata=metadata, timeout=60)

    assert sent.status == 401
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_telemetry_with_the_token_arrives(deployment: Deployment, otlp_token: str, gateway_token: str) -> None:
    """A counter is in Prometheus and a record in Loki, both read through the gateway; what was refused is nowhere."""
    refused = send_record(deployment, "without a token", token=None)
    counted = send_counter(deployment, 42, token=otlp_token)
    recorded = send_record(deployment, "with the token", token=otlp_token)
    with channel_to(deployment) as channel:
        metadata = (("authorization", f"Bearer {otlp_token}"),)
        TraceServiceStub(channel).Export(ExportTraceServiceRequest(), metadata=metadata, timeout=60)

    assert (refused.status, counted.status, recorded.status) == (401, 200, 200)
    assert settled(lambda: stored_total(deployment, token=gateway_token), "42") == "42"
    expected = ["with the token"]
    assert settled(lambda: stored_texts(deployment, token=gateway_token), expected) == expected


def test_the_gateway_answers_queries(deployment: Deployment, gateway_token: str) -> None:
    """Every documented query path answers who shows the token."""
    statuses = {
        f"{method} {path}": deployment.ask("GATEWAY_PORT", path, method=method, token=gateway_token).status
        for method, path in ALLOWED
    }

    assert statuses == dict.fromkeys(statuses, 200)


def test_the_gateway_refuses_everything_else(deployment: Deployment, gateway_token: str) -> None:
    """Writing, deleting, configuration and ways around the list are refused even with the token."""
    statuses = {
        f"{method} {path}": deployment.ask("GATEWAY_PORT", path, method=method, token=gateway_token).status
        for method, path, _ in REFUSED
    }

    assert statuses == {f"{method} {path}": status for method, path, status in REFUSED}


@pytest.mark.parametrize("token", [None, "0" * 64, "otlp"], ids=["none", "wrong", "that of applications"])
def test_the_gateway_asks_for_its_token(deployment: Deployment, otlp_token: str, token: str | None) -> None:
    """Without it, with a wrong one, and with that of applications, which may send but not read."""
    shown = otlp_token if token == "otlp" else token
    statuses = {
        path: deployment.ask("GATEWAY_PORT", path, token=shown).status
        for path in ("/prometheus/api/v1/query?query=up", "/loki/loki/api/v1/labels", "/", "/nowhere")
    }

    assert statuses == dict.fromkeys(statuses, 401)


def test_the_gateway_refuses_large_requests(deployment: Deployment, gateway_token: str) -> None:
    """A form above 64 KB does not reach a back end."""
    answer = deployment.ask(
        "GATEWAY_PORT", "/prometheus/api/v1/query", method="POST", token=gateway_token, body="x" * 70_000
    )

    assert answer.status == 413


def test_the_gateway_says_when_a_back_end_is_away(deployment: Deployment, gateway_token: str) -> None:
    """One back end that is stopped does not take the others with it, and is found again when it is back."""
    path = "/alertmanager/api/v2/alerts"
    deployment.run("stop", "--timeout=5", "alertmanager")
    other = deployment.ask("GATEWAY_PORT", "/prometheus/api/v1/alerts", token=gateway_token)
    away = deployment.ask("GATEWAY_PORT", path, token=gateway_token)
    deployment.run("up", "--detach", "--no-deps", "--force-recreate", "alertmanager")

    assert (away.status, away.body) == (502, "The back end of this path does not answer.\n")
    assert other.status == 200
    assert settled(lambda: deployment.ask("GATEWAY_PORT", path, token=gateway_token).status, 200) == 200


def test_an_erasure_is_asked_for_from_inside(deployment: Deployment) -> None:
    """Loki has the request as it was typed; carrying it out takes minutes."""
    query = '{service_name="compose-test"} |= "order 17" | user_id="a&b"'
    run = ("--profile=erase", "run", "--rm", "erase")
    asked = deployment.run(*run, query, "2026-01-01T00:00:00Z", "1793491200")
    [listed] = json.loads(deployment.run(*run, "list").stdout)

    assert "Asked Loki to delete" in asked.stdout
    assert (listed["query"], listed["start_time"], listed["end_time"]) == (query, 1767225600, 1793491200)


def test_tokens_rotate_without_a_gap(deployment: Deployment) -> None:
    """New tokens are valid beside those before, which end with the next rotation; the Collector needs no restart."""
    first = tokens(deployment)
    deployment.setup("rotate")
    second = tokens(deployment)
    deployment.run("kill", "--signal=HUP", "gateway")
    accepted_once = settled(lambda: accepted(deployment, first, second), [True] * 4)
    deployment.setup("rotate")
    third = tokens(deployment)
    deployment.run("kill", "--signal=HUP", "gateway")
    expected = [False, False, True, True]

    assert len({*first, *second, *third}) == 6
    assert accepted_once == [True] * 4
    assert settled(lambda: accepted(deployment, first, third), expected) == expected
    assert accepted(deployment, second) == [True, True]


def tokens(deployment: Deployment) -> tuple[str, str]:
    """The newest OTLP and gateway tokens."""
    folder = volume(deployment, "app-secrets")
    return (folder / "otlp_token").read_text().strip(), (folder / "gateway_token").read_text().strip()


def accepted(deployment: Deployment, *pairs: tuple[str, str]) -> list[bool]:
    """Whether the Collector takes the first and the gateway the second of each pair."""
    return [
        status == 200
        for otlp, gateway in pairs
        for status in (
            send_counter(deployment, 43, token=otlp).status,
            deployment.ask("GATEWAY_PORT", "/prometheus/api/v1/alerts", token=gateway).status,
        )
    ]
