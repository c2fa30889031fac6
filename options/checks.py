"""What a flag's value may be, which flags are refused, and which contradict each other. Imports no torch.

Each check of several flags is a line of a generator that yields one sentence for each thing wrong, written so that
it says what to type instead. `options.py` reports the first.
"""

import argparse
import ast
import glob
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Number:
    """A number that keeps a rule: the `type` of a flag, with the sentence to say when the rule is broken."""

    kind: type[int] | type[float]
    rule: str
    accepts: Callable[[float], bool]

    def __call__(self, text: str) -> float:
        """Return the number that `text` spells."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan  # no rule accepts it
        if not (math.isfinite(value) and self.accepts(value)):
            raise argparse.ArgumentTypeError(f"{text} is not {self.rule}")
        return value


COUNT = Number(int, "a whole number of at least 1", lambda n: n >= 1)
WHOLE = Number(int, "a whole number of at least 0", lambda n: n >= 0)
REAL = Number(float, "a number", lambda x: True)
POSITIVE = Number(float, "a number above 0", lambda x: x > 0)
NONNEGATIVE = Number(float, "a number of at least 0", lambda x: x >= 0)
PROBABILITY = Number(float, "a probability in 0..1", lambda x: 0 <= x <= 1)
FRACTION = Number(float, "a fraction in 0..1", lambda x: 0 <= x <= 1)
RATE = Number(float, "a number from 0 up to but not including 1", lambda x: 0 <= x < 1)


def views_at_test(text: str) -> int:
    """Return the number of copies of an image to average over when scoring."""
    if text not in ("0", "2"):
        rule = "0 (off) or 2 (the image and its mirror image, averaged): no other set of copies is defined"
        raise argparse.ArgumentTypeError(f"{text} is not {rule}")
    return int(text)


# For each policy, what may follow its name. timm skips a section it cannot read; a misspelling should not be skipped.
_AUGMENT_SECTION = {
    "rand": r"(m|n|inc|mmax)\d+|(p|mstd)\d+(\.\d*)?|t(weights|3a|3aw|default)",
    "augmix": r"[mwdb]\d+|(a|mstd)\d+(\.\d*)?",
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), r"mstd\d+(\.\d*)?"),
}


def auto_augment(text: str) -> str:
    """Return an augmentation policy, such as `rand-m9-mstd0.5-inc1`, whose every section timm understands."""
    policy, *sections = text.split("-")
    if policy not in _AUGMENT_SECTION:
        raise argparse.ArgumentTypeError(f"'{text}' does not begin with a policy: {', '.join(_AUGMENT_SECTION)}")
    for section in sections:
        if not re.fullmatch(_AUGMENT_SECTION[policy], section):
            raise argparse.ArgumentTypeError(f"'{section}' in '{text}' is not a setting of {policy}, such as mstd0.5")
    return text


def predictions_file(text: str) -> str:
    """Return a file name whose ending says how to write the predictions."""
    if not text.endswith((".csv", ".json", ".parquet")):
        raise argparse.ArgumentTypeError(f"'{text}' does not end in .csv, .json or .parquet")
    return text


def weight(text: str) -> tuple[str, float]:
    """Return the name and the number of `color=2`. A name may hold an equals sign, a number cannot."""
    name, _, number = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not name=weight, such as color=2")
    return name, NONNEGATIVE(number)


def keyword(text: str) -> tuple[str, Any]:
    """Return the name and the Python value of `depth=3`; what is no Python value is a string."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not name=value, such as act_layer=silu")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


# Two ways to say one thing: (flag, flag, why not both).
EXCLUSIVE = [
    ("lr", "lr_base", "--lr-base computes the learning rate from the global batch size"),
    ("drop_connect", "drop_path", "they are two names for one thing, and --drop-path is the current one"),
    ("img_size", "input_size", "both set the image size, and --input-size sets the channels too"),
]

# A word that says what another flag then is: (flag, word, the other flag, its value, why no other value goes with it).
IMPLIES = [
    ("contrastive", "none", "simclr_loss_weight", 0.0, "none leaves no SimCLR loss to weigh; leave one of them out"),
]

_HEADS = "it makes a view for the attribute heads, which that loss alone trains"
_PROJECTED = "at weight 0 there is no projection head"

