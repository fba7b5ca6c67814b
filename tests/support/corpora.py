"""Small corpora in the formats of the field, written to disk for tests."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.support.media import write_sound

LABEL_COLUMNS = "video_id,clip_id,text,label,mode"


def write_csd(path: Path, root: str, videos: Mapping[str, tuple[Any, Any]]) -> Path:
    """One CMU-MultimodalSDK file: per video (features [n, d], intervals [n, 2])."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in videos.items():
            group = file.create_group(f"{root}/data/{video}")
            group["features"] = np.asarray(features)
            group["intervals"] = np.asarray(intervals, np.float64)
        name = np.array([json.dumps(root)], dtype=h5py.string_dtype())
        file[f"{root}/metadata/root name"] = name
    return path


def mmsa_split(ids: list[str], labels: list[float], lengths: bool) -> dict[str, Any]:
    """One split of an MMSA pickle: 6 frames per clip, of which the first two count."""
    n = len(ids)
    audio = np.zeros((n, 6, 5), np.float32)
    audio[:, :2] = 1.0
    tokens = np.zeros((n, 3, 6), np.float32)
    tokens[:, 1, :3] = 1
    part: dict[str, Any] = {
        "raw_text": np.array(["some words"] * n),
        "audio": audio,
        "vision": audio[:, :, :4].copy(),
        "text": np.ones((n, 6, 7), np.float32),
        "text_bert": tokens,
        "id": np.array(ids),
        "annotations": np.array(["Neutral"] * n),
        "regression_labels": np.array(labels, np.float64),
    }
    if lengths:
        part |= {"audio_lengths": [2] * n, "vision_lengths": [3] * n}
    return part


def write_pickle(path: Path, tree: Any) -> Path:
    """Any object as a pickle."""
    path.write_bytes(pickle.dumps(tree))
    return path


def write_label_npz(folder: Path, tables: Mapping[str, Mapping[str, float]]) -> Path:
    """MERTools' labels: 0-d object arrays of {clip: {emo, val}}."""
    arrays = {
        f"{split}_corpus": np.array(
            {clip: {"emo": 0, "val": np.float32(value)} for clip, value in table.items()}, object
        )
        for split, table in tables.items()
    }
    path = folder / "label.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def write_tone(path: Path, seconds: float, pitch_hz: float) -> Path:
    """A noisy tone, 16 kHz mono."""
    time_s = np.arange(round(seconds * 16_000)) / 16_000
    generator = np.random.default_rng(round(pitch_hz))
    sound = 8_000 * np.sin(2 * np.pi * pitch_hz * time_s) + generator.normal(0, 300, len(time_s))
    return write_sound(path, sound.astype(np.int16))
