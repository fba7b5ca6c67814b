"""Who may look: names against DNS rebinding, origins against foreign pages, the token."""

import pytest

from clients.dashboard.access import COOKIE, Access, Visit, is_loopback, new_token

LOCAL = Access("127.0.0.1", None)
OPEN = Access("0.0.0.0", "secret", frozenset({"dash.example"}))
HERE = "127.0.0.1:8765"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("::", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", [HERE, "localhost:8765", "[::1]:8765", "LOCALHOST"])
def test_a_loopback_server_answers_to_its_own_names(host: str) -> None:
    assert LOCAL.judge(Visit(host), False) == "allowed"
    assert LOCAL.judge(Visit(host, f"http://{host}"), True) == "allowed"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.5:8765",
        "user@127.0.0.1",
        "127.0.0.1/x",
        "127.0.0.1:port",
        "[::1",
    ],
)
def test_a_rebound_name_is_refused(host: str | None) -> None:
    assert LOCAL.judge(Visit(host), False) == "wrong_host"


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:9999",
        "http://localhost:8765",
        "https://127.0.0.1:8765.evil.example",
        "file://127.0.0.1:8765",
        "http://[::1",
    ],
)
def test_another_sites_websocket_is_refused(origin: str | None) -> None:
    assert LOCAL.judge(Visit(HERE, origin), True) == "wrong_origin"
    assert LOCAL.judge(Visit(HERE, origin), False) == "allowed"


def test_a_token_is_asked_for_and_found_in_cookie_or_address() -> None:
    host = "192.168.1.5:8765"
    assert OPEN.judge(Visit(host), False) == "no_token"
    assert OPEN.judge(Visit(host, query_token="wrong"), False) == "no_token"
    assert OPEN.judge(Visit(host, query_token="secret"), False) == "allowed"
    assert OPEN.judge(Visit(host, cookie=f"a=b; {COOKIE}=secret"), False) == "allowed"
    assert OPEN.judge(Visit(host, cookie=f"{COOKIE}=secrex"), False) == "no_token"
    assert OPEN.judge(Visit(host, cookie="\x00=;;"), False) == "no_token"
    assert OPEN.judge(Visit(host, query_token="sécret"), False) == "no_token"
    assert OPEN.brings_token(Visit(host, query_token="secret"))
    assert not LOCAL.brings_token(Visit(HERE, query_token="secret"))


def test_an_open_server_answers_to_addresses_and_given_names_only() -> None:
    for host, verdict in (
        ("dash.example", "allowed"),
        ("10.0.0.7:80", "allowed"),
        ("[fe80::1]:80", "allowed"),
        ("evil.example", "wrong_host"),
    ):
        assert OPEN.judge(Visit(host, query_token="secret"), False) == verdict


def test_tokens_differ_and_are_long() -> None:
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert min(map(len, tokens)) >= 32
