"""Pace, settings and the life of the simulator, in this process and as one of its own."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import openai
import pytest
from openai import OpenAI
from stagelight.sim import Simulator
from stagelight.sim.delivery import Pace
from stagelight.sim.models import Latency
from stagelight.sim.wire import Chunk

LIMIT_S = 60.0
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a turn?"}]}


def test_pace_waits_once_for_the_first_token_and_then_for_each() -> None:
    """Early chunks do not wait; the delay comes once; all is divided by the speed."""
    pace = Pace(Latency(first_s=1, rate=10, jitter=0), Random(1), speed=2, delay_s=3)
    chunks = [Chunk(b"", early=True), Chunk(b""), Chunk(b"", work=1), Chunk(b"", work=4)]

    assert [pace.due_s(chunk) for chunk in chunks] == [0, 2, 2.05, 2.25]


def test_jitter_stays_within_its_share() -> None:
    """A wait differs from the usual one by at most the jitter."""
    paces = [Pace(Latency(1, 10, 0.25), Random(seed), speed=1, delay_s=0) for seed in range(200)]
    waits = [pace.due_s(Chunk(b"")) for pace in paces]

    assert 0.75 <= min(waits) < 0.8
    assert 1.2 < max(waits) <= 1.25


def test_speed_divides_all_waits() -> None:
    """Pace follows the latency row, divided by the speed; the same request has the same jitter."""

    def seconds(speed: float) -> float:
        with Simulator(speed=speed) as simulator, OpenAI(base_url=simulator.url, api_key="any") as client:
            client.models.list()
            started = time.monotonic()
            list(client.chat.completions.create(**CHAT, stream=True))
            return time.monotonic() - started

    # fast-chat: 0.38 s to the first token, then 110 tokens per second, 22 tokens, jitter 25 %.
    slow, fast = seconds(0.5), [seconds(4)]
    while fast[-1] >= slow and len(fast) < 10:  # the machine was busy
        fast.append(seconds(4))
    assert min(fast) >= 0.10
    assert slow >= max(0.80, min(fast))


def test_stop_is_bounded_while_a_client_hangs() -> None:
    """A hanging and a held response do not keep the server from stopping."""
    simulator = Simulator(latency="instant").start()
    simulator.hold("chunk", 1, path="/v1/embeddings")
    with OpenAI(base_url=simulator.url, api_key="any", max_retries=0, timeout=2 * LIMIT_S) as client:

        def ask() -> None:
            with pytest.raises(openai.APIConnectionError):
                client.chat.completions.create(**CHAT, extra_headers={"x-stagelight-fault": "timeout"})

        waiting = threading.Thread(target=ask)
        waiting.start()
        while not simulator.requests:
            time.sleep(0.005)
        started = time.monotonic()
        simulator.stop()
        stopped_s = time.monotonic() - started
        waiting.join(LIMIT_S)

    assert stopped_s < LIMIT_S
    assert not waiting.is_alive()
    simulator.stop()
    port = int(simulator.url.split(":")[2].removesuffix("/v1"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_settings_are_checked() -> None:
    """A wrong speed or latency is named with the values accepted; a taken port is an OSError."""
    with pytest.raises(ValueError, match=r"speed is 0; accepted: a number above 0"):
        Simulator(speed=0)
    with pytest.raises(ValueError, match=r"latency is 'warp'; accepted: instant"):
        Simulator(latency="warp")
    with Simulator() as simulator, pytest.raises(RuntimeError, match="running already"):
        simulator.start()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Simulator(port=taken.getsockname()[1]).start()


def test_as_a_process_it_prints_its_url_and_ends_on_a_signal() -> None:
    """``python -m stagelight.sim`` prints the base URL, answers, and ends with status 0 when terminated."""
    command = [sys.executable, "-m", "stagelight.sim", "--port", "0", "--speed", "50", "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with OpenAI(base_url=url, api_key="any") as client:
                assert client.models.list().data
        finally:
            process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_as_a_process_wrong_settings_are_one_sentence(tmp_path: Path) -> None:
    """A wrong scenario ends the process with status 2 and the message."""
    file = tmp_path / "s.yaml"
    file.write_text("rules: 3", encoding="utf-8")
    command = [sys.executable, "-m", "stagelight.sim", "--scenario", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    assert (ended.returncode, ended.stderr) == (2, f"{file}:1: scenario.rules is '3'; accepted: a list\n")
