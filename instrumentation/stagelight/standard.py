"""The standard ``OTEL_*`` variables: what each accepts, so that a wrong value is one clear line before anything fails.

Numbers of queues, intervals and limits are not here: who reads them says what is wrong (``export/providers.py``).
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from stagelight.settings import Problem

__all__ = [
    "NUMBERS",
    "OTLP",
    "ROWS",
    "SAMPLERS",
    "SIGNALS",
    "StandardRow",
    "exporter_names",
    "load_propagators",
    "load_sdk",
    "problems",
    "stops",
    "withheld",
]

Signal = Literal["traces", "logs", "metrics"]
SIGNALS: Final[tuple[Signal, ...]] = ("traces", "logs", "metrics")

OTLP: Final = ("otlp", "otlp_proto_http", "otlp_proto_grpc")
"""Names of exporters that are OTLP; the last two also say the protocol."""
SAMPLERS: Final = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
    "parentbased_traceidratio",
)  # fmt: skip
"""The samplers every SDK has."""
_PROPAGATORS: Final = ("tracecontext", "baggage", "none")
_PREFIX: Final = "OTEL_EXPORTER_OTLP"


class StandardRow(NamedTuple):
    """One standard variable, or a family with one per signal."""

    variable: str
    accepts: Callable[[str, Mapping[str, str]], bool]
    """Value and environment -> whether the value has the effect it asks for."""
    accepted: str
    default: str
    doc: str
    signals: str = ""
    """The same for one signal, with ``{signal}`` in its name: it wins over the common variable."""
    stops_export: bool = False
    """With a wrong value, the signals it is for are not exported."""
    secret: bool = False

    def variables(self) -> Iterator[tuple[str, tuple[Signal, ...]]]:
        """Every name and the signals it is for."""
        if self.variable:
            yield self.variable, SIGNALS
        if self.signals:
            yield from ((self.signals.format(signal=signal.upper()), (signal,)) for signal in SIGNALS)


def _protocols(environment: Mapping[str, str]) -> set[str]:
    return {value.strip() for name, value in environment.items() if name.endswith("_PROTOCOL")}


def _endpoint(text: str, environment: Mapping[str, str]) -> bool:
    try:
        parts = urlsplit(text if "://" in text or "grpc" not in _protocols(environment) else f"http://{text}")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _protocol(text: str, _: Mapping[str, str]) -> bool:
    return text in {"http/protobuf", "grpc"}


def _pairs(text: str, _: Mapping[str, str]) -> bool:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return all(name.strip() and separator and unquote(value).isprintable() for name, separator, value in pairs)


_HEADER: Final = re.compile(r"[!#-'*+\-.0-9A-Z^-z|~]+[ \t]*=[ !#-+\--:<-\[\]-~]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _headers(text: str, environment: Mapping[str, str]) -> bool:
    """What the exporters read and can send; the rest they would print, tokens included, and leave out."""
    return all(_is_header(part.strip(), environment) for part in text.split(",") if part.strip())


def _is_header(pair: str, environment: Mapping[str, str]) -> bool:
    name, _, value = pair.partition("=")
    sendable = unquote(value)
    try:
        sendable.encode("ascii" if "grpc" in _protocols(environment) else "latin-1")
    except UnicodeEncodeError:
        return False
    return bool(_HEADER.fullmatch(pair) and _TOKEN.fullmatch(unquote(name).strip()) and sendable.isprintable())


def _seconds(text: str, _: Mapping[str, str]) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def _compression(text: str, environment: Mapping[str, str]) -> bool:
    return text.lower() in {"gzip", "none"} or (text.lower() == "deflate" and "grpc" not in _protocols(environment))


def _file(text: str, _: Mapping[str, str]) -> bool:
    return Path(text).is_file()


def _exporters(text: str, _: Mapping[str, str]) -> bool:
    return all(
        name in {"none", "console", *OTLP}
        or any(_installed(f"opentelemetry_{signal}_exporter", name) for signal in SIGNALS)
        for name in exporter_names(text)
    )


def _sampler(text: str, _: Mapping[str, str]) -> bool:
    return text.lower() in SAMPLERS or _installed("opentelemetry_traces_sampler", text)


def _sampler_argument(text: str, environment: Mapping[str, str]) -> bool:
    if "ratio" not in environment.get("OTEL_TRACES_SAMPLER", ""):
        return True
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _ids(text: str, _: Mapping[str, str]) -> bool:
    return _installed("opentelemetry_id_generator", text)


def _limit(text: str) -> bool:
    return not text or text.isdecimal()


def _propagators(text: str, _: Mapping[str, str]) -> bool:
    names = [name.strip() for name in text.split(",")]
    return all(name.lower() in _PROPAGATORS or _installed("opentelemetry_propagator", name) for name in names)


def _anything(_: str, __: Mapping[str, str]) -> bool:
    return True


def _installed(group: str, name: str) -> bool:
    from importlib.metadata import entry_points

    return bool(name and entry_points(group=group, name=name))


ROWS: Final = (
    StandardRow("OTEL_SERVICE_NAME", _anything, "any name", "unknown_service", "Name of the application."),
    StandardRow("OTEL_RESOURCE_ATTRIBUTES", _pairs, "key=value pairs separated by commas", "none",
        "What else is known of the process: version, environment, region."),
    StandardRow(f"{_PREFIX}_ENDPOINT", _endpoint, "a URL such as http://127.0.0.1:4318 (grpc: also host:port)",
        "http://localhost:4318, grpc http://localhost:4317",
        "Where telemetry goes. Over HTTP, `/v1/traces` and so on is added to the common one, not to that of a signal.",
        f"{_PREFIX}_{{signal}}_ENDPOINT", stops_export=True, secret=True),
    StandardRow(f"{_PREFIX}_PROTOCOL", _protocol, "http/protobuf, grpc", "http/protobuf", "How it goes there.",
        f"{_PREFIX}_{{signal}}_PROTOCOL"),
    StandardRow(f"{_PREFIX}_HEADERS", _headers, "key=value pairs separated by commas, percent-encoded", "none",
        "Sent with every export: tokens, tenants.", f"{_PREFIX}_{{signal}}_HEADERS", stops_export=True, secret=True),
    StandardRow(f"{_PREFIX}_TIMEOUT", _seconds, "a number of seconds above 0", "10",
        "How long one export may take. In seconds, as in every release of the Python exporters.",
        f"{_PREFIX}_{{signal}}_TIMEOUT", stops_export=True),
    StandardRow(f"{_PREFIX}_COMPRESSION", _compression, "gzip, none, over HTTP also deflate", "none",
        "Compression of exports.", f"{_PREFIX}_{{signal}}_COMPRESSION", stops_export=True),
    StandardRow(f"{_PREFIX}_CERTIFICATE", _file, "path of a readable file", "the system's",
        "Certificates the server is checked against.", f"{_PREFIX}_{{signal}}_CERTIFICATE", stops_export=True),
    StandardRow(f"{_PREFIX}_CLIENT_CERTIFICATE", _file, "path of a readable file", "none",
        "Certificate of this client, for mutual TLS.", f"{_PREFIX}_{{signal}}_CLIENT_CERTIFICATE", stops_export=True),
    StandardRow(f"{_PREFIX}_CLIENT_KEY", _file, "path of a readable file", "none", "Its key.",
        f"{_PREFIX}_{{signal}}_CLIENT_KEY", stops_export=True),
    StandardRow("", _exporters, "otlp, console, none, or names of installed exporters, separated by commas", "otlp",
        "Which exporters a signal has; none switches it off.", "OTEL_{signal}_EXPORTER", stops_export=True),
    StandardRow("OTEL_TRACES_SAMPLER", _sampler, f"{', '.join(SAMPLERS)}, or an installed one",
        "parentbased_always_on", "Which traces are kept. Metrics, costs and usage events do not depend on it."),
    StandardRow("OTEL_TRACES_SAMPLER_ARG", _sampler_argument, "a number from 0 to 1 for the ratios", "1",
        "Share of the traces that are kept."),
    StandardRow("OTEL_PYTHON_ID_GENERATOR", _ids, "random, or the name of an installed one", "random",
        "How trace and span ids are drawn."),
    StandardRow("OTEL_PROPAGATORS", _propagators, "tracecontext, baggage, none, or names of installed propagators",
        "tracecontext,baggage", "Formats of the trace headers."),
    StandardRow("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", _anything, "names separated by commas, or *", "none",
        "Instrumentations that stay off, e.g. stagelight-openai, fastapi, httpx, threading."),
    StandardRow("OTEL_SDK_DISABLED", _anything, "true", "false", "With true, no telemetry is made."),
)  # fmt: skip
"""Every standard variable with a value that can be wrong without a number being it, and the main ones besides."""

_QUEUE: Final = "a number above 0"
NUMBERS: Final = (
    StandardRow("OTEL_BSP_MAX_QUEUE_SIZE", _anything, _QUEUE, "16384",
        "Spans that may wait for export; OTEL_BLRP_MAX_QUEUE_SIZE for log records. A queue holds 32 MiB at most."),
    StandardRow("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _anything, _QUEUE, "512",
        "Spans in one export; OTEL_BLRP_MAX_EXPORT_BATCH_SIZE for log records."),
    StandardRow("OTEL_BSP_SCHEDULE_DELAY", _anything, f"{_QUEUE} (ms)", "1000",
        "How long a span waits for others at most; OTEL_BLRP_SCHEDULE_DELAY for log records."),
    StandardRow("OTEL_METRIC_EXPORT_INTERVAL", _anything, f"{_QUEUE} (ms)", "15000",
        "Time between two pushes of metrics; short, because a counter's last push before a crash is its last word."),
    StandardRow("OTEL_METRICS_EXEMPLAR_FILTER", _anything, "trace_based, always_on, always_off", "trace_based",
        "Which measurements lead to a trace."),
    StandardRow("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", _anything, "a whole number from 0 on", "8192",
        "Characters of a value; the rest is cut. Also OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, and the limits of counts."),
    StandardRow("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", _anything, "cumulative, delta, lowmemory",
        "cumulative", "Whether a push has totals or what was new."),
)  # fmt: skip
"""The ones whose readers say what is wrong."""


def exporter_names(text: str) -> tuple[str, ...]:
    """The names in the value of ``OTEL_TRACES_EXPORTER`` and its kind."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def problems(environment: Mapping[str, str]) -> tuple[Problem, ...]:
    """Standard variables whose values are not accepted."""
    return tuple(problem for row in ROWS for problem, _ in _refused(row, environment))


