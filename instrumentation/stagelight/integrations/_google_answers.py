"""What Google's models answer: objects of the client, or the JSON they are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Final

from stagelight.facts import Response, Usage
from stagelight.integrations._reading import count, part, text, texts

__all__ = ["ContentChunks", "embedded", "field", "generated", "speaks", "usage_of_body"]

_REASONS: Final[Mapping[str, str]] = {"STOP": "stop", "MAX_TOKENS": "length"}
"""The words of chat completions for the same; other reasons are told in lower case."""

_TIERS: Final[Mapping[str, str]] = {
    "ON_DEMAND": "standard",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
}
"""Vertex AI's words for what the Gemini API calls service tiers."""

_IMAGES: Final = ("IMAGE", "DOCUMENT")  # pages of a document are billed as images
_SERVER_TIME: Final = re.compile(r"\bgfet\w*;\s*dur=(\d{1,9})")
_MOST_REASONS: Final = 16


@cache
def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def field(record: Any, name: str) -> Any:
    """A field of an object of the client, of a mapping in its spelling, or of the provider's JSON."""
    if isinstance(record, dict):
        value = record.get(name)
        return record.get(_camel(name)) if value is None else value
    return getattr(record, name, None)


def _list(record: Any, name: str) -> list[Any]:
    found = field(record, name)
    return found if isinstance(found, list) else []


# usage


def _sum(*counts: int | None) -> int | None:
    known = [one for one in counts if one is not None]
    return sum(known) if known else None


def _of(told: Any, lists: tuple[str, ...], *modalities: str) -> int | None:
    """Tokens of some modalities; ``None`` where there are none of them."""
    return _sum(
        *(
            count(field(one, "token_count"))
            for name in lists
            for one in _list(told, name)
            if field(one, "modality") in modalities
        )
    )


_PROMPT: Final = ("prompt_tokens_details", "prompt_token_details", "tool_use_prompt_tokens_details")
_CANDIDATES: Final = ("candidates_tokens_details", "response_tokens_details")


def _usage(told: Any, *, ended: bool = True) -> Usage | None:
    """Inclusive counts: Google tells thoughts, and what tools gave to the model, beside the totals they belong to."""
    if told is None:
        return None
    thoughts = count(field(told, "thoughts_token_count"))
    candidates = count(field(told, "candidates_token_count"))
    taken = _sum(count(field(told, "prompt_token_count")), count(field(told, "tool_use_prompt_token_count")))
    made = _sum(count(field(told, "response_token_count")) if candidates is None else candidates, thoughts)
    total = count(field(told, "total_token_count"))
    if made is None and ended and taken is not None and total is not None and total >= taken:
        made = total - taken  # nothing was made, which is told by silence
    return Usage(
        input_tokens=taken,
        output_tokens=made,
        cache_read_tokens=count(field(told, "cached_content_token_count")),
        reasoning_tokens=thoughts,
        audio_input_tokens=_of(told, _PROMPT, "AUDIO"),
        audio_output_tokens=_of(told, _CANDIDATES, "AUDIO"),
        image_input_tokens=_of(told, _PROMPT, *_IMAGES),
        image_output_tokens=_of(told, _CANDIDATES, *_IMAGES),
        audio_cache_read_tokens=_of(told, ("cache_tokens_details",), "AUDIO"),
    )


def _headers(answer: Any) -> Mapping[str, Any]:
    found = part(field(answer, "sdk_http_response"), "headers")
    return found if isinstance(found, Mapping) else {}


def _tier(answer: Any, told: Any) -> str | None:
    traffic = text(field(told, "traffic_type"))
    if traffic is not None:
        return _TIERS.get(traffic, traffic.lower())
    return text(field(told, "service_tier")) or text(_headers(answer).get("x-gemini-service-tier"))


def _server_time(answer: Any) -> float | None:
    found = _SERVER_TIME.search(str(_headers(answer).get("server-timing", "")))
    return int(found[1]) / 1000 if found else None


# contents


def _reason(value: Any) -> str | None:
    told = text(value)
    return None if told is None or told.endswith("UNSPECIFIED") else _REASONS.get(told, told.lower())


