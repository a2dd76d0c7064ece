"""What was answered with success survives: kills, stops, restarts; and ports are never shared."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import grpc
import pytest
from receiving import PATIENCE_S, PROTOBUF, TOKEN, ask, options, post, rows, spans, stored
from stack.waiting import eventually
from stagelight.embedded.background import EmbeddedServer, ServerProcess, options_from_json, options_to_json
from stagelight.embedded.options import Addresses, InvalidOptions, Limits, PortInUse
from stagelight.embedded.retention import Retention
from stagelight.embedded.store import StoreError

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Senders:
    """Threads that post spans without pause, over HTTP and gRPC, and remember what was answered with success."""

    def __init__(self, addresses: Addresses, connections: int = 2) -> None:
        self.acknowledged: list[bytes] = []
        self._addresses = addresses
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=send) for send in (self._over_http, self._over_grpc) for _ in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, requests: int) -> None:
        """Return when that many requests were answered; fails after a minute."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.acknowledged) < requests:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.005)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _over_http(self) -> None:
        connection = HTTPConnection(self._addresses.host, self._addresses.http_port, timeout=PATIENCE_S)
        with suppress(OSError, HTTPException):
            while not self._stop.is_set():
                request = spans(20)
                connection.request("POST", "/v1/traces", request.SerializeToString(), {"content-type": PROTOBUF})
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    self.acknowledged.append(request.resource_spans[0].scope_spans[0].spans[0].trace_id)
        connection.close()

    def _over_grpc(self) -> None:
        with grpc.insecure_channel(f"{self._addresses.host}:{self._addresses.grpc_port}") as channel:
            call = channel.unary_unary(TRACES)
            with suppress(grpc.RpcError):
                while not self._stop.is_set():
                    request = spans(20)
                    call(request.SerializeToString(), timeout=PATIENCE_S)
                    self.acknowledged.append(request.resource_spans[0].scope_spans[0].spans[0].trace_id)


def complete_traces(folder: Path) -> set[bytes]:
    """Traces of which all 20 spans are in the store."""
    found = rows(folder, "SELECT trace_id FROM spans GROUP BY trace_id HAVING count(*) = 20")
    return {trace_id for (trace_id,) in found}


def test_kill(tmp_path: Path) -> None:
    """After kill -9 under load everything that was answered is there; the next server opens the file and goes on."""
    acknowledged: set[bytes] = set()
    for _ in range(3):
        server = ServerProcess(options(tmp_path))
        senders = Senders(server.start())
        senders.wait_for(60)
        os.kill(server.pid, signal.SIGKILL)
        senders.stop()
        status = server.stop()
        acknowledged |= set(senders.acknowledged)

        assert status == -signal.SIGKILL
        assert acknowledged <= complete_traces(tmp_path)
    assert rows(tmp_path, "PRAGMA quick_check") == [("ok",)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_orderly_stop(number: signal.Signals, tmp_path: Path) -> None:
    """On SIGTERM or SIGINT under load all that was answered is stored, the write-ahead log is empty, the status 0."""
    server = ServerProcess(options(tmp_path))
    senders = Senders(server.start())
    senders.wait_for(60)
    began = time.monotonic()
    os.kill(server.pid, number)
    senders.stop()
    status = server.stop()
    took_s = time.monotonic() - began

    assert (status, took_s < PATIENCE_S) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]
    assert set(senders.acknowledged) <= complete_traces(tmp_path)


