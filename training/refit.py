"""Heads refitted in a run: after the last epoch, in its own row and checkpoint, or before the first epoch."""

from __future__ import annotations

import logging
import time
from copy import deepcopy

import torch

from timm.task.refit import attribute_metrics, extract_features, put_heads, refit_heads, refit_line
from timm.utils.model import unwrap_model
from training.epoch_scores import ema_is_elsewhere, evaluate_epoch, report_unreadable
from training.run import Run
from training.summary import Row, epoch_row, measured_columns, measured_row, metric_value

_logger = logging.getLogger("train")


def probe_first(run: Run) -> None:
    """Solve the heads on the first backbone's features, for the model and its average (arXiv:2202.10054, LP-FT)."""
    _refit(run, "Probe", ema=False, compare=False)
    if run.task.has_ema():
        _copy_heads(run)


def refit_epoch(run: Run) -> None:
    """Refit the heads of the model and of its average, score both, and save them as one more epoch.

    In a run without epochs the heads have random weights, so the solved ones always replace them.
    """
    trained = run.num_epochs > 0
    _refit(run, "Refit", ema=False, compare=trained)
    if run.task.has_ema():
        if trained:
            _refit(run, "Refit (EMA)", ema=True, compare=True)
        else:
            _copy_heads(run)

    # score and save
    evaluated, averaged = evaluate_epoch(run)
    report_unreadable(run)
    epoch, settings = run.num_epochs, run.settings
    attributes, contrast = run.task.label_space.attributes, run.plan.contrast is not None
    columns = measured_columns(attributes, contrast, settings.knn_interval > 0)
    row: Row = epoch_row(epoch, {"loss": float("nan"), "top1": float("nan")}, evaluated, averaged)
    row |= measured_row(columns, run.task.weights())
    value = metric_value(row, settings.eval_metric)
    run.progress = {"epoch": epoch + 1, "batch": 0}
    run.outputs.save_epoch(epoch, row, value, last=True)


def _refit(run: Run, name: str, ema: bool, compare: bool) -> None:
    """Solve the heads of one model, and log a line for each attribute.

    Args:
        run: run whose heads are solved.
        name: name of the model in the log.
        ema: whether the model is the moving average.
        compare: whether an attribute keeps its head where that one scores higher on the validation split.
    """
    # features
    start = time.perf_counter()
    task, process = run.task, run.process
    model = unwrap_model(task.get_trainable_module(ema=ema))
    moved = deepcopy(model).to(process.device) if ema and ema_is_elsewhere(run) else model
    train = extract_features(moved, run.clean_loader, run.autocast, run.to_device)
    validation = extract_features(moved, run.eval_loader, run.autocast, run.to_device, tta=run.settings.tta)
    elapsed = time.perf_counter() - start

    # heads
    weights, margins = _imbalance(run)
    attributes = task.label_space.attributes
    results = refit_heads(
        train,
        validation,
        task.label_space,
        dict(zip(attributes, model.heads, strict=True)) if compare else {},
        metrics=attribute_metrics(run.settings.eval_metric, task.label_space, task.attribute_weights),
        weights=weights,
        margins=margins,
        device=process.device if process.device.type != "mps" else torch.device("cpu"),  # mps has no float64
        cross_validate=not compare,
    )
    put_heads(model, results)
    for attribute, result in results.items():
        _logger.info(f"{name}: {refit_line(attribute, result)}")
    solving = time.perf_counter() - start - elapsed
    _logger.info(f"{name}: features in {elapsed:.1f}s, heads in {solving:.1f}s")


def _imbalance(run: Run) -> tuple[dict[str, torch.Tensor | None], dict[str, torch.Tensor | None]]:
    """Return the class weights and the logit margins of the classification loss, by attribute."""
    losses = dict(zip(run.task.label_space.attributes, run.task.criterion.losses, strict=True))
    return {name: loss.weight for name, loss in losses.items()}, {name: loss.margin for name, loss in losses.items()}


def _copy_heads(run: Run) -> None:
    """Give the moving average the heads of the model."""
    model, average = (unwrap_model(run.task.get_trainable_module(ema=ema)) for ema in (False, True))
    average.heads.load_state_dict(model.heads.state_dict())
