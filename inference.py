#!/usr/bin/env python3
"""Label new images with a checkpoint.

    python inference.py photos --checkpoint output/train/RUN/model_best.pth.tar
    python inference.py a.jpg b.png more/photos --checkpoint FILE -o labels.json --topk 3
    python inference.py catalog.csv --checkpoint FILE -o labels.parquet

An input is an image, a folder (with all folders below it), or a table with a column image_path. For each image there
is a row with its path, and for each attribute the most probable class and its probability; with --topk K the K most
probable. Of a multi-valued attribute there are the values from the threshold on that was chosen in training, split by
"|", and their probabilities. Architecture, classes and preprocessing come from the checkpoint. An image that cannot be
read keeps its row, blank, with the reason in a column `error`.
"""

from options.inference import inference_parser, parse_inference_args
from options.train_kwargs import process_kwargs

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_inference_args(check_paths=True)

import logging
import time
from argparse import Namespace
from typing import Any

import torch

from catalog.image_list import list_images
from reports.predictions import Predictions, check_predictions_path, write_predictions
from runtime.errors import UsageError, report_usage_errors
from runtime.process import set_up_process
from serving.loading import EvaluationModel, load_evaluation_model
from timm.data.image_dataset import ImageDataset
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader, usable_workers
from timm.models.multi_label_checkpoint import read_checkpoint
from timm.task.evaluate import predict
from timm.task.multi_valued_meter import predicted_values
from timm.task.top_classes import top_classes
from timm.utils.distributed import is_distributed_env

_logger = logging.getLogger("inference")

_NAMED = 10  # unreadable images in the report; all are in the file


def main(argv: list[str] | None = None) -> None:
    """Label as the command line says."""
    args = parse_inference_args(argv)
    with report_usage_errors("inference.py"):
        inference(args)


def inference(args: Namespace) -> None:
    """Tell the story of a labeling: which images, which model, its predictions, the file."""
    if is_distributed_env():
        raise UsageError("several processes would write one file: start a single one, without torchrun")
    output = check_predictions_path(args.output)
    device = set_up_process(**process_kwargs(args)).device
    for note in inference_parser().notes(args, device):
        _logger.info(note)
    lists = list_images(args.input)
    ready = load_evaluation_model(read_checkpoint(args.checkpoint), args, device)
    dataset = ImageDataset(lists, ready.channels)
    several = set(ready.label_space.attributes) <= set(ready.thresholds)
    if args.topk > 1 and several:
        raise UsageError(f"--topk {args.topk}: {args.checkpoint} lists the values above a threshold: leave --topk out")
    predictions = Predictions(ready.label_space, len(dataset), args.topk)
    predictions.check_columns(output)
    _logger.info(f"{args.checkpoint}: {ready.model.config['arch']}; classes: {ready.label_space}")
    for name, threshold in ready.thresholds.items():
        _logger.info(f"{name}: values of probability {threshold:.4f} and above")
    _logger.info(f"{len(dataset)} images, {ready.data_config}")
    start = time.perf_counter()
    label(args, ready, dataset, predictions)
    seconds = time.perf_counter() - start
    errors = dataset.errors()
    predictions.blank(list(errors))
    write_predictions(output, predictions, dataset.paths, errors)
    report_unreadable(dataset, errors)
    print(f"{len(dataset)} images, {len(dataset) / seconds:.1f} images/s: {output}", flush=True)


@torch.inference_mode()
def label(args: Namespace, ready: EvaluationModel, dataset: ImageDataset, predictions: Predictions) -> None:
    """Predict the classes of every image."""
    loader = make_loader(args, ready, dataset)
    start = last = time.perf_counter()
    done = 0
    for batch, (images, rows) in enumerate(loader):
        with ready.autocast():
            logits = predict(ready.run, ready.to_device(images), args.tta)
        rows = rows.cpu().numpy()
        for attribute, values in logits.items():
            values = values.float()
            if attribute in ready.thresholds:
                predicted = predicted_values(values, ready.thresholds[attribute])
                predictions.put_set(attribute, rows, values.sigmoid().cpu().numpy(), predicted.cpu().numpy())
                continue
            best = top_classes(values, args.topk)
            probabilities = values.softmax(dim=1).gather(1, best)
            predictions.put(attribute, rows, best.cpu().numpy(), probabilities.cpu().numpy())
        done += len(rows)
        now, before, last = time.perf_counter(), last, time.perf_counter()
        if batch % args.log_freq == 0:
            _logger.info(
                f"Label: [{batch + 1:>4d}/{len(loader)}]  "
                f"Time: {now - before:.3f}s ({(now - start) / (batch + 1):.3f}s, {done / (now - start):>7.2f}/s)"
            )


def make_loader(args: Namespace, ready: EvaluationModel, dataset: ImageDataset) -> Any:
    """Make timm's evaluation loader."""
    settings = LoaderSettings(
        num_workers=usable_workers(args.workers),
        distributed=False,
        pin_memory=args.pin_mem,
        device=ready.device,
        img_dtype=ready.dtype,
        use_prefetcher=not args.no_prefetcher,
    )
    return create_eval_loader(dataset, ready.data_config, args.batch_size, settings)


def report_unreadable(dataset: ImageDataset, errors: dict[int, str]) -> None:
    """Log which images have no prediction."""
    paths = dataset.paths
    for row in list(errors)[:_NAMED]:
        _logger.warning(f"Unreadable image: {paths[row].as_py()} ({errors[row]})")
    if errors:
        more = f", of which {_NAMED} are named above" if len(errors) > _NAMED else ""
        _logger.warning(f"{len(errors)} of {len(dataset)} images unreadable{more}: blank, with the reason beside them")


if __name__ == "__main__":
    main()
