"""Resuming from a checkpoint: weights, optimizer, schedule, random states and folder as they were."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch

from runtime.errors import UsageError, first_line
from runtime.random_state import RandomState, set_random_state
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.simclr_classification import SimCLRClassificationTask
from training.loss_meter import EpochMeter
from training.saver import RunSaver

_logger = logging.getLogger("train")

# The flags set these; they win over the values in the checkpoint's optimizer.
_HYPERPARAMETERS = ("lr", "lr_scale", "weight_decay", "momentum", "betas", "eps")


def resume_task(
    task: SimCLRClassificationTask,
    optimizer: torch.optim.Optimizer,
    backward: Any,
    resumed: Checkpoint,
    with_optimizer: bool,
) -> dict[str, Any]:
    """Load weights, optimizer and loss scaler; return where training continues.

    The flags win over the hyperparameters in the checkpoint, so that a resumed run can have another learning rate.

    Args:
        task: receives the weights.
        optimizer: receives the optimizer's state.
        backward: the function that scales the loss; a loss scaler receives its state.
        resumed: the checkpoint.
        with_optimizer: whether the states of the optimizer and of the loss scaler are loaded too.

    Returns:
        `epoch` and `batch` to continue with, and inside an epoch `random`.

    Raises:
        UsageError: the checkpoint does not fit the flags.
    """
    if with_optimizer and resumed.optimizer is None:
        raise UsageError(
            f"--resume {resumed.path} has no state of an optimizer, as after refit.py: start a new run from it with "
            "--initial-checkpoint"
        )
    asked = [{name: group[name] for name in _HYPERPARAMETERS if name in group} for group in optimizer.param_groups]
    try:
        task.load_checkpoint_state(resumed.state_dict)
        if with_optimizer:
            _restore_optimizer(optimizer, backward, resumed)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[:2][-1].strip()  # the first entry where it is a list of tensors
        raise UsageError(f"--resume {resumed.path} does not fit these flags: {reason}") from error
    for group, values in zip(optimizer.param_groups, asked, strict=True):
        group.pop("initial_lr", None)  # the schedule starts from --lr, and restore_schedule sets it to the epoch
        group.pop("lr_scale", None)  # set by --layer-decay or --backbone-lr-scale, which may be absent now
        group |= values
    return {"epoch": resumed.next_epoch, "batch": 0} | resumed.progress


def resumed_freeze_bn(asked: bool | None, resumed: Checkpoint | None) -> bool | None:
    """Return whether batch norms keep their statistics: as the flag says, else as in the run that is resumed.

    Args:
        asked: the value of --freeze-bn; None if it was not given.
        resumed: the checkpoint; None for a new run. Files from before this setting trained their statistics.
    """
    if asked is not None or resumed is None:
        return asked
    return bool(resumed.trained_flags.get("freeze_bn"))


def _restore_optimizer(optimizer: torch.optim.Optimizer, backward: Any, resumed: Checkpoint) -> None:
    """Load the states of the optimizer and of the loss scaler, where the checkpoint and the run have them."""
    if resumed.optimizer is not None:
        optimizer.load_state_dict(resumed.optimizer)
    if resumed.amp_scaler is not None and hasattr(backward, "state_dict"):
        backward.load_state_dict(resumed.amp_scaler)


def resume_ema(task: SimCLRClassificationTask, resumed: Checkpoint) -> None:
    """Load the moving average; a run that had none starts it from its weights."""
    key = "state_dict" if resumed.state_dict_ema is None else "state_dict_ema"
    task.load_checkpoint_state(resumed.weights(ema=resumed.state_dict_ema is not None), ema=True)
    _logger.info(f"Loaded {key} from checkpoint '{resumed.path}'")


def restore_saver(saver: RunSaver, resumed: Checkpoint) -> None:
    """Restore the best metric and the list of kept files, and complete what a kill has left undone."""
    if resumed.saver is None:
        _logger.warning(f"No checkpoint history in '{resumed.path}', ranked checkpoints start fresh.")
    else:
        saver.complete(resumed.saver, resumed.path, finished=not resumed.progress.get("batch"))


def restore_random_state(again: dict[str, Any], left: int, rank: int) -> RandomState | None:
    """Set and return the random state of the interrupted run, where it matters to later steps.

    The loader prepares a batch, with random numbers of its own, before it returns the previous one. So the first batch
    of the resumed run was prepared with the state after the last step but one.

    Args:
        again: `random` holds the states by process after the last step but one (None if it was the first) and after
            the last.
        left: number of batches until training continues, this one included.
        rank: rank of this process.

    Raises:
        UsageError: the states are damaged.
    """
    try:
        states = again["random"][-left] if left <= 2 else [None]
        state: RandomState | None = states[rank % len(states)]
        if state is not None:
            set_random_state(state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise UsageError(
            f"--resume: the checkpoint's random states cannot be restored ({first_line(error)}): resume from the "
            "run's last.pth.tar"
        ) from error
    return state


def restore_meter(meter: EpochMeter, again: dict[str, Any], rank: int, world_size: int) -> None:
    """Continue the averages of an interrupted epoch, if the run has as many processes as before.

    Args:
        meter: meter of the epoch.
        again: `sums` holds the sums by process; older files lack them.
        rank: rank of this process.
        world_size: number of processes.
    """
    sums = again.get("sums") or []
    try:
        if len(sums) == world_size:
            meter.load_state_dict(sums[rank])
            return
    except (ValueError, AttributeError):  # the flags have changed what is measured
        pass
    _logger.info("The averages of the resumed epoch are over its remaining steps")


def resumed_folder(resume: str, output: str, experiment: str) -> Path | None:
    """Return the folder of the resumed checkpoint if the run continues in it; None where the flags name another.

    Args:
        resume: file of the checkpoint; "" for none.
        output: folder for runs; "" for any.
        experiment: name of the run's folder; "" for any.
    """
    if not resume:
        return None
    folder = Path(resume).resolve().parent
    numbered = re.fullmatch(rf"{re.escape(experiment)}(-\d+)?", folder.name)
    elsewhere = (output and Path(output).resolve() != folder.parent) or (experiment and not numbered)
    begun = any((folder / name).is_file() for name in ("summary.csv", "args.yaml"))  # a first epoch has no summary.csv
    return folder if begun and not elsewhere else None


def restore_schedule(
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    start: dict[str, Any],
    done: int,
    resumed: Checkpoint | None,
    *,
    sched: str,
    on_updates: bool,
    warmup_epochs: int,
) -> None:
    """Set the learning rate of the first epoch, and the state of a plateau schedule.

    Args:
        optimizer: the optimizer whose rate the schedule sets.
        scheduler: the schedule.
        start: where training begins.
        done: number of updates before it.
        resumed: the checkpoint whose optimizer was restored; None for none.
        sched: name of the schedule.
        on_updates: whether the schedule changes the rate with each update, not with each epoch.
        warmup_epochs: epochs of warm-up.
    """
    if not (start["epoch"] or start["batch"]):
        return
    if on_updates:
        scheduler.step_update(done)
    elif sched != "plateau":
        scheduler.step(start["epoch"])
    elif resumed and resumed.plateau and resumed.optimizer:
        scheduler.lr_scheduler.load_state_dict(resumed.plateau)
        for group, saved in zip(optimizer.param_groups, resumed.optimizer["param_groups"], strict=True):
            group["lr"] = saved["lr"]  # no flag says how far it has fallen
    elif start["epoch"] < warmup_epochs:
        scheduler.step(start["epoch"])
    else:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * group.get("lr_scale", 1.0)
