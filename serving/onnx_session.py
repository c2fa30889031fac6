"""ONNX files in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime.errors import UsageError, first_line

METADATA = "multi_label"  # the name under which files keep the description of a model
INPUT = "images"


def needs_package(name: str) -> Any:
    """Return an optional package's module.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"{name} is not installed: pip install -r requirements-export.txt") from error


def open_session(file: Path, threads: int, on_gpu: bool) -> Any:
    """Return onnxruntime's session of an ONNX file.

    Args:
        file: the file.
        threads: threads to compute with; 0 lets onnxruntime choose.
        on_gpu: whether to run on a GPU, where the installed onnxruntime can.

    Raises:
        UsageError: onnxruntime is missing or cannot read the file.
    """
    runtime = needs_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"] if on_gpu else ["CPUExecutionProvider"]
    providers = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        return runtime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # onnxruntime has a type of error for each kind of damage
        raise UsageError(f"{file} is not an ONNX file that onnxruntime can run: {first_line(error)}") from error


def run_session(session: Any, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return outputs of a session by name, on the CPU.

    Args:
        session: the result of `open_session`.
        images: images [B, C, H, W].
        names: the outputs to compute.
    """
    values: list[Any] = session.run(list(names), {INPUT: np.ascontiguousarray(images.float().cpu().numpy())})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}
