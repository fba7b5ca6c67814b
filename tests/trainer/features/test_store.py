"""The feature store: what is written is read back, and a kill loses at most one clip."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainer.features.store import FeatureError, FrameStore


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float16)


def fill(folder: Path, keys: str, shard_bytes: int = 1 << 30) -> FrameStore:
    store = FrameStore(folder, "encoder/1", (3,), shard_bytes=shard_bytes)
    for number, key in enumerate(keys):
        store.add(key, frames(number + 1, number), seconds=number / 2)
    return store


def test_frames_are_read_back_from_several_files(tmp_path: Path) -> None:
    fill(tmp_path, "abcdef", shard_bytes=30)
    assert len(list(tmp_path.glob("frames-*.bin"))) > 2
    store = FrameStore(tmp_path, "encoder/1", (3,))
    for number, key in enumerate("abcdef"):
        np.testing.assert_array_equal(store.read(key), frames(number + 1, number))
        assert store.entry(key).seconds == number / 2


def test_a_clip_without_frames_is_remembered(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, "encoder/1", (3,))
    store.add("empty", np.zeros((0, 3)), 1.0)
    assert FrameStore(tmp_path, "encoder/1", (3,)).read("empty").shape == (0, 3)


def test_what_a_kill_left_half_written_is_written_again(tmp_path: Path) -> None:
    fill(tmp_path, "abc")
    index = tmp_path / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-20])  # the last line was cut off
    store = FrameStore(tmp_path, "encoder/1", (3,))
    assert "b" in store
    assert "c" not in store
    store.add("c", frames(3, 9), 0.0)
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


def test_two_stores_in_turn_each_append_behind_the_other(tmp_path: Path) -> None:
    one, other = (FrameStore(tmp_path, "encoder/1", (3,), shard_bytes=60) for _ in range(2))
    for number in range(20):
        (one, other)[number % 2].add(f"clip-{number}", frames(number % 4, number), 0.0)
    for store in (one, other, FrameStore(tmp_path, "encoder/1", (3,))):
        store.refresh()
        for number in range(20):
            found = store.read(f"clip-{number}")
            np.testing.assert_array_equal(found, frames(number % 4, number))


FILL = """
import sys
import numpy as np
from pathlib import Path
from trainer.features.store import FrameStore
store = FrameStore(Path(sys.argv[1]), "encoder/1", (3,), shard_bytes=4000)
sys.stdin.readline()
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    rows = np.random.default_rng(number).normal(size=(1 + number % 9, 3)).astype(np.float16)
    store.add(f"clip-{number}", rows, 0.0)
"""


def test_two_runs_may_fill_one_store_at_once(tmp_path: Path) -> None:
    stretches = (("0", "600"), ("400", "1000"))
    runs = [
        subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path), *s], stdin=subprocess.PIPE)
        for s in stretches
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write(b"\n")
        run.stdin.close()
    assert [run.wait() for run in runs] == [0, 0]
    store = FrameStore(tmp_path, "encoder/1", (3,))
    assert len(store) == 1000
    for number in range(1000):
        expected = np.random.default_rng(number).normal(size=(1 + number % 9, 3))
        np.testing.assert_array_equal(store.read(f"clip-{number}"), expected.astype(np.float16))
    assert len((tmp_path / "index.jsonl").read_text().splitlines()) == 1000


def test_frames_that_were_changed_on_disk_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "abc")
    shard = tmp_path / "frames-0000.bin"
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    store = FrameStore(tmp_path, "encoder/1", (3,))
    with pytest.raises(FeatureError, match="frames of b: expected checksum"):
        store.read("b")
    np.testing.assert_array_equal(store.read("c"), frames(3, 2))


def test_frames_of_another_width_are_refused(tmp_path: Path) -> None:
    store = fill(tmp_path, "a")
    with pytest.raises(FeatureError, match=r"expected \[T, \[3\]\]"):
        store.add("wide", np.zeros((2, 4)), 0.0)


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    store = fill(tmp_path, "a")
    (tmp_path / "frames-0000.bin").unlink()
    (tmp_path / "frames-0000.bin").symlink_to(full)
    with pytest.raises(FeatureError, match="the disk is full"):
        store.add("b", frames(200_000), 0.0)


def test_the_index_holds_no_content(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    entry = json.loads((tmp_path / "index.jsonl").read_text())
    assert set(entry) == {"key", "shard", "first", "count", "seconds", "crc32"}


def test_processes_that_extract_together_write_files_of_their_own(tmp_path: Path) -> None:
    ranks = [
        FrameStore(tmp_path, "encoder/1", (3,), shard_bytes=60, writer=f"rank{n}") for n in range(2)
    ]
    fill(tmp_path, "ab")  # of a run before, in everybody's files
    for number in range(12):
        ranks[number % 2].add(f"clip-{number}", frames(1 + number % 4, number), 0.5)
    for number in range(2):
        lines = (tmp_path / f"index-rank{number}.jsonl").read_text().splitlines()
        assert [json.loads(line)["key"] for line in lines] == [
            f"clip-{n}" for n in range(number, 12, 2)
        ]
    for store in (*ranks, FrameStore(tmp_path, "encoder/1", (3,))):
        store.refresh()
        assert len(store) == 14
        np.testing.assert_array_equal(store.read("b"), frames(2, 1))
        for number in range(12):
            found = store.read(f"clip-{number}")
            np.testing.assert_array_equal(found, frames(1 + number % 4, number))
    before = (tmp_path / "index-rank1.jsonl").read_bytes()
    ranks[1].add("clip-0", frames(1, 0), 0.5)  # the other one has it
    assert (tmp_path / "index-rank1.jsonl").read_bytes() == before


def test_what_a_killed_rank_left_is_mended_by_itself_alone(tmp_path: Path) -> None:
    ranks = [FrameStore(tmp_path, "encoder/1", (3,), writer=f"rank{n}") for n in range(2)]
    for number in range(6):
        ranks[number % 2].add(f"clip-{number}", frames(2, number), 0.0)
    index = tmp_path / "index-rank1.jsonl"
    index.write_bytes(index.read_bytes()[:-20])
    again = [FrameStore(tmp_path, "encoder/1", (3,), writer=f"rank{n}") for n in range(2)]
    assert "clip-4" in again[1]
    assert "clip-5" not in again[0]
    again[0].add("clip-6", frames(2, 6), 0.0)
    assert not index.read_bytes().endswith(b"\n")  # another one may be writing it
    again[1].add("clip-5", frames(2, 5), 0.0)
    store = FrameStore(tmp_path, "encoder/1", (3,))
    for number in range(7):
        np.testing.assert_array_equal(store.read(f"clip-{number}"), frames(2, number))
