"""The flags of train.py about the model: weights, dropout, batch norm, moving average."""

import argparse
from collections.abc import Iterator
from dataclasses import replace

from options.parser import Group
from options.rules import Implied, Need, off, on, repeated, with_contrast, with_labels
from options.shared import ON_GPU, SEVERAL
from options.train_optimizer import GENTLE_RATE
from options.values import FRACTION, POSITIVE, RATE, keyword

# Logged, because resuming repeats the flags of the run, among them the weights that it started from.
_STARTING = Need(
    "--resume",
    ("resume",),
    lambda args: not args.resume,
    "the weights come from --resume",
    noted=True,
    verb="excludes",
)
_FROZEN = off("freeze_backbone", "a frozen backbone stays in evaluation mode")
_TRAINED = Need(
    "--pretrained, --pretrained-path, --initial-checkpoint or --resume",
    ("pretrained", "initial_checkpoint", "resume"),
    lambda args: bool(not args.freeze_bn or args.pretrained or args.initial_checkpoint or args.resume),
    "a backbone with random weights has no statistics to keep",
)
_PROBED = replace(
    _TRAINED,
    met=lambda args: bool(args.pretrained or args.initial_checkpoint or args.resume),
    because="the features of random weights are not worth a probe",
)
_PROJECTED = ("projection_norm", "simclr_loss_weight")
# The stages of a training share the flags of the model, so these are logged too.
_DROPS = replace(_FROZEN, noted=True)


def _statistics_move(args: argparse.Namespace) -> bool:
    """Return whether a batch norm changes its running statistics; --freeze-bn leaves the projection head's alone."""
    return not args.freeze_bn or (args.projection_norm == "batch" and bool(args.simclr_loss_weight))


def _moving(because: str) -> Need:
    """Return the need for statistics that move."""
    wanted = "--freeze-bn without --projection-norm batch"
    return Need(wanted, ("freeze_bn", *_PROJECTED), _statistics_move, because, verb="excludes")


def model_flags(group: Group) -> None:
    """Declare the architecture and the weights that it starts from."""
    add, switch = group.value, group.switch
    add("--model", "NAME", "efficientnet_b0", "architecture of the backbone, any of timm's")
    overwritten = off("initial_checkpoint", "that checkpoint overwrites the pretrained weights; leave one of them out")
    only_switch = replace(overwritten, met=lambda args: not args.initial_checkpoint or bool(args.pretrained_path))
    switch("--pretrained", "start the backbone from timm's pretrained weights", needs=(only_switch, _STARTING))
    named = Implied((), "pretrained", True, "the file holds pretrained weights; leave one of them out")
    path = "local file of pretrained backbone weights: timm's, or a checkpoint of this project; implies --pretrained"
    add("--pretrained-path", "FILE", "", path, implies=named, needs=(overwritten, _STARTING))
    start = "start the model from a checkpoint of this project or of the original, or from timm's weights"
    add("--initial-checkpoint", "FILE", "", start, needs=(_STARTING,))
    again = (
        "checkpoint of a run to resume, with its weights, optimizer, epoch and best score; auto: the newest in the "
        "folder of --experiment that can be used, or a fresh start"
    )
    add("--resume", "FILE", "", again)
    switch("--freeze-backbone", "train only the heads (a linear probe); with --no-aug features are computed only once")
    nothing = with_contrast("nothing else would train the backbone (--freeze-backbone trains only the heads)")
    needs: tuple[Need, ...] = (nothing, with_labels("without the classification loss nothing trains the heads"))
    _solved_head_flags(group)
    gradients = "whether the heads' gradients also train the backbone (joint) or stop before it (detach)"
    add("--head-grad", ["joint", "detach"], "joint", gradients, needs=needs)
    needs = (on("resume", "there is no optimizer state to leave out"),)
    switch("--no-resume-opt", "resume without the states of the optimizer and of the loss scaler", needs=needs)
    add("--gp", "NAME", None, "global pooling: avg, max, avgmax, ... (default: the model's own)")
    group.pairs("--model-kwargs", keyword, "NAME=VALUE", "further arguments of the model, such as act_layer=silu")
    needs = (off("freeze_backbone", "no gradient passes through a frozen backbone"),)
    switch("--grad-checkpointing", "recompute activations in the backward pass: less memory, more time", needs=needs)


def _solved_head_flags(group: Group) -> None:
    """Declare the heads that are solved instead of trained."""
    labels = with_labels("heads are solved from labels, and -wlc 0 has no use for heads")
    after = (
        "after the last epoch, solve the heads by logistic regression on the features of the training images; an "
        "attribute keeps the head that scores better on the validation split"
    )
    group.switch("--refit-heads", after, needs=(labels,))
    fixed = off("freeze_backbone", "fine-tuning trains the backbone; use --refit-heads")
    before = (
        "before the first epoch, solve the heads by logistic regression on the features of the first weights, and "
        "fine-tune from there (arXiv:2202.10054)"
    )
    group.switch("--probe-first", before, needs=(labels, fixed, _PROBED))


