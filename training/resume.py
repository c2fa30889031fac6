"""Resuming from a checkpoint: weights, optimizer, schedule, random states and folder as they were."""

from __future__ import annotations

import logging
from typing import Any

import torch

from runtime.errors import UsageError, first_line
from runtime.random_state import RandomState, set_random_state
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.simclr_classification import SimCLRClassificationTask
from timm.utils.model import unwrap_model
from training.loss_meter import EpochMeter
from training.optimizer_state import parameter_names, restore_optimizer
from training.saver import RunSaver, unranked

_logger = logging.getLogger("train")


def resume_task(
    task: SimCLRClassificationTask,
    optimizer: torch.optim.Optimizer,
    backward: Any,
    resumed: Checkpoint,
    with_optimizer: bool,
    changed: str = "",
) -> dict[str, Any]:
    """Load weights, optimizer and loss scaler; return where training continues.

    The flags win over the settings of the checkpoint's optimizer, so that a resumed run can have another learning rate.

    Args:
        task: receives the weights.
        optimizer: receives the optimizer's state.
        backward: the function that scales the loss; a loss scaler receives its state.
        resumed: the checkpoint.
        with_optimizer: whether the states of the optimizer and of the loss scaler are loaded too.
        changed: the flags of the network that differ from the run's, for an error; "" for none.

    Returns:
        `epoch` and `batch` to continue with, and inside an epoch `random` and `sums`.

    Raises:
        UsageError: the checkpoint does not fit the flags.
    """
    if with_optimizer and resumed.optimizer is None:
        raise UsageError(
            f"--resume {resumed.path} has no state of an optimizer, as after refit.py: start a new run from it with "
            "--initial-checkpoint"
        )
    try:
        task.load_checkpoint_state(resumed.state_dict)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[:2][-1].strip(" \t.")  # the first entry where it is a list of tensors
        fit = f"does not fit {changed}, which makes another network" if changed else "does not fit these flags"
        raise UsageError(
            f"--resume {resumed.path} {fit}: {reason}; resume with the flags of its run, or start a new run from its "
            "weights with --initial-checkpoint"
        ) from error
    if with_optimizer and resumed.optimizer is not None:
        names = parameter_names(optimizer, unwrap_model(task.get_trainable_module()))
        try:
            restore_optimizer(optimizer, names, resumed.optimizer, resumed.parameter_names)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise UsageError(
                f"--resume {resumed.path}: the state of its optimizer does not fit these flags ({first_line(error)}): "
                "keep the run's flags, or start the optimizer anew with --no-resume-opt"
            ) from error
    if with_optimizer and resumed.amp_scaler is not None and hasattr(backward, "state_dict"):
        backward.load_state_dict(resumed.amp_scaler)
    saved = {key: resumed.progress[key] for key in ("epoch", "batch", "random", "sums") if key in resumed.progress}
    return {"epoch": resumed.next_epoch, "batch": 0} | saved


def resumed_freeze_bn(asked: bool | None, resumed: Checkpoint | None) -> bool | None:
    """Return whether batch norms keep their statistics: as the flag says, else as in the run that is resumed.

    Args:
        asked: the value of --freeze-bn; None if it was not given.
        resumed: the checkpoint; None for a new run. Files from before this setting trained their statistics.
    """
    if asked is not None or resumed is None:
        return asked
    return bool(resumed.trained_flags.get("freeze_bn"))


def resume_ema(task: SimCLRClassificationTask, resumed: Checkpoint) -> None:
    """Load the moving average; a run that had none starts it from its weights."""
    key = "state_dict" if resumed.state_dict_ema is None else "state_dict_ema"
    task.load_checkpoint_state(resumed.weights(ema=resumed.state_dict_ema is not None), ema=True)
    _logger.info(f"Loaded {key} from checkpoint '{resumed.path}'")


def restore_saver(saver: RunSaver, resumed: Checkpoint, metric: str | None = None) -> None:
    """Restore the best metric and the list of kept files, and complete what a kill has left undone.

    Args:
        saver: saver of the run.
        resumed: the checkpoint.
        metric: metric that ranks the checkpoints, None for the checkpoint's. By another one, the ranking starts anew.
    """
    history, before = resumed.saver, resumed.trained_flags.get("eval_metric", metric)
    if history is None:
        _logger.warning(f"No checkpoint history in '{resumed.path}', ranked checkpoints start fresh.")
        return
    if metric is not None and before != metric:
        _logger.warning(f"The epochs so far are ranked by {before}, not {metric}: the best one is among the next")
        history = unranked(history)
    saver.complete(history, resumed.path, finished=not resumed.progress.get("batch"))


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
            f"--resume: the checkpoint's random states cannot be restored ({first_line(error)}): resume from another "
            "checkpoint of the run, such as last.pth.tar"
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


def check_position(start: dict[str, Any], resumed: Checkpoint, steps: int, updates: int | None) -> None:
    """Check that the epoch inside which a run continues has the steps that it had, and warn if updates count anew.

    Args:
        start: where training continues.
        resumed: the checkpoint.
        steps: steps per epoch.
        updates: updates per epoch in a run whose length is a number of updates, else None.

    Raises:
        UsageError: it has more or fewer, so the remaining steps would have other images.
    """
    epoch, step, before = start["epoch"], start["batch"], resumed.progress.get("steps", steps)
    if step and (before != steps or step >= steps):
        raise UsageError(
            f"--resume {resumed.path} stopped after step {step} of {before} in epoch {epoch}, but the table or flags "
            f"now make {steps} steps an epoch: restore the run's table and flags, resume a checkpoint from the end of "
            f"an epoch, or repeat epoch {epoch} from these weights with --start-epoch {epoch}"
        )
    had = resumed.progress.get("updates", updates)
    if updates is not None and had != updates and epoch:
        _logger.warning(
            f"An epoch has {updates} updates here and had {had}: --steps counts {epoch * updates} updates as done, not "
            f"{epoch * had}"
        )


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
        _restore_fallen_rate(optimizer.param_groups, resumed.optimizer["param_groups"])
    elif start["epoch"] < warmup_epochs:
        scheduler.step(start["epoch"])
    else:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * group.get("lr_scale", 1.0)


def _restore_fallen_rate(groups: list[dict[str, Any]], saved: list[dict[str, Any]]) -> None:
    """Lower the learning rates as far as the rates of the checkpoint have fallen, which no flag says.

    Args:
        groups: parameter groups of the optimizer; their rates are set.
        saved: parameter groups in the checkpoint, which may be others, with other rates.
    """
    started = [_first_rate(group) for group in saved]
    if started == [_first_rate(group) for group in groups]:
        rates = [group["lr"] for group in saved]  # without a rounding error
    else:
        rates = [_first_rate(group) * saved[0]["lr"] / started[0] for group in groups]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate


def _first_rate(group: dict[str, Any]) -> float:
    """Return the learning rate from which a schedule starts."""
    return float(group.get("initial_lr", group["lr"]) * group.get("lr_scale", 1.0))
