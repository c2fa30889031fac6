"""A model's predictions for the cells of a table, kept as arrays, and on request the representations beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from catalog.data_error import DataError, quoted
from catalog.find_images import with_found_images
from catalog.image_list import ImageList
from catalog.label_space import UNKNOWN, LabelSpace
from catalog.separated_cells import with_separator
from catalog.table import Table
from catalog.targets import encode_targets
from runtime.progress import progress_bar
from serving.class_promise import HeldOut
from serving.embedding import embed_batches
from serving.ensemble import Ensemble, Labels
from serving.labeling import report_unreadable
from timm.data.image_dataset import ImageDataset
from timm.data.target_codes import by_attribute, value_sets

_logger = logging.getLogger("fill")

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cells:
    """The predictions of one attribute for N images.

    Attributes:
        codes: the most probable classes or values, the best first, int32 [N, k]; -1 where the image is unreadable.
        probabilities: their calibrated probabilities, float32 [N, k].
        confidence: the confidence of the predicted class or set, float32 [N]; NaN where the image is unreadable.
        doubt: how doubtful the prediction is, float32 [N], 0-1: one minus the margin between the two most probable
            classes; for several values, the one of the most doubtful value between yes and no.
        values: the probability of each predicted value, NaN for values that are not predicted, float32 [N, K]; None
            for an attribute with one class per image.
    """

    codes: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    doubt: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32] | None

    @property
    def predicted(self) -> npt.NDArray[np.int32]:
        """The code that groups a cell in a promise: its predicted class; 0 for any set; -1 for an unreadable image."""
        best = self.codes[:, 0]
        return best if self.values is None else np.where(best < 0, best, 0).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model says about N images.

    Attributes:
        cells: the predictions by attribute.
        features: the representation of each image, float32 [N, D], NaN where it is unreadable; None if not asked for.
        errors: by row, the reason why its image could not be read.
    """

    cells: dict[str, Cells]
    features: npt.NDArray[np.float32] | None
    errors: dict[int, str]


def image_dataset(table: Table, rows: Rows) -> ImageDataset:
    """Return the images of some rows of a table.

    Raises:
        DataError: no image of the table exists.
    """
    found, roots = with_found_images(table)
    taken = pa.array(rows)
    names = None if table.names is None else table.names.take(taken)
    return ImageDataset([ImageList(found.image_paths.take(taken), roots, table.image_paths.take(taken), names)])


def read_cells(
    ensemble: Ensemble,
    dataset: ImageDataset,
    title: str,
    *,
    topk: int,
    with_features: bool,
    tta: int,
    loading: Mapping[str, Any],
) -> Reading:
    """Return the predictions for all images of a dataset.

    Args:
        ensemble: a single model.
        dataset: the images.
        title: name of the images, for the progress.
        topk: number of classes to keep for each cell, as far as there are classes.
        with_features: whether to keep the representations.
        tta: 2 averages an image and its mirror image.
        loading: arguments of `serving.loading.make_loader` besides the model and the dataset.
    """
    space, count, ready = ensemble.label_space, len(dataset), ensemble.members[0]
    cells = {name: _empty_cells(space, name, count, topk) for name in space.attributes}
    features = np.full((count, ready.model.num_features), np.nan, np.float32) if with_features else None
    with progress_bar(count, title, "image") as bar:
        for images, rows in ensemble.batches(dataset, **loading):
            numbers = rows.cpu().numpy()
            if features is None:
                labels = ensemble.label(images, max(2, topk), tta)
            else:
                [(_, features[numbers], logits)] = embed_batches(ready, [(images[0], rows)], projection=False, tta=tta)
                labels = ensemble.labels([logits], max(2, topk))
            for name, one in labels.items():
                _put(cells[name], numbers, one)
            bar.update(len(rows))
    errors = dataset.errors()
    report_unreadable(dataset, errors)
    _clear(cells, features, list(errors))
    return Reading(cells, features, errors)


