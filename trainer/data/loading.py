"""Loading: batches made ahead, by a thread or by worker processes, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 2
"""Batches made ahead per worker: enough to hide reading, few enough to bear in memory."""
Task = TypeVar("Task")
Made = TypeVar("Made")


def prefetch(
    make: Callable[[Task], Made], tasks: Sequence[Task], workers: int = 0
) -> Iterator[Made]:
    """``make`` of each task, in order, a few of them ahead of the one in use.

    Args:
        make: picklable where there are worker processes.
        tasks: of an epoch.
        workers: processes; 0: one thread, since reading and widening frames releases Python's lock.
    """
    if workers > 0:
        yield from _by_processes(make, tasks, workers)
        return
    with ThreadPoolExecutor(1, "loader") as pool:
        waiting: deque[Future[Made]] = deque()
        rest = iter(tasks)
        try:
            for task in rest:
                waiting.append(pool.submit(make, task))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Tasks(Sequence[Made]):
    """Tasks as a data set, for torch's loader: it pickles, pins and shares the tensors."""

    def __init__(self, make: Callable[[Task], Made], tasks: Sequence[Task]) -> None:
        self._make, self._tasks = make, tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._make(self._tasks[index])


def _by_processes(
    make: Callable[[Task], Made], tasks: Sequence[Task], workers: int
) -> Iterator[Made]:
    from torch.utils.data import DataLoader

    loader: DataLoader[Made] = DataLoader(
        _Tasks(make, tasks),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="spawn",
    )
    yield from loader
