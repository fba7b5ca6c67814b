"""Loading: batches made ahead, by a thread or by worker processes, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

AHEAD = 2
"""Batches made ahead per worker: enough to hide reading, few enough to bear in memory."""
Task = TypeVar("Task")
Made = TypeVar("Made")


class Loader(Generic[Task, Made]):
    """Makes tasks of one epoch after another, a few of them ahead of the one in use.

    Args:
        make: of a task; picklable where there are worker processes.
        workers: processes, which live as long as the loader; 0: one thread, since reading and
            widening frames releases Python's lock.
        pinned: what is made goes to page-locked memory (its ``pin_memory()``), from which a GPU
            copies while it computes.
    """

    def __init__(self, make: Callable[[Task], Made], workers: int = 0, pinned: bool = False):
        self._make = make
        self._pinned = pinned
        self._order: _Order[Task] = _Order()
        self._processes = self._started(workers) if workers else None

    def run(self, tasks: Sequence[Task]) -> Iterator[Made]:
        """``make`` of each task, in order."""
        if self._processes is None:
            return self._by_thread(tasks)
        self._order.tasks = tasks
        return iter(self._processes)

    def _started(self, workers: int) -> Any:
        from torch.utils.data import DataLoader

        return DataLoader(
            _Made(self._make),  # type: ignore[arg-type]
            batch_size=None,
            sampler=self._order,
            num_workers=workers,
            prefetch_factor=AHEAD,
            multiprocessing_context="spawn",
            persistent_workers=True,  # a process takes seconds to load torch
            pin_memory=self._pinned,
        )

    def _by_thread(self, tasks: Sequence[Task]) -> Iterator[Made]:
        with ThreadPoolExecutor(1, "loader") as pool:
            waiting: deque[Future[Made]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(self._one, task))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _one(self, task: Task) -> Made:
        made: Any = self._make(task)
        return made.pin_memory() if self._pinned else made  # type: ignore[no-any-return]


class _Order(Generic[Task]):
    """The tasks of the epoch in hand, as torch's loader asks for them."""

    def __init__(self) -> None:
        self.tasks: Sequence[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


class _Made(Generic[Task, Made]):
    """What is made of tasks as a data set, for torch's loader: it shares the tensors."""

    def __init__(self, make: Callable[[Task], Made]) -> None:
        self._make = make

    def __getitem__(self, task: Task) -> Made:
        return self._make(task)
