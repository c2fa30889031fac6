"""Building an index of images: embeddings and predictions from one pass through the model, resumable at any batch."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from catalog.data_error import DataError
from catalog.image_list import ImageList
from reports.predictions import Predictions
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from runtime.progress import progress_bar
from serving.embedding import embed_batches, embedding_width
from serving.index_folder import (
    EMBEDDINGS,
    ERROR,
    IMAGE_FILE,
    INFO,
    ROWS,
    UNFINISHED,
    IndexInfo,
    clear,
    file_sha256,
    map_array,
    new_array,
    only_writer,
    read_info,
    row_columns,
    write_info,
)
from serving.index_rows import row_tables, rows_sha256, table_labels
from serving.labeling import put_labels, report_unreadable
from serving.loading import make_loader
from serving.multi_label import MultiLabel
from timm.data.image_dataset import ImageDataset

_logger = logging.getLogger("embed")

_SAVED = 2.0  # seconds between two notes of the finished rows; a killed process loses as many

# What must be equal to continue an index, and what messages call it.
_SETTINGS = {
    "checkpoint_sha256": "checkpoint",
    "rows_sha256": "images or labels",
    "representation": "projection",
    "use_ema": "use_ema",
    "tta": "tta",
    "number_format": "amp",
    "preprocessing": "preprocessing",
}


def describe_index(
    model: MultiLabel,
    lists: Sequence[ImageList],
    inputs: Sequence[str],
    *,
    projection: bool,
    number_format: dict[str, Any],
) -> IndexInfo:
    """Return what the index of a model and its images is.

    Args:
        model: a single model.
        lists: the images, with the labels of their tables.
        inputs: the files, folders and tables that the images come from.
        projection: embed by z instead of h.
        number_format: `amp` and `amp_dtype`.

    Raises:
        UsageError: there are several models, there is no projection head, or two columns would have one name.
    """
    ready, checkpoint = model.ready, Path(model.checkpoints[0].path)
    labels = table_labels(lists)
    info = IndexInfo(
        checkpoint=str(checkpoint.absolute()),
        checkpoint_sha256=file_sha256(checkpoint),
        arch=ready.arch,
        representation="z" if projection else "h",
        use_ema=model.use_ema,
        tta=model.tta,
        number_format=number_format,
        preprocessing=json.loads(json.dumps(ready.data_config)),  # tuples become lists, as in the file
        label_space=model.label_space.to_dict(),
        labels=[],
        inputs=[str(Path(text).absolute()) for text in inputs],
        rows_sha256=rows_sha256(lists),
        rows=sum(len(part.paths) for part in lists),
        width=embedding_width(ready, projection),
    )
    taken = row_columns(info).keys()
    if len(taken) < 3 + 2 * len(model.label_space):
        raise UsageError("two columns of the index would have one name: rename the attributes with a ':' in their name")
    refused = [name for name in labels if name in taken or name in (IMAGE_FILE, ERROR)]
    for name in refused:
        _logger.warning(f"column {name!r} is left out: the index has a column of that name")
    return replace(info, labels=[name for name in labels if name not in refused])


def build_index(
    model: MultiLabel,
    lists: Sequence[ImageList],
    folder: Path,
    info: IndexInfo,
    *,
    overwrite: bool,
    log_interval: int,
) -> IndexInfo:
    """Build an index, or continue one that the same settings began; return what it is then.

    Args:
        model: a single model.
        lists: the images.
        folder: the folder of the index.
        info: the result of `describe_index`.
        overwrite: replace another index.
        log_interval: batches between two lines of the log.

    Raises:
        UsageError: another index or other files are there, no image can be read, or the embeddings are not finite.
    """
    done = _prepare(folder, info, overwrite)
    with only_writer(folder):
        if done is not None and done.complete:
            return done
        if done is None:
            write_info(folder, info)
        state = _open_state(model, folder, done or info)
        dataset = ImageDataset(lists, model.ready.channels)
        if state.done:
            _logger.info(f"Continuing at row {state.done:,} of {info.rows:,}")
        dataset.unreadable[: state.done] = torch.from_numpy(state.unreadable[: state.done])
        try:
            _embed(model, dataset, folder, state, log_interval)
        finally:
            state.save(folder)
        _check_readable(dataset, folder)
        return _finish(dataset, lists, folder, state)


@dataclass
class _State:
    """The arrays of an unfinished index, mapped from files.

    Attributes:
        info: what the index is.
        embeddings: float16 [N, D].
        predictions: the predictions.
        unreadable: uint8 [N], 1 where the image could not be read.
        arrays: all of these arrays.
        done: finished rows.
    """

    info: IndexInfo
    embeddings: npt.NDArray[np.float16]
    predictions: Predictions
    unreadable: npt.NDArray[np.uint8]
    arrays: list[Any]
    done: int
    saved: float = field(default_factory=time.monotonic)

    def save(self, folder: Path) -> None:
        """Write the finished rows to the disk, and note their number."""
        for array in self.arrays:
            array.flush()
        write_info(folder, replace(self.info, rows_done=self.done))
        self.saved = time.monotonic()


def _prepare(folder: Path, info: IndexInfo, overwrite: bool) -> IndexInfo | None:
    """Return the earlier index that is to be continued, or None with an empty folder.

    Raises:
        UsageError: the folder holds other files, or another index that may not be replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / INFO).exists():
        if any(folder.iterdir()):
            raise UsageError(f"{folder} has other files and is no index: name a new folder")
        return None
    if overwrite:
        with only_writer(folder):
            clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return None
    earlier = read_info(folder)
    if changed := [word for name, word in _SETTINGS.items() if getattr(earlier, name) != getattr(info, name)]:
        state = "complete" if earlier.complete else f"unfinished, with {earlier.rows_done:,} of {earlier.rows:,} images"
        raise UsageError(
            f"{folder} is another index ({state}): it differs in {', '.join(changed)}; name another folder, or replace "
            "it with overwrite"
        )
    return earlier


