"""The flags of train.py. Those about the model, losses, optimizer and views are in the other train_*.py files."""

import argparse
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from options.parser import Group, Parser, parse
from options.rules import Need, above, on
from options.run_folder import AUTO, auto_folder
from options.shared import (
    APEX_REFUSED,
    ON_GPU,
    SEVERAL,
    TABLE_REFUSED,
    TORCHSCRIPT_REFUSED,
    image_root_flag,
    model_dtype_flag,
    precision_flags,
    preprocessing_flags,
    shared_conflicts,
    tta_flag,
    unreadable_flag,
)
from options.train_kwargs import unlabeled_ratio
from options.train_loading import LOADED_AGAIN, train_loading_flags
from options.train_losses import attribute_flags, loss_conflicts, simclr_flags
from options.train_model import batch_norm_flags, ema_flags, model_conflicts, model_flags, regularization_flags
from options.train_optimizer import optimizer_flags, schedule_conflicts, schedule_flags
from options.train_pseudo import has_soft_labels, has_teacher, pseudo_conflicts, pseudo_flags
from options.train_views import augmentation_flags, mixing_flags, view_conflicts, view_flags
from options.values import BATCH, COUNT, POSITIVE, SEED, STEPS, WHOLE, steps_or_time

_SENT = Need(
    "--log-wandb or --log-trackio",
    ("log_wandb", "log_trackio"),
    lambda args: args.log_wandb or args.log_trackio,
    "nothing is sent otherwise",
)

# Without any of these, the heads on a frozen backbone are solved.
_ABOUT_TRAINING = {
    *("opt", "opt_eps", "opt_betas", "momentum", "weight_decay", "clip_grad", "clip_mode", "gradient_centralization"),
    *("opt_kwargs", "opt_foreach", "sched", "lr", "lr_base", "epochs", "steps", "start_epoch", "warmup_epochs"),
    *("warmup_steps", "warmup_lr", "cooldown_epochs", "min_lr", "decay_epochs", "decay_rate", "decay_milestones"),
    *("patience_epochs", "lr_noise", "lr_cycle_limit", "lr_k_decay", "grad_accum_steps", "reprob", "mixup", "cutmix"),
    *("cutmix_minmax", "drop", "smoothing", "balance", "multi_valued_loss", "model_ema", "val_interval"),
    *("recovery_interval", "refit_heads", "resume", "pseudo", "pseudo_labels", "early_stop"),
}


def parse_train_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of train.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(train_parser(), argv, check_paths, _conflicts)


def resolve_eval_metric(asked: str | None, heads_learn: bool, only_sets: bool) -> str:
    """Return the column of summary.csv that decides which checkpoint is best.

    Args:
        asked: the value of --eval-metric; None if it was not given.
        heads_learn: whether the classification loss has a weight.
        only_sets: whether every attribute is multi-valued.
    """
    if asked is not None:
        return asked
    if not heads_learn:
        return "simclr_loss"  # untrained heads guess
    return "map" if only_sets else "top1"  # a whole set of values is hardly ever right


def train_parser() -> Parser:
    """Return the parser of train.py."""
    parser = Parser("train.py", "Train one model for every attribute of a table, with SimCLR.", "DATA [flags]")
    _dataset_flags(parser.group("Dataset"))
    attribute_flags(parser.group("Attributes", "What is classified, and how attributes and classes are weighted."))
    model_flags(parser.group("Model"))
    preprocessing_flags(parser.group("Preprocessing"), "the model's own")
    simclr_flags(parser.group("SimCLR", "The contrastive loss between two views of each image."))
    pseudo_flags(parser.group("Soft targets", "What the model learns from cells without a label."))
    optimizer_flags(parser.group("Optimizer"))
    schedule_flags(parser.group("Schedule", "The learning rate over the run."))
    view_flags(parser.group("Views", "How the two views of an image are made."))
    augmentation_flags(parser.group("Augmentation", "timm's augmentation of the views and of classified images."))
    mixing_flags(parser.group("Mixing", "Mixup and cutmix. Only the attribute heads read mixed images."))
    regularization_flags(parser.group("Regularization"))
    batch_norm_flags(parser.group("Batch norm"))
    ema_flags(parser.group("EMA", "A moving average of the weights."))
    _running_flags(parser.group("Running"))
    _process_flags(parser.group("Processes", "See distributed_train.sh."))
    group = parser.group("Device and precision")
    precision_flags(group)
    model_dtype_flag(group)
    hard = "mode of torch.compile: default, reduce-overhead, max-autotune, ..."
    compiler = on("torchcompile", "it is a setting of the compiler")
    eager = Need(
        "--torchcompile eager or aot_eager",
        ("torchcompile",),
        lambda args: "eager" not in (args.torchcompile or ""),
        "these backends generate no code and ignore the mode",
        verb="excludes",
    )
    group.value("--torchcompile-mode", "NAME", None, hard, needs=(compiler, eager))
    train_loading_flags(parser.group("Loading"))
    _refused(parser)
    parser.settle = _settle_probe
    return parser


