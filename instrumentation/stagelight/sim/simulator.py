"""Runs the simulator on a loopback port, in a thread of this process."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stagelight.sim.holds import Hold, Point
from stagelight.sim.models import LATENCIES
from stagelight.sim.scenario import Scenario
from stagelight.sim.wire import Recorded

if TYPE_CHECKING:
    from stagelight.sim.server import QuietServer

__all__ = ["Simulator"]

_START_S = 10.0
_STOP_S = 3.0


class Simulator:
    """A deterministic provider; ``with Simulator(seed=7) as sim: OpenAI(base_url=sim.url, api_key="any")``.

    The same request to two simulators with the same settings gets the same bytes.

    Args:
        seed: Any integer; ids, times and the chances of scenario rules derive from it.
        speed: How many times faster than the model would be, more than 0; 20 divides all waits by 20.
        latency: Name of a latency row for all models, such as ``instant``; ``None`` gives each model its own.
        scenario: Rules of faults, or the path of a scenario file; ``None`` for no faults.
        new_ids: Give a request that came before ids of its own, as a provider does; without it the same request has
            the same ids each time.
        host: Address to listen on; loopback by default.
        port: Port to listen on; 0 takes a free one.

    Raises:
        ImportError: when the extra ``server`` is not installed.
        ValueError: when ``speed`` or ``latency`` is not accepted.
        ScenarioError: when the scenario file is wrong.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        speed: float = 1.0,
        latency: str | None = None,
        scenario: Scenario | str | Path | None = None,
        new_ids: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not 0 < speed < float("inf"):
            raise ValueError(f"speed is {speed!r}; accepted: a number above 0")
        if latency is not None and latency not in LATENCIES:
            raise ValueError(f"latency is {latency!r}; accepted: {', '.join(LATENCIES)}")
        rules = Scenario.read(scenario) if isinstance(scenario, str | Path) else scenario or Scenario()
        try:
            from stagelight.sim.service import Service
        except ImportError as error:
            message = f"stagelight.sim needs {error.name}: pip install 'stagelight[server]'"
            raise ImportError(message, name=error.name) from error
        self._service = Service(seed=seed, speed=speed, latency=latency, scenario=rules, new_ids=new_ids)
        self._host = host
        self._port = port
        self._running: tuple[QuietServer, threading.Thread] | None = None

    @property
    def url(self) -> str:
        """Base URL for OpenAI's clients, ``http://127.0.0.1:PORT/v1``; the port is known once started."""
        return f"{self.origin}/v1"

    @property
    def origin(self) -> str:
        """Base URL for clients that bring the version themselves, ``http://127.0.0.1:PORT``: Anthropic's, Google's."""
        return f"http://{self._host}:{self._port}"

    @property
    def requests(self) -> list[Recorded]:
        """The last 10,000 requests that came in, oldest first."""
        return list(self._service.requests)

    def hold(self, point: Point = "chunk", number: int = 1, *, path: str | None = None) -> Hold:
        """Stop every response at a point until the returned hold is released.

        Args:
            point: ``chunk`` stops before the chunk of this number, ``response`` before anything is sent.
            number: 1 is the first chunk; a chunk is one server-sent event, or one block of audio.
            path: Only this path, such as ``/v1/audio/speech``.
        """
        return self._service.holds.add(point, number, path)

    def release(self) -> None:
        """Release all holds, also those that requests asked for by header."""
        self._service.holds.release()

    def forget(self) -> None:
        """Forget recorded requests, cached prompts and the counts of the scenario's rules."""
        self._service.forget()

    def start(self) -> Self:
        """Listen, and return once requests are answered.

        Raises:
            OSError: when the address cannot be used, for example because the port is taken.
            RuntimeError: when it runs already, or does not start within 10 s.
        """
        from stagelight.sim.server import QuietServer

        if self._running is not None:
            raise RuntimeError("the simulator is running already")
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # asyncio switches Nagle's delay of 40 ms off only where the protocol is given.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self._port))
            self._port = listening.getsockname()[1]
        except OSError:
            listening.close()
            raise
        server = QuietServer(self._service)
        thread = threading.Thread(target=server.run, args=([listening],), name="stagelight-simulator", daemon=True)
        thread.start()
        self._running = server, thread
        deadline = time.monotonic() + _START_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"the simulator did not start within {_START_S:g} s")
            time.sleep(0.002)
        return self

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """End running responses and stop listening, within about ``timeout_s`` seconds. May be called again."""
        if self._running is None:
            return
        server, thread = self._running
        self._running = None
        self._service.holds.release()
        server.should_exit = True
        thread.join(timeout_s)
        if thread.is_alive():
            server.force_exit = True
            thread.join(timeout_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
