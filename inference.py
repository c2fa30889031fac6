#!/usr/bin/env python3
"""Label new images with a checkpoint.

    python inference.py photos --checkpoint output/train/RUN/model_best.pth.tar
    python inference.py a.jpg b.png more/photos --checkpoint FILE -o labels.json --topk 3
    python inference.py catalog.csv --checkpoint FILE -o labels.parquet
    python inference.py photos --checkpoint A --checkpoint B --probabilities soft.parquet        (soft labels)

An input is an image, a folder with its subfolders, or a table with a column image_path. The output has a row for each
image: its path, and for each attribute the most probable class and its probability; with --topk K the K most probable.
A multi-valued attribute has all values whose probability reaches its threshold, and their probabilities, separated by
"|" or by the --separator of training. Architecture, classes, preprocessing, thresholds and temperatures come from the
checkpoint. Temperatures calibrate the probabilities and change no prediction. Several checkpoints may have other
backbones and image sizes, but need the same classes; their calibrated probabilities are averaged. An unreadable image
keeps its row, blank, with the reason in a column `error`.
"""

from commands.early_mistakes import report_table_mistakes
from options.inference import inference_parser, parse_inference_args

if __name__ == "__main__":
    # --help, a misspelled flag and a wrong table are answered at once, not after torch was imported.
    report_table_mistakes("inference.py", parse_inference_args(check_paths=True))

import logging
import time
from argparse import Namespace
from pathlib import Path

import torch

from catalog.image_list import list_images
from options.serving_kwargs import NAMED, serving_kwargs
from options.shared import SMALLER
from options.train_kwargs import process_kwargs
from reports.predictions import Predictions, check_predictions_path, write_predictions
from reports.probabilities import write_probabilities
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.process import set_up_process
from runtime.process_group import check_single
from runtime.stop_signals import stop_signals
from serving.calibration import temperature_line
from serving.multi_label import MultiLabel
from timm.data.image_dataset import ImageDataset
from timm.data.loader_workers import explained_workers
from training.flag_names import naming_flags

_logger = logging.getLogger("inference")


def main(argv: list[str] | None = None) -> None:
    """Label as the command line says."""
    args = parse_inference_args(argv)
    with (
        report_usage_errors("inference.py", SMALLER),
        naming_flags(*NAMED, "workers", "batch_size", "image_root"),
        explained_workers(),
        stop_signals("inference.py"),
    ):
        inference(args)


def inference(args: Namespace) -> None:
    """Label the images: find them, load the model, predict, write the file."""
    check_single("several processes would write one file")
    output = check_predictions_path(args.output)
    distribution_path = Path(args.probabilities) if args.probabilities else None
    if distribution_path:
        check_writable(distribution_path)
    with naming_flags("device", "dist_backend"):
        device = set_up_process(**process_kwargs(args)).device
    for note in inference_parser().notes(args, device):
        _logger.info(note)
    lists = list_images(args.input, args.image_root or None)
    model = load_model(args, device)
    label_space, dataset = model.label_space, ImageDataset(lists)
    if args.topk > 1 and label_space.multi_valued == set(label_space.attributes):
        raise UsageError(
            f"--topk {args.topk}: {args.checkpoint[0]} predicts every value above a threshold: leave --topk out"
        )
    predictions = Predictions(label_space, len(dataset), args.topk)
    predictions.check_columns(output)
    _logger.info(f"{len(dataset)} images")
    start = time.perf_counter()
    with write_probabilities(distribution_path, label_space, dataset.keys) as distributions:
        model.label(dataset, predictions, distributions, log_interval=args.log_freq)
    seconds = time.perf_counter() - start
    write_predictions(output, predictions, dataset.paths, dataset.errors(), args.spreadsheet_safe)
    files = f"{output}, {distribution_path}" if distribution_path else output
    print(f"{len(dataset)} images, {len(dataset) / seconds:.1f} images/s: {printable(str(files))}", flush=True)


def load_model(args: Namespace, device: torch.device) -> MultiLabel:
    """Return the models of all checkpoints, and log what they are."""
    model = MultiLabel(args.checkpoint, device=device, **serving_kwargs(args))
    model.check_heads()
    for path, ready in zip(args.checkpoint, model.ensemble.members, strict=True):
        _logger.info(f"{path}: {ready.arch}, {ready.data_config}; classes: {ready.label_space}")
        if ready.model.temperatures:
            _logger.info(f"Probabilities are calibrated, with temperatures {temperature_line(ready.temperatures)}")
    for name, threshold in model.ensemble.thresholds.items():
        _logger.info(f"{name}: values of probability {threshold:.4f} and above")
    return model


if __name__ == "__main__":
    main()