# (flag, the flag without which it would do nothing, why).
NEEDS = [
    ("amp_dtype", "amp", "it is the number format of mixed precision"),
    *((dest, "classification_loss_weight", _HEADS) for dest in ("classify_view", "mixup", "cutmix", "cutmix_minmax")),
    ("smoothing", "classification_loss_weight", "it smooths the targets of that loss"),
    *((dest, "simclr_loss_weight", _PROJECTED) for dest in ("projection_dim", "projection_layers", "projection_norm")),
    ("temperature", "simclr_loss_weight", "it is the contrastive loss's, which is off at weight 0"),
    ("clip_mode", "clip_grad", "nothing is clipped without a limit"),
    (
        "contrastive_batch_size",
        "simclr_loss_weight",
        "at weight 0 no images are contrasted; --grad-accum-steps makes larger updates",
    ),
    ("contrastive", "simclr_loss_weight", "at weight 0 there is no such loss, as with --contrastive none"),
    ("jsd", "aug_splits", "the loss compares at least two splits (--aug-splits 3)"),
    ("knn_images", "knn_interval", "at 0 no neighbors are looked for"),
    ("layer_decay_min_scale", "layer_decay", "it is the floor of that decay"),
    ("layer_decay_no_opt_scale", "layer_decay", "it freezes layers below a scale that only the decay gives"),
    ("lr_base_scale", "lr_base", "it says how the base rate grows with the batch"),
    ("lr_base_size", "lr_base", "it is the batch size that the base rate is for"),
    ("mask_false_negatives", "simclr_loss_weight", "at weight 0, or with --contrastive none, there are no negatives"),
    ("model_ema_force_cpu", "model_ema", "there is no average to keep on the CPU"),
    ("no_resume_opt", "resume", "there is no optimizer state to leave out"),
    ("resplit", "reprob", "nothing is erased at probability 0"),
    ("unlabeled", "simclr_loss_weight", "images without labels teach the contrastive loss alone"),
    ("unlabeled_ratio", "simclr_loss_weight", "images without labels teach the contrastive loss alone"),
    ("torchcompile_mode", "torchcompile", "it is a setting of the compiler"),
    ("wandb_project", "log_wandb", "nothing is sent otherwise"),
]

# What SimCLR's policy of views replaces.
TIMM_VIEWS = (
    "no_aug", "train_crop_mode", "color_jitter", "color_jitter_prob", "grayscale_prob", "gaussian_blur_prob", "aa",
    "aug_splits",
)  # fmt: skip

_TABLE = "data come as tables, one row an image; leave it out, and see README for the columns"
_CLASSES = "the classes come from the table, each attribute its own; leave it out, or list every class in all.csv"
_SAVED_CLASSES = "the checkpoint holds its attributes and their classes; leave it out"
_APEX = "NVIDIA Apex's mixed precision is no longer developed; use --amp, which is PyTorch's own"
_TORCHSCRIPT = (
    "TorchScript is deprecated in PyTorch and cannot express a model that returns different things in training "
    "and evaluation; use --torchcompile"
)
_IMAGENET = "it is about ImageNet's own labels; leave it out, and correct the labels in the table itself"

TRAIN_REFUSALS = {"dataset": _TABLE, "num_classes": _CLASSES, "apex_amp": _APEX, "torchscript": _TORCHSCRIPT}
VALIDATE_REFUSALS = {
    "dataset": _TABLE,
    "num_classes": _SAVED_CLASSES,
    "class_map": _SAVED_CLASSES,
    "gp": "the checkpoint says how its model pools; leave it out",
    "pretrained": "ImageNet weights know none of the table's attributes; use --checkpoint",
    "num_gpu": "one process drives one GPU; start several with torchrun --nproc-per-node N validate.py",
    "apex_amp": _APEX,
    "tf_preprocessing": "it needs TensorFlow 1 and matched only weights converted from it; use --interpolation",
    "torchscript": _TORCHSCRIPT,
    "legacy_jit": "it chose between executors of TorchScript, which is deprecated; use --torchcompile",
    "real_labels": _IMAGENET,
    "valid_labels": _IMAGENET,
}


def flag(dest: str) -> str:
    """Return a value's name as it is typed: `--batch-size` for `batch_size`."""
    return "--" + dest.replace("_", "-")


