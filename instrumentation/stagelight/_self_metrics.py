"""Metrics about Stagelight itself, read by callbacks when metrics are collected: they cost the calls nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from stagelight import _clock, _guard
from stagelight._runtime import Runtime
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.conventions.metrics import METRICS
from stagelight.export.accounting import Balance, Signal

__all__ = ["observe"]

Read = Callable[[], Iterable[Observation]]

_MISUSES = ("type", "range", "unknown_key", "state", "unreadable")


def observe(meter: Meter, runtime: Runtime, balances: Mapping[Signal, Callable[[], Balance]]) -> None:
    """Create the observed instruments of a runtime.

    Args:
        meter: where they are made.
        runtime: whose calls, labels and rate limits are read.
        balances: the account of each signal.
    """
    for name, read in _reads(runtime, balances).items():
        metric = METRICS[name]
        create = {
            "counter": meter.create_observable_counter,
            "updowncounter": meter.create_observable_up_down_counter,
            "gauge": meter.create_observable_gauge,
        }[metric.instrument]
        create(name, callbacks=[_callback(name, read)], unit=metric.unit, description=metric.description)


def _callback(name: str, read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def call(_options: CallbackOptions) -> Iterable[Observation]:
        return _guard.quietly(f"observe {name}", lambda: list(read()), [])

    return call


def _reads(runtime: Runtime, balances: Mapping[Signal, Callable[[], Balance]]) -> dict[str, Read]:
    def made() -> Iterator[Observation]:
        for signal, balance in balances.items():
            yield Observation(balance().made, {a.STAGELIGHT_SIGNAL: signal})

    def delivered() -> Iterator[Observation]:
        for signal, balance in balances.items():
            yield Observation(balance().delivered, {a.STAGELIGHT_SIGNAL: signal})

    def queued() -> Iterator[Observation]:
        for signal, balance in balances.items():
            yield Observation(balance().queued, {a.STAGELIGHT_SIGNAL: signal})

    def dropped() -> Iterator[Observation]:
        for signal, balance in balances.items():
            reasons = {"queue_full": 0, "export_failed": 0, **balance().dropped}
            for reason, count in reasons.items():
                yield Observation(count, {a.STAGELIGHT_SIGNAL: signal, a.STAGELIGHT_DROP_REASON: reason})

    def in_flight() -> Iterator[Observation]:
        for (stage, provider), count in runtime.in_flight.counts().items():
            labels: dict[str, Any] = {a.STAGELIGHT_STAGE: stage}
            if provider is not None:
                labels[a.GEN_AI_PROVIDER_NAME] = provider
            yield Observation(count, labels)

    def limits_of(name: str) -> Read:
        def read() -> Iterator[Observation]:
            for (provider, model), left in list(runtime.instruments.rate_limits.items()):
                if name in left:
                    yield Observation(left[name], {a.GEN_AI_PROVIDER_NAME: provider, a.GEN_AI_REQUEST_MODEL: model})

        return read

    def counted(key: str, counts: Callable[[], Mapping[str, int]], known: Iterable[str] = ()) -> Read:
        def read() -> Iterator[Observation]:
            for value, count in {**dict.fromkeys(known, 0), **counts()}.items():
                yield Observation(count, {key: value})

        return read

    bounds = runtime.instruments.bounds
    return {
        m.STAGELIGHT_TELEMETRY_MADE: made,
        m.STAGELIGHT_TELEMETRY_DELIVERED: delivered,
        m.STAGELIGHT_TELEMETRY_QUEUED: queued,
        m.STAGELIGHT_TELEMETRY_DROPPED: dropped,
        m.STAGELIGHT_CALLS_IN_FLIGHT: in_flight,
        m.STAGELIGHT_HEARTBEAT: lambda: [Observation(_clock.wall_ns() / 1e9)],
        m.STAGELIGHT_LABELS_BOUNDED: counted(a.STAGELIGHT_LABEL, lambda: dict(bounds.limited), bounds.kinds),
        m.STAGELIGHT_MISUSES: counted(a.STAGELIGHT_MISUSE_KIND, _guard.misuses, _MISUSES),
        m.STAGELIGHT_INTERNAL_ERRORS: counted(a.STAGELIGHT_ERROR_SITE, _guard.errors),
        m.STAGELIGHT_RATELIMIT_REMAINING_REQUESTS: limits_of(m.STAGELIGHT_RATELIMIT_REMAINING_REQUESTS),
        m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS: limits_of(m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS),
    }
