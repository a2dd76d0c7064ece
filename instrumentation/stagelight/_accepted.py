"""What the standard ``OTEL_*`` variables accept: one function per kind of value.

Each takes a value and the environment, because some values are good or wrong by what another variable says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

__all__ = [
    "GRPC_CODES",
    "NAMES_OF_SEMCONV",
    "OTLP",
    "SAMPLERS",
    "SIGNALS",
    "Accepts",
    "Signal",
    "anything",
    "compression",
    "credentials",
    "endpoint",
    "exporter_names",
    "exporters",
    "file",
    "headers",
    "histogram",
    "installed_in",
    "nothing",
    "number",
    "one_of",
    "pair",
    "pattern",
    "propagators",
    "resource_detector",
    "sampler",
    "sampler_argument",
    "switch",
    "whole_number",
]

Signal = Literal["traces", "logs", "metrics"]
SIGNALS: Final[tuple[Signal, ...]] = ("traces", "logs", "metrics")
Accepts = Callable[[str, Mapping[str, str]], bool]

OTLP: Final = ("otlp", "otlp_proto_http", "otlp_proto_grpc")
"""Names of exporters that are OTLP; the last two also say the protocol."""
SAMPLERS: Final = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
    "parentbased_traceidratio",
)  # fmt: skip
"""The samplers every SDK has."""
NAMES_OF_SEMCONV: Final = (
    "http", "http/dup", "database", "database/dup", "messaging", "messaging/dup", "rpc", "rpc/dup", "code", "code/dup",
    "gen_ai_latest_experimental",
)  # fmt: skip
"""Generations of names the conventions know; the official Python packages read those of HTTP, databases and GenAI."""
GRPC_CODES: Final = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
)  # fmt: skip
_PROPAGATORS: Final = ("tracecontext", "baggage", "none")
_HEADER: Final = re.compile(r"[!#-'*+\-.0-9A-Z^-z|~]+[ \t]*=[ !#-+\--:<-\[\]-~]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def anything(_: str, __: Mapping[str, str]) -> bool:
    """Any value."""
    return True


def nothing(_: str, __: Mapping[str, str]) -> bool:
    """No value: the variable has no effect here."""
    return False


def one_of(*values: str) -> Accepts:
    """One of some words, in upper or lower case."""
    return lambda text, _: text.lower() in values


def switch(text: str, _: Mapping[str, str]) -> bool:
    """The standard knows two words."""
    return text.lower() in {"true", "false"}


def number(least: float, *, without_least: bool = False) -> Accepts:
    """A finite number from ``least`` on."""

    def accepts(text: str, _: Mapping[str, str]) -> bool:
        try:
            value = float(text)
        except ValueError:
            return False
        return least <= value < float("inf") and not (without_least and value == least)

    return accepts


def whole_number(text: str, _: Mapping[str, str]) -> bool:
    """From 0 on."""
    return text.isascii() and text.isdecimal()


def file(text: str, _: Mapping[str, str]) -> bool:
    """A path that exists."""
    return Path(text).is_file()


def pattern(text: str, _: Mapping[str, str]) -> bool:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def pair(text: str, _: Mapping[str, str]) -> bool:
    """``key=value``."""
    name, separator, value = text.partition("=")
    return bool(name.strip() and separator) and unquote(value).isprintable()


def _protocols(environment: Mapping[str, str]) -> set[str]:
    return {value.strip() for name, value in environment.items() if name.endswith("_PROTOCOL")}


def endpoint(text: str, environment: Mapping[str, str]) -> bool:
    """A URL; by gRPC also host and port."""
    try:
        parts = urlsplit(text if "://" in text or "grpc" not in _protocols(environment) else f"http://{text}")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def headers(text: str, environment: Mapping[str, str]) -> bool:
    """What the exporters read and can send; the rest they would print, tokens included, and leave out."""
    return all(_is_header(part.strip(), environment) for part in text.split(",") if part.strip())


def _is_header(text: str, environment: Mapping[str, str]) -> bool:
    name, _, value = text.partition("=")
    sendable = unquote(value)
    try:
        sendable.encode("ascii" if "grpc" in _protocols(environment) else "latin-1")
    except UnicodeEncodeError:
        return False
    return bool(_HEADER.fullmatch(text) and _TOKEN.fullmatch(unquote(name).strip()) and sendable.isprintable())


def compression(text: str, environment: Mapping[str, str]) -> bool:
    """By gRPC not every kind."""
    return text.lower() in {"gzip", "none"} or (text.lower() == "deflate" and "grpc" not in _protocols(environment))


def histogram(text: str, environment: Mapping[str, str]) -> bool:
    """The kinds of histograms; the gRPC exporter reads them in lower case only."""
    words = {"explicit_bucket_histogram", "base2_exponential_bucket_histogram"}
    return (text if "grpc" in _protocols(environment) else text.lower()) in words


def credentials(protocol: str) -> Accepts:
    """An installed provider of credentials, where the exporters of this protocol look for one."""

    def accepts(text: str, environment: Mapping[str, str]) -> bool:
        common = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
        used = _protocols(environment) | ({"http/protobuf"} if common != "grpc" else set())
        return protocol not in used or _installed("opentelemetry_otlp_credential_provider", text)

    return accepts


def exporter_names(text: str) -> tuple[str, ...]:
    """The names in the value of ``OTEL_TRACES_EXPORTER`` and its kind."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def exporters(text: str, _: Mapping[str, str]) -> bool:
    """Names of exporters."""
    return all(
        name in {"none", "console", *OTLP}
        or any(_installed(f"opentelemetry_{signal}_exporter", name) for signal in SIGNALS)
        for name in exporter_names(text)
    )


def sampler(text: str, _: Mapping[str, str]) -> bool:
    """A sampler's name."""
    return text.lower() in SAMPLERS or _installed("opentelemetry_traces_sampler", text)


def sampler_argument(text: str, environment: Mapping[str, str]) -> bool:
    """A share, where the sampler takes one."""
    return "ratio" not in environment.get("OTEL_TRACES_SAMPLER", "").lower() or (
        number(0)(text, environment) and float(text) <= 1
    )


def propagators(text: str, _: Mapping[str, str]) -> bool:
    """Names of propagators."""
    names = [name.strip() for name in text.split(",")]
    return all(name.lower() in _PROPAGATORS or _installed("opentelemetry_propagator", name) for name in names)


def resource_detector(text: str, _: Mapping[str, str]) -> bool:
    """A detector's name, or all of them."""
    return text == "*" or _installed("opentelemetry_resource_detector", text)


def installed_in(group: str, always: str = "") -> Accepts:
    """The name of an installed entry point of a group.

    Args:
        group: of the entry points.
        always: the usual name, accepted without the 20 ms that a look at all installed packages takes.
    """
    return lambda text, _: text == always or _installed(group, text)


def _installed(group: str, name: str) -> bool:
    from importlib.metadata import entry_points

    return bool(name and entry_points(group=group, name=name))
