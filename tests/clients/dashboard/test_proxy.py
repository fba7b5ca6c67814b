"""Behind a reverse proxy, as docs/dashboard.md describes: the real Caddy, TLS included."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.dashboards import Dashboard, dashboard, free_endpoint, stage

CADDY = shutil.which("caddy")
NAME = "sentiment.test"
CADDYFILE = """
{{
    admin off
    auto_https disable_redirects
    skip_install_trust
    storage file_system {storage}
}}
https://{name}:{port} {{
    tls internal
    reverse_proxy 127.0.0.1:{dashboard}
}}
"""


@contextmanager
def caddy(folder: Path, dash: Dashboard) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Caddy before a dashboard; gives its port, and a context that trusts its authority."""
    if CADDY is None:
        pytest.skip("caddy is not installed: apt install caddy")
    port = int(free_endpoint().rpartition(":")[2])
    config = folder / "Caddyfile"
    text = CADDYFILE.format(
        storage=folder / "storage", name=NAME, port=port, dashboard=dash.address[1]
    )
    config.write_text(text)
    root = folder / "storage/pki/authorities/local/root.crt"
    with subprocess.Popen(
        [CADDY, "run", "--config", str(config), "--adapter", "caddyfile"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            end_s = time.monotonic() + 40
            while True:
                with suppress(OSError):
                    context = ssl.create_default_context(cafile=str(root))
                    link(port, context).close()
                    break
                assert time.monotonic() < end_s, "caddy does not answer"
                time.sleep(0.1)
            yield port, context
        finally:
            process.terminate()


def link(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), 10), server_hostname=NAME
    )


def ask(port: int, context: ssl.SSLContext, path: str, cookie: str = "") -> tuple[int, str]:
    """Status of the answer, and the cookie that it sets."""
    connection = http.client.HTTPSConnection(NAME, port, context=context)
    try:
        connection.sock = link(port, context)
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Set-Cookie") or ""
    finally:
        connection.close()


def test_behind_caddy_only_the_token_lets_in(tmp_path: Path) -> None:
    endpoint = free_endpoint()
    with (
        stage(endpoint, "ann"),
        dashboard(endpoint, "--allow-host", NAME) as dash,
        caddy(tmp_path, dash) as (port, context),
    ):
        token = re.search(r"token=(\S+)", dash.url)
        assert token is not None
        assert ask(port, context, "/")[0] == 401
        status, cookie = ask(port, context, f"/?token={token[1]}")
        assert status == 303
        cookie, *attributes = cookie.split("; ")
        assert "Secure" in attributes, "a browser would send it without TLS, too"
        assert ask(port, context, "/", cookie)[0] == 200

        def look(**headers: str) -> str:
            with connect(
                f"wss://{NAME}:{port}/scores",
                sock=socket.create_connection(("127.0.0.1", port), 10),
                ssl=context,
                server_hostname=NAME,
                origin=f"https://{NAME}:{port}",  # type: ignore[arg-type]
                additional_headers=headers,
            ) as viewer:
                while True:
                    if isinstance(message := viewer.recv(timeout=20), str):
                        return message

        with pytest.raises(InvalidStatus):
            look()
        assert '"kind":"news"' in look(Cookie=cookie)
