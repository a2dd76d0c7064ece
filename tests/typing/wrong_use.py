"""Wrong uses of the public API: mypy must refuse every line that is marked."""

from __future__ import annotations

import stagelight

stagelight.llm(provider="acme")  # error: model is required
stagelight.llm("acme", "m")  # error: keyword-only
stagelight.llm(provider="acme", model="m", temprature=1)  # error: misspelt
stagelight.llm.start(provider="acme")  # error: model is required
stagelight.turn()  # error: name is required
stagelight.turn("answer", user_id=4711)  # error: ids are text
stagelight.identify("user")  # error: keyword-only
stagelight.cache("embedding")  # error: hit is required
stagelight.evaluation("x", score="good")  # error: a number
stagelight.llm(provider="acme", model="m").end(outcome="done")  # error: no outcome
stagelight.llm(provider="acme", model="m").fail("oops")  # error: an exception
stagelight.llm(provider="acme", model="m").usage(input_tokens="12")  # error: a number
stagelight.llm(provider="acme", model="m").response(model=4)  # error: a text


@stagelight.tool("lookup")
def lookup(key: str) -> int:
    return len(key)


lookup(4)  # error: the signature is kept
