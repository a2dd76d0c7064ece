"""The ASGI application: from a request to the endpoint's reply, with everything recorded."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from stagelight.sim.anthropic import ANTHROPIC, count_tokens, messages
from stagelight.sim.aws import AWS, converse, converse_stream
from stagelight.sim.azure import AZURE
from stagelight.sim.bedrock_models import invoke, invoke_stream
from stagelight.sim.chat import chat
from stagelight.sim.delivery import Delivery, Hanging, Pace, Running
from stagelight.sim.elevenlabs import ELEVENLABS, STREAM_INPUT
from stagelight.sim.elevenlabs import ENDPOINTS as SPEAKING
from stagelight.sim.elevenlabs import converse as speak
from stagelight.sim.embeddings import embeddings
from stagelight.sim.faults import Fault, FaultError, Faults, parse_faults
from stagelight.sim.forms import fields_of
from stagelight.sim.google import GOOGLE, batch_embed, count, embed_one, generate, predict, stream
from stagelight.sim.holds import Holds
from stagelight.sim.models import LATENCIES, MODELS, Latency
from stagelight.sim.polly import POLLY, synthesize
from stagelight.sim.prompts import PromptCache
from stagelight.sim.responses import responses
from stagelight.sim.scenario import Counting, Scenario
from stagelight.sim.speech import speech
from stagelight.sim.transcriptions import transcription, translation
from stagelight.sim.wire import OPENAI, Call, Dialect, OpenAIError, Recorded, Reply, compact

__all__ = ["RECORDED", "Service"]

RECORDED = 10_000
"""Requests kept; older ones are forgotten, so that a simulator can run for days."""
_CONTROLS = ("tokens", "reasoning")
_NO_KEY = "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'; the simulator accepts any."


class Service:
    """The state of a simulator and its endpoints."""

    def __init__(
        self, *, seed: int, speed: float, latency: str | None, scenario: Scenario, new_ids: bool = False
    ) -> None:
        self.requests: deque[Recorded] = deque(maxlen=RECORDED)
        self.holds = Holds()
        self.running = Running()
        self._seed = seed
        self._speed = speed
        self._latency = latency
        self._scenario = scenario
        self._new_ids = new_ids
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin anew: no recorded requests, no cached prompts, rules that count from 1."""
        with self._lock:
            self.requests.clear()
            self._cache = PromptCache()
            self._counting = Counting(self._scenario, self._seed)
            self._repeats: OrderedDict[str, int] = OrderedDict()

    def application(self) -> ASGIApp:
        """Make the ASGI application."""
        endpoints: dict[str, Callable[[Call], Reply]] = {
            "/v1/chat/completions": lambda call: chat(call, self._cache),
            "/v1/responses": lambda call: responses(call, self._cache),
            "/v1/embeddings": embeddings,
            "/v1/audio/speech": speech,
            "/v1/audio/transcriptions": transcription,
            "/v1/audio/translations": translation,
        }
        routes = [Route(path, _Endpoint(self, answer, OPENAI), methods=["POST"]) for path, answer in endpoints.items()]
        for path, answer in endpoints.items():
            below = "" if path == "/v1/responses" else "/deployments/{deployment}"
            azure = _Endpoint(self, answer, AZURE)
            routes.append(Route(path.replace("/v1", f"/openai{below}"), azure, methods=["POST"]))
        anthropic: dict[str, Callable[[Call], Reply]] = {
            "/v1/messages": lambda call: messages(call, self._cache),
            "/v1/messages/count_tokens": count_tokens,
        }
        routes += [
            Route(path, _Endpoint(self, answer, ANTHROPIC), methods=["POST"]) for path, answer in anthropic.items()
        ]
        routes += self._amazon()
        routes += [
            Route(path, _Endpoint(self, answer, ELEVENLABS), methods=["POST"]) for path, answer in SPEAKING.items()
        ]
        routes += self._google()
        routes.append(Route("/v1/models", self._models, methods=["GET"]))
        routes.append(Route("/simulator/release", self._release, methods=["POST"]))
        sockets = [WebSocketRoute(STREAM_INPUT, self._speak)]
        return Starlette(
            routes=[*routes, *sockets], exception_handlers={HTTPException: _refused, Exception: _not_understood}
        )

    def _amazon(self) -> list[Route]:
        bedrock = {
            "converse": converse, "converse-stream": converse_stream,
            "invoke": invoke, "invoke-with-response-stream": invoke_stream,
        }  # fmt: skip
        rows = [Route("/v1/speech", _Endpoint(self, synthesize, POLLY), methods=["POST"])]
        for action, act in bedrock.items():
            rows.append(Route(f"/model/{{model:path}}/{action}", self._cached(act, AWS), methods=["POST"]))
        return rows

    async def _speak(self, socket: WebSocket) -> None:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in socket.headers.raw)
        self.requests.append(Recorded("GET", socket.url.path, headers, b""))
        await speak(socket, self._faults(socket, socket.query_params.get("model_id", "")), self.holds)

    def _google(self) -> list[Route]:
        gemini = "/{version}/models/{model}"
        vertex = "/{version}/projects/{project}/locations/{location}/publishers/{publisher}/models/{model}"
        cached = {"generateContent": generate, "streamGenerateContent": stream}
        single = {
            "countTokens": count,
            "embedContent": embed_one,
            "batchEmbedContents": batch_embed,
            "predict": predict,
        }
        claude = {"rawPredict": messages, "streamRawPredict": messages}
        rows = [(place, verb, self._cached(act, GOOGLE)) for place in (gemini, vertex) for verb, act in cached.items()]
        rows += [
            (place, verb, _Endpoint(self, act, GOOGLE)) for place in (gemini, vertex) for verb, act in single.items()
        ]
        rows += [(vertex, verb, self._cached(act, ANTHROPIC)) for verb, act in claude.items()]
        return [Route(f"{place}:{verb}", endpoint, methods=["POST"]) for place, verb, endpoint in rows]

    def _cached(self, answer: Callable[[Call, PromptCache], Reply], dialect: Dialect) -> _Endpoint:
        return _Endpoint(self, lambda call: answer(call, self._cache), dialect)

    async def respond(self, request: Request, answer: Callable[[Call], Reply], dialect: Dialect) -> ASGIApp:
        """Answer one request to a simulated endpoint."""
        received_s = asyncio.get_running_loop().time()
        body = await self._record(request)
        try:
            if not dialect.is_authorised(request.headers):
                raise OpenAIError(401, _NO_KEY, kind="invalid_request_error")
            # Some providers name the model, and what is asked of it, in the path.
            fields = {**_parse(body, request.headers.get("content-type", "")), **request.path_params}
            fields |= {name: request.query_params[name] for name in dialect.in_query if name in request.query_params}
            if dialect.model is not None:
                fields["model"] = dialect.model(fields)
            faults = self._faults(request, str(fields.get("model", "")))
            hanging = faults.get("timeout")
            if hanging is not None:
                return Hanging(hanging, self.running)
            controls = {
                name: _control(request, name) for name in _CONTROLS if f"x-stagelight-{name}" in request.headers
            }
            call = Call(request.url.path, fields, seed=self._seed, faults=faults, controls=controls)
            if self._new_ids:
                call.again = self._seen_before(call.digest)
            _fail(call)
            reply = answer(call)
        except OpenAIError as error:
            return _error(error, dialect, f"req_{sha256(body).hexdigest()[:32]}")
        if "x-stagelight-hold" in request.headers:
            self.holds.add("chunk", _control(request, "hold"), request.url.path)
        slow = faults.get("slow_first_token")
        pace = Pace(
            self._speed_of(call.model, reply.latency),
            call.random("pace"),
            speed=self._speed,
            delay_s=slow["delay"] if slow else 0.0,
        )
        return Delivery(reply, faults, pace, self.holds, self.running, received_s)

    def _seen_before(self, digest: str) -> int:
        with self._lock:
            if len(self._repeats) >= RECORDED and digest not in self._repeats:
                self._repeats.popitem(last=False)
            self._repeats[digest] = self._repeats.get(digest, -1) + 1
            return self._repeats[digest]

    async def _record(self, request: Request) -> bytes:
        body = await request.body()
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
        self.requests.append(Recorded(request.method, request.url.path, headers, body))
        return body

    def _faults(self, request: HTTPConnection, model: str) -> Faults:
        try:
            asked = parse_faults(request.headers.get("x-stagelight-fault", ""))
        except FaultError as error:
            raise OpenAIError.invalid(f"x-stagelight-fault: {error}") from None
        return Faults(asked + self._counting.faults(request.url.path, model))

    def _speed_of(self, model: str, usual: Latency) -> Latency:
        name = self._latency or self._scenario.latency_of(model)
        return LATENCIES[name] if name else usual

    async def _models(self, request: Request) -> Response:
        await self._record(request)
        rows = [
            {"id": row.id, "object": "model", "created": row.created, "owned_by": "system"} for row in MODELS.values()
        ]
        return Response(compact({"object": "list", "data": rows}), media_type="application/json")

    async def _release(self, request: Request) -> Response:
        del request
        self.holds.release()
        return Response(status_code=204)


