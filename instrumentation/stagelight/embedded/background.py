"""The server beside other work: in a thread for tests and notebooks, in a process of its own for the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from stagelight.embedded.options import Addresses, InvalidOptions, Limits, PortInUse, ServerOptions
from stagelight.embedded.retention import Retention
from stagelight.embedded.store import StoreError

__all__ = ["EmbeddedServer", "ServerProcess", "options_from_json", "options_to_json"]


logger = logging.getLogger("stagelight.embedded")

_STOP_S = 10.0  # beyond the grace of requests that still run


class EmbeddedServer:
    """A server in a thread of this process, which it shares the interpreter with.

    Use it as a context manager, or call ``start`` and ``stop``; an instance serves once.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._thread = threading.Thread(target=self._work, name="stagelight-server", daemon=True)
        self._settled = threading.Event()
        self._addresses: Addresses | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> Addresses:
        """Where it listens.

        Raises:
            RuntimeError: it was not started.
        """
        if self._addresses is None:
            raise RuntimeError("the server was not started")
        return self._addresses

    def start(self) -> Addresses:
        """Start serving; returns when everything listens. Raises as ``stagelight.embedded.server.run``."""
        self._thread.start()
        self._settled.wait()
        self._raise_failure()
        return self.addresses

    def stop(self) -> None:
        """Finish and commit what was accepted, then stop. Raises what made the server end before its time."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            limit_s = self._options.limits.grace_s + _STOP_S
            self._thread.join(limit_s)
            if self._thread.is_alive():  # a daemon thread: it ends with the process at the latest
                logger.warning("the embedded server did not stop within %.0f s", limit_s)
                return
        self._raise_failure()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _raise_failure(self) -> None:
        if self._serving is not None and self._serving.done():
            self._serving.result()

    def _work(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        from stagelight.embedded.server import serve

        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._serving = asyncio.create_task(serve(self._options, self._stop, self._listens))
        await asyncio.wait((self._serving,))  # keeps an exception for the thread that started or stops us
        self._settled.set()

    def _listens(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._settled.set()


class ServerProcess:
    """A server in a process of its own, so that it takes no time from what is measured beside it.

    The process ends with this one, however this one ends: it watches a pipe. Ctrl-C in a terminal does not reach it,
    so that the last telemetry of the programs beside it still finds a server.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """Where it listens.

        Raises:
            RuntimeError: it was not started.
        """
        if self._addresses is None:
            raise RuntimeError("the server was not started")
        return self._addresses

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            RuntimeError: it was not started.
        """
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.pid

    def start(self) -> Addresses:
        """Start serving; returns when everything listens. Raises as ``stagelight.embedded.server.run``."""
        self._options.check()
        process = subprocess.Popen(
            [sys.executable, "-m", "stagelight.embedded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert process.stdout is not None  # noqa: S101
        self._process = process
        process.stdin.write(options_to_json(self._options) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server process ended with status {self.stop()} before it listened")
        answer = json.loads(line)
        if "error" in answer:
            self.stop()
            raise _error(answer["error"])
        self._addresses = Addresses(**{**answer, "database": Path(answer["database"])})
        return self._addresses

    def stop(self) -> int:
        """Finish and commit what was accepted, then stop; returns the exit status."""
        if self._process is None:
            return 0
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        self._process.terminate()
        status = self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # it ended while we wrote to it
            self._process.stdin.close()  # type: ignore[union-attr]  # a pipe, as above
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def options_to_json(options: ServerOptions) -> str:
    """Options as one line of JSON, the token included."""
    return json.dumps(asdict(options) | {"database": options.database and str(options.database)})


def options_from_json(text: str) -> ServerOptions:
    """The options that ``options_to_json`` wrote."""
    fields: dict[str, Any] = json.loads(text)
    fields["database"] = fields["database"] and Path(fields["database"])
    fields["limits"] = Limits(**fields["limits"])
    fields["retention"] = Retention(**fields["retention"])
    fields["allowed_hosts"] = tuple(fields["allowed_hosts"])
    return ServerOptions(**fields)


def _error(fields: dict[str, Any]) -> Exception:
    if "port" in fields:
        return PortInUse(fields["host"], fields["port"], fields["protocol"])
    kind = InvalidOptions if fields["kind"] == "InvalidOptions" else StoreError
    return kind(fields["message"])
