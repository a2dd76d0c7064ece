"""A speech that tests ask ElevenLabs for, and clients of either kind that ask the simulator for it."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from typing import Any

import httpx
from elevenlabs_clients import PLAIN, client_of
from stagelight.sim import Simulator
from stagelight.testing import Captured, Clock, capture

__all__ = ["SECONDS", "SPEECH", "TEXT", "Voices"]

TEXT = "The tide comes in, the tide goes out."
SECONDS = len(TEXT) / 15  # the simulator speaks 15 characters per second
SPEECH = {"voice_id": "Rachel", "text": TEXT, "model_id": "eleven_multilingual_v2", "output_format": "pcm_16000"}


@dataclass
class Voices:
    """A simulator and one kind of client."""

    kind: str
    simulator: Simulator

    @property
    def host(self) -> str:
        """Address and port of the simulator."""
        return self.simulator.url.split("/")[2]

    def run(self, scenario: Any, *, clock: Clock | None = None, fault: str = "") -> Captured:
        """What was recorded of a scenario."""

        async def played() -> None:
            headers = {"x-stagelight-fault": fault} if fault else {}
            if self.kind == "sync":
                with httpx.Client(verify=PLAIN, headers=headers) as http:
                    await scenario(client_of(self.simulator.origin, http))
            else:
                async with httpx.AsyncClient(verify=PLAIN, headers=headers) as http:
                    await scenario(client_of(self.simulator.origin, http))

        with capture(provider_hosts={self.host: "elevenlabs"}, clock=clock) as captured:
            asyncio.run(played())
            gc.collect()
        return captured
