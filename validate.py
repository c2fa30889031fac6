#!/usr/bin/env python3
"""Score a checkpoint, or each of several, on a split of a table.

    python validate.py DATA --checkpoint output/train/RUN/model_best.pth.tar
    python validate.py DATA --checkpoint output/train --split test --results-file results.csv
    python validate.py DATA --checkpoint 'output/train/*/last.pth.tar' --model 'efficientnet_*' --use-ema
    python validate.py DATA --checkpoint FILE --per-class        precision, recall and confusions of each class
    torchrun --nproc-per-node 2 validate.py DATA --checkpoint FILE        the same numbers, from two processes

DATA holds val.csv, test.csv, ... (docs/data.md). Architecture, attributes, classes and preprocessing come from
the checkpoint. Counts are over the whole split, each image once. Blank cells and images that cannot be read count in
nothing; a class that the model does not know counts as wrong.
"""

from options.train_kwargs import process_kwargs
from options.validate import parse_validate_args, validate_parser

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_validate_args(check_paths=True)

import gc
import json
import logging
import os
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from catalog.label_space import LabelSpace
from catalog.splits import find_split
from catalog.table import Table, read_table
from catalog.targets import encode_targets
from reports.per_class import file_stems, write_per_class
from reports.results import (
    Result,
    attribute_columns,
    best_first,
    check_results_path,
    without_nan,
    write_results,
)
from runtime.errors import UsageError, report_usage_errors
from runtime.process import leave_process_group, set_up_process
from serving.checkpoint_files import find_checkpoints, is_several, matches, names_below, stem
from serving.cost import count_macs, count_parameters, measure_latency
from serving.loading import EvaluationModel, load_evaluation_model
from timm import utils
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader, usable_workers
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint
from timm.task.attribute_evaluator import AttributeEvaluator, Metrics
from timm.task.evaluate import evaluate, predict

_logger = logging.getLogger("validate")


def main(argv: list[str] | None = None) -> None:
    """Score as the command line says; exit with 1 where one of several checkpoints could not be scored."""
    args = parse_validate_args(argv)
    with leave_process_group(), report_usage_errors("validate.py"):
        validate(args)


def validate(args: Namespace) -> None:
    """Tell the story of a scoring: which checkpoints, which table, each one's scores, the file."""
    results_path = check_results_path(args.results_file)
    process = set_up_process(**process_kwargs(args))
    vars(args).update(vars(process) | {"device": str(process.device)})
    device = process.device
    for note in validate_parser().notes(args, device):
        _logger.info(note)
    files = find_checkpoints(args.checkpoint)
    table = read_table(find_split(args.data, args.split), None, require_attributes=False)
    results, failed = score_all(args, device, table, files, results_path)
    if utils.is_primary(args):
        if results_path and results:
            _logger.info(f"Results: {results_path}")
        shown = results if is_several(args.checkpoint) else results[0]
        print(f"--result\n{json.dumps(without_nan(shown), indent=4, ensure_ascii=False)}", flush=True)
        if failed:
            _logger.error(f"{failed} of {len(files)} checkpoints could not be scored, for the reasons above")
    if failed:
        raise SystemExit(1)


def score_all(
    args: Namespace, device: torch.device, table: Table, files: list[Path], results_path: Path | None
) -> tuple[list[Result], int]:
    """Score one checkpoint after the other; return the results, the best first, and how many could not be scored.

    The results file is written after each, so that nothing is lost where a later one ends the run.
    """
    several = is_several(args.checkpoint)
    names = file_stems(names_below(files)) if several else [stem(files[0])]
    results: list[Result] = []
    failed = 0
    for file, name in zip(files, names, strict=True):
        try:
            checkpoint = read_checkpoint(file)
            if not wanted(args, file, checkpoint, several):
                continue
            folder = per_class_folder(args, file, name, table, several)
            results = best_first([*results, score(args, device, table, file, checkpoint, folder)])
        except UsageError as error:
            if not several:
                raise
            failed += 1
            if utils.is_primary(args):
                _logger.error(f"Not scored: {error}")
            continue
        if results_path and utils.is_primary(args):
            write_results(results_path, results if several else results[0])
        del checkpoint
        gc.collect()  # a compiled model holds itself, and with it the memory of the GPU
    if not results and not failed:
        raise UsageError(
            f"--model {args.model}: none of the {len(files)} checkpoints at {args.checkpoint} is such a model"
        )
    return results, failed


def wanted(args: Namespace, file: Path, checkpoint: Checkpoint, several: bool) -> bool:
    """Whether a checkpoint's architecture is what --model names.

    Raises:
        UsageError: it is the only checkpoint, and it is not.
    """
    arch = str(checkpoint.arch)
    if args.model is None or matches(arch, args.model):
        return True
    if not several:
        raise UsageError(f"--model {args.model} contradicts {file}, which holds a model {arch}: leave --model out")
    _logger.info(f"{file} holds a model {arch}, which --model {args.model} leaves out")
    return False