def _settle_probe(args: argparse.Namespace, given: Collection[str]) -> dict[str, Any]:
    """Return the options that solve a linear probe in one pass, unless a given flag is about training its heads."""
    probe = args.freeze_backbone and args.no_aug and args.classification_loss_weight and not args.simclr_loss_weight
    return {"epochs": 0, "refit_heads": True} if probe and not _ABOUT_TRAINING & set(given) else {}


def _dataset_flags(group: Group) -> None:
    add = group.value
    add("--config -c", "FILE", "", "YAML file of flags, such as a run's args.yaml; typed flags win")
    add("data_dir", "DATA", None, "folder that holds the tables: train.csv, val.csv, ...", nargs="?")
    add("--data-dir", "DATA", None, "DATA as a flag")
    add("--train-split", "NAME", "train", "table to train on; train means train.csv")
    learning = Need(
        "-wls above 0, --pseudo ema or --pseudo-labels",
        ("simclr_loss_weight", "pseudo", "pseudo_labels", "pseudo_weight"),
        lambda args: args.simclr_loss_weight > 0 or has_teacher(args) or has_soft_labels(args),
        "nothing else learns from images without labels",
    )
    needs = (learning,)
    images = "more images without labels: folders, tables, image files or glob patterns"
    add("--unlabeled", "PATH", None, images, nargs="+", action="extend", needs=needs)
    ratio = (
        "unlabeled images in a batch for each labeled one; --batch-size counts only the labeled ones, and the others "
        "come from --unlabeled and the table (default: 1 with --unlabeled, else batches mix all rows of the table)"
    )
    add("--unlabeled-ratio", POSITIVE, None, ratio, needs=needs)
    add("--val-split", "NAME", "validation", "table to score during training; validation means val.csv")
    image_root_flag(group)
    unreadable_flag(group)


def _running_flags(group: Group) -> None:
    add, switch = group.value, group.switch
    # batches and scores
    size = "images per process and step; with --contrastive-batch-size, images in memory at a time"
    add("--batch-size -b", BATCH, 32, size)
    add("--validation-batch-size-multiplier -vb", COUNT.to(1000), 1, "factor on --batch-size when scoring")
    steps = "steps that accumulate gradients for one update; unlike --contrastive-batch-size, it adds no negatives"
    add("--grad-accum-steps", COUNT, 1, steps)
    add("--seed", SEED, 42, "seed of all random numbers; each process adds its rank")
    often = "epochs between scorings (default: 1; with --steps as many as make about 20 scorings)"
    add("--val-interval", COUNT, None, often)
    worse = "scorings of --eval-metric without a better one after which the run stops (default: it never does)"
    trains = Need(
        "--epochs above 0", ("epochs", "steps"), lambda args: args.epochs > 0 or args.steps, "no epoch is trained"
    )
    add("--early-stop", COUNT, None, worse, needs=(trains,))
    knn = (
        "epochs between k-NN scorings of the representation (k = 20 and 200), with one more after the last epoch; "
        "0 is off"
    )
    add("--knn-interval", WHOLE, 10, knn)
    images = "maximum number of labeled training images in the k-NN index, sampled with --seed"
    needs: tuple[Need, ...] = (above(0, "knn_interval", "0 turns k-NN scoring off"),)
    add("--knn-images", COUNT, 10_000, images, needs=needs)
    tta_flag(group)

    # what a run leaves
    add("--output", "FOLDER", "", "folder for runs (default: output/train)")
    add("--experiment", "NAME", "", "name of the run's folder (default: time, model and image size)")
    best = (
        "column of summary.csv that decides which checkpoint is best (default: top1; simclr_loss with -wlc 0; map if "
        "every attribute is multi-valued)"
    )
    add("--eval-metric", "NAME", None, best)
    add("--checkpoint-hist", COUNT, 10, "number of best checkpoints to keep")
    between = "steps between recovery checkpoints, or the time since the last checkpoint, such as 10m; 0 writes none"
    add("--recovery-interval", steps_or_time, 0, between)
    unsaved = "what to do when a file cannot be written, such as on a full disk"
    add("--on-save-error", ["stop", "go-on"], "stop", unsaved)
    add("--log-interval", STEPS, 200, "steps between log lines")
    sheet = "save a picture of a batch's views, before mixing, at each log line"
    switch("--save-images", sheet, needs=(LOADED_AGAIN,))
    page = "leave report.html and a model card, from one more pass over at most 20,000 validation images"
    switch("--report", page, default=True)
    switch("--log-tensorboard", "write the scores, views and confusion matrices for TensorBoard, in the run's folder")
    switch("--log-wandb", "send the scores, views and confusion matrices to Weights & Biases")
    switch("--log-trackio", "write the same for Trackio, which needs no account")
    add(
        "--wandb-project",
        "NAME",
        None,
        "project of Weights & Biases or Trackio",
        needs=(_SENT,),
    )
    switch("--synchronize-step", "wait for the device after each step, to time it", needs=(ON_GPU,))


