"""Writing a checkpoint's model for other tools: timm's format, ONNX, or torch.export."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from options.export import ENDINGS
from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError
from serving.export_check import check_equal, example_images
from serving.export_int8 import write_int8
from serving.export_onnx import load_onnx, triton_config, write_onnx
from serving.export_outputs import NamedOutputs, metadata
from serving.export_timm import FOLDER_FILES, is_written_by_us, load_folder, stock_model, write_timm_folder
from serving.export_torch import load_program, write_program
from serving.loading import EvaluationModel, check_data_needed, load_evaluation_model
from timm.models.multi_label_checkpoint import Checkpoint

_logger = logging.getLogger("export")


@dataclass(frozen=True)
class ExportSettings:
    """What an export writes besides the attributes' outputs.

    Attributes:
        backbone_only: for timm, leave the heads out.
        outputs: for the other formats, "h" and "z" where they are wanted.
        int8: for ONNX, a data folder with which the weights and activations are quantized; "" keeps float32.
        calibration_images: training images that set the ranges of int8.
        workers: processes that load the images for int8.
        triton: for ONNX, a Triton repository to add the model to; "" for none.
    """

    backbone_only: bool = False
    outputs: Sequence[str] = ()
    int8: str = ""
    calibration_images: int = 256
    workers: int = 0
    triton: str = ""


def export_model(
    checkpoint: Checkpoint,
    form: str,
    output: Path,
    settings: ExportSettings,
    *,
    use_ema: bool = False,
    data: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    images: Sequence[str] | None = None,
) -> None:
    """Write a checkpoint's model; compare it with the checkpoint on images before it gets its name.

    Args:
        checkpoint: the result of `read_checkpoint`.
        form: "timm", "onnx" or "torch".
        output: the folder or file to write.
        settings: what it holds.
        use_ema: export the averaged weights.
        data: a data folder that names the classes of a checkpoint of the original, which has no names.
        preprocessing: changes to the preprocessing of training; see `serving.loading`.
        images: images, folders or tables to compare on; None for the run's validation table.

    Raises:
        UsageError: the model cannot be exported so, or the exported model differs.
    """
    check_output(output, form)
    check_data_needed(data, checkpoint.path, checkpoint.is_original)
    ready = load_evaluation_model(
        checkpoint,
        torch.device("cpu"),
        use_ema=use_ema,
        preprocessing=preprocessing or {},
        precision={"amp": False, "amp_dtype": None, "model_dtype": None},
        channels_last=False,
        data=data,
        needs_heads=not settings.backbone_only,
    )
    examples = example_images(ready, checkpoint, images)
    difference = _FORMATS[form](settings, ready, examples, output)
    exact = ", before it was quantized" if settings.int8 else ""
    _logger.info(f"Compared on {len(examples)} images{exact}: largest difference of an output {difference:.2g}")


def default_output(checkpoint: Path, form: str) -> Path:
    """Return the place of an export beside its checkpoint."""
    stem = checkpoint.name.removesuffix(".tar").removesuffix(".pth")
    return checkpoint.with_name(stem + (ENDINGS[form] or f"-{form}"))


def check_output(output: Path, form: str) -> None:
    """Raise unless the output can be written without losing something else.

    Raises:
        UsageError: the folder exists and is no earlier export or holds more, or the place cannot be written.
    """
    if form != "timm":
        check_writable(output)
    elif output.exists() and (output.is_file() or any(output.iterdir())):
        if not is_written_by_us(output):
            raise UsageError(f"output {output} is there already and is no exported folder: name another")
        if others := sorted({file.name for file in output.iterdir()} - FOLDER_FILES):
            raise UsageError(f"output {output} also holds {others[0]}, which no export wrote: name another folder")
    else:
        check_writable(output / "config.json" if output.exists() else output)


def _export_timm(settings: ExportSettings, ready: EvaluationModel, images: Tensor, output: Path) -> float:
    """Write the folder of stock timm; return the largest difference of an output."""
    model, counts = ready.network, ready.label_space.num_classes
    stock = stock_model(ready, settings.backbone_only)
    with torch.inference_mode():
        expected = {"h": model.forward_features(images)} if settings.backbone_only else dict(model(images))
    sizes = [model.num_features] if settings.backbone_only else list(counts.values())
    with _unfinished_folder(output) as folder:
        write_timm_folder(ready, stock, folder, settings.backbone_only)
        return check_equal(load_folder(folder, list(expected), sizes), expected, images, "timm")


def _export_onnx(settings: ExportSettings, ready: EvaluationModel, images: Tensor, output: Path) -> float:
    """Write the ONNX file, and its int8 form and Triton entry if asked; return the largest difference of an output."""
    outputs = NamedOutputs(ready.network, settings.outputs).eval()
    expected = outputs.by_name(images)
    with atomic_file(output) as file:
        write_onnx(outputs, _pair(images), file, metadata(ready, outputs.names))
        difference = check_equal(load_onnx(file), expected, images, "onnx")
        if settings.int8:
            whole = file.with_name(f"{file.name}-float32")
            file.rename(whole)
            try:
                write_int8(ready, whole, file, settings.int8, settings.calibration_images, settings.workers)
            finally:
                whole.unlink(missing_ok=True)
    if settings.triton:
        entry = Path(settings.triton) / output.stem
        sizes = {name: values.shape[1] for name, values in expected.items()}
        with atomic_file(entry / "1" / "model.onnx") as file:
            shutil.copyfile(output, file)
        with atomic_file(entry / "config.pbtxt") as file:
            text = triton_config(output.stem, sizes, ready.data_config["input_size"])
            file.write_text(text, encoding="utf-8")
    return difference


def _export_torch(settings: ExportSettings, ready: EvaluationModel, images: Tensor, output: Path) -> float:
    """Write the torch.export program; return the largest difference of an output."""
    outputs = NamedOutputs(ready.network, settings.outputs).eval()
    with atomic_file(output) as file:
        write_program(outputs, _pair(images), file, metadata(ready, outputs.names))
        return check_equal(load_program(file, outputs.names), outputs.by_name(images), images, "torch")


Exporter = Callable[[ExportSettings, EvaluationModel, Tensor, Path], float]
_FORMATS: dict[str, Exporter] = {"timm": _export_timm, "onnx": _export_onnx, "torch": _export_torch}


def _pair(images: Tensor) -> Tensor:
    """Return two images: exporters take a size of 1 for a constant."""
    return images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)


@contextmanager
def _unfinished_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of another at the end, and is deleted after an error."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    earlier = unfinished.with_name(f"{unfinished.name}.earlier")
    try:
        yield unfinished
        if folder.exists():
            folder.rename(earlier)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)
