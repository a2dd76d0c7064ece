"""Celery: a task runs in the trace of whoever sent it, with the request's id and for the same owner."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from stagelight._guard import guard
from stagelight._lifecycle import Attachment
from stagelight._tasks import OWNER, carried, context_of, with_owner
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target

__all__ = ["CeleryInstrumentor"]

_TRACE = "traceparent"
_ENTERED = "_stagelight_entered"
"""Attribute of a task's request: the attached context, to be left when the task is over."""


class CeleryInstrumentor(Instrumentor):
    """Takes request and owner into Celery's tasks, by Celery's own signals."""

    distribution = "celery"
    supported = "celery >= 5.3, < 6"
    coverage = Coverage(
        title="Celery",
        calls={},
        ways="tasks sent by `delay`, `apply_async` and `send_task`, run by a worker",
        recorded=(
            "The stages of a task: in the trace of whoever sent it, with the request's id, and for the same tenant,"
            " feature, variant, user, session and conversation ([background work](requests.md#background-work)).",
        ),
        not_recorded=(
            "The tasks themselves: their spans are those of the official Celery instrumentation.",
            "One turn for both processes: the figures of a turn are those of the stages of its own process.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        """Nothing is wrapped."""
        return ()

    def _instrument(self, **_: Any) -> None:
        import wrapt

        self._switched_on = True
        if "celery.signals" not in self._hooked:
            self._hooked.add("celery.signals")
            wrapt.register_post_import_hook(self._connect, "celery.signals")

    def _uninstrument(self, **_: Any) -> None:
        self._switched_on = False

    def _connect(self, signals: ModuleType) -> None:
        for signal, receiver in (
            (signals.before_task_publish, self._sent),
            (signals.task_prerun, self._began),
            (signals.task_postrun, self._ended),
        ):
            signal.connect(receiver, weak=False, dispatch_uid=f"stagelight.{receiver.__name__}")

    def _sent(self, headers: Any = None, **_: Any) -> None:
        with guard("celery send"):
            if self._switched_on and isinstance(headers, dict):
                for name, value in carried().items():
                    headers.setdefault(name, value)

    def _began(self, task: Any = None, **_: Any) -> None:
        with guard("celery task"):
            if not self._switched_on or task is None:
                return
            given = {name: getattr(task.request, name, None) for name in (_TRACE, "tracestate", "baggage", OWNER)}
            if task.request.is_eager:
                return  # in the sender's own context already
            if trace.get_current_span().get_span_context().is_valid:  # the official instrumentation was here
                context = with_owner(otel_context.get_current(), given[OWNER])
            else:
                context = context_of({name: value for name, value in given.items() if value is not None})
            entered = Attachment(context)
            entered.__enter__()
            setattr(task.request, _ENTERED, entered)

    def _ended(self, task: Any = None, **_: Any) -> None:
        with guard("celery task"):
            entered = getattr(task.request, _ENTERED, None) if task is not None else None
            if isinstance(entered, Attachment):
                setattr(task.request, _ENTERED, None)
                entered.__exit__(None, None, None)
