"""Going on from a checkpoint: weights, optimizer, schedule, random numbers and folder as they were."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from runtime.errors import UsageError
from runtime.random_state import RandomState, set_random_state
from timm.task import resume_task_checkpoint
from timm.task.simclr_classification import SimCLRClassificationTask

# What the flags say of an optimizer; they win over what the checkpoint's optimizer had.
_HYPERPARAMETERS = ("lr", "lr_scale", "weight_decay", "momentum", "betas", "eps")


def resume_task(
    args: Namespace,
    task: SimCLRClassificationTask,
    optimizer: torch.optim.Optimizer,
    backward: Any,
    resumed: dict[str, Any],
) -> dict[str, Any]:
    """Load weights, optimizer and loss scaler; return where the checkpoint stands.

    What the flags say of the optimizer wins over what its checkpoint had, so that a resumed run can be slowed down.

    Args:
        args: the flags.
        task: gets the weights.
        optimizer: gets its state, but with --no-resume-opt.
        backward: gets the loss scaler's, where it is one.
        resumed: the checkpoint.

    Returns:
        `epoch` and `batch` to go on with, and inside an epoch `random`.

    Raises:
        UsageError: the checkpoint does not fit the flags.
    """
    keep = {} if args.no_resume_opt else {"optimizer": optimizer}
    asked = [{name: group[name] for name in _HYPERPARAMETERS if name in group} for group in optimizer.param_groups]
    scaler = backward if hasattr(backward, "state_dict") and not args.no_resume_opt else None
    try:
        epoch = resume_task_checkpoint(task, args.resume, loss_scaler=scaler, log_info=False, **keep)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[:2][-1].strip()  # of a list of tensors the first
        raise UsageError(f"--resume {args.resume} does not fit these flags: {reason}") from error
    for group, values in zip(optimizer.param_groups, asked, strict=True):
        group.pop("initial_lr", None)  # the schedule starts from --lr, and restore_schedule sets it to the epoch
        group.pop("lr_scale", None)  # of --layer-decay or --backbone-lr-scale, which the flags may have given up
        group |= values
    progress: dict[str, Any] = resumed.get("progress", {})
    return {"epoch": epoch or 0, "batch": 0} | progress


def restore_random_state(again: dict[str, Any], left: int, rank: int) -> RandomState | None:
    """Set, and return, the random state that a step of the interrupted run ended with, where it matters to later ones.

    The loader makes a batch ready, with random numbers of its own, before it hands out the one in front of it. So the
    first batch that is trained again was made with the state after the last step but one.

    Args:
        again: `random` holds the states by process after the last step but one (None where it was the first) and
            after the last.
        left: batches until training goes on, this one included.
        rank: of this process.
    """
    states = again["random"][-left] if left <= 2 else [None]
    state: RandomState | None = states[rank % len(states)]
    if state is not None:
        set_random_state(state)
    return state


def resumed_folder(args: Namespace) -> Path | None:
    """Return the folder of the resumed checkpoint where the run goes on in it: unless the flags name another one."""
    if not args.resume:
        return None
    folder = Path(args.resume).resolve().parent
    numbered = re.fullmatch(rf"{re.escape(args.experiment)}(-\d+)?", folder.name)
    elsewhere = (args.output and Path(args.output).resolve() != folder.parent) or (args.experiment and not numbered)
    return None if elsewhere or not (folder / "summary.csv").is_file() else folder


def restore_schedule(
    args: Namespace,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    updates: int,
    start: dict[str, Any],
    resumed: dict[str, Any] | None,
) -> None:
    """Set the learning rate of the first epoch, and what a plateau schedule remembers.

    Args:
        args: the flags.
        optimizer: whose rate the schedule sets.
        scheduler: None for none.
        updates: of an epoch.
        start: where training begins.
        resumed: the checkpoint, None without one.
    """
    if scheduler is None or not (start["epoch"] or start["batch"]):
        return
    if args.sched_on_updates:
        scheduler.step_update(start["epoch"] * updates + start["batch"] // args.grad_accum_steps)
    elif args.sched != "plateau":
        scheduler.step(start["epoch"])
    elif resumed and resumed.get("plateau") and not args.no_resume_opt:
        scheduler.lr_scheduler.load_state_dict(resumed["plateau"])
        for group, saved in zip(optimizer.param_groups, resumed["optimizer"]["param_groups"], strict=True):
            group["lr"] = saved["lr"]  # what it has fallen to follows from no flag
    elif start["epoch"] < args.warmup_epochs:
        scheduler.step(start["epoch"])
    else:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * group.get("lr_scale", 1.0)