def score(
    args: Namespace, device: torch.device, table: Table, file: Path, checkpoint: Checkpoint, folder: Path | None
) -> Result:
    """Score one checkpoint; log what it costs and what it gets right; return its row of the results."""
    ready = load_evaluation_model(checkpoint, args, device, data=args.data, model_dtype=args.model_dtype)
    cost = measure_cost(args, ready)
    averaged = " (averaged weights)" if args.use_ema else ""
    _logger.info(f"{file}{averaged}: {ready.model.config['arch']}, epoch {checkpoint.epoch}, {cost_line(ready, cost)}")
    dataset = TwoViewDataset(
        table,
        encode_targets(table, ready.label_space, strict=False),
        None,
        ready.channels,
        max_unreadable=args.max_unreadable,
    )
    _logger.info(f"{table.path}: {len(dataset)} images, {ready.data_config}")
    evaluator = AttributeEvaluator(
        ready.label_space,
        attribute_weights(checkpoint, ready.label_space),
        device,
        confusion=folder is not None,
        thresholds=ready.thresholds,
    )
    loader = make_loader(args, ready, dataset)
    start = time.perf_counter()
    metrics = evaluate(
        ready.run,
        loader,
        evaluator,
        ready.autocast,
        ready.to_device,
        tta=args.tta,
        distributed=args.distributed,
        after_batch=progress(args, len(loader)),
    )
    rate = len(dataset) / (time.perf_counter() - start)
    if args.distributed:
        dataset.share_unreadable(device)
    if utils.is_primary(args):
        dataset.report_unreadable()
    dataset.check_readable()
    report(metrics, rate)
    if folder is not None:
        matrices = evaluator.confusion_matrices(distributed=args.distributed)
        if utils.is_primary(args):
            title = (
                f"{ready.model.config['arch']}, {file.parent.absolute().name}/{file.name}{averaged}, {table.path.name}"
            )
            arrays = {attribute: matrix.numpy() for attribute, matrix in matrices.items()}
            write_per_class(folder, arrays, ready.label_space.classes, title, ready.label_space.multi_valued)
            _logger.info(f"Classes: {folder}")
    return result_row(args, ready, file, checkpoint, table, metrics) | cost | {
        "images_per_second": round(rate, 2),
        "img_size": ready.data_config["input_size"][-1],
        "crop_pct": ready.data_config["crop_pct"],
        "interpolation": ready.data_config["interpolation"],
    }  # fmt: skip


def attribute_weights(checkpoint: Checkpoint, label_space: LabelSpace) -> list[float]:
    """Return the attributes' weights in the means: those of training, so that its scores are met again."""
    given = checkpoint.trained_flags.get("attribute_weights") or {}
    weights = [float(given.get(name, 1.0)) for name in label_space.attributes]
    if len(set(weights)) > 1:
        shown = ", ".join(f"{name} {weight:g}" for name, weight in zip(label_space.attributes, weights, strict=True))
        _logger.info(f"Means are weighted as in training: {shown}")
    return weights


