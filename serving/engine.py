"""The program that computes a model's outputs: PyTorch, or onnxruntime, which is faster on a CPU but starts slowly."""

from __future__ import annotations

import importlib.util
import logging
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from options.shared import ENGINES
from runtime.errors import UsageError, first_line
from serving.export_check import check_equal
from serving.export_onnx import PACKAGES, write_onnx
from serving.export_outputs import NamedOutputs
from serving.loading import EvaluationModel
from serving.onnx_session import needs_package, open_session, run_session
from timm.models.multi_label import MultiLabelModel

_logger = logging.getLogger("engine")

_FEW = 500  # images; smaller jobs are not even measured
_SHORT = 40.0  # seconds; shorter jobs gain less than onnxruntime takes to start
_TIMED = 16  # images in a timed batch
_ROUNDS = 3
_GAIN = 1.1  # onnxruntime must be faster than PyTorch by this factor


class OnnxEngine(nn.Module):
    """A model that onnxruntime runs on the CPU.

    Args:
        ready: the model.

    Raises:
        UsageError: a package is missing, or the model cannot be exported or differs once it is.
    """

    def __init__(self, ready: EvaluationModel) -> None:
        super().__init__()
        model = ready.network
        extra = ["h"] if model.projector is None else ["h", "z"]
        self.attributes = list(model.label_space.attributes)
        for package in PACKAGES:
            needs_package(package)
        images = torch.cat([ready.random_image(), ready.random_image()])
        try:
            outputs = NamedOutputs(model, extra).eval()
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.onnx"
                write_onnx(outputs, images, file, {})
                self.session = open_session(file, torch.get_num_threads(), on_gpu=False)
            check_equal(lambda batch: self._run(batch, outputs.names), outputs.by_name(images), images, "onnx")
        except UsageError as error:
            reason = str(error).partition(": ")[0]
            raise UsageError(f"engine onnx cannot run this model ({reason}): leave engine out") from error

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return each attribute's logits [B, K] of images [B, C, H, W]."""
        return self._run(images, self.attributes)

    def forward_embedding(self, images: Tensor, projection: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return h [B, D], or z [B, P], and each attribute's logits [B, K] of images [B, C, H, W]."""
        name = "z" if projection else "h"
        found = self._run(images, [*self.attributes, name])
        return found.pop(name), found

    def _run(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        return run_session(self.session, images, names)


def check_engine(engine: str, device: torch.device, number_format: Mapping[str, Any], compiler: str | None) -> None:
    """Raise unless an engine goes with the other settings.

    Args:
        engine: "auto", "torch" or "onnx".
        device: the device of the model.
        number_format: amp, amp_dtype and model_dtype.
        compiler: a backend of torch.compile, or None.

    Raises:
        UsageError: there is no such engine, or it does not go with a setting.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r}: give one of {', '.join(ENGINES)}")
    if engine != "onnx":
        return
    if device.type != "cpu":
        raise UsageError(f"engine onnx runs on the CPU and not on {device}: leave engine out, or choose device cpu")
    given = {"torchcompile": compiler, **number_format}
    if useless := next((name for name, value in given.items() if value and value != "float32"), None):
        raise UsageError(f"{useless} has no effect with engine onnx: leave out one of them")


def faster(ready: EvaluationModel, engine: str, images: int) -> EvaluationModel:
    """Return a model with the engine that suits a number of images.

    "auto" takes onnxruntime on the CPU if PyTorch would need more than 40 seconds, and if onnxruntime is installed, has
    the same outputs, and is faster on a batch.

    Args:
        ready: the model, with PyTorch.
        engine: "auto", "torch" or "onnx".
        images: number of images that the model will see.

    Raises:
        UsageError: engine is "onnx", and a package is missing or the model cannot be exported. Or engine is "torch",
            and the model is an ONNX file.
    """
    if engine == "torch" and not isinstance(ready.model, MultiLabelModel):
        raise UsageError("engine torch cannot run an ONNX file: leave engine out, or give the checkpoint")
    if engine == "torch" or not _replaceable(ready):
        return ready
    if engine == "onnx":
        return _with_onnx(ready)
    if images < _FEW or not all(importlib.util.find_spec(name) for name in PACKAGES):
        return ready
    batch = ready.to_device(torch.cat([ready.random_image()] * _TIMED))
    slow = _seconds(ready, batch)
    if slow * images / _TIMED < _SHORT:
        return ready
    try:
        candidate = _with_onnx(ready)
    except UsageError as error:
        _logger.info(f"PyTorch computes, since onnxruntime cannot ({first_line(error)})")
        return ready
    ratio = slow / _seconds(candidate, batch)
    chosen = candidate if ratio >= _GAIN else ready
    name = "PyTorch" if chosen is ready else "onnxruntime"
    _logger.info(f"{name} computes: on a batch, onnxruntime has {ratio:.1f} times the speed of PyTorch")
    return chosen


def _replaceable(ready: EvaluationModel) -> bool:
    """Return whether another engine may replace PyTorch: on a CPU, in float32, not compiled, not replaced yet."""
    plain = ready.run is ready.model and isinstance(ready.model, MultiLabelModel)
    return plain and ready.device.type == "cpu" and ready.dtype == torch.float32 and not _is_mixed(ready)


def _is_mixed(ready: EvaluationModel) -> bool:
    """Return whether the model runs in mixed precision."""
    with ready.autocast():
        return torch.is_autocast_enabled("cpu")


def _with_onnx(ready: EvaluationModel) -> EvaluationModel:
    """Return the model in onnxruntime, and log how long that takes."""
    start = time.perf_counter()
    _logger.info("Preparing onnxruntime, which takes some seconds")
    engine = OnnxEngine(ready)
    _logger.info(f"onnxruntime is ready after {time.perf_counter() - start:.0f} s")
    return replace(ready, run=engine, channels_last=False)


@torch.inference_mode()
def _seconds(ready: EvaluationModel, batch: Tensor) -> float:
    """Return the median duration of a forward pass in seconds."""
    durations = []
    for _ in range(1 + _ROUNDS):
        start = time.perf_counter()
        ready.run(batch)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])  # the first pass also allocates memory
