"""One call that sets everything up: settings, providers, runtime, instrumented clients, and a clean exit."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider, set_logger_provider

from stagelight import _guard, _runtime, _self_metrics, cost
from stagelight._exits import deliver_at_exit
from stagelight._handover import Handover
from stagelight._identity import Pseudonyms
from stagelight._turns import settle_all
from stagelight._version import SCHEMA_URL, __version__
from stagelight.export.accounting import Balance, Signal
from stagelight.export.accumulators import Backend, SdkBackend
from stagelight.export.deadline import all_within
from stagelight.export.protocols import PROTOCOLS, protocol_of
from stagelight.instruments import Instruments
from stagelight.settings import Problem, Settings, SettingsError, read

if TYPE_CHECKING:
    from stagelight.export.providers import Providers

__all__ = ["Configured", "configure", "flush", "shutdown"]

logger = logging.getLogger("stagelight")

EXIT_LIMIT_S = 2.0
"""Seconds the exit of the process may wait for delivery."""


@dataclass(frozen=True, slots=True)
class Configured:
    """What ``configure`` did."""

    settings: Settings
    instrumented: tuple[str, ...]
    """Client libraries whose calls are recorded."""
    joined: bool
    """The application had set up OpenTelemetry itself: its providers and exporters are used, none of ours is made."""
    problems: tuple[Problem, ...]
    """Variables whose values were not accepted."""
    _providers: Providers | None = None

    def delivery(self) -> Mapping[Signal, Balance]:
        """What became of everything made so far, per signal; empty where the application's exporters are used."""
        providers = self._providers
        return {name: balance() for name, balance in providers.balances.items()} if providers is not None else {}


_lock = threading.RLock()
_configured: Configured | None = None


def configure(**settings: Any) -> Configured:
    """Set up Stagelight for this process; no network, no failure that reaches the application.

    Args:
        settings: fields of ``settings.Settings``; keyword > environment (``STAGELIGHT_*``) > default. Where telemetry
            goes is said by the standard ``OTEL_*`` variables; the default is OTLP by ``http/protobuf`` to
            ``localhost:4318``.

    Returns:
        What was done. A second call changes nothing, returns the first result and warns once.

    Raises:
        SettingsError: a keyword is unknown or its value is not accepted; in strict mode also a wrong variable.
    """
    global _configured  # noqa: PLW0603 - one configuration per process
    with _lock:
        if _configured is not None:
            if _guard.first_time("configured twice"):
                logger.warning("stagelight.configure() was called again; the first configuration stays")
            return _configured
        chosen, problems = read(os.environ, **settings)
        if chosen.strict:
            _guard.set_strict(True)
        chosen, unreadable = _readable(chosen, settings)
        problems += unreadable + _unknown_protocols()
        for problem in problems:
            if _guard.strict():
                raise SettingsError(problem.message)
            logger.error("%s; continuing without it", problem.message)
        _configured = _set_up(chosen, problems)
        return _configured


