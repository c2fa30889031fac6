"""The heads of a checkpoint solved anew on a table: new labels, new classes and new attributes, without training."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from catalog.build_label_space import extend_label_space
from catalog.data_error import DataError
from catalog.label_space import LabelSpace
from catalog.repeated_images import warn_of_repeated_images
from catalog.separated_cells import with_separator
from catalog.table import Table
from catalog.targets import encode_targets
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from runtime.progress import progress_bar
from runtime.torch_file import torch_errors_explained
from serving.checkpoint_files import EXTENSION, stem
from serving.loading import EvaluationModel
from serving.scoring import attribute_weights, settle_unreadable
from simclr.collectives import rank, world_size
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label_checkpoint import Checkpoint, refitted_content
from timm.task.attribute_evaluator import AttributeEvaluator, Metrics
from timm.task.class_imbalance import class_weights, logit_margins
from timm.task.evaluate import add_calibration, evaluate
from timm.task.refit import Features, Refit, attribute_metrics, extract_features, put_heads, refit_heads, refit_line

_logger = logging.getLogger("refit")

_BATCH = 4096  # features that are scored at a time


@dataclass(frozen=True)
class Labels:
    """What heads are solved on.

    Attributes:
        label_space: the attributes and classes of the refitted model.
        solved: the attributes whose heads are solved; all others keep theirs.
        train: labeled images.
        validation: images that choose the strengths and calibrate; None without any.
        metrics: by solved attribute, the score that chooses.
    """

    label_space: LabelSpace
    solved: tuple[str, ...]
    train: TwoViewDataset
    validation: TwoViewDataset | None
    metrics: dict[str, str]


@dataclass(frozen=True)
class RefittedModel:
    """A model with refitted heads.

    Attributes:
        ready: the model.
        metrics: its scores on the validation split; None without one.
        thresholds: the threshold of each multi-valued attribute.
        temperatures: the temperature of each attribute that has one.
    """

    ready: EvaluationModel
    metrics: Metrics | None
    thresholds: dict[str, float]
    temperatures: dict[str, float]


def refitted_path(checkpoint: Path) -> Path:
    """Return the default name of a checkpoint with refitted heads: beside it, `last-refitted.pth.tar`."""
    return checkpoint.with_name(f"{stem(checkpoint)}-refitted{EXTENSION}")


def trained_attributes(checkpoint: Checkpoint, known: LabelSpace) -> list[str]:
    """Return the attributes of a label space that the checkpoint's run did not leave out by a weight of 0."""
    weights = checkpoint.trained_flags.get("attribute_weights") or {}
    return [name for name in known.attributes if weights.get(name, 1.0)]


def read_labels(
    known: LabelSpace,
    train: Table,
    validation: Table | None,
    *,
    eval_metric: str,
    channels: int,
    max_unreadable: float,
    separator: str | None = None,
) -> Labels:
    """Return the labels that heads are solved on, and log what is new to the model.

    Args:
        known: the checkpoint's label space.
        train: table whose columns are the attributes to solve heads for; a blank column is left out.
        validation: table of the validation split; None without one.
        eval_metric: name of the score that chooses; see `attribute_metrics`.
        channels: 3 for color, 1 for gray.
        max_unreadable: largest share of unreadable images, 0-1.
        separator: the text between the values of a cell; None for the checkpoint's.

    Raises:
        UsageError: a table has no label, or does not fit the label space.
    """
    joint = separator or known.separator
    train = with_separator(with_separator(train, joint), joint, known.multi_valued)
    columns = {name: column for name, column in train.columns.items() if column.null_count < len(column)}
    if not columns:
        raise UsageError(f"{train.path} has no label of {', '.join(train.columns)}: label some of its rows")
    label_space = extend_label_space(known, replace(train, columns=columns))
    solved = tuple(name for name in label_space.attributes if name in columns)
    targets = encode_targets(_with_blank_columns(train, label_space), label_space, strict=True)
    rows = np.flatnonzero((targets >= 0).any(axis=1))
    train_set = TwoViewDataset(train.take(rows), targets[rows], None, channels, max_unreadable=max_unreadable)
    if validation is None:
        warn_of_repeated_images(train_set.table, solved)
    eval_set = None
    if validation is not None:
        validation = with_separator(validation, joint, label_space.multi_valued)
        try:
            targets = encode_targets(validation, label_space, strict=False)
        except DataError as error:
            raise UsageError(f"{error}; or choose by cross-validation with val_split none") from error
        eval_set = TwoViewDataset(validation, targets, None, channels, max_unreadable=max_unreadable)
        warn_of_repeated_images(train_set.table, label_space.attributes, eval_set.table)
    counted = [float(name in solved) for name in label_space.attributes]
    return Labels(label_space, solved, train_set, eval_set, attribute_metrics(eval_metric, label_space, counted))


