"""The flags of train.py about the optimizer and the learning rate schedule."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace

from options.parser import Group
from options.rules import Need, above, among, off, on, repeated
from options.values import COUNT, FRACTION, NONNEGATIVE, POSITIVE, RATE, STEPS, WHOLE, keyword

SCHEDULES = ["cosine", "tanh", "step", "multistep", "poly", "plateau", "wsd", "rsqrt", "constant", "none"]
DECAYS = ["linear", "1-sqrt", "cosine", "power", "exp"]

# the flag that sets each argument of an optimizer
_ARGUMENTS = {
    "lr": "lr",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "eps": "opt_eps",
    "betas": "opt_betas",
    "foreach": "opt_foreach",
    "layer_decay": "layer_decay",
}
GENTLE_RATE = 5e-4  # up to this rate of Adam's family, a pretrained backbone keeps its batch norm statistics by default
_CYCLIC = ("cosine", "tanh", "poly")
_PHASED = ("wsd", "rsqrt")
_LONGEST = 1_000_000  # epochs
_EPOCHS = POSITIVE.to(_LONGEST)  # a number of epochs, or a fraction of one


def _scheduled(because: str) -> Need:
    """Return the need for a schedule."""
    wanted = "a schedule, such as --sched constant"
    return Need(wanted, ("sched",), lambda args: bool(args.sched != "none"), because)


_UNTOUCHED = _scheduled("--sched none never changes the learning rate")
_SCALED = (
    off("freeze_backbone", "a frozen backbone does not learn"),
    _scheduled("only a schedule applies the factors"),
)


def optimizer_flags(group: Group) -> None:
    """Declare the optimizer."""
    add = group.value
    add("--opt", "NAME", "sgd", "any of timm's optimizers")
    add("--opt-eps", POSITIVE, None, "the optimizer's epsilon (default: its own)")
    add("--opt-betas", RATE, None, "the optimizer's betas (default: its own)", nargs="+")
    add("--momentum", RATE, 0.9, "momentum, for optimizers that have one")
    add("--weight-decay", NONNEGATIVE, 1e-4, "weight decay")
    add("--clip-grad", POSITIVE.to(1_000_000), None, "threshold of gradient clipping (default: no clipping)")
    modes = "clip the norm of all gradients, each entry, or each unit adaptively"
    needs: tuple[Need, ...] = (on("clip_grad", "nothing is clipped without a threshold"),)
    add("--clip-mode", ["norm", "value", "agc"], "norm", modes, needs=needs)
    centered = "subtract from each output's gradient its mean (arXiv:2004.01461)"
    group.switch("--gradient-centralization", centered)
    slower = "factor on the learning rate of the backbone, but not of the heads"
    add("--backbone-lr-scale", POSITIVE, 1.0, slower, needs=_SCALED)
    layers = "factor by which the learning rate falls from each layer to the one before it"
    add("--layer-decay", POSITIVE.to(1), None, layers, needs=_SCALED)
    needs = (on("layer_decay", "it limits that decay"),)
    add("--layer-decay-min-scale", FRACTION, 0.0, "smallest factor that the layer decay may reach", needs=needs)
    needs = (on("layer_decay", "only that decay gives layers a factor"),)
    add("--layer-decay-no-opt-scale", FRACTION, None, "freeze layers whose factor is below this one", needs=needs)
    group.pairs("--opt-kwargs", keyword, "NAME=VALUE", "further arguments of the optimizer, such as nesterov=False")
    group.switch("--opt-foreach", "update many tensors at a time (default: PyTorch's choice)", default=None)


def schedule_flags(group: Group) -> None:
    """Declare the schedule: its form, its base rate, its length and decays."""
    add = group.value
    forms = "schedule of the learning rate; constant changes it only by warm-up and noise, none never"
    add("--sched", SCHEDULES, "step", forms)
    plateau = Need(
        "--sched plateau",
        ("sched",),
        lambda args: bool(args.sched != "plateau"),
        "its metric is known only once per epoch",
        verb="excludes",
    )
    moving = Need(
        "--warmup-epochs or --lr-noise",
        ("sched", "warmup_epochs", "lr_noise"),
        lambda args: bool(args.sched != "constant" or args.warmup_epochs or args.lr_noise),
        "--sched constant alone keeps one rate at every update",
        only_with="--sched constant",
    )
    updates = "change the learning rate after each update instead of each epoch"
    already = replace(off("steps", "with --steps the learning rate changes after each update already"), noted=True)
    group.switch("--sched-on-updates", updates, needs=(plateau, _UNTOUCHED, moving, already))
    _rate_flags(group)
    _warmup_flags(group)
    _cycle_flags(group)
    _decay_flags(group)


def _rate_flags(group: Group) -> None:
    """Declare the base rate and its noise."""
    add = group.value
    base = ("lr_base", "--lr-base computes the learning rate from the global batch size")
    add("--lr", POSITIVE, 0.01, "learning rate after warm-up", excludes=base)
    add("--lr-base", POSITIVE, None, "instead of --lr: learning rate for a global batch of --lr-base-size images")
    size = "images per update, over all processes, at which the learning rate is --lr-base"
    add("--lr-base-size", COUNT, 256, size, needs=(on("lr_base", "it scales only that rate"),))
    growth = "how --lr-base grows with the global batch size (default: sqrt for Adam's family, else linear)"
    grown = (on("lr_base", "it scales only that rate"),)
    add("--lr-base-scale", ["", "linear", "sqrt"], "", growth, needs=grown)
    where = "add noise to the learning rate from this fraction of the run on, or between two fractions"
    add("--lr-noise", FRACTION, None, where, nargs="+", needs=(_UNTOUCHED,))
    noisy = (on("lr_noise", "there is no noise otherwise"),)
    add("--lr-noise-pct", POSITIVE, 0.67, "largest noise, as a fraction of the learning rate", needs=noisy)
    add("--lr-noise-std", NONNEGATIVE, 1.0, "standard deviation of the noise", off=(0.0,), needs=noisy)


def _warmup_flags(group: Group) -> None:
    """Declare the epochs of a run and its warm-up."""
    add = group.value
    length = (
        "epochs to train, without cool-down; 0 with --refit-heads only solves the heads, which is the default of "
        "--freeze-backbone --no-aug without a flag about training"
    )
    add("--epochs", WHOLE, 200, length)
    total = "instead of --epochs: updates of the weights in the whole run, rounded up to whole epochs"
    add("--steps", STEPS, None, total, excludes=("epochs", "each is the length of the run; leave one of them out"))
    add("--start-epoch", WHOLE, None, "index of the first epoch (default: 0, or where the resumed run stopped)")
    counted = off("steps", "--steps counts warm-up in updates: use --warmup-steps")
    add("--warmup-epochs", WHOLE, 3, "epochs of warm-up", off=(0,), needs=(_UNTOUCHED, counted))
    stepped = Need(
        "--steps", ("steps", "epochs"), lambda args: args.steps is not None, "--epochs counts warm-up in epochs"
    )
    share = "updates of warm-up (default: a tenth of --steps)"
    add("--warmup-steps", WHOLE.to(10**9), None, share, off=(0,), needs=(_UNTOUCHED, stepped))
    begins = Need(
        "--warmup-epochs or --warmup-steps above 0",
        ("warmup_epochs", "warmup_steps", "steps"),
        lambda args: warmup_steps(args) > 0 if args.steps else args.warmup_epochs > 0,
        "there is no warm-up otherwise",
    )
    warm = (_UNTOUCHED, begins)
    add("--warmup-lr", NONNEGATIVE, 1e-4, "learning rate at the start of warm-up", needs=warm)
    whole = off("steps", "--steps is the length of the whole run")
    group.switch("--warmup-prefix", "do not count warm-up in --epochs", needs=(*warm, whole))
    after = "epochs at the last rate after the schedule ends (cosine, tanh, poly, wsd, rsqrt); none with --steps"
    ends = (among("sched", (*_CYCLIC, *_PHASED), "the other schedules have no end"), whole)
    add("--cooldown-epochs", WHOLE, 10, after, off=(0,), needs=ends)


def is_adaptive(optimizer: str) -> bool:
    """Return whether an optimizer is one of Adam's family, by its name."""
    return any(name in optimizer.lower() for name in ("ada", "lamb"))


