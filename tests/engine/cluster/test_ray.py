"""The same cluster on Ray, in a process of its own: what Ray starts again, and what goes on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import psutil
import pytest

from tests.support.clusters import Watcher, cluster, kill_tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason='needs pip install -e ".[cluster]"'
    ),
]


def test_ray_replaces_a_host_whose_streams_have_long_moved_on(tmp_path: Path) -> None:
    arguments = ("--ray", "local", "--workers", "2", "--hosts", "2")
    with cluster(tmp_path / "log", ["one"], *arguments) as running, Watcher(running.scores) as seen:
        running.patience_s = 150.0  # Ray itself takes half a minute to start on a busy machine
        before = running.ready(2, 1)
        seen.further(["one"], 4)
        host = next(w["host"] for w in before["workers"] if w["streams"])
        pid = next(h["pid"] for h in before["directory"]["hosts"] if h["name"] == host)
        actor = psutil.Process(pid).parent()
        assert actor is not None
        assert "ray" in actor.name()
        kill_tree(actor)
        seen.further(["one"], 6)
        after = running.ready(2, 1)
        assert pid not in [h["pid"] for h in after["directory"]["hosts"]]
    assert seen.lost_without_a_pause() <= 1
    assert seen.is_in_order_and_once()
