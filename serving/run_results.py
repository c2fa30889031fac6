"""The predictions of a trained model for a split, as its report shows them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from catalog.table import Table
from catalog.targets import encode_targets
from reports.run_results import AttributeResults, Bools, Floats, Ints, RunResults
from serving.calibration import probabilities
from serving.feature_baseline import TrainedOnFeatures
from serving.loading import EvaluationModel
from serving.scoring import scored_dataset, settle_unreadable
from serving.selective import set_confidence
from serving.split_outputs import SplitOutputs, image_map, split_outputs
from timm.data.target_codes import value_sets
from timm.data.two_view_dataset import TwoViewDataset
from timm.task.multi_valued_meter import predicted_values
from timm.task.temperature import fit_temperature
from timm.task.top_classes import top_classes

_logger = logging.getLogger("serving")

MOST_ROWS = 20_000  # their accuracy is known to half a point
_MOST_LOGITS = 1 << 25  # 128 MiB
_FEWEST_ROWS = 1_000
_MAP_ROWS = 1_500  # images on the map
_MAP_PIXELS = 2_400_000  # all their pictures together have at most as many
_SIDES = (40, 96)  # pixels of a picture's side

Targets = npt.NDArray[np.int64]


def run_results(
    ready: EvaluationModel,
    table: Table,
    *,
    tta: int,
    loading: Mapping[str, Any],
    max_unreadable: float,
    heads_trained: bool,
    neighbors: Mapping[str, float],
    train_targets: Targets | None,
    baseline: TrainedOnFeatures | None = None,
    most: int | None = None,
    separator: str | None = None,
) -> RunResults:
    """Return a model's predictions for a table, from one pass over at most 20,000 of its images.

    Args:
        ready: the model.
        table: the images and their labels.
        tta: 2 averages an image and its mirror image.
        loading: arguments of `serving.loading.make_loader` besides the model and the dataset.
        max_unreadable: largest share of unreadable images, 0-1.
        heads_trained: whether labels have trained the heads.
        neighbors: by attribute, the accuracy of 20 nearest neighbors in percent, where it is known.
        train_targets: targets of the training table; None without it.
        baseline: heads solved on training representations; None for none.
        most: number of images to read, evenly spread; None for `rows_read`.
        separator: the text between the values of a cell; None for the model's.

    Raises:
        UsageError: too many images are unreadable.
    """
    space, total = ready.label_space, len(table)
    table = table.take(_spread(total, most or rows_read(space)))
    if len(space):
        dataset = scored_dataset(table, ready, max_unreadable, separator)
    else:
        dataset = _unlabeled(table, ready, max_unreadable)
    pictured = _spread(len(table), _MAP_ROWS)
    outputs = split_outputs(ready, dataset, tta=tta, loading=loading, pictured=pictured, side=_side(len(pictured)))
    settle_unreadable(dataset, ready)
    readable = ~dataset.unreadable.bool().numpy()[pictured]
    shown = outputs._replace(tiles=outputs.tiles[readable])
    results = []
    for name in space.attributes:
        one = attribute_results(outputs, space, name, ready, train_targets)
        if baseline is not None:
            one = replace(one, logistic=baseline.right(name, outputs.h, outputs.target)[one.rows])
        results.append(replace(one, neighbors=neighbors.get(name)))
    return RunResults(
        table.path.name,
        total,
        [table.image_name(row) for row in range(len(table))],
        results,
        heads_trained,
        image_map(shown, pictured[readable]),
        baseline.images if baseline is not None else 0,
        partial(_picture, dataset),
    )


def rows_read(space: LabelSpace) -> int:
    """Return the number of images that a report reads at most, so that their probabilities fit into memory."""
    return max(_FEWEST_ROWS, min(MOST_ROWS, _MOST_LOGITS // max(1, sum(space.num_classes.values()))))


def attribute_results(
    outputs: SplitOutputs, space: LabelSpace, name: str, ready: EvaluationModel, train_targets: Targets | None
) -> AttributeResults:
    """Return the results of one attribute.

    Args:
        outputs: what the model makes of the images.
        space: the attributes and their classes.
        name: the attribute.
        ready: the model, with its thresholds and temperatures.
        train_targets: targets of the training table; None without it.
    """
    several, classes = name in space.multi_valued, space.classes[name]
    target = outputs.target[:, space.columns[name]]
    trained = None if train_targets is None else torch.from_numpy(train_targets[:, space.columns[name]])
    # a diverged model's logits say nothing, but must not end the report
    logits = outputs.logits[name].nan_to_num(0.0)
    if several:
        sets = value_sets(target, len(classes))
        known = sets.known
        truth, outside = sets.values[known], sets.unseen[known]
        predicted = predicted_values(logits, ready.thresholds[name])[known]
    else:
        known = target[:, 0] != UNKNOWN
        truth, outside = target[known, 0], target[known, 0] < 0
        predicted = top_classes(logits, 1)[known, 0]
    logits = logits[known]
    raw, calibrated = probabilities(logits, 1.0, several), _cross_calibrated(logits, truth, outside, several)
    confidence: Floats = calibrated.gather(1, predicted[:, None])[:, 0].numpy() if not several else np.zeros(0)
    if several:
        confidence = set_confidence(calibrated.numpy(), predicted.numpy())
    return AttributeResults(
        name,
        classes,
        several,
        known.nonzero()[:, 0].numpy(),
        truth.numpy(),
        predicted.numpy(),
        raw.numpy(),
        calibrated.numpy(),
        confidence,
        outside.numpy(),
        ready.temperatures[name],
        _always_guessing(trained, target[known], several, outside),
        trained=None if trained is None else _label_counts(trained, len(classes), several),
    )


def _cross_calibrated(logits: Tensor, truth: Tensor, outside: Tensor, several: bool) -> Tensor:
    """Return probabilities [n, K], each half of the images with the temperature that fits the other half."""
    calibrated = torch.empty_like(logits)
    for first in (0, 1):
        usable = ~outside[first::2]
        temperature = fit_temperature(logits[first::2][usable], truth[first::2][usable])
        calibrated[1 - first :: 2] = probabilities(logits[1 - first :: 2], temperature, several)
    return calibrated


def _always_guessing(trained: Tensor | None, target: Tensor, several: bool, outside: Tensor) -> Bools:
    """Return whether the most frequent training label is right; without training labels, the split's own."""
    labels = target if trained is None else trained[trained[:, 0] >= 0]
    labels = labels if len(labels) else target
    usable = labels[(labels >= 0).all(dim=1)]
    if not len(usable):
        return np.zeros(len(target), bool)
    kinds, counts = usable.unique(dim=0, return_counts=True)
    right: Bools = ((target == kinds[counts.argmax()]).all(dim=1) & ~outside).numpy()
    return right


