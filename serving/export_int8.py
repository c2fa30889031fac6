"""Static quantization of an ONNX file to int8, and what it costs in accuracy."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor, nn

from catalog.splits import find_split
from catalog.table import Table, read_table
from runtime.errors import UsageError
from serving.export_onnx import load_onnx, needs_package
from serving.export_outputs import INPUT
from serving.loading import EvaluationModel, make_loader
from serving.scoring import score_model, scored_dataset
from timm.data.two_view_dataset import TwoViewDataset

_logger = logging.getLogger("export")

LARGEST_LOSS = 0.5  # points of accuracy of an attribute
KEPT = (0, 1 / 8, 1 / 4, 1 / 2)  # shares of the layers to keep in float32, the first that suffices
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


def write_int8(ready: EvaluationModel, source: Path, target: Path, data: str, images: int, workers: int) -> None:
    """Write an int8 copy of an ONNX file that keeps the accuracy on the validation table.

    If all layers in int8 lose too much, the first eighth, quarter or half stays in float32.

    Args:
        ready: the model.
        source: the file to read.
        target: the file to write.
        data: the data folder.
        images: number of training images that set the ranges of the activations.
        workers: processes that load images.

    Raises:
        UsageError: in each form the accuracy of an attribute falls by more than half a point, or no attribute of the
            model has a label, so that the accuracy is unknown.
    """
    table = read_table(find_split(data, "val"), None)
    before = _scores(ready, source, table, workers)
    if not before:
        raise UsageError(
            f"{table.path} has no label of {', '.join(ready.label_space.attributes)}, so --int8 cannot be judged: "
            "name a data folder with labels"
        )
    batches = calibration_batches(ready, data, images, workers)
    losses: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        shapes: Any = needs_package("onnxruntime.quantization.shape_inference")
        shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        layers = layer_names(prepared)
        for count in dict.fromkeys(round(share * len(layers)) for share in KEPT):  # a tiny model has fewer forms
            kept = layers[:count]
            quantize(prepared, target, batches, kept)
            after = _scores(ready, target, table, workers)
            losses = {name: before[name] - value for name, value in after.items()}
            text = "  ".join(f"{name}: {after[name]:.1f} ({-loss:+.1f} points)" for name, loss in losses.items())
            _logger.info(f"int8 in {len(layers) - len(kept)} of {len(layers)} layers: {text}")
            if max(losses.values()) <= LARGEST_LOSS:
                return
    worst = max(losses, key=lambda name: losses[name])
    raise UsageError(
        f"--int8 loses {losses[worst]:.1f} points of the accuracy of {worst} on {table.path}, over {LARGEST_LOSS}, "
        "even with half of the layers in float32: nothing was written; leave --int8 out, or use more "
        "--calibration-images"
    )


def layer_names(file: Path) -> list[str]:
    """Return the names of a file's convolutions and matrix products, from the first to the last."""
    onnx: Any = needs_package("onnx")
    return [node.name for node in onnx.load(file).graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]


def quantize(source: Path, target: Path, batches: Iterable[Tensor], kept: Sequence[str] = ()) -> None:
    """Write an int8 copy of an ONNX file; its inputs and outputs stay float32.

    Args:
        source: the file to read, as onnxruntime's `quant_pre_process` leaves it.
        target: the file to write.
        batches: images [B, C, H, W] that set the ranges of the activations.
        kept: names of layers that stay float32.
    """
    quantization: Any = needs_package("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # its package has no types
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self.left, None)
            return None if images is None else {INPUT: np.ascontiguousarray(images.float().numpy())}

    quantization.quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        # 7 bits: without VNNI, a processor adds two products in 16 bits, where products of 8 bits overflow
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_exclude=list(kept),
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


def _scores(ready: EvaluationModel, file: Path, table: Table, workers: int) -> dict[str, float]:
    """Return the accuracy of each attribute with a label, in percent: top-1, or mAP if it is multi-valued."""
    dataset = scored_dataset(table, ready, max_unreadable=0.1)
    model, weights = replace(ready, run=OnnxModel(file)), [1.0] * len(ready.label_space)
    loader = _loader(ready, dataset, workers)
    metrics = score_model(model, dataset, loader, weights, tta=0, log_interval=_LINES).metrics
    pairs = {name: one.get("map", one.get("top1")) for name, one in metrics["attributes"].items() if one["count"]}
    return {name: float(value) for name, value in pairs.items()}


def _loader(ready: EvaluationModel, dataset: Any, workers: int) -> Any:
    """Return a loader of float32 images."""
    return make_loader(ready, dataset, batch_size=_BATCH, workers=workers, pin_memory=False, prefetcher=False)