def refused(args: argparse.Namespace, defaults: Mapping[str, Any], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each flag that is accepted only to say why it is not, and what to do instead."""
    for dest, reason in reasons.items():
        harmless = (defaults[dest], "table") if dest == "dataset" else (defaults[dest],)
        if getattr(args, dest) not in harmless:
            yield f"{flag(dest)} is refused: {reason}"


def missing(args: argparse.Namespace, defaults: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each flag given without the flag that would give it something to do."""
    for dest, needed, because in NEEDS:
        # --contrastive none is what its need is about, and needs nothing.
        if dest in defaults and getattr(args, dest) not in (defaults[dest], "none") and not getattr(args, needed):
            yield f"{flag(dest)} needs {flag(needed)}: {because}"
    views = getattr(args, "views", "timm")
    changed = [dest for dest in TIMM_VIEWS if dest in defaults and getattr(args, dest) != defaults[dest]]
    if views != "timm" and changed:
        yield f"{flag(changed[0])} needs --views timm: --views {views} is a policy of its own, set by --view-strength"
    if "classify_view" in defaults and _only_light_views(args):
        full = {*TIMM_VIEWS, "views", "view_strength", "scale", "reprob"} - {"no_aug"}
        for dest in [dest for dest in defaults if dest in full and getattr(args, dest) != defaults[dest]]:
            if (dest, args.augment_on) != ("views", "device"):  # where the light view is of that kind too
                yield f"{flag(dest)} needs -wls above 0: --classify-view weak alone makes one view, cropped and flipped"
    if getattr(args, "augment_on", "cpu") == "device":
        yield from _device_conflicts(args)
    elif getattr(args, "cache", "none") == "device":
        yield "--cache device needs --augment-on device: views that workers make need their images in the host's memory"
    if views == "timm" and "views" in defaults and args.view_strength != defaults["view_strength"]:
        yield "--view-strength needs --views simclr or simclr-keepcolor: timm's views have flags of their own"


def missing_files(args: argparse.Namespace) -> Iterator[str]:
    """Yield what an option names and is not there, so that it is said before torch is imported."""
    given = vars(args)
    for folder, split in (("data_dir", "train_split"), ("data", "split")):
        # A split may be a file, wherever it is, and needs no folder then.
        if given.get(folder) and not Path(given[folder]).is_dir() and not Path(given[split]).is_file():
            place = Path(given[folder])
            if place.is_file():
                yield f"{place} is a file, and DATA a folder: give {place.parent}, and {flag(split)} {place.stem}"
            else:
                yield f"no such data folder: {place}"
    for path in given.get("input", ()):
        if not Path(path).exists():
            yield f"no such image, folder or table: {path}"
    # A run that is resumed has its weights from there: those that it once began with may be gone.
    weights = ("resume",) if given.get("resume") else ("checkpoint", "initial_checkpoint", "pretrained_path")
    for dest in weights:
        path = given.get(dest)
        if path and not Path(path).exists() and not glob.has_magic(path):
            yield f"{flag(dest)}: no such file: {path}"


def _device_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what --augment-on device cannot do."""
    if args.views == "timm":
        yield "--augment-on device needs --views simclr or simclr-keepcolor: timm's policies are made on the CPU"
    if args.no_prefetcher:
        yield "--augment-on device excludes --no-prefetcher: it is the prefetcher that makes the views"
    if args.train_interpolation not in ("random", "bilinear", "bicubic"):
        yield f"--augment-on device resizes bilinear, bicubic or random, not {args.train_interpolation}"


def preprocessing_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags that describe the model's input, in every script."""
    channels = args.input_size[0] if args.input_size else 3
    if channels not in (1, 3):
        yield f"--input-size has {channels} channels: images are read as gray (1) or RGB (3)"
    for dest in ("mean", "std"):
        values = getattr(args, dest)
        if values and len(values) not in (1, channels):
            yield f"{flag(dest)} has {len(values)} values: give 1 for all channels or {channels}, one for each"


def validate_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of `validate.py`."""
    if not args.data:
        yield "DATA is missing: the folder that holds val.csv or test.csv"
    yield from inference_conflicts(args)


def inference_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of `inference.py`."""
    yield from preprocessing_conflicts(args)
    yield from _precision_conflicts(args)
    if not args.checkpoint:
        yield "--checkpoint is missing: the file that holds the trained model (model_best.pth.tar of a run)"


def train_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of `train.py`."""
    if not args.data_dir:
        yield "DATA is missing: the folder that holds train.csv (or --data-dir, or data_dir in the YAML file)"
    yield from preprocessing_conflicts(args)
    yield from _precision_conflicts(args)
    yield from _loss_conflicts(args)
    yield from _schedule_conflicts(args)
    yield from _stage_conflicts(args)
    yield from _augmentation_conflicts(args)
    yield from _process_conflicts(args)


def _precision_conflicts(args: argparse.Namespace) -> Iterator[str]:
    if args.amp and getattr(args, "model_dtype", None) not in (None, "float32"):
        yield f"--amp and --model-dtype {args.model_dtype} exclude each other: mixed precision keeps float32 weights"


def _loss_conflicts(args: argparse.Namespace) -> Iterator[str]:
    if args.simclr_loss_weight == 0 and args.classification_loss_weight == 0:
        where = f" ({args.config} sets what the command line does not)" if args.config else ""
        yield f"--simclr-loss-weight and --classification-loss-weight are both 0{where}: nothing is left to train"
    chunk, joint = args.batch_size, args.contrastive_batch_size or args.batch_size
    if joint % chunk:
        nearest = " or ".join(str(n) for n in (joint // chunk * chunk, (joint // chunk + 1) * chunk) if n)
        yield f"--contrastive-batch-size {joint} is not a multiple of --batch-size {chunk}: use {nearest}"
    if args.mask_false_negatives and args.contrastive == "supcon":
        yield (
            "--mask-false-negatives needs --contrastive ntxent or dcl: for supcon images that share labels are "
            "positives, not negatives"
        )
    names = args.attributes or []
    if len(set(names)) < len(names):
        yield f"--attributes names a column twice: {' '.join(names)}"
    strangers = [name for name in args.attribute_weights if names and name not in names]
    if strangers:
        yield f"--attribute-weights names '{strangers[0]}', which --attributes leaves out: {' '.join(names)}"
    if names and (strangers := [name for name in args.multi_valued or [] if name not in names]):
        yield f"--multi-valued names '{strangers[0]}', which --attributes leaves out: {' '.join(names)}"
    if names and not any(args.attribute_weights.get(name, 1.0) for name in names):
        yield "--attribute-weights are all 0: use -wlc 0 to train without labels"


def _schedule_conflicts(args: argparse.Namespace) -> Iterator[str]:
    if args.sched == "plateau" and args.sched_on_updates:
        yield "--sched plateau excludes --sched-on-updates: the metric it watches is known once an epoch"
    for dest, otherwise in ("layer_decay", None), ("backbone_lr_scale", 1.0):
        if args.sched == "none" and getattr(args, dest) != otherwise:
            yield f"{flag(dest)} needs a schedule, which applies its factors: use --sched constant"
    if args.decay_milestones != sorted(set(args.decay_milestones)):
        yield "--decay-milestones must rise: each is the epoch of one more decay"
    if args.sched in ("wsd", "rsqrt"):
        span = args.epochs if args.warmup_prefix else args.epochs - args.warmup_epochs
        decay = args.decay_epochs * span if args.decay_epochs < 1 else args.decay_epochs
        if not (span > 0 and 0 < decay <= span and (args.sched_on_updates or round(decay) >= 1)):
            yield (
                f"--sched {args.sched} needs --decay-epochs, here {args.decay_epochs:g}, to be from 1 to the "
                f"{max(span, 0)} epochs after warm-up, or a fraction of them that makes an epoch (0.2)"
            )
    if len(args.lr_noise or []) > 2:
        yield "--lr-noise takes 1 or 2 values: the fractions of the schedule where noise begins and ends"


def _stage_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with training a part of the model."""
    about_labels = {"class_weights": "none", "logit_adjustment": 0, "balance": "fixed", "multi_valued_loss": "bce"}
    for dest, off in about_labels.items():
        if getattr(args, dest) != off and not args.classification_loss_weight:
            yield f"{flag(dest)} needs -wlc above 0: it is about the classification loss"
    if args.class_weights != "none" and args.jsd:
        yield "--class-weights excludes --jsd, whose other term has no classes to weigh: use --logit-adjustment"
    if args.classify_view == "both" and not args.simclr_loss_weight:
        yield "--classify-view both needs -wls above 0: without the contrastive loss an image has one view"
    if args.head_grad == "detach" and not args.simclr_loss_weight:
        yield "--head-grad detach needs -wls above 0: nothing else would train the backbone (--freeze-backbone says so)"
    if args.head_grad == "detach" and not args.classification_loss_weight:
        yield "--head-grad detach needs -wlc above 0: without the classification loss nothing trains the heads"
    if not args.freeze_backbone:
        return
    if args.simclr_loss_weight:
        yield "--freeze-backbone needs -wls 0: the contrastive loss is there to train the backbone"
    if not (args.pretrained or args.pretrained_path or args.initial_checkpoint or args.resume):
        yield "--freeze-backbone needs weights to keep: --initial-checkpoint, --pretrained or --pretrained-path"
    for dest, otherwise in ("layer_decay", None), ("backbone_lr_scale", 1.0):
        if getattr(args, dest) != otherwise:
            yield f"{flag(dest)} excludes --freeze-backbone: the backbone does not learn at any rate"
    if args.save_images and args.no_aug:
        yield "--save-images excludes --freeze-backbone with --no-aug: there images are seen once, to make features"


def _mixing(args: argparse.Namespace) -> bool:
    """Whether images are mixed, in a full view of their own."""
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


def _only_light_views(args: argparse.Namespace) -> bool:
    return args.classify_view == "weak" and not args.simclr_loss_weight and not _mixing(args)


def _augmentation_conflicts(args: argparse.Namespace) -> Iterator[str]:
    mixing = _mixing(args)
    if mixing and args.batch_size % 2:
        yield f"--mixup and --cutmix need an even --batch-size, not {args.batch_size}: they mix images in pairs"
    ratio = args.unlabeled_ratio or 0.0
    extra = round(ratio * args.batch_size)
    if ratio and not extra:
        yield f"--unlabeled-ratio {ratio:g} of --batch-size {args.batch_size} is no image: raise either"
    if ratio and args.aug_repeats:
        yield "--unlabeled and --unlabeled-ratio exclude --aug-repeats: each has an order of its own"
    if mixing and (args.aug_splits or args.jsd):
        yield "--mixup and --cutmix exclude --aug-splits and --jsd: mixed images have no single label to compare"
    if args.aug_splits == 1:
        yield "--aug-splits 1 splits nothing: use 0, or at least 2 (one clean split and one augmented)"
    if args.classify_view in ("both", "weak") and args.aug_splits:
        yield f"--classify-view {args.classify_view} excludes --aug-splits: the splits are what the heads read"
    if args.aug_repeats and args.simclr_loss_weight > 0:
        yield "--aug-repeats needs -wls 0: an image's copies on other processes would be its own negatives"
    if args.no_aug and args.simclr_loss_weight > 0:
        yield "--no-aug needs -wls 0: without augmentation both views would be the same image"
    if args.no_aug and args.aug_splits:
        yield "--no-aug excludes --aug-splits: the splits would be the same image"
    if args.resplit and args.no_prefetcher:
        yield "--resplit excludes --no-prefetcher: without it images are erased one by one, before there is a batch"
    for dest in ("scale", "ratio", "cutmix_minmax"):
        low, high = getattr(args, dest) or (0, 0)
        if low > high:
            yield f"{flag(dest)} goes from {low:g} down to {high:g}: give the smaller value first"
    if isinstance(args.color_jitter, list) and len(args.color_jitter) not in (3, 4):
        yield "--color-jitter takes 1 value, or 3 (brightness, contrast, saturation), or 4 (and hue)"
    if isinstance(args.color_jitter, list) and args.color_jitter[3:] and args.color_jitter[3] > 0.5:
        yield f"--color-jitter turns the hue by at most 0.5 (half the color circle), not {args.color_jitter[3]:g}"


def _process_conflicts(args: argparse.Namespace) -> Iterator[str]:
    views = 2 if args.simclr_loss_weight > 0 else 1
    if args.split_bn and views * max(args.aug_splits, 1) < 2:
        yield "--split-bn needs at least two views: use --aug-splits, or -wls above 0"
    if args.split_bn and args.sync_bn:
        yield "--split-bn excludes --sync-bn: both replace the model's batch norm layers"
    if args.dist_bn and args.sync_bn:
        yield "--dist-bn excludes --sync-bn: synchronized statistics are the same on every process already"
    if args.cache_dir and args.cache != "disk":
        yield f"--cache-dir needs --cache disk, not {args.cache}: nothing else is kept in a folder"
    if args.local_rank and os.environ.get("LOCAL_RANK") != str(args.local_rank):
        yield (
            f"--local-rank {args.local_rank} needs the same LOCAL_RANK in the environment: "
            "start with distributed_train.sh or torchrun, which set it"
        )
