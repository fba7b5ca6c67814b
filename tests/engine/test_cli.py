from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def engine(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--microphone", "none", "--camera", "none"), "--source"),
        (("run", "--source", "absent.mp4"), "absent.mp4"),
        (("run", "--source", "sample", "--camera", "0"), "excludes"),
        (("run", "--stream", "nonsense"), "NAME=SOURCE"),
        (("run", "--bogus", "1"), "--bogus"),
        (("infer", "--hop-ms", "1"), "inference.hop_ms"),
        (("infer", "--config", "absent.toml"), "absent.toml"),
        (("infer", "--ingest", "nowhere"), "tcp://HOST:PORT"),
        (("score", "absent.mp4"), "absent.mp4"),
        (("score", "sample", "--bundle", "absent", "--out", os.devnull), "absent"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(arguments: tuple[str, ...], words: str) -> None:
    done = engine(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


def test_an_unknown_variable_is_a_mistake() -> None:
    done = engine("doctor", UNDERTONE_BUNDEL="x")
    assert done.returncode == 2
    assert "UNDERTONE_BUNDLE" in done.stderr


def test_debug_shows_where_a_mistake_was_found() -> None:
    assert "Traceback" in engine("run", "--source", "absent.mp4", "--log-level", "debug").stderr


def test_doctor_names_the_backend_and_the_state_of_the_bundle() -> None:
    done = engine("doctor", "--json")
    checks = {check["topic"]: check for check in json.loads(done.stdout)}
    assert checks["python"]["ok"]
    assert checks["backend"]["finding"].startswith("onnx")
    trained = json.loads((REPOSITORY / "models/bundles/default/config.json").read_text())["trained"]
    assert checks["bundle"]["ok"] is trained
    for check in checks.values():
        if check["topic"].startswith("extra ") and not check["ok"]:
            assert "pip install" in check["remedy"]


def test_keys_are_made_once(tmp_path: Path) -> None:
    first = engine("keys", "--keys-dir", str(tmp_path))
    assert first.returncode == 0
    assert all(Path(line).is_file() for line in first.stdout.splitlines())
    again = engine("keys", "--keys-dir", str(tmp_path))
    assert again.returncode == 2
    assert "has a key already" in again.stderr


@pytest.mark.slow
def test_score_writes_one_json_line_per_score(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    done = engine("score", "sample", "--out", str(out))
    assert done.returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.stdout.startswith(f"{len(rows)} scores")
    assert len(rows) > 1
    assert [row["seq"] for row in rows] == list(range(len(rows)))
