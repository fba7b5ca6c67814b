"""A rolling upgrade, a full cluster, and two captures of one name, with real processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from models import bundle as bundles
from tests.support.clusters import SAMPLE, Watcher, cluster, kill_tree
from tests.support.peers import ENVIRONMENT, Program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def operate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine", "cluster", *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def test_an_upgrade_moves_every_stream_to_the_new_bundle_and_loses_no_window(
    tmp_path: Path,
) -> None:
    old = bundles.open("default")
    new = tmp_path / "new"
    shutil.copytree(old.directory, new)
    config = json.loads((new / "config.json").read_text())
    (new / "config.json").write_text(json.dumps(config | {"version": "next"}))
    sha256 = bundles.open(str(new)).sha256
    assert sha256 != old.sha256
    streams = ("one", "two")
    with cluster(tmp_path / "log", streams, "--workers", "1") as running:
        before = running.ready(1, 2)
        with Watcher(running.scores) as seen:
            seen.further(streams, 4)
            done = operate("upgrade", str(new), "--directory", running.directory)
            assert done.returncode == 0, done.stderr
            assert "generation 2 starts on local" in done.stdout
            running.when(
                lambda values: (
                    [w["streams"] for w in values["workers"] if "g2" in w["name"]]
                    == [["one", "two"]]
                ),
                "the new worker has both streams",
            )
            seen.further(streams, 4)
            running.when(
                lambda _: not psutil.pid_exists(before["workers"][0]["pid"]),
                "the old worker has ended",
            )
        for name in streams:
            models = seen.models[name]
            assert models == sorted(models, key=[old.sha256, sha256].index)
            assert set(models) == {old.sha256, sha256}
        assert seen.lost_without_a_pause() == 0
        assert seen.is_in_order_and_once()

        dead = {worker["pid"] for worker in running.status()["workers"]}
        kill_tree(running.child("host"))
        after = running.when(
            lambda values: (
                [w["streams"] for w in values["workers"] if w["pid"] not in dead]
                == [["one", "two"]]
            ),
            "the host that was started again has both streams",
        )
        assert [w["name"] for w in after["workers"] if w["pid"] not in dead] == ["local-1-g2"]

        refused = operate("upgrade", str(tmp_path / "none"), "--directory", running.directory)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: ")
        assert len(refused.stderr.splitlines()) == 1


def test_a_full_cluster_and_a_taken_name_are_told_and_counted(tmp_path: Path) -> None:
    with cluster(tmp_path / "log", ["one"], "--workers", "1", "--capacity", "1") as running:
        running.ready(1, 1)

        def refusal(stream: str) -> str:
            command = ("capture", "--directory", running.directory, "--scores", running.scores)
            source = ("--stream", f"{stream}={SAMPLE}")
            with Program(sys.executable, "-m", "engine", *command, *source) as capture:
                line = capture.line(lambda line: f"{stream}.source: " in line and "WARN" in line
                                    and "blazeface" not in line)  # fmt: skip
                shown = {line.partition("  valence")[0] for line in capture.lines}
                assert not shown & {"one", "two"} - {stream}, "a capture shows its own streams"
                return line

        assert refusal("two").endswith("full")
        namesake = ("cluster", "host", "--workers", "1", "--directory", running.directory)
        with Program(
            sys.executable, "-m", "engine", *namesake, "--scores", running.scores
        ) as other:
            assert other.line(lambda line: "needs another name" in line)
        assert "already has a source from another process" in refusal("one")
        values = running.status()
        assert values["directory"]["counters"]["places_refused"] >= 1
        assert values["directory"]["counters"]["captures_conflicting"] >= 1
        assert [w["streams"] for w in values["workers"]] == [["one"]]


def test_status_prints_what_scripts_read_and_a_directory_that_is_away_is_told(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path / "log", ["one"], "--workers", "1") as running:
        running.ready(1, 1)
        done = operate("status", "--json", "--directory", running.directory)
        values = json.loads(done.stdout)
        assert set(values) == {"workers", "relays", "directory"}
        (worker,) = values["workers"]
        assert set(worker) == {"name", "host", "pid", "state", "streams"}
        assert worker["streams"] == ["one"]
        assert [set(relay) for relay in values["relays"]] == [{"endpoint", "pid"}] * 2
        plain = operate("status", "--directory", running.directory)
        assert plain.stdout.splitlines()[0].split() == [
            "worker",
            "host",
            "pid",
            "state",
            "held",
            "streams",
        ]
        assert worker["name"] in plain.stdout
        nobody = operate("drain", "nobody", "--directory", running.directory)
        assert nobody.returncode == 2
        assert f"no worker 'nobody'; known: {worker['name']}" in nobody.stderr
    away = operate("status", "--directory", running.directory)
    assert away.returncode == 2
    assert f"no directory heard at {running.directory}" in away.stderr
