"""CURVE: an allowed client hears, a stranger is refused with a clear error."""

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import Subscriber
from engine.wire.control import ControlClient, ControlServer
from engine.wire.fields import WireError
from engine.wire.ingest import IngestReceiver, IngestSender
from engine.wire.messages import Score
from engine.wire.scores import ScorePublisher as Publisher
from engine.wire.security import ClientSecurity, ServerSecurity, generate_keys
from tests.support.publisher import score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    generate_keys(directory)
    return directory


@pytest.fixture(scope="module")  # a process has one ZAP handler
def server(keys: Path) -> Iterator[ServerSecurity]:
    security = ServerSecurity.read(keys)
    authenticator = security.start()
    yield security
    authenticator.stop()


def heard(subscriber: Subscriber, publisher: Publisher, seconds: float) -> list[Score]:
    end = time.monotonic() + seconds
    found: list[Score] = []
    while time.monotonic() < end and not found:
        publisher.greet()
        publisher.publish(score("a", 1))
        found = [event for event in subscriber.poll(50) if isinstance(event, Score)]
    return found


def test_secret_keys_are_their_owners_only(keys: Path) -> None:
    for name in ("server.key_secret", "client.key_secret"):
        assert stat.S_IMODE((keys / name).stat().st_mode) == 0o600
    with pytest.raises(WireError, match="client 'client' has a key already"):
        generate_keys(keys)
    assert len(generate_keys(keys, "second")) == 2


def test_an_allowed_client_hears_and_a_stranger_is_told(
    keys: Path, server: ServerSecurity, tmp_path: Path
) -> None:
    with Publisher("tcp://127.0.0.1:*", server) as publisher:
        with Subscriber(publisher.endpoint, keys_dir=keys) as allowed:
            assert heard(allowed, publisher, 10)
        strangers = tmp_path / "stranger"
        generate_keys(strangers)
        (strangers / "server.key").write_bytes((keys / "server.key").read_bytes())
        with (
            Subscriber(publisher.endpoint, keys_dir=strangers) as stranger,
            pytest.raises(WireError, match="the server refused this client's key"),
        ):
            heard(stranger, publisher, 10)
        with Subscriber(publisher.endpoint) as plain:
            assert not heard(plain, publisher, 1)


def test_ingest_and_control_are_closed_to_strangers_too(keys: Path, server: ServerSecurity) -> None:
    client = ClientSecurity.read(keys)
    with (
        IngestReceiver("tcp://127.0.0.1:*", server) as ingest,
        ControlServer("tcp://127.0.0.1:*", server) as control,
        IngestSender(ingest.endpoint, client) as sender,
        IngestSender(ingest.endpoint) as stranger,
        ControlClient(control.endpoint, timeout_ms=500) as outsider,
    ):
        end = time.monotonic() + 10
        received = []
        while not received and time.monotonic() < end:
            sender.send(score("a", 0))
            stranger.send(score("evil", 0))
            time.sleep(0.05)
            received = ingest.receive_all()
        assert {message.envelope.stream for message in received} == {"a"}
        with pytest.raises(WireError, match="no reply from"):
            outsider.request("ping")


def test_missing_keys_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(WireError, match=r"no usable key; make one with: undertone keys"):
        ServerSecurity.read(tmp_path)