def _readable(chosen: Settings, given: Mapping[str, Any]) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings without the files whose content is not accepted.

    Raises:
        SettingsError: such a file was given by keyword.
    """
    problems: list[Problem] = []
    checks: tuple[tuple[str, str, Callable[[], object]], ...] = (
        ("prices", "STAGELIGHT_PRICES", lambda: cost.configure(chosen.prices)),
        ("id_key_file", "STAGELIGHT_ID_KEY_FILE", chosen.resolve_id_key),
    )
    for name, variable, check in checks:
        try:
            check()
        except (SettingsError, cost.PriceFileError) as error:
            said = str(error).removeprefix(f"{variable}: ")
            if given.get(name) is not None:
                raise SettingsError(f"configure({name}=...): {said}") from error
            problems.append(Problem(variable, f"{variable}: {said}"))
            chosen = replace(chosen, prices=None) if name == "prices" else replace(chosen, id_key_file=None)
    return chosen, tuple(problems)


def _unknown_protocols() -> tuple[Problem, ...]:
    signals: tuple[Signal, ...] = ("traces", "logs", "metrics")
    unknown = {name for name in (protocol_of(one, os.environ) for one in signals) if name not in PROTOCOLS}
    variable = "OTEL_EXPORTER_OTLP_PROTOCOL"
    return tuple(
        Problem(variable, f"{variable}: {name!r} is not accepted; accepted: {', '.join(PROTOCOLS)}")
        for name in sorted(unknown)
    )


def _set_up(settings: Settings, problems: tuple[Problem, ...]) -> Configured:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Configured(settings, (), joined=False, problems=problems)
    joined = _host_has_providers()
    providers = None if joined else _providers()
    if providers is not None:
        trace.set_tracer_provider(providers.tracer_provider)
        metrics.set_meter_provider(providers.meter_provider)
        set_logger_provider(providers.logger_provider)
    else:
        logger.info("stagelight joins the OpenTelemetry providers of the application")
    runtime = _runtime_for(settings, providers)
    _runtime.install(runtime)
    instrumented = _instrument() if settings.instrument else ()
    if providers is not None:
        deliver_at_exit(shutdown, partial(flush, EXIT_LIMIT_S))
    else:
        atexit.register(shutdown)  # the application's own exporters are its to flush
    return Configured(settings, instrumented, joined=joined, problems=problems, _providers=providers)


def _host_has_providers() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _providers() -> Providers:
    # The SDK is imported here, so that `import stagelight` stays cheap and the command line does not need it.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from stagelight.export.providers import build

    scope = InstrumentationScope(_runtime.SCOPE, __version__, SCHEMA_URL)
    return build(Resource.create({}), os.environ, scope)


def _runtime_for(settings: Settings, providers: Providers | None) -> _runtime.Runtime:
    tracers = providers.tracer_provider if providers is not None else trace.get_tracer_provider()
    meters = providers.meter_provider if providers is not None else metrics.get_meter_provider()
    meter = meters.get_meter(_runtime.SCOPE, __version__, schema_url=SCHEMA_URL)
    own = providers.accumulators if providers is not None else None
    backend: Backend = SdkBackend(meter) if own is None else own
    key = settings.resolve_id_key()
    runtime = _runtime.Runtime(
        tracer=tracers.get_tracer(_runtime.SCOPE, __version__, schema_url=SCHEMA_URL),
        instruments=Instruments(backend, settings.semconv),
        logger=providers.events if providers is not None else _host_logger(),
        handover=Handover(inline=providers is None),
        settings=settings,
        configured=True,
        pseudonyms=Pseudonyms(key) if key else None,
    )
    _self_metrics.observe(meter, runtime, providers.balances if providers is not None else {})
    return runtime


def _host_logger() -> _runtime.EventSink:
    return get_logger_provider().get_logger(_runtime.SCOPE, __version__, schema_url=SCHEMA_URL)


def _instrument() -> tuple[str, ...]:
    """Instrument threads and every installed client that has an entry point of ours."""
    from importlib.metadata import entry_points

    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    if not ThreadingInstrumentor().is_instrumented_by_opentelemetry:
        ThreadingInstrumentor().instrument()
    done: list[str] = []
    disabled = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    for entry in entry_points(group="opentelemetry_instrumentor"):
        if not entry.name.startswith("stagelight-") or entry.name in disabled:
            continue
        with _guard.guard(f"instrument {entry.name}"):
            instrumentor = entry.load()()
            if instrumentor.is_instrumented_by_opentelemetry or instrumentor.switch_on():
                done.append(entry.name.removeprefix("stagelight-"))
    return tuple(done)


def flush(timeout: float = 5.0) -> bool:
    """Send everything recorded so far.

    Args:
        timeout: seconds to wait at most.

    Returns:
        Whether everything was delivered to the exporter's back end or dropped and counted in time.
    """
    done = False
    with _guard.guard("flush"):
        deadline = time.monotonic() + timeout
        done = _hand_in(timeout)
        left = max(deadline - time.monotonic(), 0.0)
        if _configured is not None and _configured._providers is not None:  # noqa: SLF001 - this module's own record
            done = _configured._providers.flush(left) and done  # noqa: SLF001
        else:
            done = _flush_the_hosts(left) and done
    return done


def _hand_in(timeout: float) -> bool:
    handover = _runtime.current().handover
    handover.put(settle_all)
    return handover.drain(timeout)


def _flush_the_hosts(timeout: float) -> bool:
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider())
    flushes = [one.force_flush for one in providers if hasattr(one, "force_flush")]
    return all_within(timeout, [partial(_flush_one, one) for one in flushes])


def _flush_one(force_flush: Callable[[int], bool], left_s: float) -> bool:
    return force_flush(int(left_s * 1000))


def shutdown(timeout: float = EXIT_LIMIT_S) -> bool:
    """Flush and stop; called at exit. Undelivered items are dropped and counted.

    Args:
        timeout: seconds to wait at most.
    """
    done = False
    with _guard.guard("shutdown"):
        deadline = time.monotonic() + timeout
        done = _hand_in(timeout / 2)
        if _configured is not None and _configured._providers is not None:  # noqa: SLF001
            done = _configured._providers.shutdown(deadline - time.monotonic()) and done  # noqa: SLF001
    return done
