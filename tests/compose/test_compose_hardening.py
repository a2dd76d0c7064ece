"""The measures of docs/security.md: those that files can show, and that every measure is proved or has its reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from compose.deployment import COMPOSE_FILE, compose_file
from stack.programs import ROOT

FILE = compose_file()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
GRAFANA: dict[str, str] = SERVICES["grafana"]["environment"]
ONE_SHOT = {"setup", "erase"}


class Measure(NamedTuple):
    """A row of the table in docs/security.md."""

    name: str
    state: str
    reason: str
    proofs: list[str]


def measures() -> list[Measure]:
    """The table of docs/security.md."""
    text = (ROOT / "docs" / "security.md").read_text()
    table = text.partition("<!-- measures:")[2].partition("<!-- end -->")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    return [Measure(name.strip(), state, reason, re.findall(r"`(\w+)`", proof)) for name, state, reason, proof in rows]


def configuration(*parts: str) -> Any:
    """A configuration file of the checkout."""
    return yaml.safe_load(ROOT.joinpath(*parts).read_text())


def switches(*names: str) -> dict[str, str]:
    """Settings of Grafana by name."""
    return {name: GRAFANA[name] for name in names}


def test_every_measure_is_proved_or_has_a_reason() -> None:
    """A measure that is done names tests that exist; one that is not says why, and claims no proof."""
    files = (ROOT / "tests").rglob("test_*.py")
    tests = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    found = measures()

    assert len(found) > 30
    assert {measure.state for measure in found} == {"done", "not done"}
    assert [measure.name for measure in found if measure.state == "done" and not measure.proofs] == []
    assert [proof for measure in found for proof in measure.proofs if proof not in tests] == []
    assert [
        measure.name
        for measure in found
        if measure.state == "not done" and (measure.proofs or len(measure.reason.split()) < 8)
    ] == []


def test_every_service_is_confined() -> None:
    """Read-only root, no capabilities, no new privileges, bounded log; restarted unless it runs once."""
    seen = {
        name: (
            service["read_only"],
            service["cap_drop"],
            service["security_opt"],
            service["logging"],
            service.get("restart"),
        )
        for name, service in SERVICES.items()
    }
    log = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}

    assert seen == {
        name: (True, ["ALL"], ["no-new-privileges:true"], log, None if name in ONE_SHOT else "unless-stopped")
        for name in SERVICES
    }
    forbidden = {"privileged", "devices", "pid", "ipc", "userns_mode", "extra_hosts", "secrets", "env_file"}
    assert {name: keys for name, service in SERVICES.items() if (keys := forbidden & set(service))} == {}


def test_only_set_up_is_root() -> None:
    """With the two capabilities that handing over needs, and without network; all others are numbered users."""
    root = {name for name, service in SERVICES.items() if re.match(r"0(:|$)", service["user"])}
    capable = {name: service["cap_add"] for name, service in SERVICES.items() if "cap_add" in service}
    without_network = {name for name, service in SERVICES.items() if service.get("network_mode") == "none"}

    assert root == without_network == {"setup"}
    assert capable == {"setup": ["CHOWN", "DAC_OVERRIDE"]}
    assert SERVICES["setup"].get("restart") is None
    assert [name for name, service in SERVICES.items() if not re.fullmatch(r"\d+:\d+", service["user"])] == []


def test_limits_add_up_to_four_gigabytes() -> None:
    """Also with the demo and with erase, and every service has a limit of processes."""
    assert sum(int(service["mem_limit"].removesuffix("m")) for service in SERVICES.values()) <= 4096
    assert [name for name, service in SERVICES.items() if not 16 <= service["pids_limit"] <= 128] == []


def test_images_are_exact_and_named_once() -> None:
    """A version in full, never a moving tag; every image stands in one place."""
    images: dict[str, str] = FILE["x-images"]
    text = COMPOSE_FILE.read_text()
    used = {service["image"] for service in SERVICES.values()}

    assert [image for image in images.values() if not re.search(r":v?\d+\.\d+\.\d+(-[a-z-]+)?$", image)] == []
    assert {image: text.count(image) for image in images.values()} == dict.fromkeys(images.values(), 1)
    assert used - set(images.values()) == {"stagelight-demo:checkout"}
    assert SERVICES["app"]["build"]["args"] == {"PYTHON": images["python"]}
    assert "latest" not in text
    dockerfile = (ROOT / SERVICES["app"]["build"]["dockerfile"]).read_text()
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON}"}


def test_only_the_documented_ports_are_published() -> None:
    """On the address that BIND names, which is this machine unless it is set."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {
        "collector": [
            "${BIND:-127.0.0.1}:${OTLP_GRPC_PORT:-4317}:4317",
            "${BIND:-127.0.0.1}:${OTLP_HTTP_PORT:-4318}:4318",
        ],
        "grafana": ["${BIND:-127.0.0.1}:${GRAFANA_PORT:-3000}:3000"],
        "gateway": ["${BIND:-127.0.0.1}:${GATEWAY_PORT:-8080}:8080"],
    }