class _Endpoint:
    """Routes a request to an endpoint; a class, because a function would be taken for one that returns a response."""

    def __init__(self, service: Service, answer: Callable[[Call], Reply], dialect: Dialect) -> None:
        self._service = service
        self._answer = answer
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._service.respond(Request(scope, receive), self._answer, self._dialect)
        await response(scope, receive, send)


def _parse(body: bytes, content_type: str) -> dict[str, Any]:
    if content_type.startswith("multipart/form-data"):
        return fields_of(body, content_type)
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise OpenAIError.invalid("We could not parse the JSON body of your request. A JSON object is expected.")
    return fields


def _control(request: Request, name: str) -> int:
    text = request.headers[f"x-stagelight-{name}"]
    if not text.isdecimal() or int(text) > 1_000_000:
        raise OpenAIError.invalid(f"x-stagelight-{name} is {text!r}; accepted: a whole number up to 1000000")
    return int(text)


def _fail(call: Call) -> None:
    """Raise the error that a fault asks for."""
    failing: dict[str, Callable[[Fault], OpenAIError]] = {
        "unauthorized": lambda _: OpenAIError(
            401, "Incorrect API key provided.", kind="invalid_request_error", code="invalid_api_key"
        ),
        "model_not_found": lambda _: OpenAIError(
            404,
            f"The model `{call.model}` does not exist or you do not have access to it.",
            kind="invalid_request_error",
            code="model_not_found",
        ),
        "quota": lambda _: OpenAIError(
            429, "You exceeded your current quota.", kind="insufficient_quota", code="insufficient_quota"
        ),
        "rate_limit": lambda fault: _rate_limited(call, fault["retry_after"]),
        "server_error": lambda fault: OpenAIError(
            int(fault["status"]), "The server had an error while processing your request.", kind="server_error"
        ),
    }
    for fault in call.faults.all:
        if fault.kind in failing:
            error = failing[fault.kind](fault)
            error.headers.setdefault("x-request-id", call.id("req_", length=32))
            raise error


