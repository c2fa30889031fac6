"""What is watched beside the losses: which steps are measured, and the columns of summary.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from simclr import PROJECTION_METRICS
from timm.task.nearest_neighbors import NEIGHBORS, Accuracies

_STEPS_MEASURED = 20  # of an epoch: enough for a steady mean, and a small share of a long epoch's time
_INDEX_METRICS = ("effective_rank_h", "variance_h")

Row = dict[str, float | int | None]


def is_measured(step: int, steps: int) -> bool:
    """Whether a step's projections are measured: about 20 of an epoch's steps are."""
    return step % max(1, steps // _STEPS_MEASURED) == 0


def is_due(epoch: int, interval: int, epochs: int) -> bool:
    """Whether neighbors are asked after an epoch: each `interval`-th and the last; never with 0."""
    return interval > 0 and ((epoch + 1) % interval == 0 or epoch + 1 == epochs)


def watched_columns(attributes: Sequence[str], contrast: bool, neighbors: bool) -> list[str]:
    """Return the columns of what is watched, those of a row of `watched_row`.

    Args:
        attributes: their names.
        contrast: whether there are projections.
        neighbors: whether k-nearest neighbors are asked now and then.
    """
    columns = [f"train_{name}" for name in PROJECTION_METRICS] if contrast else []
    if neighbors:
        columns += [f"train_{name}" for name in _INDEX_METRICS]
        for k in NEIGHBORS if attributes else ():
            columns += [f"eval_knn{k}", *(f"{name}_knn{k}" for name in attributes)]
    return columns + [f"{name}_weight" for name in ("simclr", "classification", *attributes)]


def watched_row(columns: Sequence[str], numbers: Mapping[str, float]) -> Row:
    """Return an epoch's cells, None where nothing was measured.

    Args:
        columns: of `watched_columns`.
        numbers: those of `ProjectionMeter` and of the index by name, and those of `named_accuracies`.
    """
    return {column: numbers.get(column.removeprefix("train_")) for column in columns}


def named_accuracies(accuracies: Accuracies, attributes: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Return neighbors' accuracies by column, `<attribute>_knn20`, and their means, `eval_knn20`.

    Args:
        accuracies: of `neighbor_metrics`.
        attributes: their names.
        weights: of each attribute in the means, which are over those that have a value.
    """
    named: dict[str, float] = {}
    for k, values in accuracies.items():
        known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
        total = sum(weight for _, weight in known)
        named[f"eval_knn{k}"] = sum(value * weight for value, weight in known) / total if total else math.nan
        named |= {f"{name}_knn{k}": value for name, value in zip(attributes, values, strict=True)}
    return named


def projections_line(metrics: Mapping[str, float]) -> str:
    """Return what the projections of an epoch look like, as one line."""
    negatives = metrics["false_negatives"]
    return (
        f"Contrastive Acc@1: {metrics['contrastive_top1']:.3f}  Alignment: {metrics['alignment']:.4f}  "
        f"Uniformity: {metrics['uniformity']:.4f}  Effective rank: {metrics['effective_rank_z']:.2f}"
        + ("" if math.isnan(negatives) else f"  False negatives: {negatives:.2f}%")
    )


def neighbors_lines(accuracies: Mapping[str, float], attributes: Sequence[str]) -> list[str]:
    """Return a line for each k: the mean and each attribute's accuracy."""
    return [
        f"k = {k}: {accuracies[f'eval_knn{k}']:.3f}  "
        + "  ".join(f"{name}: {accuracies[f'{name}_knn{k}']:.3f}" for name in attributes)
        for k in NEIGHBORS
        if attributes
    ]


def weights_line(weights: Mapping[str, float]) -> str:
    """Return the weights of the losses and of the attributes as one line."""
    return "  ".join(f"{name.removesuffix('_weight')}: {value:.3f}" for name, value in weights.items())
