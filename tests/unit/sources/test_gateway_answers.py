"""What the gateway's source says when it is refused, misunderstood or not answered, or is given a wrong address."""

from __future__ import annotations

import re
import socket
import threading
from typing import Any

import pytest
from gateway_server import EMPTY, TOKEN, WINDOW, loki_with, serving
from stagelight.cli.program import main
from stagelight.sources import GatewaySource, SourceUnavailable, Window, _gateway_http, open_source
from stagelight.sources._gateway_http import GatewayClient
from stagelight.sources._tempo import Tempo


def failure(url: str, token: str | None = TOKEN) -> str:
    """What is said when costs cannot be read."""
    source = GatewaySource(url, token)
    with pytest.raises(SourceUnavailable) as caught:
        source.cost(WINDOW, "model")
    source.close()
    message = str(caught.value)
    assert TOKEN not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "refuses the token in STAGELIGHT_GATEWAY_TOKEN: was it rotated?"),
        (403, r"is not the gateway of a stack \(it answers 403\)"),
        (404, r"is not the gateway of a stack \(it answers 404\)"),
        (302, "it answers 302, which sends to another address"),
        (429, "has too many requests to answer, .* try again in a moment"),
        (502, "Loki does not answer behind http://127.0.0.1:.*: `docker compose ps loki` says why"),
        (504, "Loki does not answer behind"),
        (400, r"Loki behind .* refuses a query with 400: bad \\x1b\[31mquery$"),
        (500, r"Loki behind .* refuses a query with 500: bad \\x1b\[31mquery$"),
    ],
)
def test_refusals_say_what_to_do(status: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each status has a sentence of its own; a back end's words come harmless and short."""
    monkeypatch.setattr(_gateway_http, "_PAUSE_S", 0.001)
    with serving(lambda *_: (status, b"bad \x1b[31mquery"), Location="http://127.0.0.1:9/") as server:
        assert re.search(said, failure(server.url))


def test_a_missing_token_is_named() -> None:
    """Which variable to set, and where the token is from."""
    with serving(lambda *_: (401, b"")) as server:
        message = failure(server.url, None)
        assert "authorization" not in server.headers[0]

    assert "asks for its token: set STAGELIGHT_GATEWAY_TOKEN; `docker compose run --rm setup gateway-token`" in message


def test_redirections_are_not_followed() -> None:
    """The token goes nowhere else."""
    with serving(lambda *_: (200, EMPTY)) as other, serving(lambda *_: (307, b""), Location=other.url) as server:
        failure(server.url)

        assert server.headers[0]["authorization"] == f"Bearer {TOKEN}"
        assert other.asked == []


def test_busy_answers_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is asked by many at once refuses some; a moment later it does not."""
    monkeypatch.setattr(_gateway_http, "_PAUSE_S", 0.001)
    statuses = iter([429, 429, 200, 200, 200])
    with serving(lambda *_: (next(statuses), EMPTY)) as server:
        source = GatewaySource(server.url, TOKEN)
        assert source.cost(WINDOW, "model") == []
        source.close()


def test_idle_connections_that_were_closed_are_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question is answered although the server hung up after the first; proxies are left aside."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(lambda *_: (200, EMPTY)) as server:
        source = GatewaySource(server.url, TOKEN)
        assert [source.logs(WINDOW) for _ in range(3)] == [[], [], []]
        source.close()

        assert len(server.asked) == 3
        with pytest.raises(SourceUnavailable, match="is closed"):
            source.logs(WINDOW)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "answers with broken JSON"),
        (b"[" * 100_000, "answers with broken JSON"),
        ({}, "Loki answers in a form that is not known here"),
        ([1], "Loki answers in a form that is not known here"),
        ({"data": {"result": [{"stream": {}, "values": [["soon", ""]]}]}}, "Loki answers in a form"),
        ({"data": {"result": [{"stream": [], "values": [["1", ""]]}]}}, "Loki answers in a form"),
    ],
)
def test_malformed_answers(content: Any, said: str) -> None:
    """What is no answer of Loki's is no traceback."""
    with serving(lambda *_: (200, content)) as server:
        assert said in failure(server.url)


def test_another_kind_of_server() -> None:
    """A page is no answer of a gateway's."""
    with serving(lambda *_: (200, b"<html>"), Content_Type="text/html") as server:
        assert "is not the gateway of a stack (what it answers is no JSON)" in failure(server.url)


def test_too_long_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to its end."""
    monkeypatch.setattr(_gateway_http, "_MOST_BYTES", 1 << 20)
    with serving(lambda *_: (200, b" " * (3 << 20))) as server:
        assert "answers with more than 1 MiB: ask for less, with --since" in failure(server.url)


@pytest.mark.parametrize("sent", [b"SSH-2.0-nobody\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b""])
def test_what_is_no_http(sent: bytes) -> None:
    """Another protocol, half an answer, and none."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        message = failure(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join(10)

    assert (
        "is not the gateway of a stack (its answer is cut off or no HTTP)" in message or "cannot be reached" in message
    )


def test_nobody_there() -> None:
    """The reason, and where to look."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    assert f"http://127.0.0.1:{port} cannot be reached (Connection refused): see `docker compose ps`" in failure(
        f"http://127.0.0.1:{port}"
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://127.0.0.1", "accepted are the path of a database file and the address of a gateway"),
        ("http://", "accepted are the path"),
        ("http://127.0.0.1:99999", "this is no address"),
        ("http://[::1", "this is no address"),
        ("http://me:secret@127.0.0.1:99999", "this is no address"),
        ("http://127.0.0.1:0", "accepted are the path"),
        ("http://127.0.0.1/a path", "accepted are the path"),
        ("http://me:secret@127.0.0.1:8080", "the gateway's token is read from STAGELIGHT_GATEWAY_TOKEN"),
        ("http://127.0.0.1:8080/?token=secret", "the gateway's token is read from STAGELIGHT_GATEWAY_TOKEN"),
        ("http://127.0.0.1:80\r\nX: secret", "this is no address"),
    ],
)
def test_addresses_that_are_none(address: str, said: str) -> None:
    """Refused before anything is sent; secrets in them are not repeated."""
    with pytest.raises(SourceUnavailable, match=said) as caught:
        open_source(address)
    assert "me:secret" not in str(caught.value)


def test_tokens_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that would be two header lines is refused, and not shown."""
    monkeypatch.setenv("STAGELIGHT_GATEWAY_TOKEN", "abc\r\nHost: elsewhere")
    with pytest.raises(SourceUnavailable, match=r"^STAGELIGHT_GATEWAY_TOKEN is no token") as caught:
        open_source("http://127.0.0.1:8080")
    assert "abc" not in str(caught.value)


def test_commands_end_with_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3 as without a database; the token is nowhere."""
    monkeypatch.setenv("STAGELIGHT_GATEWAY_TOKEN", TOKEN)
    with serving(lambda *_: (401, b"")) as server:
        monkeypatch.setenv("STAGELIGHT_SOURCE", f" {server.url}/ ")
        statuses = {verb: main([verb]) for verb in ("cost", "turns", "traces", "latency", "errors", "tail")}
        printed = capsys.readouterr()

    assert set(statuses.values()) == {3}
    assert printed.out == ""
    assert printed.err.splitlines() == [
        f"stagelight: {server.url} refuses the token in STAGELIGHT_GATEWAY_TOKEN: was it rotated? "
        "`docker compose run --rm setup gateway-token` prints it"
    ] * len(statuses)


def test_more_of_one_moment_than_a_page() -> None:
    """There is no way to get the rest: that is said."""
    with serving(loki_with([1.0] * 5_001)) as server:
        assert "Loki has more than 5,000 records of one moment" in failure(server.url)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"traces": [], "metrics": {"completedJobs": 1, "totalJobs": 2}}, "Tempo has not searched everything"),
        ({"traces": [{"traceID": 1}]}, "Tempo answers in a form that is not known here"),
        ({"status": "PARTIAL", "trace": {}}, "is too large: Tempo gives a part of it only"),
        ({"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}}, "Tempo answers in a form"),
    ],
)
def test_what_tempo_leaves_out_is_said(content: Any, said: str) -> None:
    """Half an answer is none."""
    with serving(lambda *_: (200, content)) as server:
        client = GatewayClient(server.url, TOKEN)
        tempo = Tempo(client)
        ask = tempo.trace if "trace" in content else lambda query: list(tempo.newest(query, Window(0, 2**62), 1))
        with pytest.raises(SourceUnavailable, match=said):
            ask("a" * 32)
        client.close()