def _rate_limited(call: Call, retry_after_s: float) -> OpenAIError:
    message = f"Rate limit reached for {call.model} on requests per min (RPM). Please try again in {retry_after_s:g}s."
    error = OpenAIError(429, message, kind="requests", code="rate_limit_exceeded")
    error.headers = {
        **call.headers(0),
        "x-ratelimit-remaining-requests": "0",
        "retry-after": f"{retry_after_s:g}",
        "retry-after-ms": f"{retry_after_s * 1000:g}",
    }
    return error


def _error(error: OpenAIError, dialect: Dialect, id_: str) -> Response:
    body, headers = dialect.refusal(error, id_)
    return Response(compact(body), error.status, headers=dict(headers), media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    verb = "Not allowed to" if status == 405 else "Invalid URL:"
    message = f"{verb} {request.method} {request.url.path}"
    return _plain_error(OpenAIError(status, message, kind="invalid_request_error"))


async def _not_understood(request: Request, error: Exception) -> Response:
    message = f"The simulator cannot read this request to {request.url.path}: {type(error).__name__}: {error}"
    return _plain_error(OpenAIError(500, message, kind="server_error"))


def _plain_error(error: OpenAIError) -> Response:
    return Response(compact({"error": error.error}), error.status, media_type="application/json")
