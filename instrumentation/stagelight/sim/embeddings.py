"""``POST /v1/embeddings``."""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode

from stagelight.sim.language import tokens
from stagelight.sim.models import LATENCIES, model
from stagelight.sim.vectors import embed
from stagelight.sim.wire import Call, Chunk, OpenAIError, Reply, compact

__all__ = ["embeddings"]

_LONGEST = 8192
_MOST_INPUTS = 2048


def embeddings(call: Call) -> Reply:
    """Answer an embeddings request."""
    row = model(call.model, kind="embedding")
    encoding = call.choice("encoding_format", ("float", "base64")) or "float"
    asked = call.number("dimensions", int, 1, row.dimensions)
    if asked is not None and row.id == "text-embedding-ada-002":
        raise OpenAIError.invalid("This model does not support specifying dimensions.")
    inputs = _inputs(call.body.get("input"))
    used = sum(count for _, count in inputs)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _encoded(embed(text, size=row.dimensions, dimensions=asked or row.dimensions), encoding),
        }
        for index, (text, _) in enumerate(inputs)
    ]
    body: dict[str, object] = {"object": "list", "data": data, "model": row.snapshot}
    if call.faults.get("missing_usage") is None:
        body["usage"] = {"prompt_tokens": used, "total_tokens": used}
    return Reply("application/json", [Chunk(compact(body), used)], LATENCIES[row.latency], headers=call.headers(used))


def _inputs(value: object) -> list[tuple[str, int]]:
    """Return each input as text with its number of tokens; it is text, a list of texts, tokens or a list of those."""
    if value is None:
        raise OpenAIError.invalid(
            "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_INPUTS:
        raise OpenAIError.invalid(
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
        )
    inputs = [_input(one) for one in value]
    longest = max(count for _, count in inputs)
    if longest > _LONGEST:
        message = f"This model's maximum context length is {_LONGEST} tokens, however you requested {longest} tokens."
        raise OpenAIError.invalid(message)
    return inputs


def _input(value: object) -> tuple[str, int]:
    if isinstance(value, str) and value:
        return value, len(tokens(value))
    if isinstance(value, list) and value and all(isinstance(token, int) for token in value):
        return " ".join(map(str, value)), len(value)
    raise OpenAIError.invalid(
        "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
    )


def _encoded(vector: array[float], encoding: str) -> str | list[float]:
    if encoding == "float":
        return vector.tolist()
    if sys.byteorder == "big":
        vector.byteswap()
    return b64encode(vector.tobytes()).decode()