def _label_counts(target: Tensor, classes: int, several: bool) -> Ints:
    """Return the number of training images of each class, [K]."""
    if several:
        counted: Ints = value_sets(target, classes).values.sum(dim=0).numpy()
        return counted
    return np.bincount(target[target[:, 0] >= 0, 0].numpy(), minlength=classes).astype(np.int64)


def _unlabeled(table: Table, ready: EvaluationModel, max_unreadable: float) -> TwoViewDataset:
    """Return a table's images for a model that predicts nothing."""
    targets = np.empty((len(table), 0), np.int64)
    return TwoViewDataset(table, targets, None, ready.channels, max_unreadable=max_unreadable)


def training_targets(table: Table, space: LabelSpace) -> Targets:
    """Return the targets of a training table."""
    return encode_targets(table, space, strict=False)


def _spread(count: int, most: int) -> Ints:
    """Return at most `most` of `count` rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _side(pictures: int) -> int:
    """Return the pixels of a picture's side on the map."""
    return min(max(math.isqrt(_MAP_PIXELS // max(1, pictures)), _SIDES[0]), _SIDES[1])


def _picture(dataset: TwoViewDataset, row: int) -> Image.Image | None:
    """Return the picture of a row; None if it cannot be read."""
    try:
        pixels = dataset.load(row)
    except OSError:
        return None
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
