"""Work that outlives or leaves the request's own function: threads, tasks, and the workers of arq and Celery."""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import arq
import arq.connections
import pytest
import stagelight
from celery import Celery
from celery.contrib.testing.worker import start_worker
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.celery import CeleryInstrumentor as OfficialInstrumentor
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from stack.substitution import free_port
from stagelight._inbound import REQUEST_KEY, Inbound, current_inbound
from stagelight._lifecycle import Attachment
from stagelight._tasks import carried, with_owner
from stagelight.conventions import attributes as a
from stagelight.facts import Identity
from stagelight.integrations.arq import ArqInstrumentor
from stagelight.integrations.celery import CeleryInstrumentor
from stagelight.propagation import HostAwarePropagator
from stagelight.testing import Captured, capture

OWNER = Identity(tenant="acme", feature="help", user="h1:00000000:0123456789abcdef0123456789abcdef")
LIMIT_S = 120

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server on PATH")


def stage() -> None:
    """One call of a model."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
        call.usage(input_tokens=10, output_tokens=1)


def in_a_request(name: Callable[[], tuple[str, str | None]] | None = None) -> tuple[Attachment, Inbound]:
    """A block inside a request of this owner."""
    inbound = Inbound("req-1", OWNER, name=name)
    return Attachment(otel_context.set_value(REQUEST_KEY, inbound)), inbound


@pytest.fixture(autouse=True)
def host_aware() -> Iterator[None]:
    """Our propagator stands around the global one, as ``configure`` leaves it."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(HostAwarePropagator(before))
    yield
    propagate.set_global_textmap(before)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a Redis of our own."""
    port = free_port()
    folder: Path = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if time.monotonic() > deadline or server.poll() is not None:
                pytest.fail((folder / "log").read_text())
            time.sleep(0.02)
    yield port
    server.terminate()
    server.wait(LIMIT_S)


def test_threads_executors_and_tasks_stay_in_the_turn() -> None:
    """Whatever runs the stage, it is the request's: one turn, the same owner."""

    async def tasks() -> None:
        loop = asyncio.get_running_loop()

        async def one() -> None:
            stage()

        await asyncio.gather(asyncio.create_task(one()), asyncio.to_thread(stage), loop.run_in_executor(None, stage))

    ThreadingInstrumentor().instrument()
    try:
        with capture() as captured:
            block, inbound = in_a_request(lambda: ("POST /ask", "/ask"))
            with block:
                thread = threading.Thread(target=stage)
                thread.start()
                thread.join(LIMIT_S)
                with ThreadPoolExecutor(2) as pool:
                    pool.submit(stage).result(LIMIT_S)
                asyncio.run(tasks())
            inbound.closed().end()
    finally:
        ThreadingInstrumentor().uninstrument()

    assert captured.turn("POST /ask").attributes[a.STAGELIGHT_TURN_CALLS] == 5
    assert {event.attributes[a.STAGELIGHT_TENANT] for event in captured.ledger} == {"acme"}


def belongs_to_the_sender(captured: Captured, seen: list[str | None]) -> None:
    """The task's stage is in the trace of the turn that sent it, and for its owner; it knows the request's id."""
    turn, call = captured.turn("answer"), captured.call("llm")
    owner = {a.STAGELIGHT_TENANT: "acme", a.STAGELIGHT_FEATURE: "help", a.USER_HASH: OWNER.user}
    assert call.span.context.trace_id == turn.span.context.trace_id
    assert {key: call.attributes.get(key) for key in owner} == owner
    assert {key: captured.ledger[0].attributes.get(key) for key in owner} == owner
    assert seen == ["req-1"]


