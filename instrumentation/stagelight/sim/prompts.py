"""What a language model is given, whichever protocol brought it, and its prompt cache."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from stagelight.sim.language import sentences, tokens

__all__ = ["Message", "Prompt", "PromptCache", "Tool"]

_IMAGE_TOKENS = 85  # what OpenAI counts for an image in low detail
_CACHE_MINIMUM, _CACHE_STEP = 1024, 128  # OpenAI caches prefixes of 1,024 tokens and more, in steps of 128
_CONTEXT_MARK = re.compile(
    r"^\W*(?:context|documents|sources|passages)\W*$|<(?:context|documents)>", re.IGNORECASE | re.MULTILINE
)
_QUESTION_MARK = re.compile(r"^\W*(?:question|query)\s*:\s*", re.IGNORECASE)
_INSTRUCTION = re.compile(
    r"^(?:you are|you're|act as|answer|use|do not|don't|if |always|never|keep|be |reply|respond|write|say |give|return"
    r"|only)",
    re.IGNORECASE,
)


class Message(NamedTuple):
    """One message of a conversation."""

    role: str
    text: str
    images: int = 0


class Tool(NamedTuple):
    """A function the model may call."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation and what is asked of its answer."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: str = "auto"
    """``auto``, ``none``, ``required`` or the name of a tool."""
    parallel_tools: bool = True
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer; ``{}`` is any object; ``None`` is text."""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    effort: str = "medium"

    def tokens(self) -> list[str]:
        """Tokens of the whole prompt: 3 per message, 3 for the beginning of the answer, and those of all texts."""
        listed: list[str] = []
        for tool in self.tools:
            listed += tokens(json.dumps(tool, sort_keys=True))
        if self.schema:
            listed += tokens(json.dumps(self.schema, sort_keys=True))
        for message in self.messages:
            listed += ("<message>", message.role, "<text>", *tokens(message.text))
            listed += ["<image>"] * (_IMAGE_TOKENS * message.images)
        return [*listed, "<message>", "assistant", "<text>"]

    @property
    def question(self) -> str:
        """The last paragraph with a question mark in the last message of the user, else its last paragraph."""
        text = next((message.text for message in reversed(self.messages) if message.role == "user"), "")
        paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
        asked = [part for part in paragraphs if "?" in part] or paragraphs
        return _QUESTION_MARK.sub("", asked[-1]) if asked else ""

    @property
    def answers_tool(self) -> bool:
        """Whether the results of tools have come in since the user's last message."""
        roles = [message.role for message in self.messages]
        return "tool" in roles and roles[::-1].index("tool") < (
            roles[::-1].index("user") if "user" in roles else len(roles)
        )

    def context(self) -> list[str]:
        """Sentences to answer from: what follows a line ``Context:``, else all that is no instruction or question."""
        texts = [message.text for message in self.messages if message.role != "assistant"]
        marked = [text[found.end() :] for text in texts if (found := _CONTEXT_MARK.search(text))]
        question = self.question
        found_sentences = [
            sentence for text in marked or texts for sentence in sentences(text.replace(question, "\n\n"))
        ]
        return [one for one in found_sentences if "?" not in one and (marked or not _INSTRUCTION.match(one))]


class PromptCache:
    """Remembers beginnings of prompts, as the provider does; holds at most ``size`` of them."""

    def __init__(self, size: int = 20_000) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._size = size
        self._lock = threading.Lock()

    def cached_tokens(self, model: str, prompt: Sequence[str]) -> int:
        """Return how many tokens at the beginning of a prompt were seen before, and remember this prompt."""
        digest = sha256(model.encode())
        cached = start = 0
        with self._lock:
            for end in range(_CACHE_MINIMUM, len(prompt) + 1, _CACHE_STEP):
                digest.update("\0".join(prompt[start:end]).encode() + b"\0")
                start, key = end, digest.digest()
                if key in self._known:
                    cached = end
                self._known[key] = None
                self._known.move_to_end(key)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return cached
