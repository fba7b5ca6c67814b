"""A cluster with CURVE: one key of the pool, clients let in for the streams that were placed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clients.subscriber import Subscriber
from engine.wire.fields import WireError
from engine.wire.gate import POOL, Gate
from engine.wire.ingest import IngestSender
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, Place, Placed, Report
from engine.wire.messages import Envelope, Score, Status
from engine.wire.security import ClientSecurity, ServerSecurity, generate_keys
from tests.support.clusters import PATIENCE_S, cluster


def test_a_gate_lets_a_key_in_for_its_streams_and_no_longer_than_they_are_here() -> None:
    gate = Gate("pool")
    assert gate.callback("*", b"pool")
    assert not gate.callback("*", b"client")
    gate.admit("client", "one")
    assert gate.callback("*", b"client")
    assert not gate.callback(POOL, b"client")
    assert gate.allows("client", "one")
    assert gate.allows("client", "one.microphone")
    assert not gate.allows("client", "two")
    assert gate.allows("pool", "two")
    gate.forget("one")
    assert not gate.callback("*", b"client")
    assert not gate.allows("client", "one")


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_with_keys_a_stream_is_scored_and_a_stranger_gets_nowhere(tmp_path: Path) -> None:
    keys, strange = tmp_path / "keys", tmp_path / "strange"
    generate_keys(keys)
    generate_keys(strange)
    (strange / "server.key").write_bytes((keys / "server.key").read_bytes())
    mine = ClientSecurity.read(keys)
    arguments = ("--workers", "1", "--security", "curve", "--keys-dir", str(keys))
    with cluster(tmp_path / "log", ["one"], *arguments) as running:
        with Subscriber(running.scores, keys_dir=keys) as subscriber:
            end_s = time.monotonic() + PATIENCE_S
            score = None
            while score is None and time.monotonic() < end_s:
                found = [e for e in subscriber.poll(200) if isinstance(e, Score)]
                score = found[0] if found else None
            assert score is not None, running.log.read_text()[-3000:]
            assert score.envelope.epoch > 0
            with DirectoryLink(running.directory, mine) as link:
                report = link.ask(Ask("status"), 5_000)
                assert isinstance(report, Report)
                (worker,) = report.values["workers"]
                assert worker["streams"] == ["one"]
                # A key that is listed gets its own stream placed, and may send no other's.
                placed = link.ask(Place("mine", "source", "test"), 10_000)
            assert isinstance(placed, Placed)
            with IngestSender(placed.ingest, mine) as sender:
                forged = Status(
                    Envelope("two.source", 0, 0, 0, 0, score.envelope.clock),
                    "capture",
                    "running",
                )
                while not sender.send(forged):
                    time.sleep(0.05)
                refused = 0
                while not refused and time.monotonic() < end_s:
                    for event in subscriber.poll(200):
                        assert not (
                            isinstance(event, Status) and event.envelope.stream == "two.source"
                        )
                        if isinstance(event, Status) and event.worker == "inference":
                            refused = event.counters.get("messages_malformed", 0)
                assert refused == 1
        stranger = ClientSecurity.read(strange)
        with DirectoryLink(running.directory, stranger) as link, pytest.raises(WireError):
            link.ask(Ask("status"), 1_500)
        # Nor does a client with a key pass for a worker: the pool's own key is needed.
        assert ServerSecurity.read(keys).public != mine.public