def _reasons(answer: Any) -> dict[int, str]:
    """Why each candidate ended; the block of a prompt stands for the candidate that it prevented."""
    found: dict[int, str] = {}
    for candidate in _list(answer, "candidates")[:_MOST_REASONS]:
        reason = _reason(field(candidate, "finish_reason"))
        if reason is not None:
            found[count(field(candidate, "index")) or 0] = reason
    blocked = _reason(field(field(answer, "prompt_feedback"), "block_reason"))
    return found if found or blocked is None else {0: blocked}


def _unread(answer: Any) -> Any:
    """The answer, or what is in its HTTP body where the caller asked the client for no more than that."""
    body = part(field(answer, "sdk_http_response"), "body")
    if not isinstance(body, str) or field(answer, "candidates") is not None:
        return answer
    try:
        told = json.loads(body)
    except ValueError:
        return answer
    return told if isinstance(told, dict) else answer


def generated(answer: Any) -> Response:
    """The facts of an answer in one piece, or of one chunk."""
    told = _unread(answer)
    usage, reasons = field(told, "usage_metadata"), _reasons(told)
    return Response(
        model=text(field(told, "model_version")),
        id=text(field(told, "response_id")),
        finish_reasons=texts([reasons[index] for index in sorted(reasons)]),
        service_tier=_tier(answer, usage),
        usage=_usage(usage),
        length_cut="length" in reasons.values(),
        server_time_s=_server_time(answer),
    )


def speaks(answer: Any) -> bool:
    """Whether there is text or sound for the user in an answer or chunk: thoughts are not."""
    return any(
        field(one, "text") or field(one, "inline_data")
        for candidate in _list(answer, "candidates")
        for one in _list(field(candidate, "content"), "parts")
        if not field(one, "thought")
    )


class ContentChunks:
    """Counts are cumulative: the last chunk that tells them has them all."""

    streamed: ClassVar[bool] = True
    failure: str | None = None

    def __init__(self) -> None:
        self.finished = False
        self._first: Any = None
        self._counted: Any = None
        self._reasons: dict[int, str] = {}

    def take(self, chunk: Any) -> bool:
        self._first = chunk if self._first is None else self._first
        if field(chunk, "usage_metadata") is not None:
            self._counted = chunk
        ended = _reasons(chunk)
        if ended:
            self._reasons.update(ended)
            self.finished = True
        return speaks(chunk)

    def response(self) -> Response | None:
        if self._first is None:
            return None
        told = generated(self._first if self._counted is None else self._counted)
        first = self._first
        usage = told.usage if self.finished else _usage(field(self._counted, "usage_metadata"), ended=False)
        return told._replace(
            model=text(field(first, "model_version")) or told.model,
            id=text(field(first, "response_id")) or told.id,
            finish_reasons=texts([self._reasons[index] for index in sorted(self._reasons)]),
            length_cut="length" in self._reasons.values(),
            # Until the last chunk the provider has not told all that it bills.
            usage=usage if usage is None or self.finished else usage._replace(counted=True),
        )


# embeddings


def embedded(answer: Any) -> Response:
    """The facts of embeddings."""
    vectors = _list(answer, "embeddings")
    values = field(vectors[0], "values") if vectors else None
    usage = _usage(field(answer, "usage_metadata"))
    if usage is None or usage.input_tokens is None:
        usage = _statistics(vectors)
    return Response(
        usage=None if usage is None else usage._replace(output_tokens=None),
        embedding_dimensions=len(values) if isinstance(values, list) else None,
        server_time_s=_server_time(answer),
    )


def _statistics(vectors: list[Any]) -> Usage | None:
    """Vertex AI counts the tokens of each text, as a number with a fraction of zero."""
    counts = [field(field(vector, "statistics"), "token_count") for vector in vectors]
    if not counts or not all(isinstance(one, int | float) and float(one).is_integer() for one in counts):
        return None
    return Usage(input_tokens=count(int(sum(counts))))


def usage_of_body(body: Any) -> Usage | None:
    """The usage at the end of the body of embeddings, which some versions of the client leave out."""
    if isinstance(body, dict):
        return _usage(body.get("usageMetadata"))
    if not isinstance(body, str):
        return None
    at = body.rfind('"usageMetadata"')
    begin = body.find("{", at) if at >= 0 else -1
    if begin < 0:
        return None
    try:
        return _usage(json.JSONDecoder().raw_decode(body, begin)[0])
    except ValueError:
        return None
