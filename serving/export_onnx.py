"""Export to ONNX: one file with a named output for each attribute, for onnxruntime and what builds on it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.errors import UsageError, first_line
from serving.export_outputs import NamedOutputs
from serving.onnx_session import INPUT, needs_package, open_session, run_session

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20  # the newest that all current runtimes read


def write_onnx(outputs: NamedOutputs, images: Tensor, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a model as one ONNX file that takes batches of any size.

    Args:
        outputs: the model with its named outputs.
        images: example images [B, C, H, W], at least two.
        file: the file to write.
        metadata: text to keep in the file.

    Raises:
        UsageError: a package is missing, or the model has an operation that ONNX lacks.
    """
    for package in PACKAGES:
        needs_package(package)
    for noisy in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own use of what PyTorch deprecates
            program: Any = torch.onnx.export(
                outputs,
                (images,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=outputs.names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise UsageError(
            f"--format onnx cannot export this backbone ({first_line(error)}): choose another format"
        ) from error
    program.optimize()
    program.model.metadata_props.update(metadata)
    program.save(str(file), external_data=False)


def load_onnx(file: Path, threads: int = 0) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return an ONNX file as a function of images [B, C, H, W] that gives outputs by name, on the CPU.

    Args:
        file: the file.
        threads: threads to compute with; 0 lets onnxruntime choose.
    """
    session = open_session(file, threads, on_gpu=False)
    names = [output.name for output in session.get_outputs()]
    return lambda images: run_session(session, images, names)


def triton_config(name: str, outputs: Mapping[str, int], input_size: list[int]) -> str:
    """Return the config.pbtxt of a Triton Inference Server for an ONNX file.

    Args:
        name: name of the model there.
        outputs: size of each output, without the batch.
        input_size: [C, H, W] of the images.
    """

    def tensor(title: str, dims: list[int]) -> str:
        escaped = title.replace("\\", "\\\\").replace('"', '\\"')
        return f'  {{ name: "{escaped}" data_type: TYPE_FP32 dims: {dims} }}'

    inputs, results = tensor(INPUT, input_size), ",\n".join(tensor(title, [size]) for title, size in outputs.items())
    return (
        f'name: "{name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 64\n'
        f"input [\n{inputs}\n]\noutput [\n{results}\n]\ndynamic_batching {{ }}\n"
    )