def _open_state(model: MultiLabel, folder: Path, info: IndexInfo) -> _State:
    """Return the arrays of an index; they are made where no row is finished, and mapped otherwise."""
    arrays: list[Any] = []

    def allocate(shape: tuple[int, ...], value: Any, dtype: Any) -> npt.NDArray[Any]:
        file = folder / EMBEDDINGS if not arrays else folder / UNFINISHED / f"{len(arrays)}.npy"
        if info.rows_done:
            array = map_array(file, shape, np.dtype(dtype), "r+")
        else:
            array = new_array(file, shape, np.dtype(dtype))
            if value:  # a new file holds zeros
                array[:] = value
        arrays.append(array)
        return array

    (folder / UNFINISHED).mkdir(exist_ok=True)
    embeddings = allocate((info.rows, info.width), 0, np.float16)
    unreadable = allocate((info.rows,), 0, np.uint8)
    predictions = Predictions(model.label_space, info.rows, allocate=allocate)
    return _State(info, embeddings, predictions, unreadable, arrays, info.rows_done)


def _embed(model: MultiLabel, dataset: ImageDataset, folder: Path, state: _State, log_interval: int) -> None:
    """Embed and label the images that are not finished."""
    info, ready = state.info, model.ready
    if state.done == info.rows:
        return
    loading: dict[str, Any] = model.loading | {"first_row": state.done}
    loader = make_loader(ready, dataset, **loading)
    batches = embed_batches(ready, loader, projection=info.representation == "z", tta=info.tta)
    start, before = time.perf_counter(), state.done
    with progress_bar(info.rows, "Embedding", "image") as bar:
        bar.update(state.done)
        for batch, (rows, values, logits) in enumerate(batches):
            if not np.isfinite(values).all():
                raise UsageError(
                    "the model's embeddings are not finite: its weights have diverged; use another checkpoint"
                )
            length = np.linalg.norm(values, axis=1, keepdims=True)
            state.embeddings[rows] = values / np.maximum(length, np.finfo(np.float32).tiny)
            put_labels(state.predictions, rows, model.ensemble.labels([logits], 1))
            state.unreadable[rows] = dataset.unreadable[rows].numpy()
            state.done += len(rows)
            bar.update(len(rows))
            if time.monotonic() - state.saved >= _SAVED:
                state.save(folder)
            if bar.disable and batch % log_interval == 0:
                speed = (state.done - before) / (time.perf_counter() - start)
                _logger.info(f"Embed: {state.done:>8,}/{info.rows:,} images  {speed:>7.2f}/s")


def _check_readable(dataset: ImageDataset, folder: Path) -> None:
    """Raise, and delete the index, if no image at all could be read."""
    try:
        dataset.check_readable()
    except DataError:
        clear(folder)
        raise


def _finish(dataset: ImageDataset, lists: Sequence[ImageList], folder: Path, state: _State) -> IndexInfo:
    """Write the rows, and only then call the index complete."""
    errors = dataset.errors()
    unreadable = list(errors)
    state.embeddings[unreadable] = 0
    state.predictions.blank(unreadable)
    report_unreadable(dataset, errors)
    info = replace(state.info, rows_done=state.info.rows)
    schema = pa.schema(list(row_columns(info).items()))
    with (
        atomic_file(folder / ROWS) as unfinished,
        pq.ParquetWriter(unfinished, schema, compression="zstd") as writer,
    ):
        for table in row_tables(lists, state.predictions, errors, schema):
            writer.write_table(table)
    state.save(folder)
    write_info(folder, replace(info, complete=True))
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return replace(info, complete=True)
