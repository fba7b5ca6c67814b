"""A bridge to Prometheus: /metrics and /healthz over HTTP, on loopback by default."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clients.bridges import BridgeError
from clients.dashboard.access import Access, Visit
from clients.metrics import Metrics
from clients.subscriber import Subscriber
from engine.wire.clock import now_ns


class Server:
    """Answers GET /metrics and GET /healthz from its own threads until it is closed.

    Requests under a name that is not its own are refused, as the dashboard does: a page that is
    open in a browser of this network could point its own name here.
    """

    def __init__(
        self,
        metrics: Metrics,
        lock: threading.Lock,
        host: str,
        port: int,
        names: Iterable[str] = (),
    ) -> None:
        """Listen; ``names`` are further names that it is reached by.

        Raises:
            BridgeError: the address is in use or none of this machine's.
        """
        try:
            access = Access(host, None, frozenset(name.lower() for name in names))
            self._http = ThreadingHTTPServer((host, port), _handler(metrics, lock, access))
        except OSError as error:
            reason = error.strerror or error
            raise BridgeError(f"cannot listen on {host}:{port}: {reason}") from None
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, the port filled in."""
        return f"http://{self._http.server_address[0]!s}:{self._http.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(
    metrics: Metrics, lock: threading.Lock, access: Access
) -> type[BaseHTTPRequestHandler]:
    from prometheus_client import CONTENT_TYPE_LATEST

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # s for a client to say what it wants

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if access.judge(Visit(self.headers.get("Host")), acts=False) != "allowed":
                self._answer(403, "text/plain", b"this is none of my names: --allow-host\n")
            elif path == "/metrics":
                with lock:
                    body = metrics.exposition(now_ns())
                self._answer(200, CONTENT_TYPE_LATEST, body)
            elif path == "/healthz":
                with lock:
                    health = metrics.health(now_ns())
                word = {"healthy": health.healthy, "reason": health.reason}
                code = 200 if health.healthy else 503
                self._answer(code, "application/json", json.dumps(word).encode() + b"\n")
            else:
                self._answer(404, "text/plain", b"there are /metrics and /healthz\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a scrape every few seconds is no news."""

    return Handler


def serve(
    subscriber: Subscriber,
    endpoint: str,
    host: str,
    port: int,
    stale_s: float,
    say: Callable[[str], None],
    names: Iterable[str] = (),
) -> None:
    """Serve until interrupted.

    Raises:
        BridgeError: the address is unavailable, or prometheus-client is missing.
        WireError: the engine refused this client's key.
    """
    metrics = Metrics(endpoint, stale_s)
    lock = threading.Lock()
    server = Server(metrics, lock, host, port, names)
    say(f"{server.address}/metrics and /healthz")
    try:
        for event in subscriber.events():
            with lock:
                metrics.take(event, now_ns())
    finally:
        server.close()
