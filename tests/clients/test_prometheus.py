"""``python -m clients prometheus`` scraped over HTTP beside a publisher that comes and goes."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request

import pytest

from tests.support.peers import client, eventually, free_endpoint, publisher

pytestmark = pytest.mark.slow

parser = pytest.importorskip("prometheus_client.parser")


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(url: str) -> dict[tuple[str, str], float]:
    code, text = get(f"{url}/metrics")
    assert code == 200
    return {
        (sample.name, sample.labels.get("stream", "")): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_and_health_follow_the_engine() -> None:
    endpoint = free_endpoint()
    arguments = ["prometheus", "--scores", endpoint, "--port", "0", "--stale-s", "1.5"]
    with client(*arguments) as bridge:
        line = bridge.line(lambda line: "/metrics" in line)
        url = line.split("/metrics")[0]
        assert url.startswith("http://127.0.0.1:")
        assert get(f"{url}/healthz") == (
            503, json.dumps({"healthy": False, "reason": f"no engine heard on {endpoint}"}) + "\n"
        )  # fmt: skip
        script = "subscriber,wait:200,status,a:0,a:1,a:4,b:0,beat"
        with publisher(script, endpoint):
            eventually(lambda: samples(url).get(("undertone_scores_total", "b")) == 1, "scores")
            found = samples(url)
            assert found["undertone_scores_total", "a"] == 3
            assert found["undertone_scores_lost_total", "a"] == 2
            assert found["undertone_gaps_total", "a"] == 1
            assert found["undertone_valence", "a"] == 0.5
            assert 0 <= found["undertone_last_score_age_seconds", "a"] < 60
            eventually(lambda: get(f"{url}/healthz")[0] == 200, "healthy")
        eventually(lambda: get(f"{url}/healthz")[0] == 503, "the engine is gone")
        assert "silent for" in get(f"{url}/healthz")[1]
        assert samples(url)["undertone_up", ""] == 0
        with publisher("subscriber,wait:200,status,a:0,beat", endpoint):
            eventually(lambda: get(f"{url}/healthz")[0] == 200, "back again")
        assert get(f"{url}/else")[0] == 404
        bridge.process.terminate()


def test_an_address_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with client("prometheus", "--scores", free_endpoint(), "--port", str(port)) as bridge:
            lines = bridge.end()
    assert bridge.process.returncode == 2
    assert lines == [f"error: cannot listen on 127.0.0.1:{port}: Address already in use"]


def test_a_request_under_another_name_is_refused() -> None:
    from clients.metrics import Metrics
    from clients.prometheus import Server

    def ask(server: Server, host: str) -> int:
        connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=10)
        connection.request("GET", "/metrics", headers={"Host": host})
        status = connection.getresponse().status
        connection.close()
        return status

    server = Server(
        Metrics("tcp://x", 5.0), threading.Lock(), "127.0.0.1", 0, names=["Engine.local"]
    )
    try:
        assert ask(server, "localhost:9571") == 200
        assert ask(server, "engine.local:9571") == 200
        assert ask(server, "evil.example") == 403
    finally:
        server.close()
