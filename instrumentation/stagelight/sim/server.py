"""The HTTP server under the simulator."""

from __future__ import annotations

import contextlib
import socket
from importlib.util import find_spec

import uvicorn

from stagelight.sim.service import Service

__all__ = ["QuietServer"]


class QuietServer(uvicorn.Server):
    """A server without log lines, signal handlers or headers that differ from one moment to the next."""

    def __init__(self, service: Service) -> None:
        self._service = service
        super().__init__(
            uvicorn.Config(
                service.application(),
                log_config=None,
                log_level=60,  # above critical: responses that break on purpose are reported as errors
                access_log=False,
                lifespan="off",
                # The websocket library comes with the clients that need it.
                ws="websockets-sansio" if find_spec("websockets") else "none",
                date_header=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]  # uvicorn declares a generator
        """Leave the signals of the process alone, also when run in its main thread."""
        return contextlib.nullcontext()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Break off running responses and stop listening."""
        self._service.running.break_off()
        await super().shutdown(sockets)