def _process_flags(group: Group) -> None:
    add, switch = group.value, group.switch
    add("--local_rank --local-rank", WHOLE, 0, "set by the launcher")
    backend = "backend of the process group: nccl, gloo, ... (default: by device)"
    add("--dist-backend", "NAME", None, backend, needs=(SEVERAL,))
    waits = "minutes that a process waits for the others before the run ends, as while one fills a --cache"
    add("--dist-timeout", POSITIVE, 30.0, waits, needs=(SEVERAL,))
    switch("--no-ddp-bb", "do not broadcast buffers from rank 0 before each step", needs=(SEVERAL,))


def _refused(parser: Parser) -> None:
    """Declare the original's flags that are refused."""
    refuse = parser.group("Refused").refuse
    refuse("--dataset -d", "NAME", "", TABLE_REFUSED, off=("table",))
    classes = "each attribute's classes come from the table; leave it out, or list every class in all.csv"
    refuse("--num-classes", COUNT, None, classes)
    refuse("--apex-amp", None, False, APEX_REFUSED)
    refuse("--torchscript", None, False, TORCHSCRIPT_REFUSED)


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.data_dir:
        yield "DATA is missing: the folder that holds train.csv (or --data-dir, or data_dir in the YAML file)"
    if Path(args.experiment).is_absolute() or ".." in Path(args.experiment).parts:
        yield f"--experiment {args.experiment} lies outside --output: give a plain name, and the folder with --output"
    if args.resume == AUTO and auto_folder(args) is None:
        yield (
            "--resume auto needs --experiment NAME, the name of the run's folder, or -c FOLDER/args.yaml of a run: "
            "otherwise it does not know where to look"
        )
    yield from shared_conflicts(args)
    yield from loss_conflicts(args)
    yield from schedule_conflicts(args)
    yield from model_conflicts(args)
    yield from _unlabeled_conflicts(args)
    yield from view_conflicts(args)
    yield from pseudo_conflicts(args)
    yield from _process_conflicts(args)


def _unlabeled_conflicts(args: argparse.Namespace) -> Iterator[str]:
    ratio = unlabeled_ratio(args)
    if ratio and not round(ratio * args.batch_size):
        yield f"--unlabeled-ratio {ratio:g} with --batch-size {args.batch_size} adds no image: raise either"
    if ratio and args.aug_repeats:
        yield "--unlabeled and --unlabeled-ratio exclude --aug-repeats: each draws the images in its own order"


def _process_conflicts(args: argparse.Namespace) -> Iterator[str]:
    if args.cache == "device" and args.augment_on != "device":
        yield "--cache device needs --augment-on device: workers make views from images in the host's memory"
    if args.local_rank and os.environ.get("LOCAL_RANK") != str(args.local_rank):
        yield (
            f"--local-rank {args.local_rank} needs the same LOCAL_RANK in the environment: "
            "start with distributed_train.sh or torchrun, which set it"
        )
