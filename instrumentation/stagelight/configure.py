"""One call that sets everything up: settings, providers, runtime, instrumented clients, and a clean exit.

``set_up_first`` does the same before the application runs (``distro.py``), ready to join what that sets up later.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider, set_logger_provider
from opentelemetry.metrics import Meter
from opentelemetry.trace import Tracer

from stagelight import _guard, _runtime, _self_metrics, cost, standard
from stagelight._exits import deliver_at_exit
from stagelight._handover import Handover
from stagelight._identity import Pseudonyms
from stagelight._turns import settle_all
from stagelight._version import SCHEMA_URL, __version__
from stagelight.export.accounting import Balance, Signal
from stagelight.export.accumulators import Backend, SdkBackend
from stagelight.export.deadline import all_within
from stagelight.instruments import Instruments
from stagelight.settings import Problem, Settings, SettingsError, read

if TYPE_CHECKING:
    from stagelight.export.providers import Providers

__all__ = ["Configured", "configure", "flush", "set_up_first", "shutdown"]

logger = logging.getLogger("stagelight")

_SCOPE = (_runtime.SCOPE, __version__, SCHEMA_URL)

_NAMED_PROVIDERS = tuple(f"OTEL_PYTHON_{one}_PROVIDER" for one in ("TRACER", "METER", "LOGGER"))
"""Whoever asks for a provider while there is none is given the one that a variable names, which exports nothing; as the
official configurator does, ours are set before anybody asks."""

EXIT_LIMIT_S = 2.0
"""Seconds the exit of the process may wait for delivery."""

OWN_WORK_LIMIT_S = 5.0
"""Seconds the exit may wait before that for what ended calls have left to record. It takes milliseconds, but 0.2 s of a
processor where the price data has yet to be read: several seconds in a container that has little of one."""


@dataclass(frozen=True, slots=True)
class Configured:
    """What ``configure`` did."""

    settings: Settings
    instrumented: tuple[str, ...]
    """Client libraries whose calls are recorded."""
    joined: bool
    """The application has set up OpenTelemetry itself: spans go to its provider. Of signals that it has a provider for,
    none is exported by us."""
    problems: tuple[Problem, ...]
    """Variables whose values were not accepted."""
    _providers: Providers | None = None

    def delivery(self) -> Mapping[Signal, Balance]:
        """What became of everything made so far, per signal; empty where the application's exporters are used."""
        providers = self._providers
        return {name: balance() for name, balance in providers.balances.items()} if providers is not None else {}


_lock = threading.RLock()
_configured: Configured | None = None
_first = False
"""Whether it was set up before the application."""


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
    with _lock:
        if _configured is not None:
            _say_again(settings)
            return _configured
        return _begin(settings, waits=False)


def set_up_first() -> Configured:
    """``configure()`` by the environment, before the application: what that sets up later is joined.

    Raises:
        SettingsError: a variable is wrong, in strict mode.
    """
    with _lock:
        return _configured or _begin({}, waits=True)


def _say_again(settings: Mapping[str, Any]) -> None:
    assert _configured is not None  # noqa: S101 - asked by the caller
    if _first:
        unheard = ", ".join(
            name for name, value in settings.items() if value != getattr(_configured.settings, name, value)
        )
        if unheard and _guard.first_time("configured twice"):
            logger.warning("stagelight was set up by the environment before configure(); without effect: %s", unheard)
    elif _guard.first_time("configured twice"):
        logger.warning("stagelight.configure() was called again; the first configuration stays")


def _begin(given: Mapping[str, Any], *, waits: bool) -> Configured:
    global _configured, _first  # noqa: PLW0603 - one configuration per process
    chosen, problems = read(os.environ, **given)
    if chosen.strict:
        _guard.set_strict(True)
    chosen, unreadable = _readable(chosen, given)
    problems += unreadable + standard.problems(standard.given())
    for problem in problems:
        if _guard.strict():
            raise SettingsError(problem.message)
        logger.error("%s; continuing without it", problem.message)
    _first = waits
    standard.correct()
    with standard.withheld(*_NAMED_PROVIDERS, *standard.refused()):
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