@needs_redis
@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's own
def test_jobs_of_arq_belong_to_the_request_that_enqueued_them(redis: int) -> None:
    """The worker runs in a context of its own; what the job needs came with it."""
    seen: list[str | None] = []

    async def work(_ctx: dict[str, Any], number: int) -> int:
        inbound = current_inbound()
        seen.append(inbound.request_id if inbound is not None else None)
        stage()
        return number + 1

    async def run() -> Any:
        settings = arq.connections.RedisSettings(port=redis)
        pool = await arq.create_pool(settings)
        block, _ = in_a_request()
        with block, stagelight.turn("answer"):
            job = await pool.enqueue_job("work", 41)
        worker = arq.Worker(
            [arq.func(work, name="work")], redis_settings=settings, burst=True, handle_signals=False, poll_delay=0.01
        )
        await asyncio.create_task(worker.async_run(), context=contextvars.Context())
        result = await job.result(timeout=LIMIT_S)
        await worker.close()
        await pool.aclose()
        return result

    instrumentor = ArqInstrumentor()
    assert instrumentor.switch_on()
    try:
        with capture() as captured:
            assert asyncio.run(run()) == 42
    finally:
        instrumentor.uninstrument()

    belongs_to_the_sender(captured, seen)


@pytest.mark.parametrize("official", [False, True], ids=["ours alone", "beside the official instrumentation"])
def test_tasks_of_celery_belong_to_the_request_that_sent_them(official: bool) -> None:
    """The worker is another thread with a context of its own; the official instrumentation may make spans as well."""
    seen: list[str | None] = []
    app = Celery("answers", broker="memory://", backend="cache+memory://")

    @app.task(name="work", shared=False)
    def work(number: int) -> int:
        inbound = current_inbound()
        seen.append(inbound.request_id if inbound is not None else None)
        stage()
        return number + 1

    instrumentor, theirs = CeleryInstrumentor(), OfficialInstrumentor()
    assert instrumentor.switch_on()
    try:
        with capture() as captured:
            if official:
                theirs.instrument(tracer_provider=captured.tracer_provider)
            with (
                Attachment(Context()),
                start_worker(app, loglevel="WARNING", perform_ping_check=False, shutdown_timeout=LIMIT_S),
            ):
                block, _ = in_a_request()
                with block, stagelight.turn("answer"):
                    sent = work.delay(41)
                assert sent.get(timeout=LIMIT_S, interval=0.01) == 42
    finally:
        instrumentor.uninstrument()
        if official:
            theirs.uninstrument()

    belongs_to_the_sender(captured, seen)
    kinds = [span.kind for span in captured.spans]
    assert (trace.SpanKind.CONSUMER in kinds) is official


def test_a_task_goes_along_from_inside_a_call() -> None:
    """Providers are told nothing, but a task that is sent while a call runs goes to one's own workers."""
    with capture() as captured, stagelight.turn("answer") as turn:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            headers = carried()
        outside: dict[str, str] = {}
        with Attachment(Context()):
            outside = carried()

    trace_id = f"{turn.span.get_span_context().trace_id:032x}"
    assert headers["traceparent"].split("-")[1] == trace_id
    assert outside == {}
    assert len(captured.calls) == 1


def test_a_job_of_nobody_is_serialized_as_ever() -> None:
    """Without anything to take along, arq's bytes are its own."""
    written: list[dict[str, Any]] = []

    def serializer(job: dict[str, Any]) -> bytes:
        written.append(job)
        return b""

    instrumentor = ArqInstrumentor()
    assert instrumentor.switch_on()
    try:
        with Attachment(Context()):
            arq.connections.serialize_job("work", (1,), {}, None, 0, serializer=serializer)
    finally:
        instrumentor.uninstrument()

    assert "stagelight" not in written[0]


@pytest.mark.parametrize(
    "text", ["[" * 4000, "x" * 5000, "[]", "null", '{"request_id": "a\\r\\nb", "tenant": {"a": 1}, "start_ns": "1"}', 5]
)
def test_an_owner_that_nobody_of_ours_wrote_is_nobody(text: object) -> None:
    """Whatever stands in a message, nothing fails and nothing unsafe is taken over."""
    inbound = current_inbound(with_owner(Context(), text))

    assert inbound is None or (inbound.request_id, inbound.identity) == (None, Identity())
