"""The folder of an index: embeddings of images, their labels and predictions, and what made them.

    embeddings.npy   float16 [N, D], each row of length 1; zeros where the image could not be read
    rows.parquet     image_path, image_file, each attribute's label and prediction, error
    index.json       `IndexInfo`
    unfinished/      predictions of an index that is not complete

An attribute `color` has the columns `color` (the label, where a table gave one), `color:predicted` and
`color:probability`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from catalog.data_error import DataError
from catalog.label_space import LabelSpace
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError, first_line
from runtime.free_space import available_disk, gib
from runtime.json_file import read_json
from runtime.regular_file import irregular_file

EMBEDDINGS, ROWS, INFO, UNFINISHED = "embeddings.npy", "rows.parquet", "index.json", "unfinished"
IMAGE_PATH, IMAGE_FILE, ERROR = "image_path", "image_file", "error"

_FORMAT = 1


@dataclass(frozen=True)
class IndexInfo:
    """What an index is and what made it.

    Attributes:
        checkpoint: absolute path of the checkpoint.
        checkpoint_sha256: hash of that file.
        arch: the backbone.
        representation: "h" or "z".
        use_ema: whether the averaged weights embedded.
        tta: 2 if each image was averaged with its mirror image, else 0.
        number_format: `amp` and `amp_dtype`.
        preprocessing: the preprocessing of the images.
        label_space: `LabelSpace.to_dict`.
        labels: attributes that the tables give.
        inputs: absolute paths of the images' files, folders and tables.
        rows_sha256: hash of the images' paths and labels.
        rows: N.
        width: D.
        rows_done: rows that are finished, from the first one on.
        complete: whether the index can be searched.
        format: version of this format.
    """

    checkpoint: str
    checkpoint_sha256: str
    arch: str
    representation: str
    use_ema: bool
    tta: int
    number_format: dict[str, Any]
    preprocessing: dict[str, Any]
    label_space: dict[str, Any]
    labels: list[str]
    inputs: list[str]
    rows_sha256: str
    rows: int
    width: int
    rows_done: int = 0
    complete: bool = False
    format: int = _FORMAT


def write_info(folder: Path, info: IndexInfo) -> None:
    """Write index.json; it changes completely or not at all."""
    with atomic_file(folder / INFO) as unfinished:
        unfinished.write_text(json.dumps(asdict(info), indent=1) + "\n", encoding="utf-8")


def read_info(folder: Path) -> IndexInfo:
    """Return what an index is, complete or not.

    Raises:
        UsageError: the folder is no index, or was written by another version.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no index {folder}: make one with embed.py, or correct the name")
    file = folder / INFO
    if not file.exists():
        raise UsageError(f"{folder} is no index, as it has no {INFO}: name the folder that embed.py wrote")
    try:
        content = read_json(file)
    except ValueError as error:
        raise damaged_index(file, first_line(error)) from None
    if isinstance(content, dict) and content.get("format") not in (None, _FORMAT):
        raise UsageError(
            f"{file} has format {content['format']}, and this version reads {_FORMAT}: embed the images again"
        )
    kinds = {one.name: _KINDS[str(one.type).partition("[")[0]] for one in fields(IndexInfo)}
    if not isinstance(content, dict) or content.keys() != kinds.keys():
        raise damaged_index(file, "it has other keys than embed.py writes")
    if wrong := [name for name, kind in kinds.items() if type(content[name]) is not kind]:
        raise damaged_index(file, f"its {wrong[0]} is {repr(content[wrong[0]])[:60]}")
    if any(not isinstance(name, str) for name in (*content["labels"], *content["inputs"])):
        raise damaged_index(file, "a name in it is not text")
    if not 0 <= content["rows_done"] <= content["rows"]:
        raise damaged_index(file, f"it has {content['rows_done']} of {content['rows']} rows")
    try:
        LabelSpace.from_dict(content["label_space"])
    except DataError as error:
        raise damaged_index(file, f"in its label_space, {str(error).partition(': ')[0]}") from None
    return IndexInfo(**content)


