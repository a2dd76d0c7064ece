"""Which OTLP protocol a signal is sent by."""

from __future__ import annotations

from collections.abc import Mapping

from stagelight.export.accounting import Signal
from stagelight.standard import exporter_names

__all__ = ["PROTOCOLS", "protocol_of"]

PROTOCOLS = ("http/protobuf", "grpc")
_BY_NAME = {"otlp_proto_http": "http/protobuf", "otlp_proto_grpc": "grpc"}


def protocol_of(signal: Signal, environment: Mapping[str, str]) -> str:
    """The OTLP protocol of a signal: its exporter's name, its own variable, the common one, or ``http/protobuf``."""
    for name in exporter_names(environment.get(f"OTEL_{signal.upper()}_EXPORTER", "")):
        if name in _BY_NAME:
            return _BY_NAME[name]
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "").strip()
    return own or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or PROTOCOLS[0]