def _set_up(settings: Settings, problems: tuple[Problem, ...]) -> Configured:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Configured(settings, (), joined=False, problems=problems)
    taken = frozenset(_taken())
    providers = None if len(taken) == len(standard.SIGNALS) else _providers(taken)
    if providers is not None:
        _make_global(providers, taken)
    if _first and "traces" in taken:
        _keep_urls_safe()
    if taken:
        logger.info("stagelight joins the application's own providers of %s", ", ".join(sorted(taken)))
    runtime = _runtime_for(settings, providers, taken)
    _runtime.install(runtime)
    _propagate()
    _look_at_foreign_spans(trace.get_tracer_provider(), runtime)
    instrumented = _instrument() if settings.instrument else ()
    if providers is not None:
        deliver_at_exit(partial(_at_exit, shutdown), partial(_at_exit, flush))
    else:
        atexit.register(shutdown)  # the application's own exporters are its to flush
    return Configured(settings, instrumented, joined="traces" in taken, problems=problems, _providers=providers)


def _propagate() -> None:
    # Imported here, where a wrong OTEL_PROPAGATORS that was set after the import of this package is withheld.
    from stagelight import propagation

    propagation.install()


def _taken() -> Iterator[Signal]:
    """Signals for which the application has a provider."""
    from opentelemetry._logs._internal import ProxyLoggerProvider
    from opentelemetry.metrics._internal import _ProxyMeterProvider

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield "traces"
    if not isinstance(metrics.get_meter_provider(), _ProxyMeterProvider):
        yield "metrics"
    if not isinstance(get_logger_provider(), ProxyLoggerProvider):
        yield "logs"


def _look_at_foreign_spans(tracers: Any, runtime: _runtime.Runtime) -> None:
    if hasattr(tracers, "add_span_processor"):
        from stagelight.export.foreign_spans import ForeignSpans

        tracers.add_span_processor(ForeignSpans(_runtime.SCOPE, runtime.recorded))


def _providers(taken: Collection[Signal]) -> Providers:
    # The SDK is imported here, so that `import stagelight` stays cheap and the command line does not need it.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from stagelight.export.providers import build

    scope = InstrumentationScope(_runtime.SCOPE, __version__, SCHEMA_URL)
    return build(Resource.create({}), os.environ, scope, without=taken)


def _keep_urls_safe() -> None:
    """The HTTP instrumentations that are ours to switch on record at the application's provider."""
    from stagelight.export.urls import SecretUrls

    provider = trace.get_tracer_provider()
    if hasattr(provider, "add_span_processor"):
        provider.add_span_processor(SecretUrls())


def _make_global(providers: Providers, taken: Collection[Signal]) -> None:
    if "traces" not in taken:
        trace.set_tracer_provider(providers.tracer_provider)
    if "metrics" not in taken:
        metrics.set_meter_provider(providers.meter_provider)
    if "logs" not in taken:
        set_logger_provider(providers.logger_provider)
    if _first:
        from stagelight.export.succession import await_successors

        await_successors(_join, [signal for signal in standard.SIGNALS if signal not in taken])


def _runtime_for(settings: Settings, providers: Providers | None, taken: Collection[Signal]) -> _runtime.Runtime:
    own = None if providers is None else providers
    meter = _host_meter() if own is None or "metrics" in taken else own.meter_provider.own_meter(*_SCOPE)
    backend: Backend = SdkBackend(meter)
    if own is not None and own.accumulators is not None and "metrics" not in taken:
        backend = own.accumulators
    key = settings.resolve_id_key()
    runtime = _runtime.Runtime(
        tracer=_host_tracer() if own is None or "traces" in taken else own.tracer_provider.own_tracer(*_SCOPE),
        instruments=Instruments(backend, settings.semconv),
        logger=_host_logger() if own is None or "logs" in taken else own.events,
        handover=Handover(inline="traces" in taken, begins=None if own is None else own.begin),
        settings=settings,
        configured=True,
        pseudonyms=Pseudonyms(key) if key else None,
    )
    _self_metrics.observe(meter, runtime, {} if own is None else own.balances)
    return runtime


def _host_tracer() -> Tracer:
    return trace.get_tracer_provider().get_tracer(*_SCOPE)


