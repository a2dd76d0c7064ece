"""The standard variables: which values are accepted, for which signals, and what a wrong one stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from stagelight import standard

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}

ACCEPTED = [
    {ENDPOINT: "http://127.0.0.1:4318"},
    {ENDPOINT: "https://user:word@collector.example/otlp"},
    {ENDPOINT: "collector:4317", **GRPC},
    {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x, tenant=a=b ,"},
    {"OTEL_EXPORTER_OTLP_TIMEOUT": "2.5"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "Deflate"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "none", **GRPC},
    {"OTEL_EXPORTER_OTLP_CERTIFICATE": __file__},
    {"OTEL_TRACES_EXPORTER": "console, otlp"},
    {"OTEL_LOGS_EXPORTER": "NONE"},
    {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
    {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": "unused"},
    {"OTEL_PROPAGATORS": "tracecontext, baggage"},
    {"OTEL_PROPAGATORS": "none"},
    {"OTEL_RESOURCE_ATTRIBUTES": "service.version=1,team=a%20b"},
    {"OTEL_SERVICE_NAME": "shop"},
    {"OTEL_RESOURCE_ATTRIBUTES": "a=b,"},
    {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process, *"},
    {"OTEL_PYTHON_EXCLUDED_URLS": "health,^/metrics$"},
    {"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup,gen_ai_latest_experimental"},
    {"OTEL_SDK_DISABLED": "False"},
    {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "DELTA"},
    {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "BASE2_exponential_bucket_histogram"},
    {"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_BSP_SCHEDULE_DELAY": "0.5"},
    {"OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": "used by gRPC only"},
    {ENDPOINT: "  "},
]


@pytest.mark.parametrize("environment", ACCEPTED)
def test_good_values_are_accepted(environment: dict[str, str]) -> None:
    """What the standard allows is no problem and stops nothing."""
    assert standard.problems(environment) == ()
    assert [signal for signal in standard.SIGNALS if standard.stops(signal, environment)] == []


ALL = ["traces", "logs", "metrics"]
REFUSED = [
    (ENDPOINT, "collector:4318", "(hidden)", ALL),
    (ENDPOINT, "ftp://collector", "(hidden)", ALL),
    (ENDPOINT, "http://[::1", "(hidden)", ALL),
    (ENDPOINT, "http://host:99999", "(hidden)", ALL),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "collector", "(hidden)", ["logs"]),
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer x", "(hidden)", ALL),
    ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0ac", "(hidden)", ALL),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "'0'", ALL),
    ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "inf", "'inf'", ["metrics"]),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "'zstd'", ALL),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/no/such/key", "'/no/such/key'", ALL),
    ("OTEL_METRICS_EXPORTER", "otlp,statsd", "'otlp,statsd'", ["metrics"]),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "'http/json'", []),
    ("OTEL_TRACES_SAMPLER", "half", "'half'", []),
    ("OTEL_PROPAGATORS", "tracecontext,b33", "'tracecontext,b33'", []),
    ("OTEL_RESOURCE_ATTRIBUTES", "version 1", "'version 1'", []),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c", "'a=b,c'", []),
    ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_LOGS_CREDENTIAL_PROVIDER", "nobody", "'nobody'", ["logs"]),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "0.5", "'0.5'", []),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "0", "'0'", []),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1", "'-1'", []),
]


@pytest.mark.parametrize(("variable", "value", "shown", "stopped"), REFUSED)
def test_wrong_values_are_refused(variable: str, value: str, shown: str, stopped: list[str]) -> None:
    """One message names variable, value unless it may be a secret, and what is accepted."""
    [problem] = standard.problems({variable: value})

    assert problem.variable == variable
    assert problem.message.startswith(f"{variable}: {shown} is not accepted; accepted: ")
    assert [signal for signal in standard.SIGNALS if standard.stops(signal, {variable: value})] == stopped


def test_a_signals_own_value_wins() -> None:
    """A wrong common value does not stop a signal that has a good one of its own, and the other way round."""
    common = {ENDPOINT: "wrong", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://good:4318/v1/traces"}
    own = {ENDPOINT: "http://good:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "wrong"}

    assert [signal for signal in standard.SIGNALS if standard.stops(signal, common)] == ["logs", "metrics"]
    assert [signal for signal in standard.SIGNALS if standard.stops(signal, own)] == ["traces"]


def test_a_ratio_needs_a_share() -> None:
    """The argument of a ratio sampler is checked with the sampler."""
    [problem] = standard.problems({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "50%"})

    assert (
        problem.message
        == "OTEL_TRACES_SAMPLER_ARG: '50%' is not accepted; accepted: a number from 0 to 1 for the ratios"
    )


def test_a_folder_is_no_certificate(tmp_path: Path) -> None:
    """Files are looked for before an export fails on them."""
    assert standard.stops("traces", {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path)})
