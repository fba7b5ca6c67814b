"""What a worker's process is given by its parent."""

import sys
import time

import pytest

from engine.processes import WorkerProcess, WorkerSpec
from engine.settings import EngineSettings, StreamSettings

ASK = (sys.executable, "-c", "import os; print(os.environ.get('GLIBC_TUNABLES', 'nothing'))")


def answer(spec: WorkerSpec) -> str:
    process = WorkerProcess(spec, lambda line: None, ASK)
    end_s = time.monotonic() + 20.0
    while (ended := process.ended()) is None and time.monotonic() < end_s:
        time.sleep(0.01)
    process.kill()
    assert ended is not None
    return ended.message


def test_a_worker_that_infers_gets_huge_pages_and_no_other_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    settings = EngineSettings()
    stream = StreamSettings(name="main", source="clip.mp4")
    assert answer(WorkerSpec(settings=settings)) == "glibc.malloc.hugetlb=1"
    assert answer(WorkerSpec(settings=settings, stream=stream, device="source")) == "nothing"


def test_what_the_user_has_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert answer(WorkerSpec(settings=EngineSettings())) == "glibc.malloc.hugetlb=0"
