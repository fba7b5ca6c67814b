"""Keys that come and go while the engine runs, and names that are none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.wire.fields import WireError
from engine.wire.messages import Score
from engine.wire.scores import ScorePublisher, ScoreReceiver
from engine.wire.security import ClientSecurity, ServerSecurity, generate_keys
from tests.support.publisher import score
from tests.support.strangers import Stranger


def within(seconds: float, happened: Callable[[], object]) -> bool:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        if happened():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    generate_keys(tmp_path)
    return tmp_path


@pytest.fixture
def server(keys: Path) -> Iterator[ServerSecurity]:
    security = ServerSecurity.read(keys)
    allowed = security.start()
    yield security
    allowed.stop()


def test_a_removed_key_ends_a_connection_that_stands_and_a_new_one_counts(
    keys: Path, server: ServerSecurity
) -> None:
    generate_keys(keys, "late")
    (keys / "clients" / "late.key").rename(keys / "late.key")
    with (
        ScorePublisher("tcp://127.0.0.1:*", server) as publisher,
        ScoreReceiver(publisher.endpoint, security=ClientSecurity.read(keys)) as standing,
    ):

        def hears(receiver: ScoreReceiver) -> bool:
            publisher.greet()
            publisher.publish(score("a", 1))
            return any(isinstance(message, Score) for message in receiver.receive_all())

        assert within(15, lambda: hears(standing))
        (keys / "clients" / "client.key").unlink()
        (keys / "late.key").rename(keys / "clients" / "late.key")

        def listen() -> None:
            end_s = time.monotonic() + 15
            while time.monotonic() < end_s:
                standing.receive(50)

        with pytest.raises(WireError, match="the server refused this client's key"):
            listen()
        with ScoreReceiver(publisher.endpoint, security=ClientSecurity.read(keys, "late")) as late:
            assert within(15, lambda: hears(late))


@pytest.mark.parametrize("name", ["server", "../../evil", "a/b", "", ".hidden", "x" * 65])
def test_a_client_cannot_be_called_like_the_server_or_a_path(keys: Path, name: str) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    with pytest.raises(WireError, match="expected a client's name"):
        generate_keys(keys, name)
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before


def test_a_server_that_ends_within_a_handshake_has_refused_nobody(keys: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        with ScoreReceiver(endpoint, security=ClientSecurity.read(keys)) as receiver:
            connection, _ = listening.accept()
            connection.recv(64)
            connection.close()
            listening.close()
            assert receiver.receive(1_000) is None


def test_without_a_key_the_greeting_is_all_that_a_stranger_gets(
    keys: Path, server: ServerSecurity
) -> None:
    with ScorePublisher("tcp://127.0.0.1:*", server) as publisher:
        stranger = Stranger(publisher.endpoint, "SUB", greet=False)
        stranger.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.is_cut()
        stranger.close()
