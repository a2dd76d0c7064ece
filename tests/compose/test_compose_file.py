"""What the compose file says, read without an engine: every profile is valid, every name in it means something."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from compose.deployment import COMPOSE_FILE, compose_file
from stack.programs import ROOT, program

SERVICES = compose_file()["services"]
SETUP = (ROOT / "deploy" / "compose" / "setup" / "setup.sh").read_text()
FLOW = [
    *("setup", "collector", "collector-health", "prometheus", "loki", "tempo", "alertmanager", "grafana", "gateway"),
    *("erase", "sim", "app", "visitors"),
]
VARIABLES = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")
DOCUMENTED = re.compile(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| ", re.MULTILINE)


@pytest.mark.parametrize("profile", ["", "demo", "erase", "*"])
def test_compose_accepts_every_profile(profile: str) -> None:
    """Docker compose itself finds no fault with the file, with nothing in the environment and no .env."""
    command = [program("docker-compose"), f"--file={COMPOSE_FILE}", f"--profile={profile}", "config", "--quiet"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"HOME": "/nonexistent"}, timeout=60, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_services_are_in_flow_order() -> None:
    """A reader meets them in the order in which telemetry does."""
    assert list(SERVICES) == FLOW


def test_every_variable_has_a_default_and_is_documented() -> None:
    """Nothing must be set, and docs/stack.md has the same defaults."""
    text = COMPOSE_FILE.read_text()
    used = dict(VARIABLES.findall(text))
    documented = dict(DOCUMENTED.findall((ROOT / "docs" / "stack.md").read_text()))

    assert text.count("${") == len(VARIABLES.findall(text))
    assert documented == used


def test_everything_that_is_mounted_exists() -> None:
    """Folders, so that a saved file is seen; files of the command line are in them."""
    for name, service in SERVICES.items():
        for entry in service.get("volumes", ()):
            source, target, *_ = entry.split(":")
            if not source.startswith("."):
                continue
            assert (ROOT / source).is_dir(), f"{name}: {source}"
            words = [*service.get("entrypoint", ()), *service.get("command", ())]
            files = [word.rpartition("=")[2] for word in words if target in word]
            for file in files:
                named = VARIABLES.sub(lambda variable: variable[2], file)
                assert (ROOT / source / Path(named).relative_to(target)).is_file(), f"{name}: {named}"


def test_set_up_and_services_agree_on_users() -> None:
    """Who a volume is handed to is who the service runs as."""
    handed_to = dict(re.findall(r"^([A-Z]+)=(\d+)$", SETUP, re.MULTILINE))

    assert {name: f"{uid}:{uid}" for name, uid in handed_to.items()} == {
        name.upper(): SERVICES[name]["user"] for name in map(str.lower, handed_to)
    }


def test_every_volume_is_handed_over_and_backed_up() -> None:
    """Set-up mounts every volume of the file, and its data folders are those that it hands over."""
    mounted = [entry.split(":")[:2] for entry in SERVICES["setup"]["volumes"] if not entry.startswith(".")]
    data = sorted(target for name, target in mounted if name.endswith("-data"))

    assert sorted(name for name, _ in mounted) == sorted(compose_file()["volumes"])
    assert sorted(re.findall(r'"\$1" \$[A-Z]+ (/data/\w+)', SETUP)) == data


def test_the_collector_gets_the_variables_that_its_files_read() -> None:
    """What the shipped configuration reads from the environment is in the compose file; examples name their own."""
    files = sorted((ROOT / "collector").glob("*.yaml"))
    read = {name for file in files for name in re.findall(r"\$\{env:(\w+)", file.read_text())}

    assert files
    assert read <= set(SERVICES["collector"]["environment"])


def test_the_documented_override_adds_an_example_and_a_way_out() -> None:
    """The command in docs/stack.md is that of the compose file and one file more, with the variables that it reads."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "stack.md").read_text(), re.DOTALL)
    [override] = [block for block in map(yaml.safe_load, blocks) if "collector" in block["services"]]
    collector = override["services"]["collector"]
    *command, example = collector["command"]
    read = re.findall(
        r"\$\{env:(\w+)", (ROOT / "collector" / Path(example).relative_to("--config=/etc/otelcol")).read_text()
    )

    assert command == SERVICES["collector"]["command"]
    assert set(collector["environment"]) == set(read)
    assert collector["networks"] == ["egress"]


