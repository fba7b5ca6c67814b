"""The dashboard's server as a process of its own, spoken to over real HTTP and websockets."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason='needs pip install -e ".[dashboard]"')
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from engine.capture.browser.packets import PICTURE, SOUND
from tests.clients.dashboard.test_history import read_frame
from tests.engine.capture.browser.test_packets import jpeg, packet
from tests.support.dashboards import (
    ENVIRONMENT,
    Dashboard,
    dashboard,
    engine,
    free_endpoint,
    stage,
)
from tests.support.peers import eventually

pytestmark = pytest.mark.slow

PATIENCE_S = 25.0
GREETING = {"stream": "laptop", "sound": True, "pictures": True, "consent": True}


def get(dash: Dashboard, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", dash.address[1], timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def watch(dash: Dashboard, path: str = "scores", **options: object) -> ClientConnection:
    origin = options.pop("origin", dash.origin)
    url = f"ws://127.0.0.1:{dash.address[1]}/{path}"
    return connect(url, origin=origin, max_size=None, compression=None, **options)


def news(socket_: ClientConnection, wanted, seconds: float = PATIENCE_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = socket_.recv(timeout=seconds)
        if isinstance(message, str) and wanted(json.loads(message)):
            return json.loads(message)
    raise AssertionError("it did not come")


def await_report(browser: ClientConnection, name: str, value: int) -> dict[str, int]:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        report: dict[str, int] = json.loads(browser.recv(timeout=20))
        if report[name] == value:
            return report
    raise AssertionError(f"{name} did not become {value}")


def test_every_page_has_its_security_headers_and_no_inline_script() -> None:
    with dashboard(free_endpoint()) as dash:
        for path in ("/", "/about", "/static/main.js", "/static/worklet.js", "/options"):
            status, headers, body = get(dash, path)
            assert status == 200, path
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            if path in ("/", "/about"):
                assert b"://" not in body  # nothing from elsewhere
                assert body.count(b"<script") == body.count(b"<script src=") + body.count(
                    b'<script type="module" src='
                )
        status, headers, body = get(dash, "/about")
        assert b"5(1)(f)" in body
        assert b"50(3)" in body
        assert get(dash, "/static/../server.py")[0] == 404
        assert get(dash, "/nothing")[0] == 404


def test_foreign_hosts_and_origins_are_refused() -> None:
    with dashboard(free_endpoint()) as dash:
        assert get(dash, "/", Host="evil.example")[0] == 403
        assert get(dash, "/", Host=f"localhost:{dash.address[1]}")[0] == 200
        for origin in (None, "http://evil.example", "null"):
            for path in ("scores", "capture"):
                with pytest.raises(InvalidStatus) as refusal, watch(dash, path, origin=origin):
                    pass
                assert refusal.value.response.status_code == 403
        with watch(dash) as viewer:
            assert news(viewer, lambda n: n["state"])["state"]["engine"] == "waiting"


def post(dash: Dashboard, body: str, **headers: str) -> tuple[int, dict[str, object] | str]:
    connection = http.client.HTTPConnection("127.0.0.1", dash.address[1], timeout=20)
    try:
        connection.request("POST", "/command", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if text.startswith("{") else text
    finally:
        connection.close()


def test_commands_are_taken_from_the_own_page_only_and_their_refusals_say_why() -> None:
    mark = json.dumps({"command": "mark", "label": "x"})
    with dashboard(free_endpoint(), "--control", free_endpoint()) as dash:
        assert post(dash, mark)[0] == 403
        assert post(dash, mark, Origin="http://evil.example")[0] == 403
        own = {"Origin": dash.origin}
        status, said = post(dash, mark, **own)
        assert status == 502
        assert "no reply" in said["error"]  # type: ignore[index]
        for wrong in ("", "[]", "{}", '{"command": "describe"}', '{"command": "mark", "label": 3}'):
            assert post(dash, wrong, **own)[0] == 400, wrong
        assert post(dash, " " * 5000, **own)[0] == 413
        assert json.loads(get(dash, "/options")[2])["commands"] is True
    with dashboard(free_endpoint(), "--no-commands") as dash:
        assert post(dash, mark, Origin=dash.origin)[0] == 403
        assert json.loads(get(dash, "/options")[2])["commands"] is False


def test_beyond_loopback_a_token_is_asked_for_and_never_logged() -> None:
    with dashboard(free_endpoint(), "--host", "0.0.0.0") as dash:
        token = dash.url.partition("?token=")[2]
        assert len(token) >= 32
        assert get(dash, "/")[0] == 401
        assert get(dash, "/?token=wrong")[0] == 401
        assert get(dash, "/static/main.js")[0] == 401
        status, headers, _ = get(dash, f"/?token={token}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
        cookie = cookie.partition(";")[0]
        assert get(dash, "/", Cookie=cookie)[0] == 200
        # Capture from browsers has to be asked for when others can reach the server.
        assert json.loads(get(dash, "/options", Cookie=cookie)[2])["capture"] is False
        origin = f"http://127.0.0.1:{dash.address[1]}"
        with pytest.raises(InvalidStatus) as refusal, watch(dash, origin=origin):
            pass
        assert refusal.value.response.status_code == 403
        with watch(dash, origin=origin, additional_headers={"Cookie": cookie}) as viewer:
            assert news(viewer, lambda n: n["state"])
        dash.process.send_signal(signal.SIGINT)
        assert dash.process.wait(20) == 0
        assert not any(token in line for line in dash.errors.end())


def test_a_new_browser_gets_the_history_and_goes_on_without_a_hole() -> None:
    endpoint = free_endpoint()
    with dashboard(endpoint) as dash, stage(endpoint, "ann,mute", 5, past_s=60) as actors:
        with watch(dash) as first:
            # The past is published in a rush first; wait for the present.
            news(first, lambda n: any(s["t_ms"] > time.time() * 1e3 - 1e3 for s in n["scores"]))
        with watch(dash) as viewer:
            frames = [viewer.recv(timeout=20), viewer.recv(timeout=20)]
            assert all(isinstance(frame, bytes) for frame in frames)
            histories = {header["stream"]: columns for header, columns in map(read_frame, frames)}
            assert set(histories) == {"ann", "mute"}
            columns = histories["ann"]
            assert len(columns["t"]) > 100
            actors.mark("question 1")
            later = news(viewer, lambda n: any(s["mark"] for s in n["scores"]))
            marked = next(s for s in later["scores"] if s["mark"])
            assert marked["mark"] == "question 1"
            assert marked["t_ms"] > columns["t"][-1]
            for score in later["scores"]:
                key = score["stream"], score["seq"]
                # It is published before it is printed.
                eventually(lambda key=key: key in actors.scores(), "the score is printed")
                assert score["valence"] == actors.scores()[key]
        with watch(dash) as again:
            header, _ = read_frame(again.recv(timeout=20))
            assert [label for _, label in header["marks"]] == ["question 1"]


def test_an_engine_that_is_killed_is_told_gone_and_comes_back() -> None:
    endpoint = free_endpoint()
    with dashboard(endpoint) as dash, watch(dash) as viewer:
        with stage(endpoint, "ann"):
            news(viewer, lambda n: n["state"] and n["state"]["engine"] == "live")
        gone = news(viewer, lambda n: n["state"] and n["state"]["engine"] == "gone")["state"]
        assert gone["streams"][0]["silent_since_ms"] is not None
        assert abs(gone["engine_since_ms"] - gone["now_ms"]) < 30_000
        with stage(endpoint, "ann"):
            back = news(viewer, lambda n: n["state"] and n["state"]["engine"] == "live")["state"]
            assert back["engine_since_ms"] > gone["engine_since_ms"]


def test_a_browser_that_does_not_read_slows_nobody_and_is_told_what_it_lost() -> None:
    endpoint = free_endpoint()
    names = ",".join(f"s{i:02}" for i in range(40))
    # Nobody reads at the end: closing need not wait for what is still under way.
    hasty = {"ping_interval": None, "close_timeout": 0.2}
    with (
        dashboard(endpoint) as dash,
        stage(endpoint, names, 20),
        watch(dash, **hasty) as quick,
        watch(dash, max_queue=1, **hasty) as slow,
    ):
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        seen = 0
        while seen < 6000:  # some 6 MB: more than the buffers on the slow one's way hold
            message = quick.recv(timeout=10)
            if isinstance(message, str):
                told = json.loads(message)
                seen += len(told["scores"])
        assert told["lost"] < seen  # a machine that stalls may cost it some
        lost = news(slow, lambda n: n["lost"])
        assert len(lost["scores"]) <= 512


def test_an_occupied_port_and_unusable_keys_are_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, message in (
            (("--port", port), "cannot listen"),
            (("--keys", str(tmp_path)), "no usable key"),
            (("--config", str(tmp_path / "none.toml")), "no settings file"),
            (("--scores", "nowhere", "--port", "0"), "cannot connect"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "clients", "dashboard", *options],
                env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 2, done.stderr
            assert message in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr


def test_an_engine_with_an_allow_list_is_seen_with_a_key(tmp_path: Path) -> None:
    keys = [sys.executable, "-m", "engine", "keys", "--keys-dir", str(tmp_path)]
    subprocess.run(keys, env=ENVIRONMENT, check=True, capture_output=True, timeout=30)
    scores, ingest = free_endpoint(), free_endpoint()
    options = ("--security", "curve", "--keys-dir", str(tmp_path))
    with (
        engine(scores, ingest, "infer", *options),
        dashboard(scores, "--keys", str(tmp_path), "--ingest", ingest) as dash,
        watch(dash) as viewer,
    ):
        state = news(viewer, lambda n: n["state"] and n["state"]["engine"] == "live", 40)["state"]
        assert state["workers"][0]["name"] == "inference"
        with watch(dash, "capture") as browser:
            browser.send(json.dumps(GREETING))
            workers = news(viewer, lambda n: n["state"] and len(n["state"]["workers"]) == 2)
            assert workers["state"]["workers"][1]["name"] == "laptop.browser"


def test_capture_asks_for_consent_and_survives_nonsense() -> None:
    ingest = free_endpoint()
    with dashboard(free_endpoint(), "--ingest", ingest) as dash:
        for greeting, message in (
            (json.dumps(GREETING | {"consent": False}), "without consent"),
            ("not json", "expected a greeting"),
            ("[" * 5000, "expected a greeting"),
            ("[]", "expected stream"),
        ):
            with watch(dash, "capture") as browser:
                browser.send(greeting)
                refusal = json.loads(browser.recv(timeout=20))
                assert refusal["kind"] == "refused"
                assert message in refusal["reason"]
        with watch(dash, "capture") as browser:
            browser.send(json.dumps(GREETING))
            assert json.loads(browser.recv(timeout=20))["kind"] == "accepted"
            with watch(dash, "capture") as second:
                second.send(json.dumps(GREETING))
                assert "running" in json.loads(second.recv(timeout=20))["reason"]
            browser.send(b"nonsense")
            browser.send("text")
            browser.send(packet(SOUND, bytes(1600), 5.0))
            headers_only = jpeg()[: jpeg().index(b"\xff\xda")]
            browser.send(packet(PICTURE, headers_only, 5.0))
            await_report(browser, "refused", 3)
            browser.send(packet(PICTURE, jpeg(), 105.0))
            report = await_report(browser, "pictures", 1)
            assert report["refused"] == 3
            assert report["dropped"] > 0  # no engine: said, and not queued
            for _ in range(60):
                try:
                    browser.send(b"nonsense")
                except ConnectionClosed:
                    break
            with pytest.raises(ConnectionClosed):  # noqa: PT012 - reports may still come
                while True:
                    browser.recv(timeout=20)
        with watch(dash, "capture") as browser:  # oversized: the connection ends, the server not
            browser.send(json.dumps(GREETING | {"stream": "other"}))
            assert json.loads(browser.recv(timeout=20))["kind"] == "accepted"
            browser.send(bytes(400_000))
            with pytest.raises(ConnectionClosed):  # noqa: PT012
                while True:
                    browser.recv(timeout=20)
        assert get(dash, "/options")[0] == 200
        dash.process.send_signal(signal.SIGINT)
        assert dash.process.wait(20) == 0
        assert dash.errors.end() == []
