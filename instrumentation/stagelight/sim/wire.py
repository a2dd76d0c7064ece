"""What all endpoints share: a request's identity and checked fields, replies, errors and how providers word them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

from stagelight.sim.faults import Faults
from stagelight.sim.models import Latency

__all__ = ["OPENAI", "Call", "Chunk", "Dialect", "OpenAIError", "Recorded", "Reply", "compact", "event", "failed"]

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)
_FIRST_DAY = 1_760_000_000  # 2025-10-09: `created` of all answers lies in the 30 days after it
_TYPE_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
}
_REQUESTS_LIMIT, _TOKENS_LIMIT = 10_000, 2_000_000


class OpenAIError(Exception):
    """An answer that is an error, in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, *, kind: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": code}
        self.headers: dict[str, str] = {}

    @classmethod
    def invalid(cls, message: str, *, param: str | None = None, code: str | None = None) -> OpenAIError:
        """Make the answer to a request that cannot be served: status 400."""
        return cls(400, message, kind="invalid_request_error", param=param, code=code)


class Dialect(NamedTuple):
    """How a provider words what all its endpoints share."""

    is_authorised: Callable[[Mapping[str, str]], bool]
    """Whether the headers of a request hold a key; names in lower case."""
    refusal: Callable[[OpenAIError, str], tuple[Mapping[str, Any], Mapping[str, str]]]
    """Body and headers of an error; the text is the id of the request."""
    model: Callable[[Mapping[str, Any]], str] | None = None
    """Names the model by the fields of a request; ``None`` where the field ``model`` does."""
    in_query: tuple[str, ...] = ()
    """Fields that a request has in its query."""


def _has_bearer(headers: Mapping[str, str]) -> bool:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(key.strip())


OPENAI: Final = Dialect(
    is_authorised=_has_bearer,
    refusal=lambda error, id_: ({"error": error.error}, {"x-request-id": id_, **error.headers}),
)


class Recorded(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order of the request."""
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of this name, or ``None``."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        """Return the body read as JSON."""
        return json.loads(self.body)


class Chunk(NamedTuple):
    """A piece of a response body that is sent at once."""

    data: bytes
    work: float = 0.0
    """What must be made before it can be sent: tokens, or seconds of audio."""
    early: bool = False
    """Sent without waiting for the first token."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer: what is sent, and how fast it can be made."""

    content_type: str
    chunks: Iterable[Chunk]
    latency: Latency
    streamed: bool = False
    error_event: Callable[[int], bytes] | None = None
    """Makes the error that takes the place of the n-th chunk; ``None`` where the connection is closed instead."""
    headers: Mapping[str, str] = field(default_factory=dict)


def compact(value: object) -> bytes:
    """Write JSON as the provider does on the wire: no white space."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(value: Mapping[str, Any], name: str | None = None) -> bytes:
    """Write one server-sent event."""
    prefix = f"event: {name}\n".encode() if name else b""
    return prefix + b"data: " + compact(value) + b"\n\n"


def failed(message: str = "The server had an error while processing your request. Sorry about that!") -> dict[str, Any]:
    """Make the body of an error that comes in the middle of a stream."""
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


class Call:
    """One request to an endpoint: its fields, checked as they are read, and all that derives from them."""

    def __init__(
        self, path: str, body: Mapping[str, Any], *, seed: int, faults: Faults, controls: Mapping[str, int]
    ) -> None:
        self.path = path
        self.body = body
        self.faults = faults
        self.controls = controls
        """What request headers ask of the simulator: ``tokens``, ``reasoning``."""
        # Not the fields that only say how the answer travels: a streamed answer is the same answer.
        identity = {key: value for key, value in body.items() if key not in {"stream", "stream_options"}}
        text = json.dumps([seed, path, identity], sort_keys=True, default=lambda data: sha256(data).hexdigest())
        self.digest = sha256(text.encode()).hexdigest()
        """The same for the same request and seed; ids, times and chance derive from it."""
        self.again = 0
        """How many requests like it came before: each has ids of its own."""

    def id(self, prefix: str, *labels: object, length: int = 29) -> str:
        """Make an id that is the same for the same request and seed."""
        again = f" again {self.again}" if self.again else ""
        return prefix + sha256(f"{self.digest}{prefix}{labels}{again}".encode()).hexdigest()[:length]

    def random(self, label: str) -> Random:
        """Make a source of chance that is the same for the same request and seed."""
        return Random(self.digest + label)

    @property
    def created(self) -> int:
        """Seconds since 1970 that derive from the request, not from the clock."""
        return _FIRST_DAY + int(self.digest[:8], 16) % (30 * 86_400)

    @property
    def model(self) -> str:
        """The model as the caller wrote it."""
        name = self.required("model", str)
        if not name:
            raise OpenAIError.invalid("you must provide a model parameter")
        return name

    def required(self, name: str, kind: type[_T]) -> _T:
        """Return a field that must be there."""
        value = self.optional(name, kind)
        if value is None:
            raise OpenAIError.invalid(
                f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
            )
        return value

    def optional(self, name: str, kind: type[_T]) -> _T | None:
        """Return a field, or ``None`` when it is absent or null."""
        value = self.body.get(name)
        if value is None:
            return None
        accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            got = _TYPE_NAMES.get(type(value), "null")
            message = f"Invalid type for '{name}': expected {_TYPE_NAMES[kind]}, but got {got} instead."
            raise OpenAIError.invalid(message, param=name, code="invalid_type")
        return value  # type: ignore[return-value]  # an int is a number too

    def number(self, name: str, kind: type[_N], low: float, high: float) -> _N | None:
        """Return a numeric field within its range, or ``None``."""
        value = self.optional(name, kind)
        if value is None or low <= value <= high:
            return value
        is_low = value < low
        noun = "integer" if kind is int else "decimal"
        side, code = ("below minimum", "below_min_value") if is_low else ("above maximum", "above_max_value")
        expected = f">= {low:g}" if is_low else f"<= {high:g}"
        message = f"Invalid '{name}': {noun} {side} value. Expected a value {expected}, but got {value} instead."
        raise OpenAIError.invalid(message, param=name, code=f"{noun}_{code}")

    def choice(self, name: str, values: Iterable[str]) -> str | None:
        """Return a field that is one of these values, or ``None``."""
        value = self.optional(name, str)
        supported = tuple(values)
        if value is not None and value not in supported:
            listed = ", ".join(f"'{one}'" for one in supported)
            message = f"Invalid value: '{value}'. Supported values are: {listed}."
            raise OpenAIError.invalid(message, param=name, code="invalid_value")
        return value

    def headers(self, used_tokens: int) -> dict[str, str]:
        """Make the provider's headers; the limits are those of a client that sends one request at a time."""
        return {
            "x-request-id": self.id("req_", length=32),
            "openai-organization": "stagelight-simulator",
            "openai-version": "2020-10-01",
            "openai-processing-ms": str(1 + int(self.digest[8:12], 16) % 400),
            "x-ratelimit-limit-requests": str(_REQUESTS_LIMIT),
            "x-ratelimit-limit-tokens": str(_TOKENS_LIMIT),
            "x-ratelimit-remaining-requests": str(_REQUESTS_LIMIT - 1),
            "x-ratelimit-remaining-tokens": str(max(0, _TOKENS_LIMIT - used_tokens)),
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": f"{used_tokens * 60_000 // _TOKENS_LIMIT}ms",
        }