def make_loader(args: Namespace, ready: EvaluationModel, dataset: TwoViewDataset) -> Any:
    """Make timm's evaluation loader, on several processes each one's share."""
    settings = LoaderSettings(
        num_workers=usable_workers(args.workers, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        distributed=args.distributed,
        pin_memory=args.pin_mem,
        device=ready.device,
        img_dtype=ready.dtype,
        use_prefetcher=not args.no_prefetcher,
    )
    return create_eval_loader(dataset, ready.data_config, args.batch_size, settings)


def measure_cost(args: Namespace, ready: EvaluationModel) -> Result:
    """Return parameters (millions), multiply-adds of an image (10^9), and the latency of an image in milliseconds."""
    image = ready.random_image()
    with ready.autocast():
        macs = count_macs(ready.model, image)
    if macs.uncounted:
        _logger.warning(f"GMACs leave out {', '.join(macs.uncounted)}, which PyTorch's counter does not know")
    cost: Result = {
        "param_count": round(count_parameters(ready.model) / 1e6, 4),
        "gmacs": None if macs.count is None else round(macs.count / 1e9, 4),
        "latency_ms": None,
        "latency_p95_ms": None,
    }
    if not args.no_latency and utils.is_primary(args):

        @torch.inference_mode()
        def run() -> None:
            with ready.autocast():
                predict(ready.run, image, args.tta)

        latency = measure_latency(run, ready.device)
        cost |= {"latency_ms": round(latency.median, 4), "latency_p95_ms": round(latency.p95, 4)}
        cost["latency_runs"] = latency.runs
    if args.distributed:
        torch.distributed.barrier()  # the others would take processor time from what is being measured
    return cost


def cost_line(ready: EvaluationModel, cost: Result) -> str:
    """Return what a model costs in words."""
    parts = [f"{cost['param_count']:.2f} M parameters"]
    if unused := count_parameters(ready.model.projector):
        parts[0] += f" ({unused / 1e6:.2f} M of them the projection head, which predicts nothing)"
    parts.append("GMACs not countable" if cost["gmacs"] is None else f"{cost['gmacs']:.3f} GMACs")
    if cost["latency_ms"] is not None:
        parts.append(
            f"{cost['latency_ms']:.2f} ms for one image on {ready.device} (median of {cost['latency_runs']} runs, "
            f"95% within {cost['latency_p95_ms']:.2f} ms)"
        )
    return ", ".join(parts)


def progress(args: Namespace, batches: int) -> Callable[[int, AttributeEvaluator], None]:
    """Return what logs a line every --log-freq batches: the scores so far, of this process's share."""
    start = last = time.perf_counter()

    def log(batch: int, evaluator: AttributeEvaluator) -> None:
        nonlocal last
        now, before, last = time.perf_counter(), last, time.perf_counter()
        if batch % args.log_freq == 0 and utils.is_primary(args):
            so_far = evaluator.summary()
            rate = evaluator.num_samples / max(now - start, 1e-9)
            _logger.info(
                f"Test: [{batch + 1:>4d}/{batches}]  "
                f"Time: {now - before:.3f}s ({(now - start) / (batch + 1):.3f}s, {rate:>7.2f}/s)  "
                f"Loss: {so_far['loss']:>7.4f}  Acc@1: {so_far['top1']:>7.3f}  Acc@5: {so_far['top5']:>7.3f}"
            )

    return log


def report(metrics: Metrics, rate: float) -> None:
    """Log the metrics of each attribute as a table, and their means."""
    width = max(9, *(len(name) for name in metrics["attributes"]))
    sets = f"  {'mAP':>7}" if "map" in metrics else ""
    _logger.info(f"{'attribute':<{width}}   labels     loss    Acc@1    Acc@5  balanced       F1{sets}")
    rows = {**metrics["attributes"], "mean": metrics}
    for name, values in rows.items():
        _logger.info(
            f"{name:<{width}}  {values.get('count', ''):>7}  {values['loss']:>7.4f}  {values['top1']:>7.3f}  "
            f"{values['top5']:>7.3f}  {values['balanced_accuracy']:>8.3f}  {values['macro_f1']:>7.3f}"
            + (f"  {values['map']:>7.3f}" if "map" in values else "")
        )
    _logger.info(f"Every label of an image right (exact match): {metrics['exact_match']:.3f}  ({rate:.1f} images/s)")
    top1, top5 = metrics["top1"], metrics["top5"]
    _logger.info(f" * Acc@1 {top1:.3f} ({100 - top1:.3f}) Acc@5 {top5:.3f} ({100 - top5:.3f})")


def result_row(
    args: Namespace, ready: EvaluationModel, file: Path, checkpoint: Checkpoint, table: Table, metrics: Metrics
) -> Result:
    """Return what was scored and its scores, as columns of the results file."""
    return {
        "model": ready.model.config["arch"],
        "checkpoint": str(file),
        "split": table.path.stem,
        "use_ema": args.use_ema,
        "epoch": checkpoint.epoch,
        "images": len(table),
        "top1": metrics["top1"],
        "top1_err": 100 - metrics["top1"],
        "top5": metrics["top5"],
        "top5_err": 100 - metrics["top5"],
        "loss": metrics["loss"],
        **{name: metrics[name] for name in ("exact_match", "balanced_accuracy", "macro_f1", "map") if name in metrics},
        **attribute_columns(metrics["attributes"]),
    }


def per_class_folder(args: Namespace, file: Path, name: str, table: Table, several: bool) -> Path | None:
    """Return where the tables of a checkpoint's classes go; None without --per-class.

    Args:
        args: the flags.
        file: the checkpoint.
        name: its own among the checkpoints.
        table: what is scored.
        several: whether there may be others, with which it cannot share a folder.
    """
    if args.per_class is None:
        return None
    if args.per_class:
        return Path(args.per_class, name) if several else Path(args.per_class)
    weights = "-ema" if args.use_ema else ""
    if args.results_file:
        return Path(args.results_file).parent / f"{name}{weights}-{table.path.stem}-per-class"
    return file.parent / f"{stem(file)}{weights}-{table.path.stem}-per-class"


if __name__ == "__main__":
    main()
