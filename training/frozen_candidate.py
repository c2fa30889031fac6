"""The candidate of choose.py that trains no backbone: features once for all splits, then heads solved for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from runtime.atomic_file import atomic_file
from runtime.precision import Autocast
from runtime.torch_file import torch_errors_explained
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader, usable_workers
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label import MultiLabelModel
from timm.task.attribute_evaluator import AttributeEvaluator, Metrics
from timm.task.evaluate import evaluate
from timm.task.refit import Features, attribute_metrics, extract_features, put_heads, refit_heads

_BATCH = 64
Rows = npt.NDArray[np.int64]
OnBatch = Callable[[float, int], None]


@dataclass
class FrozenCandidate:
    """A model with a frozen backbone, and the representations of all labeled rows.

    Attributes:
        model: the model; scoring a split replaces its heads.
        rows: rows of the table that the representations belong to, sorted.
        features: float32 [rows, D], on the CPU.
        targets: int64 [rows, C], on the CPU; unknown where the image is unreadable.
        seconds: time that the representations took.
    """

    model: MultiLabelModel
    rows: Rows
    features: Tensor
    targets: Tensor
    seconds: float

    def score(self, training: Rows, validation: Rows, held_out: Rows) -> tuple[dict[str, float], float]:
        """Solve the heads on some rows, with the strengths that others choose, and score them on further ones.

        Args:
            training: rows of the table to learn from.
            validation: rows that choose the strength of each attribute's penalty.
            held_out: rows to score.

        Returns:
            The score of each attribute in percent, top-1, or mAP if it is multi-valued; and the seconds of a run that
            computes the representations of these rows alone.
        """
        start = time.perf_counter()
        parts = [self._take(rows) for rows in (training, validation, held_out)]
        solve_heads(self.model, parts[0], parts[1])
        scores = score_heads(self.model, parts[2])
        share = sum(len(part.h) for part in parts) / len(self.rows)
        return scores, time.perf_counter() - start + self.seconds * share

    def _take(self, rows: Rows) -> Features:
        """Return the representations of rows of the table."""
        index = torch.from_numpy(np.flatnonzero(np.isin(self.rows, rows)))
        return Features(self.features[index], self.targets[index], torch.arange(len(index)))


def compute_features(
    model: MultiLabelModel, dataset: TwoViewDataset, workers: int, autocast: Autocast, on_batch: OnBatch
) -> Features:
    """Return the features of images.

    Args:
        model: the model, whose config holds the preprocessing; it is left in evaluation mode.
        dataset: the images.
        workers: processes that load images.
        autocast: factory of the context of a forward pass.
        on_batch: called after each batch with the seconds since the start and the number of images so far; what it
            raises ends the computation.
    """
    settings = LoaderSettings(num_workers=usable_workers(workers), use_prefetcher=False)
    loader: Any = create_eval_loader(dataset, model.config["data_config"], _BATCH, settings)
    device, start = next(model.parameters()).device, time.perf_counter()
    features = extract_features(
        model,
        loader,
        autocast,
        lambda images: images.to(device),
        after_batch=lambda images: on_batch(time.perf_counter() - start, images),
    )
    dataset.report_unreadable()
    dataset.check_readable()
    return features


def freeze(model: MultiLabelModel, rows: Rows, file: Path, compute: Callable[[], Features]) -> FrozenCandidate:
    """Return the frozen candidate, with representations from a file, or computed and written to it.

    Args:
        model: the model.
        rows: rows of the table that the representations belong to.
        file: where an earlier session of the same choice left them.
        compute: function that computes the features.
    """
    if not file.exists():
        start = time.perf_counter()
        computed = compute()
        saved = {"features": computed.h, "targets": computed.target, "seconds": time.perf_counter() - start}
        with atomic_file(file) as unfinished, torch_errors_explained(unfinished):
            torch.save(saved, unfinished)
    return FrozenCandidate(model, rows, **torch.load(file, map_location="cpu", weights_only=True))


def solve_heads(model: MultiLabelModel, train: Features, validation: Features) -> None:
    """Set each head to the logistic regression whose strength scores best on validation rows, as a linear probe does.

    Args:
        model: the model.
        train: rows to learn from.
        validation: rows that choose the strength of each attribute's penalty.
    """
    space = model.label_space
    results = refit_heads(
        train,
        validation,
        space,
        given={},
        metrics=attribute_metrics("top1", space, [1.0] * len(space)),
        weights={},
        margins={},
        device=train.h.device,
        cross_validate=True,
    )
    put_heads(model, results)


def score_heads(model: MultiLabelModel, part: Features) -> dict[str, float]:
    """Return the score of each attribute on representations, in percent; see `attribute_scores`.

    Args:
        model: the model whose heads are scored.
        part: representations and targets.
    """
    device = next(model.parameters()).device
    evaluator = AttributeEvaluator(model.label_space, None, device)
    metrics = evaluate(model, [(part.h, part.target)], evaluator, nullcontext, lambda h: h.to(device))
    return attribute_scores(metrics, model.label_space)


def attribute_scores(metrics: Metrics, label_space: LabelSpace) -> dict[str, float]:
    """Return the score of each attribute in percent: top-1, or mAP if it is multi-valued."""
    several = label_space.multi_valued
    return {name: values["map" if name in several else "top1"] for name, values in metrics["attributes"].items()}
