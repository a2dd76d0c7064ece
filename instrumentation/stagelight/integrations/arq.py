"""arq: a job runs in the trace of whoever enqueued it, with the request's id and for the same owner."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import context as otel_context

from stagelight._guard import guard, quietly
from stagelight._tasks import carried, context_of
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target

__all__ = ["ArqInstrumentor"]

_HEADERS = "stagelight"  # beside arq's own keys of a serialized job; a worker without us does not look at it

Wrapped = Callable[..., Any]


class ArqInstrumentor(Instrumentor):
    """Takes request and owner into arq's jobs."""

    distribution = "arq"
    supported = "arq >= 0.25, < 1"
    coverage = Coverage(
        title="arq",
        calls={},
        ways="jobs enqueued by `ArqRedis.enqueue_job` and run by a worker",
        recorded=(
            "The stages of a job: in the trace of whoever enqueued it, with the request's id, and for the same tenant,"
            " feature, variant, user, session and conversation ([background work](requests.md#background-work)).",
        ),
        not_recorded=(
            "The jobs themselves: no span is made for them.",
            "One turn for both processes: the figures of a turn are those of the stages of its own process.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        """Where a job becomes bytes, and where a worker's task, one per job, reads them."""
        return (
            Target("arq.connections", "serialize_job", _serialized),
            Target("arq.worker", "deserialize_job_raw", _read),
        )


def _serialized(wrapped: Wrapped, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    serialize = kwargs.get("serializer") or pickle.dumps
    headers: dict[str, str] = quietly("arq enqueue", carried, {})
    if not headers:
        return wrapped(*args, **kwargs)
    return wrapped(*args, **{**kwargs, "serializer": lambda job: serialize({**job, _HEADERS: headers})})


def _read(wrapped: Wrapped, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    deserialize = kwargs.get("deserializer") or pickle.loads
    seen: list[Any] = []

    def reading(data: bytes) -> Any:
        job = deserialize(data)
        seen.append(job.get(_HEADERS) if isinstance(job, dict) else None)
        return job

    found = wrapped(*args, **{**kwargs, "deserializer": reading})
    with guard("arq job"):
        if seen and isinstance(seen[0], dict):
            otel_context.attach(context_of(seen[0]))  # ends with the task of this job
    return found
