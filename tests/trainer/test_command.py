"""What ends a run from outside is one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.corpora import mmsa_split, write_pickle
from trainer import command


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"the disk is full ("),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_disk_that_fails_says_how_much_room_there_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    message: str,
) -> None:
    def failing(*_: object) -> None:
        raise OSError(code, os.strerror(code))  # as a library's writer does: without a name

    monkeypatch.setattr(command, "_do", failing)
    parts = {
        split: mmsa_split(
            [f"{split}{n}$_$0" for n in range(9)], [n % 3 - 1.0 for n in range(9)], True
        )
        for split in ("train", "valid", "test")
    }
    corpus, run = write_pickle(tmp_path / "mosei.pkl", parts), tmp_path / "run"
    places = (tmp_path / "out", run, run / "features")
    assert command.carry_out("fit", [corpus], *places, None, None, ()) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert message in last
    assert ("MB free): make room" in last) == (code == errno.ENOSPC)
