"""The feature store: what is written is read back, and a kill loses at most one clip."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainer.features.store import FeatureError, FrameStore


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float16)


def fill(folder: Path, keys: str, shard_bytes: int = 1 << 30) -> FrameStore:
    store = FrameStore(folder, "encoder/1", (3,), shard_bytes=shard_bytes)
    with store.writer() as writer:
        for number, key in enumerate(keys):
            writer.add(key, frames(number + 1, number), seconds=number / 2)
    return store


def test_frames_are_read_back_from_several_files(tmp_path: Path) -> None:
    fill(tmp_path, "abcdef", shard_bytes=30)
    assert len(list(tmp_path.glob("frames-*.bin"))) > 2
    store = FrameStore(tmp_path, "encoder/1", (3,))
    for number, key in enumerate("abcdef"):
        np.testing.assert_array_equal(store.read(key), frames(number + 1, number))
        assert store.entry(key).seconds == number / 2
    assert not store.read("c").flags.writeable


def test_a_clip_without_frames_is_remembered(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, "encoder/1", (3,))
    with store.writer() as writer:
        writer.add("empty", np.zeros((0, 3)), 1.0)
    assert FrameStore(tmp_path, "encoder/1", (3,)).read("empty").shape == (0, 3)


def test_what_a_kill_left_half_written_is_written_again(tmp_path: Path) -> None:
    fill(tmp_path, "abc")
    index = tmp_path / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-20])  # the last line was cut off
    store = FrameStore(tmp_path, "encoder/1", (3,))
    assert "b" in store
    assert "c" not in store
    with store.writer() as writer:
        writer.add("c", frames(3, 9), 0.0)
    again = FrameStore(tmp_path, "encoder/1", (3,))
    np.testing.assert_array_equal(again.read("c"), frames(3, 9))
    np.testing.assert_array_equal(again.read("b"), frames(2, 1))


def test_lines_whose_frames_never_reached_the_disk_are_dropped(tmp_path: Path) -> None:
    fill(tmp_path, "abc")
    shard = tmp_path / "frames-0000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    store = FrameStore(tmp_path, "encoder/1", (3,))
    assert "b" in store
    assert "c" not in store


def test_another_encoders_frames_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(FeatureError, match="identity: expected 'encoder/2', got 'encoder/1'"):
        FrameStore(tmp_path, "encoder/2", (3,))
    with pytest.raises(FeatureError, match="shape"):
        FrameStore(tmp_path, "encoder/1", (4,))


def test_a_damaged_store_says_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(FeatureError, match="remove the folder"):
        FrameStore(tmp_path, "encoder/1", (3,))


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    store = fill(tmp_path, "a")
    other = FrameStore(tmp_path, "encoder/1", (3,))
    with (
        store.writer(),
        pytest.raises(FeatureError, match="another process is writing"),
        other.writer(),
    ):
        pass


def test_frames_of_another_width_are_refused(tmp_path: Path) -> None:
    store = fill(tmp_path, "a")
    with store.writer() as writer, pytest.raises(FeatureError, match=r"expected \[T, \[3\]\]"):
        writer.add("wide", np.zeros((2, 4)), 0.0)


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    store = fill(tmp_path, "a")
    (tmp_path / "frames-0000.bin").unlink()
    (tmp_path / "frames-0000.bin").symlink_to(full)
    with store.writer() as writer, pytest.raises(FeatureError, match="the disk is full"):
        writer.add("b", frames(200_000), 0.0)


def test_the_index_holds_no_content(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    entry = json.loads((tmp_path / "index.jsonl").read_text())
    assert set(entry) == {"key", "shard", "first", "count", "seconds"}
