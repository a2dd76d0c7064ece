"""Who may talk to the server: options that would expose it, Host, Origin, token."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from stagelight.embedded.access import COOKIE, SESSION_S, Access
from stagelight.embedded.options import Addresses, InvalidOptions, Limits, ServerOptions, is_loopback
from stagelight.embedded.refusal import Forbidden, Misdirected, Refused, Unauthenticated

EVERYWHERE = "0.0.0.0"  # noqa: S104 - checked, never bound
TOKEN = "a-token-that-is-long-enough"


def access(**options: object) -> Access:
    return Access(ServerOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        (EVERYWHERE, False),
        ("192.168.1.7", False),
        ("::", False),
        ("localhost.example.com", False),
        ("my-laptop", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """Only loopback addresses and ``localhost`` count as reachable from this machine alone."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": EVERYWHERE}, "host='0.0.0.0' can be reached from other machines: use 127.0.0.1"),
        ({"host": EVERYWHERE, "allow_remote": True}, "remote access needs a token of 16 or more characters"),
        ({"host": EVERYWHERE, "token": TOKEN}, "allow remote access explicitly"),
        ({"token": "short"}, "token has 5 characters: at least 16 are needed"),
        ({"token": "with a space and more"}, "must fit into an HTTP header"),
        ({"token": "with-ümlaut-and-more"}, "must fit into an HTTP header"),
        ({"http_port": 70000}, "http_port=70000: a port is a number from 0"),
        ({"grpc_port": -1}, "grpc_port=-1: a port is a number from 0"),
        ({"http_port": 4317}, "http_port and grpc_port are both 4317"),
        ({"limits": Limits(inflight_bytes=1)}, "limits.inflight_bytes=1: must be at least limits.body_bytes"),
    ],
)
def test_refused_options(options: dict[str, object], message: str) -> None:
    """Options that contradict each other or would expose the data are refused, with what to do."""
    with pytest.raises(InvalidOptions) as refused:
        ServerOptions(**options).check()  # type: ignore[arg-type]

    assert message in str(refused.value)


def test_accepted_options() -> None:
    """The default, free ports, a token on loopback, and a remote address with flag and token are accepted."""
    accepted = [
        ServerOptions(),
        ServerOptions(http_port=0, grpc_port=0),
        ServerOptions(token=TOKEN),
        ServerOptions(host=EVERYWHERE, allow_remote=True, token=TOKEN),
    ]

    assert [options.check() for options in accepted] == [None] * 4
    assert TOKEN not in repr(accepted)


@pytest.mark.parametrize(
    ("options", "host", "allowed"),
    [
        ({}, "127.0.0.1:4318", True),
        ({}, "localhost", True),
        ({}, "LOCALHOST.:4318", True),
        ({}, "[::1]:4318", True),
        ({}, "evil.example", False),
        ({}, "localhost.evil.example:4318", False),
        ({}, "192.168.1.7:4318", False),
        ({}, "0.0.0.0:4318", False),
        ({}, "localhost@evil.example", False),
        ({}, "evil.example/localhost", False),
        ({}, "", False),
        ({}, "[::1", False),
        ({"allowed_hosts": ("stagelight.test",)}, "stagelight.test:80", True),
        ({"host": EVERYWHERE}, "192.168.1.7:4318", True),
        ({"host": EVERYWHERE}, "[fe80::1]:4318", True),
        ({"host": EVERYWHERE}, "evil.example:4318", False),
        ({"host": "box.test"}, "box.test:4318", True),
    ],
)
def test_host(options: dict[str, object], host: str, allowed: bool) -> None:
    """The server answers to its own names only; a literal address is fine where other machines may come."""
    try:
        access(**options).check_host([host])
        status = 200
    except Refused as refusal:
        status = refusal.http_status

    assert (status == 200) is allowed
    assert status in {200, 400, 421}


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"]])
def test_number_of_hosts(hosts: list[str]) -> None:
    """A request without, or with two Host headers is refused."""
    with pytest.raises(Misdirected, match="exactly one is needed"):
        access().check_host(hosts)