def test_every_service_is_on_its_networks_only() -> None:
    """Back ends are on backend alone; who is seen from outside bridges two networks."""
    assert {name: service.get("networks") for name, service in SERVICES.items()} == {
        "setup": None,
        "collector": ["ingest", "backend"],
        "collector-health": ["backend"],
        "prometheus": ["backend"],
        "loki": ["backend"],
        "tempo": ["backend"],
        "alertmanager": ["backend", "egress"],
        "grafana": ["backend", "ui"],
        "gateway": ["backend", "ui"],
        "erase": ["backend"],
        "sim": ["demo"],
        "app": ["demo", "ingest"],
        "visitors": ["demo"],
    }


def test_only_alertmanager_has_a_way_out() -> None:
    """Every network but egress is internal or has no address translation."""
    closed = {"com.docker.network.bridge.enable_ip_masquerade": "false"}

    assert FILE["networks"] == {
        "ingest": {"name": "${COMPOSE_PROJECT_NAME:-stagelight}-ingest", "attachable": True, "driver_opts": closed},
        "backend": {"internal": True},
        "ui": {"driver_opts": closed},
        "egress": {},
        "demo": {"internal": True},
    }
    assert [name for name, service in SERVICES.items() if "egress" in service.get("networks", ())] == ["alertmanager"]


def test_only_configuration_is_mounted_and_cannot_be_written() -> None:
    """Folders of the checkout, read-only; secrets read-only except for set-up; no socket, no other path."""
    mounts = [(name, *entry.split(":")) for name, service in SERVICES.items() for entry in service.get("volumes", ())]
    from_machine = {(name, source) for name, source, *_ in mounts if not re.fullmatch(r"[a-z-]+", source)}
    writable = {(name, source) for name, source, _, *mode in mounts if mode != ["ro"] and name != "setup"}

    assert {source for _, source in from_machine if not source.startswith("./")} == set()
    assert not [mount for mount in mounts if (mount[0], mount[1]) in from_machine and mount[3:] != ("ro",)]
    assert writable == {
        ("collector-health", "collector-data"),  # it sets corrupt queue files aside
        *((name, f"{name}-data") for name in ("collector", "prometheus", "loki", "tempo", "alertmanager", "grafana")),
    }


def test_every_secret_has_one_consumer() -> None:
    """Besides set-up; and no variable holds what is secret."""
    consumers: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        for entry in service.get("volumes", ()):
            if "secrets" in entry.split(":")[0] and name != "setup":
                consumers.setdefault(entry, []).append(name)
    variables = {
        f"{service}.{name}": value
        for service, fields in SERVICES.items()
        for name, value in fields.get("environment", {}).items()
        if re.search(r"PASSWORD|SECRET|TOKEN|KEY", name) and value not in {"true", "false"}
    }

    assert consumers == {
        f"{name}-secrets:/run/secrets:ro": [name] for name in ("collector", "alertmanager", "grafana", "gateway", "app")
    }
    assert variables == {
        "grafana.GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/admin_password",
        "grafana.GF_SECURITY_SECRET_KEY__FILE": "/run/secrets/secret_key",
        "app.OPENAI_API_KEY": "simulated",
    }


def test_every_service_has_a_health_check() -> None:
    """Except those that run once, the Collector, which another asks, and the visitors, who serve nothing."""
    without = {name for name, service in SERVICES.items() if "test" not in service.get("healthcheck", {})}
    waited_for = {
        other: condition["condition"]
        for service in SERVICES.values()
        for other, condition in service.get("depends_on", {}).items()
    }

    assert without == {*ONE_SHOT, "collector", "visitors"}
    assert SERVICES["collector-health"]["depends_on"] == {"collector": {"condition": "service_started"}}
    assert waited_for == {
        "setup": "service_completed_successfully",
        "collector": "service_started",
        "collector-health": "service_healthy",
        "prometheus": "service_healthy",
        "loki": "service_healthy",
        "tempo": "service_healthy",
        "sim": "service_healthy",
        "app": "service_healthy",
    }


