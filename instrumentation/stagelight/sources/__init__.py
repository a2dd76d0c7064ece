"""Reading stored telemetry: one interface over the embedded store and over the gateway of the stack."""

from __future__ import annotations

import os
from pathlib import Path

from stagelight.embedded.store import NoStoreError, StoreError, default_path, demo_path
from stagelight.sources._gateway_http import TOKEN_VARIABLE
from stagelight.sources.embedded import EmbeddedSource
from stagelight.sources.gateway import GatewaySource
from stagelight.sources.model import Source, SourceUnavailable, Window

__all__ = ["EmbeddedSource", "GatewaySource", "Source", "SourceUnavailable", "Window", "open_source"]


def open_source(spec: str | None = None) -> Source:
    """Open stored telemetry for reading, whether or not a server runs.

    Args:
        spec: path of a database file, or address of a gateway; ``None`` is the file that ``stagelight up`` keeps.
            The token of a gateway is read from ``STAGELIGHT_GATEWAY_TOKEN``.

    Raises:
        SourceUnavailable: there is nothing to read; the message says what to do.
    """
    if spec is not None and "://" in spec:
        return GatewaySource(spec.strip(), os.environ.get(TOKEN_VARIABLE, "").strip() or None)
    path = Path(spec).expanduser() if spec else default_path()
    try:
        return EmbeddedSource(path)
    except NoStoreError as error:
        if spec:
            raise SourceUnavailable(f"source {spec!r}: there is no such file") from error
        demo = demo_path()
        seen = f"; the demo's is in `--source {demo}`" if demo.is_file() else ", or run `stagelight demo`"
        raise SourceUnavailable(
            f"There is no telemetry yet: {error}. Start `stagelight up` and send some to it{seen}."
        ) from error
    except StoreError as error:
        raise SourceUnavailable(str(error)) from error