def test_go_programs_know_their_memory() -> None:
    """The soft limit of the garbage collector is 80 to 85 % of the container's memory."""
    limits = {
        name: (
            int(service["environment"]["GOMEMLIMIT"].removesuffix("MiB")),
            int(service["mem_limit"].removesuffix("m")),
        )
        for name, service in SERVICES.items()
        if "GOMEMLIMIT" in service.get("environment", {})
    }

    assert set(limits) == {"collector", "loki", "tempo", "alertmanager"}
    assert [name for name, (soft, hard) in limits.items() if not 0.8 <= soft / hard <= 0.85] == []


def test_health_checks_have_no_blanks_in_words() -> None:
    """Podman's health checks split the words of a command again at blanks."""
    checks = {name: service.get("healthcheck", {}).get("test", []) for name, service in SERVICES.items()}

    assert sum(map(bool, checks.values())) > 5
    assert [(name, word) for name, words in checks.items() for word in words if " " in word] == []


def test_the_demo_is_built_from_what_the_build_context_lets_in() -> None:
    """What the Dockerfile copies is not ignored, and exists."""
    build = SERVICES["app"]["build"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / build["dockerfile"]).read_text(), re.MULTILINE)
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]

    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(source == name or source.startswith(f"{name}/") for name in let_in), source


def datasources() -> list[dict[str, object]]:
    """Grafana's data sources as provisioned."""
    file = ROOT / "grafana" / "provisioning" / "datasources" / "stack.yml"
    return yaml.safe_load(file.read_text())["datasources"]  # type: ignore[no-any-return]


def test_grafana_asks_services_that_exist() -> None:
    """Fixed uids, addresses of services on a network that they share, and nothing that the browser may change."""
    seen = {source["uid"]: (source["type"], source["url"], source["editable"]) for source in datasources()}

    assert seen == {
        "prometheus": ("prometheus", "http://prometheus:9090", False),
        "loki": ("loki", "http://loki:3100", False),
        "tempo": ("tempo", "http://tempo:3200", False),
        "alertmanager": ("alertmanager", "http://alertmanager:9093", False),
    }
    assert all("backend" in SERVICES[name]["networks"] for name in ("grafana", *seen))


def test_every_jump_in_grafana_leads_somewhere() -> None:
    """From exemplars and log records to traces, from spans to log records and metrics, and the service graph."""
    data = {source["uid"]: source["jsonData"] for source in datasources()}
    [exemplar] = data["prometheus"]["exemplarTraceIdDestinations"]
    [record] = data["loki"]["derivedFields"]
    logs, metrics = data["tempo"]["tracesToLogsV2"], data["tempo"]["tracesToMetrics"]

    assert (exemplar["name"], exemplar["datasourceUid"]) == ("trace_id", "tempo")
    assert (record["matcherType"], record["matcherRegex"], record["datasourceUid"]) == ("label", "trace_id", "tempo")
    assert (logs["datasourceUid"], logs["query"]) == ("loki", '{$${__tags}} | trace_id="$${__span.traceId}"')
    assert metrics["datasourceUid"] == data["tempo"]["serviceMap"]["datasourceUid"] == "prometheus"
    assert [query["query"].count("$$__tags") for query in metrics["queries"]] == [1, 1]
    uids = set(re.findall(r"(?:datasourceUid|alertmanagerUid): (\w+)", yaml.safe_dump(data)))
    assert uids == {"prometheus", "loki", "tempo", "alertmanager"}


def test_grafana_sees_no_lone_dollar() -> None:
    """Grafana replaces what follows a single dollar by a variable of its environment."""
    text = (ROOT / "grafana" / "provisioning" / "datasources" / "stack.yml").read_text()
    without_comments = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)

    assert "$$" in without_comments
    assert "$" not in without_comments.replace("$$", "")
