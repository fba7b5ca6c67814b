"""Which format a path holds, found by looking into it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from trainer.corpus import csd, manifest, mertools, mmsa, mmsa_fet, mosei_raw, mosi_csv, vader
from trainer.corpus.clip import Corpus, CorpusError
from trainer.corpus.tables import header

Reader = Callable[[Path], Corpus]
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
EXPECTED = (
    "a folder with manifest.csv, label.csv, label.npz, .csd files, *_GroundTruth.txt or "
    "CMU-MOSEI's own layout; a .csv, .npz, .csd, .pkl or .txt file of one of these"
)


def find_reader(path: Path) -> Reader:
    """The reader of a path's format.

    Raises:
        CorpusError: nothing there, several corpora there, or no known format.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise CorpusError(f"no corpus at {path}")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(HDF5_MAGIC) or path.suffix == ".csd":
        return csd.read
    if path.suffix == ".npz":
        return mertools.read
    if start.startswith(ZIP_MAGIC) or path.suffix == ".zip":
        _refuse_archive(path)
    if path.suffix in (".pkl", ".pickle") or start[:1] == b"\x80":
        return mmsa.read
    if path.suffix == ".csv":
        return _of_table(path)
    if path.name.endswith(vader.ENDING):
        return vader.read
    raise CorpusError(f"{path}: not a corpus; expected {EXPECTED}")


def _of_folder(path: Path) -> Reader:
    found: dict[str, Reader] = {}
    if (path / mosei_raw.TRANSCRIPTS).is_dir():
        return mosei_raw.read
    if (path / "manifest.csv").is_file():
        found["manifest.csv"] = lambda folder: manifest.read(folder / "manifest.csv")
    if (path / "label.csv").is_file():
        found["label.csv"] = mmsa_fet.read
    if (path / "label.npz").is_file():
        found["label.npz"] = mertools.read
    if any(path.glob("*.csd")):
        found["*.csd"] = csd.read
    if vader.files(path):
        found[f"*{vader.ENDING}"] = vader.read
    files = mosi_csv.parts(path)
    if files:
        found[next(iter(files.values())).name] = mosi_csv.read
    if len(found) > 1:
        raise CorpusError(f"{path}: several corpora in it, name one: {', '.join(found)}")
    if not found:
        raise CorpusError(f"{path}: not a corpus; expected {EXPECTED}")
    return next(iter(found.values()))


def _of_table(path: Path) -> Reader:
    columns = header(path)
    if set(mmsa_fet.COLUMNS) <= set(columns):
        return mmsa_fet.read
    if "id" in columns and ("valence" in columns or "split" in columns):
        return manifest.read
    if path in mosi_csv.parts(path.parent).values():
        return mosi_csv.read
    if len(columns) == 4 and columns[3] in mosi_csv.BINARY:
        return mosi_csv.read_transcripts
    shown = ", ".join(columns[:8]) or "an empty file"
    raise CorpusError(
        f"{path}: no known table: expected the columns {', '.join(manifest.COLUMNS)} or "
        f"{', '.join(mmsa_fet.COLUMNS)}, got {shown}"
    )


def _refuse_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            count = len(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise CorpusError(f"{path}: unreadable archive: {error}") from None
    table = path.with_suffix(".csv")
    if table.is_file():
        raise CorpusError(f"{path}: name the manifest next to it: {table}")
    raise CorpusError(f"{path}: an archive of {count} files: unpack it and name the folder")
