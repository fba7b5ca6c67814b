from __future__ import annotations

from pathlib import Path

import pytest

from engine.settings import EngineSettings, SettingsError, load


def write(directory: Path, text: str) -> Path:
    path = directory / "undertone.toml"
    path.write_text(text)
    return path


def test_each_source_overrides_the_one_before_and_leaves_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(
        tmp_path,
        'bundle = "file"\nbackend = "onnx"\nlog_level = "error"\n[inference]\nhop_ms = 250\n',
    )
    monkeypatch.setenv("UNDERTONE_BUNDLE", "environment")
    monkeypatch.setenv("UNDERTONE_LOG_LEVEL", "warning")
    monkeypatch.setenv("UNDERTONE_INFERENCE__SKEW_MS", "70")
    settings = load(config, bundle="flag", inference={"threads": 2})
    assert (settings.bundle, settings.log_level, settings.backend) == ("flag", "warning", "onnx")
    branch = settings.inference
    assert (branch.hop_ms, branch.skew_ms, branch.threads) == (250, 70, 2)
    assert settings.control == EngineSettings.model_fields["control"].default


@pytest.mark.parametrize(
    ("text", "key", "valid"),
    [
        ("bundel = 1\n", "bundel", "bundle"),
        ("[inference]\nhop = 1\n", "inference.hop", "hop_ms"),
        ('[[streams]]\nname = "a"\nmike = 1\n', "mike", "microphone"),
    ],
)
def test_an_unknown_key_is_refused_and_the_valid_ones_named(
    tmp_path: Path, text: str, key: str, valid: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, text))
    line = str(caught.value)
    assert key in line
    assert valid in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("variable", "valid"),
    [
        ("UNDERTONE_BUNDEL", "UNDERTONE_BUNDLE"),
        ("UNDERTONE_INFERENCE__HOP", "UNDERTONE_INFERENCE__HOP_MS"),
        ("UNDERTONE_NOWHERE__HOP_MS", "UNDERTONE_INFERENCE"),
    ],
)
def test_an_unknown_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, valid: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError, match=valid):
        load()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"inference": {"hop_ms": 5}}, "inference.hop_ms.*50.*5"),
        ({"ingest": "localhost:1"}, "tcp://HOST:PORT.*localhost:1"),
        ({"backend": "cuda"}, "backend.*onnx.*cuda"),
        ({"streams": [{"name": "a"}, {"name": "a"}]}, "differ.*a"),
        ({"streams": [{"name": "a/b"}]}, "streams.0.name"),
        ({"streams": [{"source": "x", "camera": 0}]}, "excludes"),
    ],
)
def test_a_wrong_value_is_one_line_with_expected_and_actual(
    flags: dict[str, object], words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        load(**flags)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no settings file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match="not TOML"):
        load(write(tmp_path, "bundle = \n"))
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(SettingsError, match="not TOML: 'utf-8' codec can't decode") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_a_setting_without_bounds_is_a_number_all_the_same(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with endless time-outs would end with a traceback, again and again."""
    monkeypatch.setenv("UNDERTONE_INFERENCE__STREAM_TIMEOUT_S", value)
    with pytest.raises(SettingsError, match=r"inference\.stream_timeout_s"):
        load()


def test_a_worker_gets_the_same_settings_whatever_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load(bundle="flag", capture={"loop": False})
    monkeypatch.setenv("UNDERTONE_BUNDLE", "environment")
    monkeypatch.setenv("UNDERTONE_CAPTURE__LOOP", "true")
    again = EngineSettings.model_validate_json(settings.model_dump_json())
    assert again == settings


def test_chunks_that_are_no_whole_frames_are_refused_in_one_line() -> None:
    with pytest.raises(
        SettingsError, match=r"multiple of speech.frame_ms = 20, such as 40, got 50"
    ):
        load(speech={"frame_ms": 20})
    assert load(speech={"frame_ms": 20}, capture={"chunk_ms": 40}).speech.frame_ms == 20


def test_a_former_name_is_valid_in_a_file_and_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[inference]\nmax_age_ms = 900\n")
    assert load(file).inference.absent_after_ms == 900
    monkeypatch.setenv("UNDERTONE_INFERENCE__MAX_AGE_MS", "800")
    assert load(file).inference.absent_after_ms == 800
    monkeypatch.setenv("UNDERTONE_INFERENCE__ABSENT_AFTER_MS", "700")
    assert load(file).inference.absent_after_ms == 700