def held_out_cells(
    ensemble: Ensemble, table: Table, separator: str | None = None, **settings: Any
) -> dict[str, HeldOut]:
    """Return each attribute's labeled cells, and whether the prediction is right.

    A class that the model does not know counts as wrong. A set is right if all of its values are.

    Args:
        ensemble: a single model.
        table: the labels.
        separator: the text between the values of a cell; None for the model's.
        settings: tta and loading of `read_cells`.

    Raises:
        DataError: the table has no label that the model predicts.
    """
    space = ensemble.label_space
    table = with_separator(table, separator or space.separator, space.multi_valued)
    targets = torch.from_numpy(encode_targets(table, space, strict=False))
    labeled = (targets != UNKNOWN).any(dim=1).nonzero().flatten()
    if not len(labeled):
        raise DataError(f"{table.path.name} has no label of {quoted(space.attributes)}: choose a hold-out with labels")
    dataset = image_dataset(table, labeled.numpy())
    reading = read_cells(ensemble, dataset, "Hold-out", topk=1, with_features=False, **settings)
    truths = dict(zip(space.attributes, by_attribute(targets[labeled], space), strict=True))
    return {name: _held_out(cells, truths[name], space.num_classes[name]) for name, cells in reading.cells.items()}


def _held_out(cells: Cells, truth: Tensor, classes: int) -> HeldOut:
    """Return an attribute's labeled cells.

    Args:
        cells: the predictions.
        truth: codes [N], or the columns [N, W] of a multi-valued attribute.
        classes: K, the number of classes.
    """
    if cells.values is None:
        known, right = (truth != UNKNOWN).numpy(), (torch.from_numpy(cells.codes[:, 0]) == truth).numpy()
    else:
        sets = value_sets(truth, classes)
        decided = torch.from_numpy(~np.isnan(cells.values))
        known, right = sets.known.numpy(), ((decided == sets.values).all(dim=1) & ~sets.unseen).numpy()
    kept = known & (cells.predicted >= 0)
    return HeldOut(cells.confidence[kept], cells.predicted[kept], right[kept])


def _empty_cells(space: LabelSpace, name: str, count: int, topk: int) -> Cells:
    kept = min(topk, space.num_classes[name])
    return Cells(
        np.full((count, kept), -1, np.int32),
        np.full((count, kept), np.nan, np.float32),
        np.full(count, np.nan, np.float32),
        np.full(count, np.nan, np.float32),
        np.full((count, space.num_classes[name]), np.nan, np.float32) if name in space.multi_valued else None,
    )


def _put(cells: Cells, rows: Rows, labels: Labels) -> None:
    """Store a batch."""
    probabilities, kept = labels.probabilities.cpu(), cells.codes.shape[1]
    if labels.predicted is None:
        assert labels.ranked is not None
        order = labels.ranked.cpu()
        best = probabilities.gather(1, order)
        cells.doubt[rows] = (1 - (best[:, 0] - best[:, 1]).abs()).numpy()
    else:
        assert cells.values is not None
        order = probabilities.argsort(dim=1, descending=True, stable=True)
        cells.doubt[rows] = (1 - (2 * probabilities - 1).abs()).amax(dim=1).numpy()
        cells.values[rows] = np.where(labels.predicted.cpu().numpy(), probabilities.numpy(), np.nan)
    order = order[:, :kept]
    cells.codes[rows] = order.numpy()
    cells.probabilities[rows] = probabilities.gather(1, order).numpy()
    cells.confidence[rows] = labels.confidence()


def _clear(cells: Mapping[str, Cells], features: npt.NDArray[np.float32] | None, rows: list[int]) -> None:
    """Clear what was predicted for images that could not be read."""
    for one in cells.values():
        one.codes[rows] = -1
        for array in (one.probabilities, one.confidence, one.doubt, *([] if one.values is None else [one.values])):
            array[rows] = np.nan
    if features is not None:
        features[rows] = np.nan
