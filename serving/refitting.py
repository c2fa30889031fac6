"""The heads of a checkpoint solved anew on a table: new labels, new classes and new attributes, without training."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalog.attribute_column import class_names
from catalog.build_label_space import build_label_space
from catalog.label_space import LabelSpace
from catalog.table import Table
from catalog.targets import encode_targets
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from runtime.progress import progress_bar
from serving.checkpoint_files import EXTENSION, stem
from serving.loading import EvaluationModel
from simclr.collectives import rank, world_size
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label_checkpoint import Checkpoint, refitted_content
from timm.task.attribute_evaluator import AttributeEvaluator, Metrics
from timm.task.class_imbalance import class_weights, logit_margins
from timm.task.evaluate import evaluate
from timm.task.refit import Features, Refit, attribute_metrics, extract_features, put_heads, refit_heads, refit_line

_logger = logging.getLogger("refit")


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


def extend_label_space(known: LabelSpace, table: Table) -> LabelSpace:
    """Return a checkpoint's label space with the attributes and classes that a table adds, and log what is new.

    An attribute with new classes has all of them sorted by name.

    Args:
        known: the checkpoint's label space.
        table: the table that the heads are solved on, with the attributes to solve heads for.

    Raises:
        catalog.data_error.DataError: a column cannot be an attribute.
    """
    classes, multi_valued = dict(known.classes), set(known.multi_valued)
    new = {name: column for name, column in table.columns.items() if name not in known.attributes}
    if new:
        added = build_label_space(replace(table, columns=new))
        classes |= added.classes
        multi_valued |= set(added.multi_valued)
        for name, names in added.classes.items():
            _logger.info(f"{name}: a new attribute with {len(names)} classes")
    for name, column in table.columns.items():
        if fresh := sorted(set(class_names(column, name in multi_valued)) - set(classes[name])):
            classes[name] = tuple(sorted({*classes[name], *fresh}))
            _logger.info(f"{name}: {len(fresh)} new classes: {', '.join(fresh)}")
    return LabelSpace(classes, multi_valued)


def labeled_images(table: Table, label_space: LabelSpace, channels: int, max_unreadable: float) -> TwoViewDataset:
    """Return the images of a table that have a label.

    Args:
        table: the table.
        label_space: the attributes and classes.
        channels: 3 for color, 1 for gray.
        max_unreadable: largest share of unreadable images, 0-1.

    Raises:
        UsageError: no row has a label.
    """
    targets = encode_targets(table, label_space, strict=False)
    rows = np.flatnonzero((targets >= 0).any(axis=1))
    if not len(rows):
        raise UsageError(f"{table.path} has no label of {', '.join(label_space.attributes)}: label some of its rows")
    return TwoViewDataset(table.take(rows), targets[rows], None, channels, max_unreadable=max_unreadable)


def refit_model(
    ready: EvaluationModel,
    checkpoint: Checkpoint,
    label_space: LabelSpace,
    train: Any,
    validation: Any,
    weights: Sequence[float],
    *,
    eval_metric: str,
    tta: int,
    distributed: bool,
    name: str,
) -> RefittedModel:
    """Solve the heads of a model. Every process must make this call.

    Args:
        ready: the model; its heads change.
        checkpoint: the checkpoint that it comes from, whose run says how rare classes are weighted.
        label_space: the attributes and classes that it is to predict.
        train: loader of labeled images in their evaluation view.
        validation: loader of the validation split; None chooses the strengths by cross-validation.
        weights: weight of each attribute in the means; heads of weight 0 stay.
        eval_metric: name of the score that chooses; see `attribute_metrics`.
        tta: 2 averages the features of an image and its mirror image.
        distributed: whether the processes of torch.distributed share the work.
        name: name of the model in the log.
    """
    # features
    model, device, known = ready.model, ready.device, ready.label_space.classes
    unchanged = [attribute for attribute, names in known.items() if label_space.classes[attribute] == names]
    model.change_label_space(label_space)
    start = time.perf_counter()
    features = _features(ready, train, tta, name)
    held_out = None if validation is None else _features(ready, validation, tta, name)
    elapsed = time.perf_counter() - start

    # heads
    targets, flags = train.dataset.targets, checkpoint.trained_flags
    heads: dict[str, Any] = dict(zip(label_space.attributes, model.heads, strict=True))
    device = device if device.type != "mps" else torch.device("cpu")  # mps has no float64
    rarity = class_weights(targets, label_space, flags.get("class_weights") or "none")
    margins = logit_margins(targets, label_space, flags.get("logit_adjustment") or 0.0)
    results = refit_heads(
        features,
        held_out,
        label_space,
        {} if checkpoint.heads_are_untrained else {attribute: heads[attribute] for attribute in unchanged},
        metrics=attribute_metrics(eval_metric, label_space, weights),
        weights=_by_attribute(rarity, label_space, device),
        margins=_by_attribute(margins, label_space, device),
        device=device,
        cross_validate=True,
    )
    put_heads(model, results)
    for attribute, result in results.items():
        _logger.info(f"{name}: {refit_line(attribute, result)}")
    _logger.info(f"{name}: features in {elapsed:.1f}s, heads in {time.perf_counter() - start - elapsed:.1f}s")
    return _scored(ready, results, held_out, weights, distributed)


def save_refitted(path: Path, checkpoint: Checkpoint, refitted: RefittedModel, averaged: RefittedModel | None) -> None:
    """Write a checkpoint with refitted heads.

    Args:
        path: the file to write.
        checkpoint: the checkpoint before.
        refitted: its model.
        averaged: the model of its averaged weights; None without any.
    """
    ready = refitted.ready
    size = ready.data_config["input_size"]
    config = ready.model.config | {"data_config": dict(ready.data_config), "image_size": list(size)}
    chosen = {"thresholds": refitted.thresholds, "temperatures": refitted.temperatures}
    if averaged is not None:
        chosen |= {"thresholds_ema": averaged.thresholds, "temperatures_ema": averaged.temperatures}
    states = [None if one is None else one.ready.model.state_dict() for one in (refitted, averaged)]
    assert states[0] is not None
    content = refitted_content(checkpoint, states[0], states[1], config, chosen)
    with atomic_file(path) as unfinished:
        torch.save(content, unfinished)


def _features(ready: EvaluationModel, loader: Any, tta: int, name: str) -> Features:
    """Return the features of this process's share of a loader's images.

    Raises:
        UsageError: too many images are unreadable.
    """
    with progress_bar(len(loader), name, enabled=rank() == 0) as bar:
        found = extract_features(
            ready.model, loader, ready.autocast, ready.to_device, tta=tta, after_batch=lambda images: bar.update()
        )
    if world_size() > 1:
        loader.dataset.share_unreadable(ready.device)
    if rank() == 0:
        loader.dataset.report_unreadable()
    loader.dataset.check_readable()
    return found


def _by_attribute(
    values: Sequence[Tensor] | None, label_space: LabelSpace, device: torch.device
) -> dict[str, Tensor | None]:
    """Return tensors by attribute, on a device; empty without any."""
    if values is None:
        return {}
    return {name: value.to(device) for name, value in zip(label_space.attributes, values, strict=True)}


def _scored(
    ready: EvaluationModel,
    results: Mapping[str, Refit],
    validation: Features | None,
    weights: Sequence[float],
    distributed: bool,
) -> RefittedModel:
    """Return a model with its scores, thresholds and temperatures; a new head has none without a validation label."""
    model = ready.model
    kept = {name for name in model.label_space.attributes if name not in results or not results[name].kept}
    thresholds = {name: value for name, value in model.thresholds.items() if name in kept}
    temperatures = {name: value for name, value in model.temperatures.items() if name in kept}
    if validation is None:
        return RefittedModel(ready, None, thresholds, temperatures)
    evaluator = AttributeEvaluator(model.label_space, weights, ready.device)
    batches = [(validation.h, validation.target)]
    dtype = next(model.heads.parameters()).dtype
    metrics = evaluate(
        model, batches, evaluator, ready.autocast, lambda h: h.to(ready.device, dtype), distributed=distributed
    )
    for name in sorted(model.label_space.multi_valued):
        if metrics["attributes"][name]["count"]:
            thresholds[name] = metrics["attributes"][name]["threshold"]
    assert evaluator.calibration is not None
    return RefittedModel(ready, metrics, thresholds, temperatures | evaluator.calibration.temperatures(distributed))
