"""ElevenLabs clients that talk to the simulator."""

from __future__ import annotations

import inspect
import ssl
from typing import Any

import httpx
from elevenlabs.client import AsyncElevenLabs, ElevenLabs
from elevenlabs.environment import ElevenLabsEnvironment

__all__ = ["PLAIN", "client_of"]

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Reading the certificates takes longer than the whole rest of a test, and nothing here is encrypted."""


def _place(origin: str) -> dict[str, Any]:
    """The keyword that sends requests to an origin; the first versions know two places."""
    socket = origin.replace("http", "ws", 1)
    if "wss" in inspect.signature(ElevenLabsEnvironment.__init__).parameters:
        return {"environment": ElevenLabsEnvironment(base=origin, wss=socket)}
    return {"base_url": origin}


def client_of(origin: str, http: httpx.Client | httpx.AsyncClient, key: str = "key") -> Any:
    """A client of the kind of ``http``; its websocket goes to the origin too, without encryption."""
    if isinstance(http, httpx.AsyncClient):
        return AsyncElevenLabs(**_place(origin), api_key=key, httpx_client=http)
    client = ElevenLabs(**_place(origin), api_key=key, httpx_client=http)
    client.text_to_speech._ws_base_url = origin.replace("http", "ws", 1)
    return client
