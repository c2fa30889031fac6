#!/usr/bin/env python3
"""Write a checkpoint's model for other tools: timm and transformers, ONNX, or torch.export.

    python export.py output/train/RUN/model_best.pth.tar --format timm -o my-model
    python export.py CHECKPOINT --format onnx -o my-model.onnx --outputs h
    python export.py CHECKPOINT --format onnx --int8 DATA        (a quarter of the size, and faster on a CPU)
    python export.py CHECKPOINT --format torch -o my-model.pt2

timm: a folder that `timm.create_model("local-dir:my-model", pretrained=True)` loads without this project. The heads are
stacked into its classifier, whose outputs are named `color=Red`, ... onnx: one file with an output for each attribute,
for batches of any size. torch: a program that PyTorch alone runs. All carry the classes, the preprocessing, thresholds
and temperatures. Before anything is written, the exported model must have the checkpoint's outputs on real images.
"""

from options.export import ENDINGS, parse_export_args

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_export_args(check_paths=True)

import logging
import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from options.serving_kwargs import NAMED, PREPROCESSING
from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.process import set_up_process
from runtime.process_group import check_single
from serving.export_check import check_equal, example_images
from serving.export_int8 import calibration_batches, check_accuracy, quantize
from serving.export_onnx import load_onnx, triton_config, write_onnx
from serving.export_outputs import NamedOutputs, metadata
from serving.export_timm import load_folder, stock_model, write_timm_folder
from serving.export_torch import load_program, write_program
from serving.loading import EvaluationModel, load_evaluation_model
from timm.models.multi_label_checkpoint import read_checkpoint
from training.flag_names import naming_flags

_logger = logging.getLogger("export")


def main(argv: list[str] | None = None) -> None:
    """Export as the command line says."""
    args = parse_export_args(argv)
    with report_usage_errors("export.py"), naming_flags(*NAMED):
        export(args)


def export(args: Namespace) -> None:
    """Export the model: read the checkpoint, write, compare, and only then give the file its name."""
    check_single("several processes would write one file")
    device = set_up_process("cpu").device
    output = Path(args.output) if args.output else default_output(Path(args.checkpoint), args.format)
    check_output(output, args.format)
    checkpoint = read_checkpoint(args.checkpoint)
    ready = load_evaluation_model(
        checkpoint,
        device,
        use_ema=args.use_ema,
        preprocessing={name: getattr(args, name) for name in PREPROCESSING},
        precision={"amp": False, "amp_dtype": None, "model_dtype": None},
        channels_last=False,
        needs_heads=not args.backbone_only,
    )
    images = example_images(ready, checkpoint, args.images)
    difference = FORMATS[args.format](args, ready, images, output)
    size = sum(file.stat().st_size for file in [output, *output.rglob("*")] if file.is_file())
    _logger.info(f"Compared on {len(images)} images: largest difference of an output {difference:.2g}")
    print(f"Exported: {printable(str(output))}, {size / 1e6:.1f} MB", flush=True)


def default_output(checkpoint: Path, form: str) -> Path:
    """Return the place of an export beside its checkpoint."""
    stem = checkpoint.name.removesuffix(".tar").removesuffix(".pth")
    return checkpoint.with_name(stem + (ENDINGS[form] or f"-{form}"))


def check_output(output: Path, form: str) -> None:
    """Raise unless the output can be written without losing something else.

    Raises:
        UsageError: the folder exists and is no earlier export, or the place cannot be written.
    """
    if form != "timm":
        check_writable(output)
    elif output.exists() and not (output / "config.json").is_file() and (output.is_file() or any(output.iterdir())):
        raise UsageError(f"--output {output} is there already and is no exported folder: name another")
    else:
        check_writable(output / "config.json")


def export_timm(args: Namespace, ready: EvaluationModel, images: Tensor, output: Path) -> float:
    """Write the folder of stock timm; return the largest difference of an output."""
    model, counts = ready.model, ready.label_space.num_classes
    stock = stock_model(ready, args.backbone_only)
    with torch.inference_mode():
        expected = {"h": model.forward_features(images)} if args.backbone_only else dict(model(images))
    sizes = [model.num_features] if args.backbone_only else list(counts.values())
    with unfinished_folder(output) as folder:
        write_timm_folder(ready, stock, folder, args.backbone_only)
        return check_equal(load_folder(folder, list(expected), sizes), expected, images, "timm")


def export_onnx(args: Namespace, ready: EvaluationModel, images: Tensor, output: Path) -> float:
    """Write the ONNX file, and its int8 form and Triton entry if asked; return the largest difference of an output."""
    outputs = NamedOutputs(ready.network, args.outputs or ()).eval()
    expected = outputs.by_name(images)
    with atomic_file(output) as file:
        write_onnx(outputs, pair(images), file, metadata(ready, outputs.names))
        difference = check_equal(load_onnx(file), expected, images, "onnx")
        if args.int8:
            whole = file.with_name(f"{file.name}-float32")
            file.rename(whole)
            try:
                quantize(whole, file, calibration_batches(ready, args.int8, args.calibration_images, args.workers))
            finally:
                whole.unlink(missing_ok=True)
            check_accuracy(ready, file, args.int8, args.workers)
    if args.triton:
        entry = Path(args.triton) / output.stem
        sizes = {name: values.shape[1] for name, values in expected.items()}
        with atomic_file(entry / "1" / "model.onnx") as file:
            shutil.copyfile(output, file)
        with atomic_file(entry / "config.pbtxt") as file:
            text = triton_config(output.stem, sizes, ready.data_config["input_size"])
            file.write_text(text, encoding="utf-8")
    return difference


def export_torch(args: Namespace, ready: EvaluationModel, images: Tensor, output: Path) -> float:
    """Write the torch.export program; return the largest difference of an output."""
    outputs = NamedOutputs(ready.network, args.outputs or ()).eval()
    with atomic_file(output) as file:
        program = file.with_name(f"{file.name}.pt2")  # torch.export insists on this ending
        write_program(outputs, pair(images), program, metadata(ready, outputs.names))
        try:
            difference = check_equal(load_program(program, outputs.names), outputs.by_name(images), images, "torch")
            program.rename(file)
        finally:
            program.unlink(missing_ok=True)
    return difference


Exporter = Callable[[Namespace, EvaluationModel, Tensor, Path], float]
FORMATS: dict[str, Exporter] = {"timm": export_timm, "onnx": export_onnx, "torch": export_torch}


def pair(images: Tensor) -> Tensor:
    """Return two images: exporters take a size of 1 for a constant."""
    return images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of another at the end, and is deleted after an error."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    main()
