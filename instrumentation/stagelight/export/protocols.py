"""Which OTLP protocol a signal is sent by."""

from __future__ import annotations

from collections.abc import Mapping

from stagelight.export.accounting import Signal

__all__ = ["PROTOCOLS", "protocol_of"]

PROTOCOLS = ("http/protobuf", "grpc")


def protocol_of(signal: Signal, environment: Mapping[str, str]) -> str:
    """The OTLP protocol of a signal: its own variable, the common one, or ``http/protobuf``."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "").strip()
    return own or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or PROTOCOLS[0]
