"""The standard ``OTEL_*`` variables: what each accepts, so that a wrong value is one clear line before anything fails.

OpenTelemetry complains of most wrong values too, in words of its own, once per reader. It does not find them while it
is set up.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from stagelight import _accepted
from stagelight._accepted import OTLP, SAMPLERS, SIGNALS, Accepts, Signal, exporter_names
from stagelight.settings import Problem

__all__ = [
    "CHOICE",
    "GEVENT",
    "NUMBERS",
    "OFFICIAL",
    "OTLP",
    "ROWS",
    "SAMPLERS",
    "SIGNALS",
    "StandardRow",
    "correct",
    "exporter_names",
    "given",
    "load_api",
    "load_sdk",
    "problems",
    "refused",
    "stops",
    "withheld",
]

CHOICE: Final = ("OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR")
"""What chooses the distribution that sets everything up."""
GEVENT: Final = "OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH"
"""Read before it is."""
_PREFIX: Final = "OTEL_EXPORTER_OTLP"
_OF_PYTHON: Final = "OTEL_PYTHON_"
"""Of variables that programs in other languages do not read."""


class StandardRow(NamedTuple):
    """One standard variable, or a family with one per signal."""

    variable: str
    accepts: Accepts
    """Value and environment -> whether the value has the effect it asks for."""
    accepted: str
    default: str
    doc: str
    signals: str = ""
    """The same for one signal, with ``{signal}`` in its name: it wins over the common variable."""
    stops_export: bool = False
    """With a wrong value, the signals it is for are not exported."""
    secret: bool = False
    is_list: bool = False
    """Parts between commas are accepted one by one, and the good ones stay."""

    def variables(self) -> Iterator[tuple[str, tuple[Signal, ...]]]:
        """Every name and the signals it is for."""
        if self.variable:
            yield self.variable, SIGNALS
        if self.signals:
            yield from ((self.signals.format(signal=signal.upper()), (signal,)) for signal in SIGNALS)

    def is_good(self, value: str, environment: Mapping[str, str]) -> bool:
        """Whether a value is accepted; an empty one is."""
        return all(self.accepts(part, environment) for part in ((value,) if not self.is_list else _parts(value)))


def _parts(value: str) -> Iterator[str]:
    yield from (part.strip() for part in value.split(",") if part.strip())


ROWS: Final = (
    StandardRow("OTEL_SERVICE_NAME", _accepted.anything, "any name", "unknown_service", "Name of the application."),
    StandardRow("OTEL_RESOURCE_ATTRIBUTES", _accepted.pair, "key=value pairs separated by commas", "none",
        "What else is known of the process: version, environment, region.", is_list=True),
    StandardRow("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", _accepted.resource_detector,
        "names of installed detectors (process, os, host, ...) separated by commas, or *", "none",
        "What else finds out about the process.", is_list=True),
    StandardRow(f"{_PREFIX}_ENDPOINT", _accepted.endpoint,
        "a URL such as http://127.0.0.1:4318 (grpc: also host:port)",
        "http://localhost:4318, grpc http://localhost:4317",
        "Where telemetry goes. Over HTTP, `/v1/traces` and so on is added to the common one, not to that of a signal.",
        f"{_PREFIX}_{{signal}}_ENDPOINT", stops_export=True, secret=True),
    StandardRow(f"{_PREFIX}_PROTOCOL", _accepted.one_of("http/protobuf", "grpc"), "http/protobuf, grpc",
        "http/protobuf", "How it goes there.", f"{_PREFIX}_{{signal}}_PROTOCOL"),
    StandardRow(f"{_PREFIX}_HEADERS", _accepted.headers, "key=value pairs separated by commas, percent-encoded", "none",
        "Sent with every export: tokens, tenants.", f"{_PREFIX}_{{signal}}_HEADERS", stops_export=True, secret=True),
    StandardRow(f"{_PREFIX}_TIMEOUT", _accepted.number(0, without_least=True), "a number of seconds above 0", "10",
        "How long one export may take. In seconds, as in every release of the Python exporters.",
        f"{_PREFIX}_{{signal}}_TIMEOUT", stops_export=True),
    StandardRow(f"{_PREFIX}_COMPRESSION", _accepted.compression, "gzip, none, over HTTP also deflate", "none",
        "Compression of exports.", f"{_PREFIX}_{{signal}}_COMPRESSION", stops_export=True),
    StandardRow(f"{_PREFIX}_CERTIFICATE", _accepted.file, "path of a readable file", "the system's",
        "Certificates the server is checked against.", f"{_PREFIX}_{{signal}}_CERTIFICATE", stops_export=True),
    StandardRow(f"{_PREFIX}_CLIENT_CERTIFICATE", _accepted.file, "path of a readable file", "none",
        "Certificate of this client, for mutual TLS.", f"{_PREFIX}_{{signal}}_CLIENT_CERTIFICATE", stops_export=True),
    StandardRow(f"{_PREFIX}_CLIENT_KEY", _accepted.file, "path of a readable file", "none", "Its key.",
        f"{_PREFIX}_{{signal}}_CLIENT_KEY", stops_export=True),
    StandardRow(f"{_PREFIX}_INSECURE", _accepted.switch, "true or false", "by the scheme of the endpoint",
        "By gRPC, whether an endpoint without scheme is reached without TLS.", f"{_PREFIX}_{{signal}}_INSECURE"),
    *(
        StandardRow(f"{_OF_PYTHON}EXPORTER_OTLP_{short}_CREDENTIAL_PROVIDER", _accepted.credentials(protocol),
            "name of an installed provider of credentials", "none", f"Who proves to the server who we are, by {short}.",
            f"{_OF_PYTHON}EXPORTER_OTLP_{short}_{{signal}}_CREDENTIAL_PROVIDER", stops_export=True)
        for short, protocol in (("HTTP", "http/protobuf"), ("GRPC", "grpc"))
    ),
    StandardRow(f"{_OF_PYTHON}EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", _accepted.one_of(*_accepted.GRPC_CODES),
        "names of gRPC status codes separated by commas", "those of the OTLP specification",
        "After which errors an export is tried again.", is_list=True),
    StandardRow("", _accepted.exporters, "otlp, console, none, or names of installed exporters, separated by commas",
        "otlp", "Which exporters a signal has; none switches it off.", "OTEL_{signal}_EXPORTER", stops_export=True),
    StandardRow("OTEL_TRACES_SAMPLER", _accepted.sampler, f"{', '.join(SAMPLERS)}, or an installed one",
        "parentbased_always_on", "Which traces are kept. Metrics, costs and usage events do not depend on it."),
    StandardRow("OTEL_TRACES_SAMPLER_ARG", _accepted.sampler_argument, "a number from 0 to 1 for the ratios", "1",
        "Share of the traces that are kept."),
    StandardRow(f"{_OF_PYTHON}ID_GENERATOR", _accepted.installed_in("opentelemetry_id_generator", "random"),
        "random, or the name of an installed one", "random",
        "How trace and span ids are drawn."),
    StandardRow("OTEL_PROPAGATORS", _accepted.propagators,
        "tracecontext, baggage, none, or names of installed propagators", "tracecontext,baggage",
        "Formats of the trace headers."),
    StandardRow(f"{_OF_PYTHON}CONTEXT", _accepted.installed_in("opentelemetry_context", "contextvars_context"),
        "contextvars_context, or the name of an installed one", "contextvars_context", "What holds the current span."),
    StandardRow("OTEL_SDK_DISABLED", _accepted.switch, "true or false", "false", "With true, no telemetry is made."),
    StandardRow(f"{_OF_PYTHON}SDK_INTERNAL_METRICS_ENABLED", _accepted.switch, "true or false", "false",
        "Metrics of the SDK about itself; Stagelight's own of delivery do not depend on it."),
    *(
        StandardRow(variable, _accepted.installed_in(f"opentelemetry_{variable.split('_')[-1].lower()}", "stagelight"),
            "stagelight, or the name of another installed one", "the first that is found", f"Which {what} is taken.")
        for variable, what in zip(CHOICE, ("distribution", "configurator"), strict=True)
    ),
)  # fmt: skip
"""What says what is recorded, how, and where it goes."""

_MILLISECONDS: Final = "a number of milliseconds above 0"
_SIZE: Final = "a number from 1 on"
_LIMIT: Final = "a whole number from 0 on"
NUMBERS: Final = (
    *(
        StandardRow(f"OTEL_{queue}_{name}", _accepted.number(least, without_least=not least), accepted, default,
            doc.format(items))
        for queue, items in (("BSP", "Spans"), ("BLRP", "Log records"))
        for name, least, accepted, default, doc in (
            ("MAX_QUEUE_SIZE", 1, _SIZE, "16384", "{} that may wait for export. A queue holds 32 MiB at most."),
            ("MAX_EXPORT_BATCH_SIZE", 1, _SIZE, "512", "{} in one export."),
            ("SCHEDULE_DELAY", 0, _MILLISECONDS, "1000", "{}: how long one waits for others at most."),
            ("EXPORT_TIMEOUT", 0, _MILLISECONDS, "30000",
             "{}: how long an exporter other than OTLP may take; OTLP has OTEL_EXPORTER_OTLP_TIMEOUT."),
        )
    ),
    StandardRow("OTEL_METRIC_EXPORT_INTERVAL", _accepted.number(0, without_least=True), _MILLISECONDS, "15000",
        "Time between two pushes of metrics; short, because a counter's last push before a crash is its last word."),
    StandardRow("OTEL_METRIC_EXPORT_TIMEOUT", _accepted.number(0, without_least=True), _MILLISECONDS, "30000",
        "How long an exporter of metrics other than OTLP may take."),
    StandardRow("OTEL_METRICS_EXEMPLAR_FILTER", _accepted.one_of("trace_based", "always_on", "always_off"),
        "trace_based, always_on, always_off", "trace_based", "Which measurements lead to a trace."),
    StandardRow("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        _accepted.one_of("cumulative", "delta", "lowmemory"), "cumulative, delta, lowmemory", "cumulative",
        "Whether a push has totals or what was new."),
    StandardRow("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", _accepted.histogram,
        "explicit_bucket_histogram, base2_exponential_bucket_histogram", "explicit_bucket_histogram",
        "Kind of the histograms."),
    StandardRow("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", _accepted.whole_number, _LIMIT, "8192",
        "Characters of a value of a span; the rest is cut."),
    *(
        StandardRow(f"OTEL_{name}_LIMIT", _accepted.whole_number, _LIMIT, default, doc)
        for name, default, doc in (
            ("ATTRIBUTE_VALUE_LENGTH", "none", "Characters of a value of a span or a log record."),
            ("LOGRECORD_ATTRIBUTE_VALUE_LENGTH", "none", "Characters of a value of a log record."),
            ("ATTRIBUTE_COUNT", "128", "Attributes of a span, an event, a link or a log record."),
            ("SPAN_ATTRIBUTE_COUNT", "128", "Attributes of a span."),
            ("EVENT_ATTRIBUTE_COUNT", "128", "Attributes of an event."),
            ("LINK_ATTRIBUTE_COUNT", "128", "Attributes of a link."),
            ("LOGRECORD_ATTRIBUTE_COUNT", "128", "Attributes of a log record."),
            ("SPAN_EVENT_COUNT", "128", "Events of a span."),
            ("SPAN_LINK_COUNT", "128", "Links of a span."),
        )
    ),
)  # fmt: skip
"""Bounds, times and kinds of metrics."""

_PATTERNS: Final = "regular expressions separated by commas"
_UNUSED: Final = "no value, because Stagelight does not read it"
OFFICIAL: Final = (
    StandardRow(f"{_OF_PYTHON}DISABLED_INSTRUMENTATIONS", _accepted.anything, "names separated by commas, or *", "none",
        "Instrumentations that stay off, e.g. stagelight-openai, fastapi, httpx, threading."),
    StandardRow("OTEL_SEMCONV_STABILITY_OPT_IN", _accepted.one_of(*_accepted.NAMES_OF_SEMCONV),
        f"{', '.join(_accepted.NAMES_OF_SEMCONV)}, separated by commas", "none",
        "Which generation of names the official instrumentations use.", is_list=True),
    *(
        StandardRow(f"{_OF_PYTHON}{whose}EXCLUDED_URLS", _accepted.pattern, _PATTERNS, "none", doc, is_list=True)
        for whose, doc in (
            ("", "Requests of which no HTTP spans are made."),
            *((f"{name.upper()}_", f"The same for {name}.") for name in ("fastapi", "starlette", "httpx")),
        )
    ),
    *(
        StandardRow(f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{which}", _accepted.pattern, _PATTERNS, "none",
            doc, is_list=True)
        for which, doc in (
            ("SERVER_REQUEST", "Headers of requests to note on the spans of a server."),
            ("SERVER_RESPONSE", "Headers of its answers."),
            ("CLIENT_REQUEST", "Headers of requests to note on the spans of a client."),
            ("CLIENT_RESPONSE", "Headers of the answers to it."),
            ("SANITIZE_FIELDS", "Headers whose values are replaced by [REDACTED]."),
        )
    ),
    StandardRow(GEVENT, _accepted.one_of("patch_all"),
        "patch_all", "none", "Whether gevent takes the place of threads before anything is imported."),
    *(
        StandardRow(f"{_OF_PYTHON}{kind}_PROVIDER", _accepted.installed_in(f"opentelemetry_{kind.lower()}_provider"),
            f"name of an installed provider, e.g. sdk_{kind.lower()}_provider", "none",
            "Without effect: the provider is Stagelight's, or what the application sets up.")
        for kind in ("TRACER", "METER", "LOGGER")
    ),
    *(
        StandardRow(variable, _accepted.nothing, _UNUSED, "none", "Not supported.")
        for variable in (
            "OTEL_CONFIG_FILE",
            *(f"{_OF_PYTHON}{kind}_CONFIGURATOR" for kind in ("TRACER", "METER", "LOGGER")),
        )
    ),
    StandardRow(f"{_OF_PYTHON}LOGGING_AUTO_INSTRUMENTATION_ENABLED", _accepted.one_of("false"),
        "false, because Stagelight exports no lines of `logging` by itself: see stagelight.logs", "false",
        "Not supported with true."),
)  # fmt: skip
"""What the official instrumentations read, and what has no effect here."""


_withheld: dict[str, str] = {}
"""Variables that are out of the environment for a while."""


def given() -> Mapping[str, str]:
    """The environment with what is withheld."""
    return {**os.environ, **_withheld}


def _rows() -> Iterator[StandardRow]:
    yield from (*ROWS, *NUMBERS, *OFFICIAL)


def problems(environment: Mapping[str, str]) -> tuple[Problem, ...]:
    """Standard variables whose values are not accepted."""
    return tuple(problem for row in _rows() for problem, _ in _refused(row, environment))


def stops(signal: Signal, environment: Mapping[str, str]) -> bool:
    """Whether a wrong value keeps a signal from being exported."""
    return any(signal in signals for row in ROWS if row.stops_export for _, signals in _refused(row, environment))


def _refused(row: StandardRow, environment: Mapping[str, str]) -> Iterator[tuple[Problem, tuple[Signal, ...]]]:
    """Refused values of a row and the signals that would use them: one signal's own value wins over the common one."""
    own = {signal for name, signals in row.variables() if len(signals) == 1 and _value(name, environment)
           for signal in signals}  # fmt: skip
    for name, signals in row.variables():
        value = _value(name, environment)
        if value and not row.is_good(value, environment):
            shown = "(hidden)" if row.secret else repr(value)
            message = f"{name}: {shown} is not accepted; accepted: {row.accepted}"
            yield (
                Problem(name, message),
                signals if len(signals) == 1 else tuple(one for one in signals if one not in own),
            )