def regularization_flags(group: Group) -> None:
    """Declare dropout in its forms."""
    add = group.value
    needs = (replace(with_labels("it drops inputs of the heads, which -wlc 0 does not train"), noted=True),)
    add("--drop", RATE, 0.0, "dropout before the attribute heads", needs=needs)
    names = ("drop_path", "they are two names of one setting; use --drop-path")
    add("--drop-connect", RATE, None, "older name of --drop-path", off=(0.0,), excludes=names, needs=(_DROPS,))
    depth = "probability of skipping a residual branch (stochastic depth)"
    add("--drop-path", RATE, None, depth, off=(0.0,), needs=(_DROPS,))
    blocks = "probability of dropping blocks of a feature map"
    add("--drop-block", RATE, None, blocks, off=(0.0,), needs=(_DROPS,))


def batch_norm_flags(group: Group) -> None:
    """Declare batch norm."""
    add, switch = group.value, group.switch
    both = Need(
        "--bn-momentum together with --bn-eps",
        ("bn_momentum", "bn_eps"),
        lambda args: args.bn_momentum is None or args.bn_eps is None,
        "they set both values that it sets; leave it out",
        verb="excludes",
    )
    only_momentum = Need(
        "--freeze-backbone together with --bn-eps",
        ("freeze_backbone", "bn_eps"),
        lambda args: not args.freeze_backbone or args.bn_eps is None,
        "a frozen backbone stays in evaluation mode and uses only epsilon; leave it out",
        verb="excludes",
    )
    kept = (
        "train with the backbone's running statistics, and leave them as they are; scales and shifts train (default: "
        "on where labels fine-tune trained weights with an optimizer of Adam's family at a learning rate of "
        f"{GENTLE_RATE:g} or less, unless --bn-tf, --bn-momentum, --sync-bn or --split-bn is given)"
    )
    fixed = off("freeze_backbone", "a frozen backbone keeps its statistics in any case; leave it out")
    switch("--freeze-bn", kept, default=None, needs=(fixed, _TRAINED))
    fixed_momentum = replace(
        only_momentum,
        wanted="--freeze-bn together with --bn-eps",
        dests=("freeze_bn", "bn_eps", *_PROJECTED),
        met=lambda args: _statistics_move(args) or args.bn_eps is None,
        because="frozen statistics have no momentum, which leaves epsilon; leave it out",
    )
    switch(
        "--bn-tf", "use TensorFlow's momentum and epsilon in batch norm", needs=(both, only_momentum, fixed_momentum)
    )
    momentum = "momentum of the running statistics (default: the model's own)"
    add("--bn-momentum", FRACTION, None, momentum, needs=(_FROZEN, _moving("frozen statistics have no momentum")))
    add("--bn-eps", POSITIVE, None, "epsilon of batch norm (default: the model's own)")
    measured = (_FROZEN, _moving("no statistics are computed"), SEVERAL)
    switch("--sync-bn", "compute batch norm statistics over all processes; needs CUDA", needs=measured)
    share = "share running statistics after each epoch: rank 0's (broadcast), or their mean (reduce)"
    same = replace(_moving("frozen statistics are the same on every process"), noted=True)
    add("--dist-bn", ["", "broadcast", "reduce"], "", share, needs=(_FROZEN, SEVERAL, same))
    needs = (_FROZEN, off("freeze_bn", "the views share the frozen statistics"))
    switch("--split-bn", "separate batch norm statistics for each view", needs=needs)


def ema_flags(group: Group) -> None:
    """Declare the moving average of the weights."""
    add, switch = group.value, group.switch
    averaged = (on("model_ema", "there is no average without it"),)
    switch("--model-ema", "keep a moving average of the weights, and score it too")
    switch("--model-ema-force-cpu", "keep the average in CPU memory", needs=(*averaged, ON_GPU))
    add("--model-ema-decay", RATE, 0.9998, "fraction of the average that an update keeps", needs=averaged)
    warmup = "start with a smaller decay, so that the average suits short runs too"
    switch("--model-ema-warmup", warmup, default=True, needs=averaged)


def model_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of this file."""
    depth = "drop_path" if args.drop_connect is None else "drop_connect"
    size = "img_size" if args.input_size is None else "input_size"
    named = {"global_pool": "gp", "drop_path_rate": depth, "drop_block_rate": "drop_block", "img_size": size}
    yield from repeated(args, "model_kwargs", {**named, "in_chans": "input_size"})
    yield from _freezing_conflicts(args)
    yield from _batch_norm_conflicts(args)


def _freezing_conflicts(args: argparse.Namespace) -> Iterator[str]:
    if not args.freeze_backbone:
        return
    if args.simclr_loss_weight:
        yield "--freeze-backbone needs -wls 0: the contrastive loss exists to train the backbone"
    if not (args.pretrained or args.initial_checkpoint or args.resume):
        yield "--freeze-backbone needs trained weights: --initial-checkpoint, --pretrained or --pretrained-path"


def _batch_norm_conflicts(args: argparse.Namespace) -> Iterator[str]:
    views = 2 if args.simclr_loss_weight > 0 else 1
    if args.split_bn and views * max(args.aug_splits, 1) < 2:
        yield "--split-bn needs at least two views: use --aug-splits, or -wls above 0"
    if args.split_bn and args.sync_bn:
        yield "--split-bn excludes --sync-bn: both replace the model's batch norm layers"
    if args.dist_bn and args.sync_bn:
        yield "--dist-bn excludes --sync-bn: synchronized statistics are the same on every process already"
