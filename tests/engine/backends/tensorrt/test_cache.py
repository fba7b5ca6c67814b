"""The plan cache: keys, refusals, and two processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from engine.backends.protocol import BackendError
from engine.backends.tensorrt.cache import Cached, PlanCache, PlanKey, default_directory
from engine.backends.tensorrt.profiles import InputRange

RANGES = (InputRange("input", False, (1, 4), (8, 4), (64, 4)),)
KEY = PlanKey("fusion", "ab" * 32, "rtx 1.7.1", "sm89", "fp16", RANGES)
SPAWN = multiprocessing.get_context("spawn")


def never() -> bytes:
    raise AssertionError("it was in the cache")


def test_a_plan_is_built_once(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    assert cache.look(KEY) == "not built yet"
    built = cache.obtain(KEY, lambda: b"plan")
    assert built == Cached(KEY, b"plan", verified=False)
    assert cache.obtain(KEY, never) == built
    assert PlanCache(tmp_path / "plans").look(KEY) == built


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "video_encoder"},
        {"onnx_sha256": "cd" * 32},
        {"tensorrt": "rtx 1.8"},
        {"tensorrt": "datacentre 1.7.1"},
        {"device": "sm120"},
        {"precision": "bf16"},
        {"ranges": (InputRange("input", False, (1, 4), (8, 4), (32, 4)),)},
        {"recipe": 99},
    ],
)
def test_everything_that_a_plan_depends_on_changes_its_key(
    tmp_path: Path, change: dict[str, object]
) -> None:
    other = replace(KEY, **change)  # type: ignore[arg-type]
    assert other.digest != KEY.digest
    cache = PlanCache(tmp_path)
    cache.obtain(KEY, lambda: b"plan")
    assert cache.look(other) == "not built yet"


def test_verified_is_remembered_and_a_discarded_plan_is_gone(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    cache.mark_verified(cache.obtain(KEY, lambda: b"plan"))
    assert PlanCache(tmp_path / "plans").look(KEY) == Cached(KEY, b"plan", verified=True)
    cache.discard(KEY)
    assert cache.look(KEY) == "not built yet"


@pytest.mark.parametrize(
    ("ending", "content", "reason"),
    [
        ("plan", b"plam", "plan_sha256 is not that of this plan"),
        ("plan", b"", "plan_sha256 is not that of this plan"),
        ("json", b"{", "cannot be read"),
        ("json", b"[]", "schema is not that of this plan"),
    ],
)
def test_a_damaged_plan_is_built_anew(
    tmp_path: Path, ending: str, content: bytes, reason: str
) -> None:
    cache = PlanCache(tmp_path / "plans")
    cache.obtain(KEY, lambda: b"plan")
    (tmp_path / "plans" / f"{KEY.stem}.{ending}").write_bytes(content)
    assert reason in str(cache.look(KEY))
    assert cache.obtain(KEY, lambda: b"anew").plan == b"anew"
    assert cache.obtain(KEY, never).plan == b"anew"


def test_a_sidecar_of_another_key_is_refused(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    other = replace(KEY, precision="bf16")
    cache.obtain(other, lambda: b"plan")
    for ending in ("plan", "json"):  # as if two keys had met in one name
        shutil.copy(
            tmp_path / "plans" / f"{other.stem}.{ending}",
            tmp_path / "plans" / f"{KEY.stem}.{ending}",
        )
    assert cache.look(KEY) == "its key is not that of this plan"


def test_a_strangers_plan_is_refused_until_allowed_and_then_still_compared(tmp_path: Path) -> None:
    theirs, ours = PlanCache(tmp_path / "theirs"), PlanCache(tmp_path / "ours")
    theirs.mark_verified(theirs.obtain(KEY, lambda: b"theirs"))
    ours.obtain(replace(KEY, graph="other"), lambda: b"ours")
    for path in (tmp_path / "theirs").glob("fusion*"):
        shutil.copy(path, tmp_path / "ours")
    assert "another machine built it" in str(ours.look(KEY))
    allowing = PlanCache(tmp_path / "ours", accept_foreign=True)
    assert allowing.look(KEY) == Cached(KEY, b"theirs", verified=False)
    assert ours.obtain(KEY, lambda: b"own").plan == b"own"


def test_claiming_to_be_verified_breaks_the_signature(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    cache.obtain(KEY, lambda: b"plan")
    path = tmp_path / "plans" / f"{KEY.stem}.json"
    sidecar = json.loads(path.read_text())
    path.write_text(json.dumps({**sidecar, "verified": True}))
    assert "another machine built it" in str(cache.look(KEY))


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    cache.obtain(KEY, lambda: b"plan")
    cache.keep_side_blob("x.timings", b"timings")
    assert cache.side_blob("x.timings") == b"timings"
    assert (tmp_path / "plans").stat().st_mode & 0o077 == 0
    (tmp_path / "plans").chmod(0o777)
    assert "others may write" in str(cache.look(KEY))
    assert cache.side_blob("x.timings") == b""


def test_side_blobs_of_others_are_not_used(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    assert cache.side_blob("x.timings") == b""
    cache.keep_side_blob("x.timings", b"timings")
    (tmp_path / "plans" / "x.timings").write_bytes(b"\0" * 64)
    assert cache.side_blob("x.timings") == b""


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match="cannot be made"):
        PlanCache(tmp_path / "file" / "plans").obtain(KEY, lambda: b"plan")


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")

    def failing() -> bytes:
        raise BackendError("no")

    with pytest.raises(BackendError, match="no"):
        cache.obtain(KEY, failing)
    assert not [
        path for path in (tmp_path / "plans").iterdir() if path.suffix in (".plan", ".json")
    ]
    assert cache.obtain(KEY, lambda: b"plan").plan == b"plan"


def build_slowly(directory: Path, name: str, results: Queue[tuple[str, bytes]]) -> None:
    def build() -> bytes:
        time.sleep(1.0)  # longer than the other process needs to come to the lock
        return name.encode()

    results.put((name, PlanCache(directory).obtain(KEY, build).plan))


def test_two_processes_build_one_plan(tmp_path: Path) -> None:
    results = SPAWN.Queue()
    workers = [
        SPAWN.Process(target=build_slowly, args=(tmp_path / "plans", name, results))
        for name in ("first", "second")
    ]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=45) for _ in workers)
    for worker in workers:
        worker.join(10)
    assert found.keys() == {"first", "second"}
    assert found["first"] == found["second"]


def test_the_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "undertone" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory() == Path("~/.cache/undertone/plans").expanduser()