def _value(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name, "").strip()


def refused(*names: str) -> Collection[str]:
    """Variables that OpenTelemetry would complain of: with a wrong value, or set without one.

    What stops an export is not among them: without it, telemetry would go somewhere else.

    Args:
        names: the ones to look at; none for all.
    """
    return [
        name
        for row in _rows()
        for name, _ in row.variables()
        if name in os.environ
        and (not names or name in names)
        and not (_value(name, os.environ) and (row.stops_export or row.is_good(os.environ[name].strip(), os.environ)))
    ]


def correct() -> None:
    """Leave only good values in variables that OpenTelemetry for Python reads later on too.

    It does at the first request, where a wrong pattern would fail it, and in forked children. Programs in other
    languages that are started from here have no use for what is taken out.
    """
    for row in _rows():
        for name, _ in row.variables():
            if name not in os.environ or row.stops_export or not (row.is_list or name.startswith(_OF_PYTHON)):
                continue
            value = os.environ[name]
            parts = [part.strip() for part in (value.split(",") if row.is_list else [value])]
            good = [part for part in parts if part and row.accepts(part, os.environ)]
            if not good:
                del os.environ[name]
            elif good != parts:
                os.environ[name] = ",".join(good)


@contextmanager
def withheld(*names: str) -> Iterator[None]:
    """Block in which OpenTelemetry does not find some variables."""
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    _withheld.update(taken)
    try:
        yield
    finally:
        for name, value in taken.items():
            del _withheld[name]
            os.environ.setdefault(name, value)


def load_api() -> None:
    """Import parts of OpenTelemetry's API first where a wrong value makes their import complain or raise."""
    _load(["opentelemetry.context", "opentelemetry.propagate"], refused(f"{_OF_PYTHON}CONTEXT", "OTEL_PROPAGATORS"))


def load_sdk() -> None:
    """The same of the SDK, which reads a limit and the attributes of the process."""
    read = ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS")
    _load(["opentelemetry.sdk._logs", "opentelemetry.sdk.trace"], refused(*read))


def _load(modules: Iterable[str], wrong: Collection[str]) -> None:
    if wrong:
        with withheld(*wrong):
            for module in modules:
                importlib.import_module(module)