def refit_model(
    ready: EvaluationModel, checkpoint: Checkpoint, labels: Labels, train: Any, validation: Any, *, tta: int, name: str
) -> RefittedModel:
    """Solve the heads of a model. Every process must make this call.

    Args:
        ready: the model; its heads change.
        checkpoint: the checkpoint that it comes from, whose run says how rare classes are weighted.
        labels: the labels.
        train: loader of the labeled images in their evaluation view.
        validation: loader of the validation split; None chooses the strengths by cross-validation.
        tta: 2 averages the features of an image and its mirror image.
        name: name of the model in the log.
    """
    # features
    model, space, known = ready.network, labels.label_space, ready.label_space.classes
    model.change_label_space(space)
    start = time.perf_counter()
    features = _features(ready, train, tta, name)
    held_out = None if validation is None else _features(ready, validation, tta, name)
    elapsed = time.perf_counter() - start

    # heads
    heads: dict[str, Any] = dict(zip(space.attributes, model.heads, strict=True))
    targets, flags = labels.train.targets, checkpoint.trained_flags
    device = ready.device if ready.device.type != "mps" else torch.device("cpu")  # mps has no float64
    rarity = class_weights(targets, space, flags.get("class_weights") or "none")
    margins = logit_margins(targets, space, flags.get("logit_adjustment") or 0.0)
    results = refit_heads(
        features,
        held_out,
        space,
        {} if checkpoint.heads_are_untrained else {attribute: heads[attribute] for attribute in known},
        metrics=labels.metrics,
        weights=_by_attribute(rarity, space, device),
        margins=_by_attribute(margins, space, device),
        device=device,
        cross_validate=True,
        changed=[attribute for attribute, names in known.items() if space.classes[attribute] != names],
    )
    put_heads(model, results)
    for attribute, result in results.items():
        _logger.info(f"{name}: {refit_line(attribute, result)}")
    _logger.info(f"{name}: features in {elapsed:.1f}s, heads in {time.perf_counter() - start - elapsed:.1f}s")
    return _scored(ready, results, held_out, attribute_weights(checkpoint, space))


def save_refitted(
    path: Path, checkpoint: Checkpoint, labels: Labels, refitted: RefittedModel, averaged: RefittedModel | None
) -> None:
    """Write a checkpoint with refitted heads.

    Args:
        path: the file to write.
        checkpoint: the checkpoint before.
        labels: what the heads were solved on.
        refitted: its model.
        averaged: the model of its averaged weights; None without any.
    """
    model, data_config = refitted.ready.network, refitted.ready.data_config
    config = model.config | {"data_config": dict(data_config), "image_size": list(data_config["input_size"])}
    chosen = {"thresholds": refitted.thresholds, "temperatures": refitted.temperatures}
    if averaged is not None:
        chosen |= {"thresholds_ema": averaged.thresholds, "temperatures_ema": averaged.temperatures}
    content = refitted_content(
        checkpoint,
        model.state_dict(),
        None if averaged is None else averaged.ready.network.state_dict(),
        config,
        chosen,
        trained=not checkpoint.heads_are_untrained or labels.solved == labels.label_space.attributes,
    )
    with atomic_file(path) as unfinished, torch_errors_explained(unfinished):
        torch.save(content, unfinished)


def _with_blank_columns(table: Table, label_space: LabelSpace) -> Table:
    """Return a table with a blank column for each attribute that it lacks."""
    blank = pa.nulls(len(table), pa.string()).dictionary_encode()
    return replace(table, columns={name: table.columns.get(name, blank) for name in label_space.attributes})


def _features(ready: EvaluationModel, loader: Any, tta: int, name: str) -> Features:
    """Return the features of this process's share of a loader's images.

    Raises:
        UsageError: too many images are unreadable, or a feature is not finite.
    """
    with progress_bar(len(loader), name, enabled=rank() == 0) as bar:
        found = extract_features(
            ready.network, loader, ready.autocast, ready.to_device, tta=tta, after_batch=lambda images: bar.update()
        )
    settle_unreadable(loader.dataset, ready)
    return found


def _by_attribute(
    values: Sequence[Tensor] | None, label_space: LabelSpace, device: torch.device
) -> dict[str, Tensor | None]:
    """Return tensors by attribute, on a device; empty without any."""
    if values is None:
        return {}
    return {name: value.to(device) for name, value in zip(label_space.attributes, values, strict=True)}


def _scored(
    ready: EvaluationModel, results: Mapping[str, Refit], validation: Features | None, weights: Sequence[float]
) -> RefittedModel:
    """Return a model with its scores, thresholds and temperatures; a new head has none without a validation label."""
    model = ready.network
    kept = {name for name in model.label_space.attributes if name not in results or not results[name].kept}
    thresholds = {name: value for name, value in model.thresholds.items() if name in kept}
    temperatures = {name: value for name, value in model.temperatures.items() if name in kept}
    if validation is None:
        return RefittedModel(ready, None, thresholds, temperatures)
    evaluator = AttributeEvaluator(model.label_space, weights, ready.device)
    batches = list(zip(validation.h.split(_BATCH), validation.target.split(_BATCH), strict=True))
    dtype, several = next(model.heads.parameters()).dtype, world_size() > 1
    metrics = evaluate(
        model, batches, evaluator, ready.autocast, lambda h: h.to(ready.device, dtype), distributed=several
    )
    for name in sorted(model.label_space.multi_valued):
        if metrics["attributes"][name]["count"]:
            thresholds[name] = metrics["attributes"][name]["threshold"]
    temperatures |= add_calibration(metrics, evaluator, {}, refit=True, distributed=several)
    return RefittedModel(ready, metrics, thresholds, temperatures)