def test_grafana_is_closed() -> None:
    """Login only, with a password that was made here; nothing can be shared, embedded or installed."""
    expected = {
        "GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/admin_password",
        "GF_SECURITY_SECRET_KEY__FILE": "/run/secrets/secret_key",
        "GF_SECURITY_COOKIE_SAMESITE": "strict",
        "GF_SECURITY_CONTENT_SECURITY_POLICY": "true",
        "GF_SECURITY_ALLOW_EMBEDDING": "false",
        "GF_AUTH_ANONYMOUS_ENABLED": "false",
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_PUBLIC_DASHBOARDS_ENABLED": "false",
        "GF_SNAPSHOTS_ENABLED": "false",
        "GF_METRICS_ENABLED": "false",
        "GF_PLUGINS_PLUGIN_ADMIN_ENABLED": "false",
    }

    assert switches(*expected) == expected


def test_nothing_phones_home() -> None:
    """No analytics, update check, news, picture of a person or download by Grafana; no reports by Loki and Tempo."""
    off = (
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "GF_ANALYTICS_FEEDBACK_LINKS_ENABLED",
        "GF_NEWS_NEWS_FEED_ENABLED",
        "GF_PLUGINS_PREINSTALL_AUTO_UPDATE",
    )
    disabled = (
        "GF_PLUGINS_PREINSTALL_DISABLED",
        "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED",
        "GF_SECURITY_DISABLE_GRAVATAR",
    )

    assert switches(*off) == dict.fromkeys(off, "false")
    assert switches(*disabled) == dict.fromkeys(disabled, "true")
    assert configuration("loki", "loki.yaml")["analytics"] == {"reporting_enabled": False}
    assert configuration("tempo", "tempo.yaml")["usage_report"] == {"reporting_enabled": False}


def test_prometheus_is_closed() -> None:
    """No lifecycle or administration API; no page of another origin may ask."""
    command = SERVICES["prometheus"]["command"]

    assert "--web.cors.origin=none" in command
    (samples,) = (int(flag.partition("=")[2]) for flag in command if flag.startswith("--query.max-samples="))
    memory = int(SERVICES["prometheus"]["mem_limit"].removesuffix("m")) * 2**20
    assert samples * 16 < memory / 2, "no query, of 16 bytes a sample, ends the service"
    assert [flag for flag in command if re.search(r"lifecycle|admin-api", flag)] == []


def test_the_stores_are_closed() -> None:
    """Rules are files, overrides are the configuration's, and Tempo answers no agents."""
    loki, tempo = configuration("loki", "loki.yaml"), configuration("tempo", "tempo.yaml")

    assert loki["ruler"]["enable_api"] is False
    assert "user_configurable_overrides" not in tempo["overrides"]
    assert "mcp_server" not in tempo.get("query_frontend", {})


def test_the_collector_is_closed() -> None:
    """Both receivers ask for the token and bound what they read; browsers, profilers and debug pages have no way in."""
    collector = configuration("collector", "collector.yaml")
    protocols = collector["receivers"]["otlp"]["protocols"]

    assert set(collector["receivers"]) == {"otlp"}
    assert {name: fields["auth"] for name, fields in protocols.items()} == {
        "grpc": {"authenticator": "bearertokenauth"},
        "http": {"authenticator": "bearertokenauth"},
    }
    assert protocols["grpc"]["max_recv_msg_size_mib"] <= 32
    assert protocols["http"]["max_request_body_size"] <= 32 << 20
    assert "cors" not in protocols["http"]
    assert set(collector["service"]["extensions"]) == {"health_check", "bearertokenauth", "file_storage"}


def test_the_collector_lets_no_content_through_unless_asked() -> None:
    """The switch is off by default in the compose file; tests/stack shows what it does."""
    assert SERVICES["collector"]["environment"]["STAGELIGHT_COLLECTOR_CONTENT"] == (
        "${STAGELIGHT_COLLECTOR_CONTENT:-off}"
    )


def test_a_filling_disk_is_an_alert() -> None:
    """With a runbook."""
    files = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
    alerts = {
        rule["alert"]
        for file in files
        for group in configuration(*file.relative_to(ROOT).parts)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }

    assert "DiskFilling" in alerts
    assert (ROOT / "prometheus" / "runbooks" / "DiskFilling.md").is_file()


def test_the_documentation_covers_running_the_stack() -> None:
    """Every verb of set-up is explained, and so are upgrade, backup and erasing; links to sections lead somewhere."""
    text = (ROOT / "docs" / "stack.md").read_text()
    verbs = re.findall(r"^#   setup ([a-z-]+)", (ROOT / "deploy/compose/setup/setup.sh").read_text(), re.MULTILINE)
    sections = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    linked = re.findall(r"\(stack\.md#([a-z-]+)\)", Path(ROOT / "docs" / "security.md").read_text())

    assert [verb for verb in verbs if verb != "create" and f"setup {verb}" not in text] == []
    assert {"start", "back-up-and-restore", "upgrade", "rotate-secrets", "erase-log-records"} <= sections
    assert [section for section in linked if section not in sections] == []
