"""Hub, hosts and captures started apart, as on several machines, with keys."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from clients.subscriber import Subscriber
from engine.wire.fields import WireError
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, Report
from engine.wire.messages import Score
from engine.wire.security import ClientSecurity, generate_keys
from tests.support.clusters import PATIENCE_S, SAMPLE
from tests.support.peers import Program, free_endpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_hub_a_host_without_a_client_key_and_a_capture_find_each_other(tmp_path: Path) -> None:
    pool, mine = tmp_path / "pool", tmp_path / "mine"
    generate_keys(pool)
    mine.mkdir()
    for name in ("client.key_secret", "server.key"):
        (mine / name).write_bytes((pool / name).read_bytes())
    (pool / "client.key_secret").unlink()
    directory, scores = free_endpoint(), f"{free_endpoint()},{free_endpoint()}"
    where = ("--directory", directory, "--scores", scores, "--security", "curve")
    ours, theirs = (*where, "--keys-dir", str(pool)), (*where, "--keys-dir", str(mine))

    def engine(*arguments: str) -> Program:
        return Program(sys.executable, "-m", "engine", *arguments)

    with (
        engine("cluster", "hub", *ours) as hub,
        engine("cluster", "host", "--workers", "1", "--name", "rack", *ours) as host,
        engine("capture", "--stream", f"one={SAMPLE}", *theirs) as capture,
        Subscriber(scores, keys_dir=mine) as subscriber,
    ):
        end_s = time.monotonic() + PATIENCE_S
        found: list[Score] = []
        while len(found) < 3 and time.monotonic() < end_s:
            found += [event for event in subscriber.poll(200) if isinstance(event, Score)]
        said = [program.process.poll() for program in (hub, host, capture)]
        assert len(found) >= 3, f"{said} {hub.lines} {host.lines} {capture.lines}"
        with DirectoryLink(directory, ClientSecurity.read(mine)) as link:
            report = link.ask(Ask("status"), 10_000)
        assert isinstance(report, Report)
        (worker,) = report.values["workers"]
        assert (worker["name"], worker["host"]) == ("rack-1", "rack")
        assert [h["name"] for h in report.values["directory"]["hosts"]] == ["rack"]


def test_a_client_that_is_not_listed_hears_nothing_of_a_hub(tmp_path: Path) -> None:
    pool, stranger = tmp_path / "pool", tmp_path / "stranger"
    generate_keys(pool)
    generate_keys(stranger)
    (stranger / "server.key").write_bytes((pool / "server.key").read_bytes())
    directory, scores = free_endpoint(), f"{free_endpoint()},{free_endpoint()}"
    where = ("--directory", directory, "--scores", scores)
    curve = ("--security", "curve", "--keys-dir", str(pool))
    with Program(sys.executable, "-m", "engine", "cluster", "hub", *where, *curve):
        with DirectoryLink(directory, ClientSecurity.read(pool)) as link:
            assert isinstance(link.ask(Ask("status"), 30_000), Report)
        with (
            DirectoryLink(directory, ClientSecurity.read(stranger)) as link,
            pytest.raises(WireError, match="no directory heard"),
        ):
            link.ask(Ask("status"), 1_000)
