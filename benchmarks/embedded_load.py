"""A running server and the load it is measured under: spans without content, as a voice assistant makes them."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from stagelight.conventions import attributes as a

POST_SPANS = 512
TRACE_SPANS = 8
TRACES = POST_SPANS // TRACE_SPANS
_NS = 1_000_000_000

_MODEL = {
    a.GEN_AI_PROVIDER_NAME: "openai",
    a.SERVER_ADDRESS: "api.openai.com",
    a.SERVER_PORT: 443,
    a.STAGELIGHT_OUTCOME: "completed",
    a.STAGELIGHT_FEATURE: "help",
    a.STAGELIGHT_COST_CURRENCY: "USD",
    a.STAGELIGHT_COST_STATUS: "exact",
    a.STAGELIGHT_COST_SOURCE: "local",
    a.STAGELIGHT_COST_PRICE_SOURCE: "genai-prices@0.2.3",
}
_HTTP = {"http.request.method": "POST", "http.response.status_code": 200, "url.path": "/v1/x", "server.port": 443}
SPANS: tuple[tuple[str, int, int | None, dict[str, Any]], ...] = (
    # name, kind, parent, attributes: one turn of a voice assistant behind a web server
    ("POST /ask", 2, None, _HTTP | {"http.route": "/ask", "network.protocol.version": "1.1"}),
    (
        "invoke_workflow answer",
        1,
        0,
        {
            a.STAGELIGHT_STAGE: "turn",
            a.GEN_AI_OPERATION_NAME: "invoke_workflow",
            a.GEN_AI_WORKFLOW_NAME: "answer",
            a.STAGELIGHT_FEATURE: "help",
            a.STAGELIGHT_OUTCOME: "completed",
            a.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN: 0.61,
            a.STAGELIGHT_TURN_COST: 0.000634,
            a.STAGELIGHT_TURN_COST_STATUS: "exact",
            a.STAGELIGHT_TURN_CALLS: 4,
            f"{a.STAGELIGHT_TURN_SHARE}.llm": 0.7,
            f"{a.STAGELIGHT_TURN_SHARE}.tts": 0.3,
        },
    ),
    (
        "embeddings text-embedding-3-small",
        3,
        1,
        _MODEL
        | {
            a.STAGELIGHT_STAGE: "embedding",
            a.GEN_AI_OPERATION_NAME: "embeddings",
            a.GEN_AI_REQUEST_MODEL: "text-embedding-3-small",
            a.GEN_AI_USAGE_INPUT_TOKENS: 12,
            a.STAGELIGHT_COST_AMOUNT: 2.4e-07,
        },
    ),
    (
        "retrieval docs",
        3,
        1,
        {
            a.STAGELIGHT_STAGE: "retrieval",
            a.GEN_AI_OPERATION_NAME: "retrieval",
            a.DB_SYSTEM_NAME: "qdrant",
            a.GEN_AI_DATA_SOURCE_ID: "docs",
            a.GEN_AI_RETRIEVAL_TOP_K: 5,
            a.STAGELIGHT_RETRIEVAL_COUNT: 5,
            a.STAGELIGHT_RETRIEVAL_TOP_SCORE: 0.83,
            a.STAGELIGHT_OUTCOME: "completed",
        },
    ),
    (
        "chat gpt-4o-mini",
        3,
        1,
        _MODEL
        | {
            a.STAGELIGHT_STAGE: "llm",
            a.GEN_AI_OPERATION_NAME: "chat",
            a.GEN_AI_REQUEST_MODEL: "gpt-4o-mini",
            a.GEN_AI_RESPONSE_MODEL: "gpt-4o-mini-2024-07-18",
            a.GEN_AI_RESPONSE_ID: "chatcmpl-0123456789",
            a.GEN_AI_USAGE_INPUT_TOKENS: 900,
            a.GEN_AI_USAGE_OUTPUT_TOKENS: 120,
            a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.31,
            a.STAGELIGHT_COST_AMOUNT: 0.000412,
        },
    ),
    ("POST", 3, 4, _HTTP),
    (
        "text_to_speech tts-1",
        3,
        1,
        _MODEL
        | {
            a.STAGELIGHT_STAGE: "tts",
            a.GEN_AI_OPERATION_NAME: "text_to_speech",
            a.GEN_AI_REQUEST_MODEL: "tts-1",
            a.STAGELIGHT_TTS_CHARACTERS: 120,
            a.STAGELIGHT_COST_AMOUNT: 0.0018,
        },
    ),
    ("POST", 3, 6, _HTTP),
)


class Post:
    """The encoded request, with new ids and times for every sending: building it anew would cost more than serving."""

    def __init__(self) -> None:
        self._template = _request().SerializeToString()
        self._traces = [self._places(_trace_mark(number)) for number in range(TRACES)]
        self._spans = [self._places(_span_mark(number)) for number in range(POST_SPANS)]
        self._times = [place for mark in (_START, _END) for place in self._places(mark.to_bytes(8, "little"))]

    def _places(self, mark: bytes) -> list[int]:
        places = []
        place = self._template.find(mark)
        while place >= 0:
            places.append(place)
            place = self._template.find(mark, place + 1)
        return places

    def fresh(self, chance: random.Random) -> tuple[bytes, list[bytes]]:
        """A body, and the ids of its traces."""
        body = bytearray(self._template)
        traces = [chance.randbytes(16) for _ in range(TRACES)]
        for trace_id, places in zip(traces, self._traces, strict=True):
            for place in places:
                body[place : place + 16] = trace_id
        for places in self._spans:
            span_id = chance.randbytes(8)
            for place in places:
                body[place : place + 8] = span_id
        now_ns = time.time_ns()
        half = len(self._times) // 2
        for place in self._times[:half]:
            body[place : place + 8] = now_ns.to_bytes(8, "little")
        for place in self._times[half:]:
            body[place : place + 8] = (now_ns + chance.randrange(2 * _NS)).to_bytes(8, "little")
        return bytes(body), traces


_START, _END = 0x1122334455667701, 0x1122334455667702


def _trace_mark(number: int) -> bytes:
    return b"trace-mark-" + number.to_bytes(5, "big")


def _span_mark(number: int) -> bytes:
    return b"span" + number.to_bytes(4, "big")


def _request() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(_pairs({"service.name": "voice", "service.instance.id": "1"}))
    scope = resource.scope_spans.add()
    scope.scope.name = "stagelight"
    for number in range(POST_SPANS):
        name, kind, parent, attributes = SPANS[number % TRACE_SPANS]
        scope.spans.add(
            trace_id=_trace_mark(number // TRACE_SPANS),
            span_id=_span_mark(number),
            parent_span_id=b"" if parent is None else _span_mark(number - number % TRACE_SPANS + parent),
            name=name,
            kind=kind,
            start_time_unix_nano=_START,
            end_time_unix_nano=_END,
            attributes=_pairs(attributes),
        )
    return request


def _pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    fields = {str: "string_value", int: "int_value", float: "double_value"}
    return [KeyValue(key=key, value=AnyValue(**{fields[type(value)]: value})) for key, value in attributes.items()]


@dataclass
class Server:
    """A running ``stagelight up``."""

    process: subprocess.Popen[bytes]
    port: int
    started_s: float
    """From the start of the process to its first answer."""

    def cpu_s(self) -> float:
        """Processor time of the process so far, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, name: str = "VmRSS") -> float:
        """Resident memory of the process; ``VmHWM`` for its peak."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {name} in /proc")


@contextmanager
def serving(database: Path) -> Iterator[Server]:
    """Start the real command and wait until it takes an (empty) request."""
    port, grpc_port = _free_ports()
    command = [sys.executable, "-m", "stagelight", "up", "--port", str(port), "--grpc-port", str(grpc_port)]
    began = time.perf_counter()
    with Path(f"{database}.log").open("wb") as log:
        process = subprocess.Popen([*command, "--db", str(database)], stdout=log, stderr=log)
    try:
        while not _answers(port):
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise RuntimeError(f"the server did not start: {Path(f'{database}.log').read_text()}")
            time.sleep(0.005)
        yield Server(process, port, time.perf_counter() - began)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        return _send(connection, b"")
    except OSError:
        return False
    finally:
        connection.close()


def _send(connection: http.client.HTTPConnection, body: bytes) -> bool:
    connection.request("POST", "/v1/traces", body, {"content-type": "application/x-protobuf"})
    response = connection.getresponse()
    response.read()
    return response.status == 200


@dataclass
class Load:
    """What a number of senders got through."""

    acknowledged: list[bytes] = field(default_factory=list)
    """Ids of the traces in posts that were answered with success."""
    posts_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def spans(self) -> int:
        """Spans in those posts."""
        return len(self.acknowledged) * TRACE_SPANS


def load(port: int, *, connections: int, spans: int, on_post: Callable[[int], object] | None = None) -> Load:
    """Send posts over so many connections until so many spans were sent or the server is gone."""
    result = Load()
    post = Post()
    waiting = iter(range(-(-spans // POST_SPANS)))
    lock = threading.Lock()

    def send(seed: int) -> None:
        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            while True:
                with lock:
                    if next(waiting, None) is None:
                        return
                body, traces = post.fresh(chance)
                began = time.perf_counter()
                while not _send(connection, body):  # 429: the queue is full
                    time.sleep(0.05)
                with lock:
                    result.posts_s.append(time.perf_counter() - began)
                    result.acknowledged.extend(traces)
                    if on_post is not None:
                        on_post(result.spans)
        except (OSError, http.client.HTTPException):
            return  # the server was killed
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(random.getrandbits(60),)) for _ in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = time.perf_counter() - began
    return result