def warmup_steps(args: argparse.Namespace) -> int:
    """Return the updates of warm-up in a run of --steps: a tenth, unless they are given."""
    given: int = args.steps // 10 if args.warmup_steps is None else args.warmup_steps
    return given


def _cycle_flags(group: Group) -> None:
    """Declare the repetition of cyclic schedules."""
    add = group.value
    cyclic = among("sched", _CYCLIC, "the other schedules have no cycles")
    repeated = (cyclic, above(1, "lr_cycle_limit", "a single cycle has no next one"))
    whole = off("steps", "--steps is the length of the whole run, and --epochs that of a cycle")
    add("--lr-cycle-limit", COUNT.to(1000), 1, "number of cycles (cosine, tanh, poly)", needs=(cyclic, whole))
    add("--lr-cycle-mul", POSITIVE.to(100), 1.0, "factor on the length from one cycle to the next", needs=repeated)
    add("--lr-cycle-decay", POSITIVE, 0.5, "factor on the learning rate from one cycle to the next", needs=repeated)
    shaped = (among("sched", ("cosine", "poly"), "timm's other schedules have no such exponent"),)
    add("--lr-k-decay", POSITIVE, 1.0, "exponent on the completed fraction of the run (cosine, poly)", needs=shaped)


def _decay_flags(group: Group) -> None:
    """Declare where and how the rate falls."""
    add = group.value
    lowest = (among("sched", (*_CYCLIC, "plateau", *_PHASED), "the other schedules have no lower limit"),)
    add("--min-lr", NONNEGATIVE, 1e-5, "learning rate at the end of the schedule", needs=lowest)
    # noted, because the original's documented command gives both with --sched cosine
    timed = (among("sched", ("step", *_PHASED), "this schedule does not decay at intervals", noted=True),)
    spans = "epochs between decays (step), or in the final decay (wsd, rsqrt; below 1, a fraction of the run)"
    add("--decay-epochs", _EPOCHS, 30.0, spans, needs=timed)
    powers = ("step", "multistep", "plateau", "poly")
    factor = (among("sched", powers, "this schedule does not decay by a factor", noted=True),)
    add("--decay-rate --dr", POSITIVE, 0.1, "factor of each decay, or the power (poly)", needs=factor)
    places = "epochs at which the rate decays, counted from 1 (multistep)"
    needs = (among("sched", ("multistep",), "the other schedules have no milestones"),)
    add("--decay-milestones", COUNT, [90, 180, 270], places, nargs="+", needs=needs)
    needs = (among("sched", ("plateau",), "the other schedules watch no score"),)
    add("--patience-epochs", WHOLE, 10, "epochs without a better score before a decay (plateau)", needs=needs)
    needs = (among("sched", _PHASED, "the other schedules have a shape of their own"),)
    add("--lr-decay-fn", DECAYS, None, "shape of the decay (default: 1-sqrt for wsd, linear for rsqrt)", needs=needs)
    needs = (among("sched", ("rsqrt",), "it belongs to the reciprocal square root"),)
    add("--lr-stable-timescale", _EPOCHS, None, "time scale of rsqrt in epochs (default: the warm-up)", needs=needs)


