"""Static quantization of an ONNX file to int8, and what it costs in accuracy."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor, nn

from catalog.splits import find_split
from catalog.table import read_table
from runtime.errors import UsageError
from serving.export_onnx import load_onnx, needs_package
from serving.export_outputs import INPUT
from serving.loading import EvaluationModel, make_loader
from serving.scoring import score_model, scored_dataset
from timm.data.two_view_dataset import TwoViewDataset

_logger = logging.getLogger("export")

LARGEST_LOSS = 0.5  # points of accuracy of an attribute
_BATCH = 32
_LINES = 10  # batches between two lines of the log


class OnnxModel(nn.Module):
    """An ONNX file as a module that returns logits by attribute, for the evaluator."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.run = load_onnx(file)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of images [B, C, H, W] by name."""
        return self.run(images)


def quantize(source: Path, target: Path, batches: Iterable[Tensor]) -> None:
    """Write an int8 copy of an ONNX file; its inputs and outputs stay float32.

    Args:
        source: the file to read.
        target: the file to write.
        batches: images [B, C, H, W] that set the ranges of the activations.
    """
    quantization: Any = needs_package("onnxruntime.quantization")
    shapes: Any = needs_package("onnxruntime.quantization.shape_inference")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # its package has no types
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self.left, None)
            return None if images is None else {INPUT: np.ascontiguousarray(images.float().numpy())}

    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=False,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def calibration_batches(ready: EvaluationModel, data: str, count: int, workers: int) -> list[Tensor]:
    """Return the images of a training table that set the ranges, evenly spread over its rows.

    Args:
        ready: the model.
        data: the data folder.
        count: number of images.
        workers: processes that load them.
    """
    table = read_table(find_split(data, "train"), (), require_attributes=False)
    rows = np.unique(np.linspace(0, len(table) - 1, count, dtype=np.int64))
    unlabeled = np.empty((len(rows), 0), np.int64)
    dataset = TwoViewDataset(table.take(rows), unlabeled, None, ready.channels, max_unreadable=0.1)
    return [images for images, _ in _loader(ready, dataset, workers)]


def check_accuracy(ready: EvaluationModel, file: Path, data: str, workers: int) -> None:
    """Score the int8 file and the model on the validation table, and log the difference by attribute.

    Args:
        ready: the model.
        file: the int8 file.
        data: the data folder.
        workers: processes that load images.

    Raises:
        UsageError: the accuracy of an attribute falls by more than half a point.
    """
    table = read_table(find_split(data, "val"), None)
    weights = [1.0] * len(ready.label_space)
    scores = []
    for name, run in (("the model", ready.run), ("int8", OnnxModel(file))):
        dataset = scored_dataset(table, ready, max_unreadable=0.1)
        loader = _loader(ready, dataset, workers)
        _logger.info(f"Scoring {name} on {table.path}, {len(table):,} images")
        scored = score_model(replace(ready, run=run), dataset, loader, weights, tta=0, log_interval=_LINES)
        scores.append(_accuracies(scored.metrics))
    losses = {name: scores[0][name] - value for name, value in scores[1].items()}
    for name, loss in losses.items():
        _logger.info(f"int8: {name}: {scores[1][name]:.1f}, {-loss:+.1f} points against float32")
    worst = max(losses, key=lambda name: losses[name])
    if losses[worst] > LARGEST_LOSS:
        raise UsageError(
            f"--int8 loses {losses[worst]:.1f} points of the accuracy of {worst} on {table.path}, more than "
            f"{LARGEST_LOSS}: nothing was written; leave --int8 out, or use more --calibration-images"
        )


def _accuracies(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the accuracy of each attribute with a label, in percent: top-1, or mAP if it is multi-valued."""
    pairs = {name: one.get("map", one.get("top1")) for name, one in metrics["attributes"].items() if one["count"]}
    return {name: float(value) for name, value in pairs.items()}


def _loader(ready: EvaluationModel, dataset: Any, workers: int) -> Any:
    """Return a loader of float32 images."""
    return make_loader(ready, dataset, batch_size=_BATCH, workers=workers, pin_memory=False, prefetcher=False)
