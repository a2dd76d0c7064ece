"""The way out for the one alert that always fires, with the real Prometheus and Alertmanager."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from stack.native import Stack
from stack.programs import ROOT, program
from stack.waiting import eventually


@contextmanager
def called() -> Iterator[tuple[str, list[Any]]]:
    """A service outside: its URL, and what it is called with."""
    calls: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/switch", calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_service_outside_is_called_while_prometheus_works(tmp_path: Path) -> None:
    """With the comment signs removed and the URL stored, nothing but Watchdog is passed on, again and again."""
    stack = Stack(tmp_path, ["prometheus", "alertmanager"])
    prometheus = stack.path("prometheus", "/etc/prometheus/prometheus.yml")
    prometheus.write_text(
        prometheus.read_text().replace("interval: 15s", "interval: 1s").replace("out: 10s", "out: 1s")
    )
    alertmanager = stack.path("alertmanager", "/etc/alertmanager/alertmanager.yml")
    switched = re.sub(
        r"^( +)# (webhook_configs:|  - url_file: .*switch_url|    send_.*)$",
        r"\1\2",
        alertmanager.read_text(),
        flags=re.MULTILINE,
    )
    alertmanager.write_text(re.sub(r"(group|repeat)_interval: 1m", r"\1_interval: 1s", switched))
    with called() as (url, calls):
        (stack.path("alertmanager", "/run/secrets") / "dead_mans_switch_url").write_text(url)
        with stack:
            eventually(lambda: len(calls), lambda times: times >= 3)

    assert {alert["labels"]["alertname"] for call in calls for alert in call["alerts"]} == {"Watchdog"}
    assert {(call["receiver"], call["status"]) for call in calls} == {("dead-mans-switch", "firing")}


def test_the_examples_of_receivers_are_valid(tmp_path: Path) -> None:
    """Without their comment signs, all receivers of the shipped file pass Alertmanager's own check."""
    shipped = (ROOT / "prometheus" / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    head, _, receivers = shipped.partition("\nreceivers:\n")
    examples = re.sub(r"(?m)^( +)# (?=( |- )*[a-z_]+:)", r"\1", receivers)
    head = head.replace("# - match", "- match").replace("#   receiver", "  receiver")
    file = tmp_path / "alertmanager.yml"
    file.write_text(f"{head}\nreceivers:\n{examples}", encoding="utf-8")
    names = [receiver["name"] for receiver in yaml.safe_load(file.read_text())["receivers"]]
    checked = subprocess.run(
        [program("amtool"), "check-config", file], check=False, capture_output=True, text=True, timeout=60
    )

    assert names == ["nobody", "dead-mans-switch", "chat", "on-call", "mail", "own-service"]
    assert (checked.returncode, checked.stderr) == (0, "")