def _log_of_length(args: argparse.Namespace) -> float:
    """Return the logarithm of the last cycle's end in epochs, or a little less: the number itself may overflow."""
    cycles, growth = args.lr_cycle_limit, math.log(args.lr_cycle_mul)
    return math.log(max(args.epochs, 1)) + (math.log(cycles) if growth == 0 else max(0.0, (cycles - 1) * growth))


def schedule_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of this file."""
    yield from repeated(args, "opt_kwargs", _ARGUMENTS)
    if args.sched in _CYCLIC and _log_of_length(args) > math.log(_LONGEST):
        yield (
            f"--lr-cycle-limit {args.lr_cycle_limit} with --lr-cycle-mul {args.lr_cycle_mul:g} and --epochs "
            f"{args.epochs} makes a run of more than {_LONGEST:,} epochs: lower one of them"
        )
    if args.decay_milestones != sorted(set(args.decay_milestones)):
        yield "--decay-milestones must increase: each is the epoch of one more decay"
    if not args.epochs:
        if not args.refit_heads:
            yield "--epochs 0 needs --refit-heads: otherwise nothing is trained"
    elif args.sched in _PHASED and args.steps:
        if warmup_steps(args) >= args.steps or args.decay_epochs >= 1:
            yield (
                f"--sched {args.sched} with --steps {args.steps} needs --decay-epochs below 1, here "
                f"{args.decay_epochs:g}, the fraction of the run that decays (0.2), and --warmup-steps below --steps"
            )
    elif args.sched in _PHASED:
        span = args.epochs if args.warmup_prefix else args.epochs - args.warmup_epochs
        decay = args.decay_epochs * span if args.decay_epochs < 1 else args.decay_epochs
        if not (span > 0 and 0 < decay <= span and (args.sched_on_updates or round(decay) >= 1)):
            yield (
                f"--sched {args.sched} needs --decay-epochs, here {args.decay_epochs:g}, to be from 1 to the "
                f"{max(span, 0)} epochs after warm-up, or a fraction of them that makes an epoch (0.2)"
            )
    if args.lr_noise and args.lr_noise != sorted(args.lr_noise):
        yield f"--lr-noise is {args.lr_noise[0]:g} to {args.lr_noise[1]:g}: give the smaller value first"
    if len(args.lr_noise or []) > 2:
        yield "--lr-noise takes 1 or 2 values: the fractions of the schedule where noise begins and ends"
