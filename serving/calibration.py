"""Calibrated probabilities: a checkpoint's temperatures applied, described, and saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError
from runtime.torch_file import torch_errors_explained
from serving.checkpoint_files import ONNX, is_exported_folder, is_several
from timm.models.multi_label_checkpoint import Checkpoint, with_temperatures


def probabilities(logits: Tensor, temperature: float, multi_valued: bool) -> Tensor:
    """Return an attribute's calibrated probabilities [B, K], float32, given its logits [B, K]."""
    scaled = logits.float() / temperature
    return scaled.sigmoid() if multi_valued else scaled.softmax(dim=1)


def calibrated_threshold(threshold: float, temperature: float) -> float:
    """Return the calibrated probability that stands for a threshold on the uncalibrated one.

    Both thresholds select the same values: p >= threshold if and only if the calibrated p >= the result.
    """
    if temperature == 1:
        return threshold
    logit = (math.log(threshold) - math.log1p(-threshold)) / temperature
    return 1 / (1 + math.exp(-logit)) if logit > 0 else math.exp(logit) / (1 + math.exp(logit))


def check_calibrated_path(path: str, checkpoint: str) -> None:
    """Check that a calibrated copy of a checkpoint can be written, before the checkpoint is scored.

    Raises:
        UsageError: the name stands for several checkpoints or an exported model, or the place cannot be written.
    """
    if checkpoint.endswith(ONNX) or is_exported_folder(Path(checkpoint)):
        raise UsageError(
            f"calibrate {path} takes a checkpoint, and {checkpoint} is an exported model: give the checkpoint, and "
            "export its copy"
        )
    if is_several(checkpoint):
        raise UsageError(
            f"calibrate {path} takes one checkpoint, but {checkpoint} may match several: give the path of one file"
        )
    check_writable(Path(path))


def save_temperatures(checkpoint: Checkpoint, path: Path, temperatures: Mapping[str, float], ema: bool) -> None:
    """Write a copy of a checkpoint with other temperatures; the path may be the checkpoint itself.

    Args:
        checkpoint: the result of `read_checkpoint`.
        path: the file to write.
        temperatures: the temperature of each attribute that has one.
        ema: whether they belong to the averaged weights.

    Raises:
        UsageError: no attribute has a temperature, or the file cannot be written.
    """
    if not temperatures:
        raise UsageError(f"calibrate {path}: the split has no label that {checkpoint.path} knows: choose another split")
    content = with_temperatures(checkpoint, dict(temperatures), ema)
    with atomic_file(path) as unfinished, torch_errors_explained(unfinished):
        torch.save(content, unfinished)


def temperature_line(temperatures: Mapping[str, float]) -> str:
    """Return the temperatures in words."""
    return "  ".join(f"{name}: {temperature:.4f}" for name, temperature in temperatures.items())
