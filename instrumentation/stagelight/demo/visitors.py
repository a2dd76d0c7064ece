"""Visitors of the example application: each asks a question over HTTP and listens to the answer."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

__all__ = ["Visit", "ask_all", "visits"]

_AT_ONCE = 4
_TIMEOUT_S = 30.0
_TENANTS = ("acme", "globex", "initech")
_QUESTIONS_PER_CONVERSATION = 4
_TEXT_EVERY = 5
_STOPS_EVERY = 19

Result = Literal["answered", "stopped", "failed"]


class Visit(NamedTuple):
    """One question of one visitor."""

    question: str
    conversation_id: str
    user_id: str
    tenant: str
    path: str
    """``/ask`` for speech, ``/chat`` for text."""
    stops: bool
    """Hangs up in the middle of the answer."""


def visits(number: int, questions: Path) -> list[Visit]:
    """The same visits every time.

    Args:
        number: how many.
        questions: file with one question per line; used again from its beginning when it is too short.
    """
    lines = [line.strip() for line in questions.read_text(encoding="utf-8").splitlines() if line.strip()]
    made = []
    for index in range(number):
        visitor = index // _QUESTIONS_PER_CONVERSATION
        made.append(
            Visit(
                question=lines[index % len(lines)],
                conversation_id=f"conversation-{visitor + 1}",
                user_id=f"visitor-{visitor % 7 + 1}@example.com",
                tenant=_TENANTS[visitor % len(_TENANTS)],
                path="/chat" if index % _TEXT_EVERY == _TEXT_EVERY - 1 else "/ask",
                stops=index % _STOPS_EVERY == _STOPS_EVERY - 1,
            )
        )
    return made


def ask_all(application: str, planned: list[Visit]) -> Iterator[Result]:
    """Ask everything, a few at once; yields as the answers end."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="visitor") as pool:
        asked = [pool.submit(_ask, application, visit) for visit in planned]
        for one in as_completed(asked):
            yield one.result()


def _ask(application: str, visit: Visit) -> Result:
    address = urlsplit(application)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=_TIMEOUT_S)
    body = {
        "question": visit.question,
        "conversation_id": visit.conversation_id,
        "user_id": visit.user_id,
        "tenant": visit.tenant,
    }
    try:
        connection.request("POST", visit.path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            return "failed"
        if visit.stops:
            response.read(256)
            return "stopped"
        response.read()
    except (OSError, http.client.HTTPException):  # the application passes a broken stream on as a broken answer
        return "failed"
    else:
        return "answered"
    finally:
        connection.close()
