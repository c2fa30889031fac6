"""Building an index of images: embeddings and predictions from one pass through the model, resumable at any batch."""

from __future__ import annotations

import json
import logging
import os
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
from catalog.image_list import ImageList, list_images
from reports.predictions import Predictions
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from runtime.progress import progress_bar
from serving.embedding import embed_batches, embedding_width
from serving.index_folder import (
    EMBEDDINGS,
    INFO,
    ROWS,
    UNFINISHED,
    IndexInfo,
    clear,
    map_array,
    model_sha256,
    new_array,
    only_writer,
    open_index,
    read_info,
    row_columns,
    write_info,
)
from serving.index_rows import row_tables, rows_sha256
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


def build_index(
    model: MultiLabel,
    inputs: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    projection: bool = False,
    image_root: str | None = None,
    overwrite: bool = False,
    log_interval: int = 10,
) -> IndexInfo:
    """Build an index, or continue one that the same settings began; return what it is.

    Args:
        model: a single model.
        inputs: image files, folders, and tables, whose other columns are labels.
        folder: the folder of the index.
        projection: embed by the projection z instead of the representation h.
        image_root: the folder that the paths in tables are relative to; None for each table's own.
        overwrite: replace another index.
        log_interval: batches between two lines of the log, where no terminal shows a bar.

    Raises:
        UsageError: an input is wrong, another index or other files are in the folder, no image can be read, the
            embeddings are not finite, there are several models, or there is no projection head.
    """
    place, texts = Path(folder), [os.fspath(one) for one in inputs]
    lists = list_images(texts, image_root, labels=True)
    info = _describe(model, lists, texts, projection)
    _logger.info(f"{info.rows:,} images, {info.representation} of {info.width} numbers")
    done = _prepare(place, info, overwrite)
    with only_writer(place):
        if done is not None and done.complete:
            open_index(place)  # raises where a file was damaged or deleted since
            _logger.info(f"{place} is complete already")
            return done
        if done is None:
            write_info(place, info)
        state = _open_state(model, place, done or info)
        if state.done:
            _logger.info(f"Continuing at row {state.done:,} of {info.rows:,}")
        dataset = ImageDataset(lists, model.ready.channels)
        dataset.unreadable[: state.done] = torch.from_numpy(state.unreadable[: state.done])
        try:
            _embed(model, dataset, place, state, log_interval)
        finally:
            state.save(place)
        _check_readable(dataset, place)
        return _finish(dataset, lists, place, state)


def _describe(model: MultiLabel, lists: Sequence[ImageList], inputs: Sequence[str], projection: bool) -> IndexInfo:
    """Return what the index of a model and its images is.

    Raises:
        UsageError: there are several models, there is no projection head, or two columns would have one name.
    """
    ready, checkpoint = model.ready, Path(model.checkpoints[0].path)
    info = IndexInfo(
        checkpoint=str(checkpoint.absolute()),
        checkpoint_sha256=model_sha256(checkpoint),
        arch=ready.arch,
        representation="z" if projection else "h",
        use_ema=model.use_ema,
        tta=model.tta,
        number_format=model.number_format,
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
    labels = list(dict.fromkeys(name for part in lists for name in part.labels))
    for name in [name for name in labels if name in taken]:
        _logger.warning(f"column {name!r} is left out: the index has a column of that name")
        labels.remove(name)
    return replace(info, labels=labels)


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
    info = state.info
    if state.done == info.rows:
        return
    model.choose_engine(info.rows - state.done)
    ready = model.ready
    loading: dict[str, Any] = model.loading | {"first_row": state.done}
    loader = make_loader(ready, dataset, **loading)
    batches = embed_batches(ready, loader, projection=info.representation == "z", tta=info.tta)
    start, before = time.perf_counter(), state.done
    with progress_bar(info.rows, "Embedding", "image", lines=False) as bar:
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
