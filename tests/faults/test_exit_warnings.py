"""The end of a process says nothing of ours, also where Python tells of everything that was left open."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from otlp_receiver import environment

LIMIT_S = 60

WORK = """
import stagelight

stagelight.configure()
for _ in range(2):
    with stagelight.llm(provider="acme", model="m") as call:
        call.usage(input_tokens=1)
    stagelight.flush(30)
with stagelight.llm(provider="acme", model="m"):
    pass
"""


@contextmanager
def keeping_connections() -> Iterator[str]:
    """Endpoint of a server that answers everything and keeps its connections open, as Collectors do."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(LIMIT_S)
        server.server_close()


def test_no_connection_is_left_open_at_exit() -> None:
    """Under ``-X dev -W error`` a process that exported before and at its end writes nothing to its standard error."""
    with keeping_connections() as endpoint:
        ended = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", WORK],
            env=environment(endpoint),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (0, "")
