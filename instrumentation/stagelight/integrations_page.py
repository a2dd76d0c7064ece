"""The page of integrations, ``docs/integrations.md``, as each of them says of itself.

The list of integrations is that of ``pyproject.toml``, so that it is made in a checkout only.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

from stagelight.conventions import metrics as m
from stagelight.facts import STAGES, Stage
from stagelight.instrumentations import GROUP, PREFIX
from stagelight.integrations._hosts import OWN_SERVERS, PROVIDERS, REGIONAL
from stagelight.integrations._instrumentor import Coverage, Instrumentor

__all__ = ["Entry", "entries", "page"]

_ROOT: Final = Path(__file__).parents[2]
_MODELS: Final = frozenset({"llm", "embedding", "tts", "stt"})

_HEAD: Final = """\
# Integrations

<!-- Generated from the integrations by `make generate`; do not edit. -->

`stagelight.configure()`, or [activation](activation.md) without a line of code, records the calls of the libraries
below where they are installed. Your code stays as it is. Each call becomes one span of a *stage* (`llm`, `retrieval`,
`tts` ...), metrics, and a line in the ledger of costs.
"""

_SWITCHES: Final = f"""
Not there? [Record it by hand](#other-libraries-and-caches), or [add an integration](add-an-integration.md).

## On and off

Nothing is imported by switching on: a library is instrumented when your application imports it. A version outside the
range is left alone, with one line in the log.

| to switch off | do |
|---|---|
| one integration | `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={PREFIX}openai`; its section below has the name |
| all of them | `STAGELIGHT_INSTRUMENT=false` |
| a part of your code | put it inside OpenTelemetry's `suppress_instrumentation()` |

By hand: `OpenAIInstrumentor().instrument()` and `.uninstrument()` from `stagelight.integrations.openai`; afterwards the
library has its very own functions again.

## What is recorded

Of every call: provider, model, server, start and duration, the outcome, the type of an error with its HTTP status, how
often the client tried again, for whom it was (tenant, feature, user ...), and what it cost, or why that is not
known. And by stage, as far as the client tells; the sections below say what one does not:
"""

_STAGES: Final[Mapping[Stage, str]] = {
    "llm": "parameters of the request, tokens and their parts, finish reasons, ids; of a stream the first chunk, the"
    " number of chunks, and gaps",
    "embedding": "tokens, length and encoding of the vectors",
    "retrieval": "collection, `top_k`, mode, whether there is a filter, the number of results, their scores with metric"
    " and direction; inside it a database client's span",
    "store": "collection; inside it a database client's span",
    "tts": "voice, format, characters, seconds and bytes of audio, first audio, real-time factor",
    "stt": "seconds or tokens of audio; of a stream the first text",
    "tool": "name, id of the model's call",
}

_RULES: Final = f"""
The names of attributes and metrics are in [conventions](conventions.md).

Never recorded: prompts, answers, audio, documents, stop sequences, arguments of tools, statements of SQL. Of what a
provider sends back only protocol fields are: texts are cut at 256 characters, finish reasons at 16, and an error code
that is not one short word (letters, digits, `_`, `.`, `-`, at most 64) becomes `failed` or `error`, because a sentence
may repeat the prompt.

## One call, one span

A request is one call, whatever helper makes it, retries of the client included: `{m.STAGELIGHT_RETRIES}` counts what
was sent again. It ends when you have its answer, or when its stream ends: read to the end, left, closed, broken or
forgotten.

| you | outcome |
|---|---|
| read a stream to its end, or leave it after the finish reason | `completed` |
| leave, close or drop a stream before that | `client_abandoned`, no error |
| cancel the task | `cancelled`, no error |
| get an exception out of a stream | `provider_aborted`, or `timeout` |
| get an answer that stops at the token limit | `length_cut` |

A client called inside `with stagelight.llm(...)` of the same provider *is* that call: one span and one cost. A second
client call in the same block, or one of another provider, is a call of its own inside the block. The same goes for
`stagelight.retrieval(...)` around a database client, and the other stages.

## Nothing twice, nothing missed

OpenTelemetry's own GenAI instrumentations may be installed as well: whichever is outside makes the span, the other adds
what it knows. What is recorded twice all the same is found by the id of the answer and raises
`{m.STAGELIGHT_DOUBLE_COUNTED}`.

HTTP requests to known AI providers outside any stage raise `{m.STAGELIGHT_UNINSTRUMENTED_CALLS}`, by host and
library, and once a minute a line in the log. They are seen in httpx, httpx2, urllib3 (requests, botocore) and aiohttp.

What OpenAI's and Anthropic's answers say is left of the rate limits is in
`{m.STAGELIGHT_RATELIMIT_REMAINING_REQUESTS}` and `{m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS}`.

## What an integration does to your calls

Nothing. It reads what you sent and what came back.

* Same objects, same types, same exceptions. A stream is the client's own stream, not a stand-in for it.
* Same time. A chunk reaches you when the client has it; audio is counted while it passes and never collected.
* Same functions. They are copied and pickled as without us, and a pickle of one can be read where Stagelight is not
  installed.
* Same requests. No header, parameter or request is added.
* If reading fails inside Stagelight, your call does not notice.

`tests/noninterference` runs each operation of each client with and without its integration, and compares every byte
sent and every object returned.
"""

_HOSTS: Final = """
## Providers by host

One client may speak to many services, OpenAI's most of all: the host says to which. The first that knows it wins: your
own `STAGELIGHT_PROVIDER_HOSTS` (`proxy.example=openai,127.0.0.1:8080=groq`), then this table, hosts below the named
ones included where the name is a domain:

| host | provider |
|---|---|
"""

_OTHERS: Final = f"""
It is known by its port on the same machine, or by its name as the host's (`http://ollama:8080`, `http://vllm.ai.svc`).
It has no list price, so give a rate in `STAGELIGHT_PRICES` ([prices](pricing.md)). Any other host is
`openai_compatible`, which has none either: name it in `STAGELIGHT_PROVIDER_HOSTS`, or give a rate. A private or
loopback address is never priced as a hosted provider unless you name it.

## Other libraries and caches

Record them with the stage's word: `with stagelight.llm(...) as call:`, `stagelight.retrieval(...)` and the
[others](../README.md#the-api-on-one-screen). `call.record(response)` reads the answers of the clients above, also where
you call them without the integration; but not arrays, rows and the like, which do not say whose they are. Count the
lookups of a cache, GPTCache or your own, where it is asked; the metric is `{m.STAGELIGHT_CACHE_LOOKUPS}`:

```python
import stagelight

found = cache.get(key)
stagelight.cache("answers", hit=found is not None)
```

## Verify

```python
import stagelight

print(stagelight.configure().instrumented)   # for example ('asgi', 'openai', 'qdrant')
```

`stagelight doctor --app` lists each client library with its version and who records it. In tests of your own, after
`configure()`:

```python
import stagelight.testing

with stagelight.testing.capture() as captured:
    answer("How do I cancel?")
assert captured.call("llm").cost_status == "exact"
```

`capture` keeps everything in memory and does not read the environment: settings are its keywords, such as
`capture(provider_hosts="127.0.0.1:4330=openai")` for the [simulator](simulator.md). With `OTEL_TRACES_EXPORTER`,
`OTEL_METRICS_EXPORTER` and `OTEL_LOGS_EXPORTER` set to `none`, the rest of the tests sends nothing.

## Troubleshooting

* **`instrumented` lacks a library**: it is not installed, its version is not supported (the log says so), or it is
  switched off. An extra installs a version that fits: `pip install 'stagelight[openai]'`.
* **`unpriced: no_usage` on streams of OpenAI's client**: the server was not asked for usage; give
  `stream_options={{"include_usage": True}}`.
* **Provider `openai_compatible`, or `unpriced: no_rate`**: the host is not in the table, or is a private address; set
  `STAGELIGHT_PROVIDER_HOSTS=host=provider`.
* **Every call twice, and `{m.STAGELIGHT_DOUBLE_COUNTED}`**: another package records the same client; switch one of the
  two off.
* **`{m.STAGELIGHT_UNINSTRUMENTED_CALLS}`**: a client without an integration, or plain HTTP, calls an AI provider
  outside any stage; record it by hand.
* **No metric on Qdrant's scores**: the client has not seen the collection's distance; call
  `client.get_collection(name)` once at start.
"""


class Entry(NamedTuple):
    """One integration."""

    name: str
    """Of its entry point, by which it is switched off: ``stagelight-openai``."""
    supported: str
    """Distribution and versions: ``openai >= 1.60, < 4``."""
    coverage: Coverage
    has_extra: bool
    """Whether an extra of its name installs the library."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What its calls are recorded as."""
        return tuple(stage for stage in STAGES if stage in self.coverage.calls.values())

    @property
    def family(self) -> str:
        """Heading that it stands below."""
        stages = set(self.stages)
        if "retrieval" not in stages and stages & _MODELS:
            return "Models and speech"
        return "Vector search" if stages and stages <= {"retrieval", "store"} else "Frameworks and background work"


def entries() -> list[Entry]:
    """The integrations among the checkout's entry points, by family and title."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = []
    for name, place in project["entry-points"][GROUP].items():
        module, _, attribute = place.partition(":")
        kind: type[Instrumentor] = getattr(import_module(module), attribute)
        found.append(Entry(name, kind.supported, kind.coverage, name.removeprefix(PREFIX) in extras))
    families = ("Models and speech", "Vector search", "Frameworks and background work")
    return sorted(found, key=lambda entry: (families.index(entry.family), entry.coverage.title.lower()))


def page() -> str:
    """The page as it should be."""
    listed = entries()
    stages = "".join(f"| {stage} | {facts} |\n" for stage, facts in _STAGES.items())
    before = (_HEAD, *_overview(listed), _SWITCHES, "\n| stage | recorded |\n|---|---|\n", stages, _RULES)
    return "".join((*before, *_sections(listed), _HOSTS, _hosts(), _OTHERS))


def _overview(listed: Iterable[Entry]) -> Iterator[str]:
    yield "\n| library | versions | stages |\n|---|---|---|\n"
    for entry in listed:
        title = entry.coverage.title
        stages = ", ".join(entry.stages) or "none of its own"
        yield f"| [{title}](#{_anchor(title)}) | `{entry.supported}` | {stages} |\n"


def _anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _sections(listed: Iterable[Entry]) -> Iterator[str]:
    family = ""
    for entry in listed:
        if entry.family != family:
            family = entry.family
            yield f"\n## {family}\n"
        yield from _section(entry)


def _section(entry: Entry) -> Iterator[str]:
    coverage = entry.coverage
    extra = f", extra `{entry.name.removeprefix(PREFIX)}`" if entry.has_extra else ""
    yield f"\n### {coverage.title}\n\n`{entry.supported}`{extra}, switched off as `{entry.name}`.\n"
    yield f"Covered: {coverage.ways}.\n"
    if coverage.calls:
        yield "\n| stage | calls |\n|---|---|\n"
        yield from (f"| {stage} | {_calls(coverage.calls, stage)} |\n" for stage in entry.stages)
    for heading, sentences in (("Recorded", coverage.recorded), ("Not recorded, or not known", coverage.not_recorded)):
        if sentences:
            yield f"\n{heading}:\n\n" + "".join(f"* {sentence}\n" for sentence in sentences)


def _calls(calls: Mapping[str, Stage], stage: Stage) -> str:
    return ", ".join(re.sub(r"^[\w.()]+(?= \(|$)", r"`\g<0>`", call) for call, of in calls.items() if of == stage)


def _hosts() -> str:
    rows = "".join(f"| `{host}` | `{provider}` |\n" for host, provider in (*PROVIDERS.items(), *REGIONAL.items()))
    own = "".join(f"| `{software}` | {port} |\n" for software, port in OWN_SERVERS.items())
    return f"{rows}\n| software of your own | port |\n|---|---|\n{own}"