def _host_meter() -> Meter:
    return metrics.get_meter_provider().get_meter(*_SCOPE)


def _host_logger() -> _runtime.EventSink:
    return get_logger_provider().get_logger(*_SCOPE)


def _join(signal: Signal) -> None:
    """Go over to the provider that the application has just set."""
    global _configured  # noqa: PLW0603 - one configuration per process
    with _lock:
        assert _configured is not None  # noqa: S101 - set before anybody can come
        own, runtime = _configured._providers, _runtime.current()  # noqa: SLF001 - this module's own record
        assert own is not None  # noqa: S101 - as above
        runtime.handover.drain(EXIT_LIMIT_S)  # what has ended so far goes where it began
        # The application's provider was made after us, so that it is closed before us at the exit.
        runtime = replace(runtime, handover=Handover(inline=True))
        if signal == "traces":
            own.tracer_provider.go_over(trace.get_tracer_provider())
            _keep_urls_safe()
            runtime = replace(runtime, tracer=_host_tracer())
            _configured = replace(_configured, joined=True)
        elif signal == "metrics":
            own.meter_provider.go_over(metrics.get_meter_provider())
            own.push_no_more()
            meter = _host_meter()
            runtime = replace(runtime, instruments=Instruments(SdkBackend(meter), runtime.settings.semconv))
            _self_metrics.observe(meter, runtime, own.balances)
        else:
            runtime = replace(runtime, logger=_host_logger())
        _runtime.install(runtime)


def _instrument() -> tuple[str, ...]:
    """Instrument threads and every installed client that has an entry point of ours."""
    from importlib.metadata import entry_points

    from stagelight.integrations._http import HttpRequests

    disabled = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    if "*" in disabled:
        return ()
    if "threading" not in disabled:
        _instrument_threads()
    if "stagelight-http" not in disabled:
        HttpRequests().serve("configure")
    done: list[str] = []
    for entry in entry_points(group="opentelemetry_instrumentor"):
        if not entry.name.startswith("stagelight-") or entry.name in disabled:
            continue
        with _guard.guard(f"instrument {entry.name}"):
            instrumentor = entry.load()()
            if instrumentor.is_instrumented_by_opentelemetry or instrumentor.switch_on():
                done.append(entry.name.removeprefix("stagelight-"))
    return tuple(done)


def _instrument_threads() -> None:
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    if not ThreadingInstrumentor().is_instrumented_by_opentelemetry:
        ThreadingInstrumentor().instrument()


def flush(timeout: float = 5.0) -> bool:
    """Send everything recorded so far.

    Args:
        timeout: seconds to wait at most.

    Returns:
        Whether everything was delivered to the exporter's back end or dropped and counted in time.
    """
    with _guard.guard("flush"):
        deadline = time.monotonic() + timeout
        handed_in = _hand_in(timeout)
        own = None if _configured is None else _configured._providers  # noqa: SLF001 - this module's own record
        sent = own is None or own.flush(max(deadline - time.monotonic(), 0.0))
        return _flush_the_hosts(own, max(deadline - time.monotonic(), 0.0)) and sent and handed_in
    return False


def _hand_in(timeout: float) -> bool:
    handover = _runtime.current().handover
    handover.put(settle_all)
    return handover.drain(timeout)


def _flush_the_hosts(own: Providers | None, timeout: float) -> bool:
    ours = () if own is None else (own.tracer_provider, own.meter_provider, own.logger_provider)
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider())
    flushes = [one.force_flush for one in providers if one not in ours and hasattr(one, "force_flush")]
    return not flushes or all_within(timeout, [partial(_flush_one, one) for one in flushes])


def _flush_one(force_flush: Callable[[int], bool], left_s: float) -> bool:
    return force_flush(int(left_s * 1000))


def _at_exit(deliver: Callable[[float], bool]) -> None:
    with _guard.guard("exit"):
        if not _runtime.current().handover.drain(OWN_WORK_LIMIT_S):
            logger.warning("the last calls are lost: recording them took longer than %g s", OWN_WORK_LIMIT_S)
    deliver(EXIT_LIMIT_S)


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