def open_index(folder: Path) -> tuple[IndexInfo, npt.NDArray[np.float16], pa.Table]:
    """Return a complete index: what it is, its embeddings as a mapped file, and its rows.

    Raises:
        UsageError: the folder is no index, or an unfinished or damaged one.
    """
    info = read_info(folder)
    if not info.complete:
        raise UsageError(
            f"the index {folder} is unfinished, with {info.rows_done:,} of {info.rows:,} images: give its embed.py "
            "command again, which continues"
        )
    embeddings = map_array(folder / EMBEDDINGS, (info.rows, info.width), np.dtype(np.float16), "c")
    columns = row_columns(info)
    texts = [name for name in columns if name not in (IMAGE_PATH, IMAGE_FILE) and columns[name] == pa.string()]
    file = folder / ROWS
    if not file.exists():
        raise damaged_index(file, "it is missing")
    if fault := irregular_file(file):
        raise UsageError(fault)
    try:
        rows = pq.read_table(file, read_dictionary=texts)
    except (OSError, pa.ArrowException) as error:
        raise damaged_index(file, first_line(error)) from None
    if rows.column_names != list(columns) or len(rows) != info.rows:
        raise damaged_index(file, f"its {len(rows)} rows and their columns are not those that {INFO} names")
    for name, kind in columns.items():
        found = rows.schema.field(name).type
        if kind != (found.value_type if pa.types.is_dictionary(found) else found):
            raise damaged_index(file, f"its column {name} holds {found}, not {kind}")
    if blank := [name for name in (IMAGE_PATH, IMAGE_FILE) if rows[name].null_count]:
        raise damaged_index(file, f"its column {blank[0]} has blank cells")
    return info, embeddings, rows


def row_columns(info: IndexInfo) -> dict[str, pa.DataType]:
    """Return the columns of the rows and their types, in order."""
    space = LabelSpace.from_dict(info.label_space)
    columns = {IMAGE_PATH: pa.large_string(), IMAGE_FILE: pa.large_string()}
    for name in dict.fromkeys([*info.labels, *space.attributes]):
        if name in info.labels:
            columns[name] = pa.string()
        if name in space.classes:
            columns[f"{name}:predicted"] = pa.string()
            columns[f"{name}:probability"] = pa.string() if name in space.multi_valued else pa.float32()
    return columns | {ERROR: pa.string()}


def map_array(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any], mode: Any) -> npt.NDArray[Any]:
    """Return the array of a .npy file, mapped into memory.

    Args:
        file: the file.
        shape: the shape that it must have.
        dtype: the dtype that it must have.
        mode: "r+" to change the file; "c" to read it, where changes of the array stay in memory.

    Raises:
        UsageError: the file is missing, or holds another array.
    """
    if not file.exists():
        raise damaged_index(file, "it is missing")
    if fault := irregular_file(file):
        raise UsageError(fault)
    try:
        found: npt.NDArray[Any] = np.lib.format.open_memmap(file, mode)
    except (OSError, ValueError, EOFError, OverflowError) as error:  # the last: a negative size
        raise damaged_index(file, first_line(error)) from None
    if (found.shape, found.dtype) != (shape, dtype):
        raise damaged_index(file, f"it holds {found.dtype} {list(found.shape)}, not {dtype} {list(shape)}")
    return found


def new_array(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a new array of zeros in a file, mapped into memory; its space on the disk is reserved.

    Raises:
        UsageError: the disk is full.
    """
    size, free = math.prod(shape) * dtype.itemsize, available_disk(file.parent)
    if size > free:
        raise UsageError(f"{file} takes {gib(size)}, and the disk has {gib(free)}: name a folder on another disk")
    array: npt.NDArray[Any] = np.lib.format.open_memmap(file, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate") and size:  # else a full disk would kill the process while it writes
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return array


def clear(folder: Path) -> None:
    """Delete an index, and its folder if nothing else is in it."""
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    for file in folder.glob("faiss.*"):
        file.unlink()
    for name in (EMBEDDINGS, ROWS, INFO):  # the last, because without it these are files of unknown origin
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Let one process write an index at a time, where the system has such locks.

    Raises:
        UsageError: another process writes it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(place)
        raise UsageError(f"another process writes {folder}: wait for it, or name another folder") from None
    try:
        yield
    finally:
        os.close(place)


def model_sha256(path: Path) -> str:
    """Return the hash of a model's file, or in an exported folder of its weights' hash and its description."""
    if path.is_dir():
        description = (path / "config.json").read_bytes()
        return hashlib.sha256(model_sha256(path / "model.safetensors").encode() + description).hexdigest()
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


_KINDS: dict[str, type] = {"str": str, "bool": bool, "int": int, "dict": dict, "list": list}


def damaged_index(file: Path, why: str) -> UsageError:
    """Return the error of an index's file that cannot be used."""
    return UsageError(f"{file} is damaged: {why}; make the index again, with embed.py and overwrite")
