#!/usr/bin/env python3
"""Label new images with a checkpoint.

    python inference.py photos --checkpoint output/train/RUN/model_best.pth.tar
    python inference.py a.jpg b.png more/photos --checkpoint FILE -o labels.json --topk 3
    python inference.py catalog.csv --checkpoint FILE -o labels.parquet

An input is an image, a folder with its subfolders, or a table with a column image_path. The output has a row for each
image: its path, and for each attribute the most probable class and its probability; with --topk K the K most probable.
A multi-valued attribute has all values whose probability reaches its threshold, separated by "|", and their
probabilities. Architecture, classes, preprocessing, thresholds and temperatures come from the checkpoint. Temperatures
calibrate the probabilities and change no prediction. An unreadable image keeps its row, blank, with the reason in a
column `error`.
"""

from options.inference import inference_parser, parse_inference_args

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_inference_args(check_paths=True)

import logging
import time
from argparse import Namespace

from catalog.image_list import list_images
from options.serving_kwargs import NAMED, evaluation_kwargs, loader_kwargs, model_kwargs
from options.train_kwargs import process_kwargs
from reports.predictions import Predictions, check_predictions_path, write_predictions
from runtime.errors import UsageError, report_usage_errors
from runtime.process import set_up_process
from serving.calibration import calibrated_threshold, temperature_line
from serving.labeling import label, report_unreadable
from serving.loading import load_evaluation_model, make_loader
from timm.data.image_dataset import ImageDataset
from timm.models.multi_label_checkpoint import read_checkpoint
from timm.utils.distributed import is_distributed_env
from training.flag_names import naming_flags

_logger = logging.getLogger("inference")


def main(argv: list[str] | None = None) -> None:
    """Label as the command line says."""
    args = parse_inference_args(argv)
    with report_usage_errors("inference.py"), naming_flags(*NAMED):
        inference(args)


def inference(args: Namespace) -> None:
    """Label the images: find them, load the model, predict, write the file."""
    if is_distributed_env():
        raise UsageError("several processes would write one file: start a single one, without torchrun")
    output = check_predictions_path(args.output)
    with naming_flags("device", "dist_backend"):
        device = set_up_process(**process_kwargs(args)).device
    for note in inference_parser().notes(args, device):
        _logger.info(note)
    lists = list_images(args.input)
    ready = load_evaluation_model(read_checkpoint(args.checkpoint), device, **model_kwargs(args))
    dataset = ImageDataset(lists, ready.channels)
    if args.topk > 1 and set(ready.label_space.attributes) <= set(ready.thresholds):
        raise UsageError(f"--topk {args.topk}: {args.checkpoint} lists the values above a threshold: leave --topk out")
    predictions = Predictions(ready.label_space, len(dataset), args.topk)
    predictions.check_columns(output)
    _logger.info(f"{args.checkpoint}: {ready.arch}; classes: {ready.label_space}")
    if ready.model.temperatures:
        _logger.info(f"Probabilities are calibrated, with temperatures {temperature_line(ready.temperatures)}")
    for name, threshold in ready.thresholds.items():
        shown = calibrated_threshold(threshold, ready.temperatures[name])
        _logger.info(f"{name}: values of probability {shown:.4f} and above")
    _logger.info(f"{len(dataset)} images, {ready.data_config}")
    start = time.perf_counter()
    loader = make_loader(ready, dataset, **loader_kwargs(args))
    label(ready, loader, predictions, topk=args.topk, **evaluation_kwargs(args))
    seconds = time.perf_counter() - start
    errors = dataset.errors()
    predictions.blank(list(errors))
    write_predictions(output, predictions, dataset.paths, errors)
    report_unreadable(dataset, errors)
    print(f"{len(dataset)} images, {len(dataset) / seconds:.1f} images/s: {output}", flush=True)


if __name__ == "__main__":
    main()