@pytest.mark.parametrize(
    ("method", "origin", "fetch_site", "allowed"),
    [
        ("POST", "", "", True),
        ("POST", "http://localhost:4318", "same-origin", True),
        ("POST", "https://localhost:4318", "", True),
        ("POST", "http://localhost:9999", "", False),
        ("POST", "http://127.0.0.1:4318", "", False),
        ("POST", "https://evil.example", "cross-site", False),
        ("POST", "null", "", False),
        ("POST", "", "cross-site", False),
        ("POST", "", "same-site", False),
        ("DELETE", "https://evil.example", "", False),
        ("GET", "https://evil.example", "cross-site", True),
    ],
)
def test_origin(method: str, origin: str, fetch_site: str, allowed: bool) -> None:
    """What has an effect may come from programs and from the server's own pages, never from another site."""
    try:
        access().check_origin(method, host="localhost:4318", origin=origin, fetch_site=fetch_site)
        passed = True
    except Forbidden:
        passed = False

    assert passed is allowed


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "send the header"),
        ("", "send the header"),
        (TOKEN, "send the header"),
        (f"Basic {TOKEN}", "send the header"),
        ("Bearer", "is wrong"),
        ("Bearer wrong", "is wrong"),
        (f"Bearer {TOKEN}x", "is wrong"),
        (f"Bearer {TOKEN} {TOKEN}", "is wrong"),
    ],
)
def test_wrong_bearer(header: str | None, reason: str) -> None:
    """A missing or wrong token is refused with what to do; the message never shows it."""
    with pytest.raises(Unauthenticated, match=reason) as refused:
        access(token=TOKEN).check_bearer(header)

    assert TOKEN not in str(refused.value)


def test_right_bearer() -> None:
    """The right token passes, whatever the case of the scheme; without a configured token nothing is asked."""
    guarded = access(token=TOKEN)

    assert [guarded.check_bearer(f"{scheme} {TOKEN}") for scheme in ("Bearer", "bearer", "BEARER")] == [None] * 3
    assert access().check_bearer(None) is None


def test_session() -> None:
    """Each login has a random cookie of its own, without the token, known to the server that gave it only."""
    guarded = access(token=TOKEN)
    first, second = guarded.log_in(), guarded.log_in()
    cookie = f"other=1; {COOKIE}={first}"

    assert TOKEN not in cookie
    assert first != second
    assert guarded.is_session(cookie)
    assert guarded.is_session(f"{COOKIE}={second}")
    assert not guarded.is_session(f"{COOKIE}={TOKEN}")
    assert not guarded.is_session(f"{COOKIE}=")
    assert not access(token=TOKEN).is_session(cookie)
    assert not access().is_session(cookie)


def test_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login lasts 12 hours; of very many the oldest end."""
    guarded = access(token=TOKEN)
    cookie = f"{COOKIE}={guarded.log_in()}"
    began = time.monotonic()
    # Not in ``time`` itself, which servers of other tests may be using.
    clock = SimpleNamespace(monotonic=lambda: began + SESSION_S - 60)
    monkeypatch.setattr("stagelight.embedded.access.time", clock)
    before = guarded.is_session(cookie)
    clock.monotonic = lambda: began + SESSION_S + 60
    after = guarded.is_session(cookie)
    old = f"{COOKIE}={guarded.log_in()}"
    recent = [f"{COOKIE}={guarded.log_in()}" for _ in range(1_000)]

    assert (before, after, guarded.is_session(old)) == (True, False, False)
    assert all(map(guarded.is_session, recent))


def test_addresses() -> None:
    """The printed addresses can be opened: a wildcard is shown as loopback, IPv6 in brackets."""
    urls = [Addresses(host, 1, 2, Path("db")).http_url for host in ("127.0.0.1", EVERYWHERE, "::", "::1", "box.test")]

    assert urls == ["http://127.0.0.1:1", "http://127.0.0.1:1", "http://[::1]:1", "http://[::1]:1", "http://box.test:1"]
    assert Addresses("::1", 1, 2, Path("db")).grpc_url == "http://[::1]:2"
