"""A TCP proxy whose link can be slow, paused, cut, or swallow everything."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Way:
    """Bytes from one side to the other, with the time when each piece is due."""

    source: socket.socket
    sink: socket.socket
    hole: bool = False
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)


class Proxy:
    """Passes connections on to an endpoint, each byte ``delay_s`` late.

    ``pause`` holds back what comes until ``resume``; ``swallow`` makes the connections that stand
    black holes: nothing arrives, nothing is closed; ``cut`` closes them.
    """

    def __init__(self, endpoint: str, delay_s: float = 0.0) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._delay_s = delay_s
        self._paused = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._ways: list[_Way] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def swallow(self) -> None:
        with self._lock:
            for way in self._ways:
                way.hole = True

    def cut(self) -> None:
        with self._lock:
            for way in list(self._ways):
                self._close(way)

    def _close(self, way: _Way) -> None:
        for end in (way.source, way.sink):
            end.close()
        self._ways = [w for w in self._ways if w.source not in (way.source, way.sink)]

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                self._step()
            time.sleep(0.002)

    def _step(self) -> None:
        with contextlib.suppress(BlockingIOError):
            near, _ = self._listening.accept()
            try:
                far = socket.create_connection(self._target, 1)
            except OSError:
                near.close()
            else:
                near.setblocking(False)
                far.setblocking(False)
                self._ways += [_Way(near, far), _Way(far, near)]
        for way in list(self._ways):
            if way in self._ways:
                self._pass_on(way)

    def _pass_on(self, way: _Way) -> None:
        now_s = time.monotonic()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(way.source, selectors.EVENT_READ)
                if selector.select(0):
                    data = way.source.recv(65536)
                    if not data:
                        self._close(way)
                        return
                    if not way.hole:
                        way.waiting.append((now_s + self._delay_s, data))
            while way.waiting and not self._paused and way.waiting[0][0] <= now_s:
                due_s, data = way.waiting.popleft()
                sent = 0
                with contextlib.suppress(BlockingIOError):
                    sent = way.sink.send(data)
                if sent < len(data):
                    way.waiting.appendleft((due_s, data[sent:]))
                    return
        except OSError:
            self._close(way)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.cut()
        self._listening.close()
