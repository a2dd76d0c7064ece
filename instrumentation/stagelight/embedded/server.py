"""``stagelight up``: receivers, writer and pages in one process and one event loop, with the writer in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stagelight.embedded.access import Access
from stagelight.embedded.app import http_app
from stagelight.embedded.intake import Intake
from stagelight.embedded.options import Addresses, InvalidOptions, PortInUse, ServerOptions
from stagelight.embedded.otlp_grpc import otlp_grpc_server
from stagelight.embedded.store import default_path
from stagelight.embedded.writer import Writer

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from stagelight.sources.model import Source

__all__ = ["run", "serve"]

_KEEP_ALIVE_S = 75  # longer than the 60 s between two exports of metrics: an idle connection is not cut under them


def run(options: ServerOptions, on_ready: Callable[[Addresses], None] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; what was accepted is committed before it returns.

    Args:
        options: what to serve, and where.
        on_ready: called once, when everything listens.

    Returns:
        The exit status, 0 after an orderly stop.

    Raises:
        InvalidOptions: the options contradict each other, would expose the data, or name an address that is not ours.
        PortInUse: another program has one of the ports.
        StoreError: the database cannot be opened; the message says what to do.
    """
    asyncio.run(_until_signal(options, on_ready or (lambda _: None)))
    return 0


async def serve(options: ServerOptions, stop: asyncio.Event, on_ready: Callable[[Addresses], None]) -> None:
    """Serve until ``stop`` is set; raises as ``run``."""
    options.check()
    access = Access(options)
    database = options.database or default_path()
    family, address = _resolve(options.host)
    with contextlib.ExitStack() as resources:
        # Ports first: when one is taken, nothing has touched the database yet.
        listener = resources.enter_context(_listener(family, address, options.http_port, "HTTP"))
        _listener(family, address, options.grpc_port, "gRPC").close()
        writer = Writer(
            database,
            synchronous=options.synchronous,
            max_queued_bytes=options.limits.queue_bytes,
            retention=options.retention,
        )
        writer.start()
        resources.callback(writer.close)
        intake = Intake(writer, options.limits)
        resources.callback(intake.close)
        grpc_server = otlp_grpc_server(intake, access)
        grpc_port = _bind_grpc(grpc_server, address, options.grpc_port)
        http_server = _http_server(http_app(intake, access, lambda: _source(database)), options)
        addresses = Addresses(address, listener.getsockname()[1], grpc_port, database)
        await grpc_server.start()
        serving = asyncio.create_task(http_server.serve(sockets=[listener]))
        try:
            await _first(http_server.ready.wait(), serving)
            on_ready(addresses)
            await _first(stop.wait(), serving)
        finally:
            # The writer is closed last: what both receivers accepted is waiting for its commits.
            http_server.should_exit = True
            await asyncio.gather(serving, grpc_server.stop(options.limits.grace_s))


def _source(database: Path) -> Source:
    from stagelight.sources import open_source  # the pages only

    return open_source(str(database))


async def _until_signal(options: ServerOptions, on_ready: Callable[[Addresses], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with _handling(lambda: loop.call_soon_threadsafe(stop.set)):
        await serve(options, stop, on_ready)


@contextlib.contextmanager
def _handling(stop: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` on SIGINT and SIGTERM; a second Ctrl-C acts as it would without us, for the impatient."""
    previous: dict[int, Any] = {}

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(number, previous[number])
        stop()

    for caught in (signal.SIGINT, signal.SIGTERM):
        previous[caught] = signal.signal(caught, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


async def _first(awaited: Any, serving: asyncio.Task[None]) -> None:
    """Wait for ``awaited``, or for the HTTP server to end before its time."""
    waiting = asyncio.ensure_future(awaited)
    await asyncio.wait((waiting, serving), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """The address to listen on, the same for both ports; of several, the IPv4 one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise InvalidOptions(f"host={host!r} is not an address of this machine: {error.strerror}") from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])


def _listener(family: socket.AddressFamily, address: str, port: int, protocol: str) -> socket.socket:
    """A bound TCP socket, not yet listening."""
    # With the protocol named, asyncio sends small answers at once (TCP_NODELAY).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(address, port, protocol) from error
        raise InvalidOptions(f"host={address}, port {port}: cannot listen there: {error.strerror}") from error
    return listener


def _bind_grpc(server: Any, address: str, port: int) -> int:
    try:
        return int(server.add_insecure_port(f"[{address}]:{port}" if ":" in address else f"{address}:{port}"))
    except RuntimeError as error:  # taken between the check and now
        raise PortInUse(address, port, "gRPC") from error


def _http_server(app: ASGIApp, options: ServerOptions) -> Any:
    import uvicorn

    from stagelight.embedded.answers import SECURITY_HEADERS
    from stagelight.embedded.connections import protocol

    class HttpServer(uvicorn.Server):
        """Says when it listens, and leaves the signals to us."""

        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            self.ready = asyncio.Event()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.ready.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return HttpServer(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=protocol(options.limits),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            headers=list(SECURITY_HEADERS),
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(options.limits.grace_s)),
        )
    )