def stops(signal: Signal, environment: Mapping[str, str]) -> bool:
    """Whether a wrong value keeps a signal from being exported."""
    return any(signal in signals for row in ROWS if row.stops_export for _, signals in _refused(row, environment))


def _refused(row: StandardRow, environment: Mapping[str, str]) -> Iterator[tuple[Problem, tuple[Signal, ...]]]:
    """Refused values of a row and the signals that would use them: one signal's own value wins over the common one."""
    own = {signal for name, signals in row.variables() if len(signals) == 1 and _value(name, environment)
           for signal in signals}  # fmt: skip
    for name, signals in row.variables():
        value = _value(name, environment)
        if value and not row.accepts(value, environment):
            shown = "(hidden)" if row.secret else repr(value)
            message = f"{name}: {shown} is not accepted; accepted: {row.accepted}"
            yield (
                Problem(name, message),
                signals if len(signals) == 1 else tuple(one for one in signals if one not in own),
            )


def _value(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name, "").strip()


@contextmanager
def withheld(*names: str) -> Iterator[None]:
    """Block in which OpenTelemetry does not find some variables."""
    given = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(given)


def load_propagators() -> None:
    """Import OpenTelemetry's propagators; with a wrong ``OTEL_PROPAGATORS``, whose import raises, the default ones."""
    name = "OTEL_PROPAGATORS"
    given = os.environ.get(name, "")
    with withheld(*([name] if given and not _propagators(given, os.environ) else [])):
        importlib.import_module("opentelemetry.propagate")


def load_sdk() -> None:
    """Import OpenTelemetry's SDK first where a wrong limit makes its import raise; the limit is complained of later."""
    name = "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"
    if not _limit(_value(name, os.environ)):
        with withheld(name):
            importlib.import_module("opentelemetry.sdk.trace")