def test_stop_waits_for_a_request_under_way(tmp_path: Path) -> None:
    """A request whose body is still arriving when the server is told to stop is committed and answered."""
    body = spans(20).SerializeToString()
    server = ServerProcess(options(tmp_path, limits=Limits(grace_s=PATIENCE_S)))
    addresses = server.start()
    with socket.create_connection((addresses.host, addresses.http_port), timeout=PATIENCE_S) as connection:
        head = f"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {len(body)}"
        connection.sendall(head.encode() + b"\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body[:100])
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: is_refused(addresses), bool)
        connection.sendall(body[100:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert server.stop() == 0
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert stored(tmp_path) == {"spans": 20}


def is_refused(addresses: Addresses) -> bool:
    """Whether nobody listens there any more."""
    try:
        socket.create_connection((addresses.host, addresses.http_port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_bombs_do_not_fill_the_memory(tmp_path: Path) -> None:
    """A gzip bomb of 6 GB and an oversized plain body are refused within a bounded memory; good requests go on."""
    bomb = gzip.compress(b"\0" * (64 << 20)) * 100
    with ServerProcess(options(tmp_path)) as server:
        before_kib = peak_kib(server.pid)
        refused = [
            post(server.addresses, "/v1/traces", bomb, content_encoding="gzip").status,
            post(server.addresses, "/v1/traces", b"\n" * (25 << 20)).status,
        ]
        began = time.monotonic()
        accepted = post(server.addresses, "/v1/traces", spans().SerializeToString()).status
        took_s = time.monotonic() - began
        grown_mib = (peak_kib(server.pid) - before_kib) / 1024

    assert (refused, accepted) == ([413, 413], 200)
    assert took_s < PATIENCE_S
    assert grown_mib < 100  # the cap is 64 MiB; a buffer that grows may be copied


def peak_kib(pid: int) -> int:
    """The most memory that a process has had, KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_restart_keeps_data(tmp_path: Path) -> None:
    """A new server on the same file adds to what is there."""
    for _ in range(2):
        with EmbeddedServer(options(tmp_path)) as server:
            assert post(server.addresses, "/v1/traces", spans(5).SerializeToString()).status == 200

    assert stored(tmp_path) == {"spans": 10}


def test_file_is_private(tmp_path: Path) -> None:
    """The database and what SQLite puts beside it can be read by their owner only."""
    with EmbeddedServer(options(tmp_path / "made" / "here")) as server:
        post(server.addresses, "/v1/traces", spans().SerializeToString())
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "made" / "here").iterdir()}

    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


@pytest.mark.parametrize("kind", [EmbeddedServer, ServerProcess])
@pytest.mark.parametrize(("option", "protocol"), [("http_port", "HTTP"), ("grpc_port", "gRPC")])
def test_port_in_use(kind: type[EmbeddedServer], option: str, protocol: str, tmp_path: Path) -> None:
    """A second server on a port of the first fails at once with the port; the first goes on; no file was touched."""
    second = tmp_path / "second"
    with EmbeddedServer(options(tmp_path)) as server:
        port = getattr(server.addresses, option)
        with pytest.raises(PortInUse) as refused:
            kind(options(second, **{option: port})).start()
        still = post(server.addresses, "/v1/traces", spans().SerializeToString()).status

    assert (refused.value.port, refused.value.host, refused.value.protocol) == (port, "127.0.0.1", protocol)
    assert str(port) in str(refused.value)
    assert (still, second.exists()) == (200, False)


def test_port_taken_by_another_program(tmp_path: Path) -> None:
    """A port that any other program listens on is recognised, for both protocols."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for option in ("http_port", "grpc_port"):
            with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1"):
                EmbeddedServer(options(tmp_path, **{option: port})).start()


@pytest.mark.parametrize("kind", [EmbeddedServer, ServerProcess])
def test_unusable_file(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    """A file that is no database is a clear error, and stays as it is."""
    (tmp_path / "store.db").write_text("my notes, not a database " * 100)
    with pytest.raises(StoreError, match=r"store\.db is not a database"):
        kind(options(tmp_path)).start()

    assert (tmp_path / "store.db").read_text().startswith("my notes")


@pytest.mark.parametrize(
    ("host", "reason"), [("192.0.2.1", "cannot listen there"), ("no-such-host.invalid", "is not an address")]
)
def test_address_of_another_machine(host: str, reason: str, tmp_path: Path) -> None:
    """An address that this machine does not have is a clear error."""
    with pytest.raises(InvalidOptions, match=reason):
        EmbeddedServer(options(tmp_path, host=host, allow_remote=True, token=TOKEN)).start()


def test_ipv6(tmp_path: Path) -> None:
    """On ``::1`` both protocols are served."""
    if not socket.has_ipv6:
        pytest.skip("Python was built without IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with EmbeddedServer(options(tmp_path, host="::1")) as server:
        accepted = post(server.addresses, "/v1/traces", spans().SerializeToString()).status
        with grpc.insecure_channel(f"[::1]:{server.addresses.grpc_port}") as channel:
            channel.unary_unary(TRACES)(spans().SerializeToString(), timeout=PATIENCE_S)

    assert (accepted, stored(tmp_path)) == (200, {"spans": 2})


def test_remote_server_needs_the_token(tmp_path: Path) -> None:
    """Reachable from other machines, nothing but health is answered without the token, in both protocols."""
    everywhere = options(tmp_path, host="0.0.0.0", allow_remote=True, token=TOKEN)  # noqa: S104 - that is the case
    with EmbeddedServer(everywhere) as server:
        reached = Addresses("127.0.0.1", server.addresses.http_port, server.addresses.grpc_port, tmp_path)
        statuses = [ask(reached, path).status for path in ("/", "/v1/traces", "/anything", "/healthz")]
        posted = post(reached, "/v1/traces", spans().SerializeToString()).status
        with grpc.insecure_channel(f"127.0.0.1:{reached.grpc_port}") as channel, pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary(TRACES)(b"", timeout=PATIENCE_S)

    assert (statuses, posted) == ([401, 401, 401, 200], 401)
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_server_ends_with_its_parent(tmp_path: Path) -> None:
    """When the program that started the server process is killed, the server ends by itself."""
    code = (
        "import sys, time\n"
        "from stagelight.embedded.background import ServerProcess, options_from_json\n"
        "server = ServerProcess(options_from_json(sys.argv[1]))\n"
        "print(server.start().http_port, server.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, options_to_json(options(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port, pid = (int(word) for word in parent.stdout.readline().split())
        parent.kill()

    eventually(lambda: is_refused(Addresses("127.0.0.1", port, 0, tmp_path)), bool)
    assert pid > 0


def test_options_as_json(tmp_path: Path) -> None:
    """All options reach a server process unchanged."""
    given = options(
        tmp_path,
        token=TOKEN,
        allowed_hosts=("a.test", "b.test"),
        limits=Limits(grace_s=1),
        retention=Retention(age_s=60),
        synchronous="FULL",
    )

    assert options_from_json(options_to_json(given)) == given
    assert options_from_json(options_to_json(options(tmp_path, database=None))).database is None


def test_addresses_before_start(tmp_path: Path) -> None:
    """A server that was not started has no addresses, and stopping it is fine."""
    for server in (EmbeddedServer(options(tmp_path)), ServerProcess(options(tmp_path))):
        with pytest.raises(RuntimeError, match="was not started"):
            _ = server.addresses
        server.stop()
