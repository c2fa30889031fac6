"""The run that --resume names: its checkpoint, its folder, and the flags that differ."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

from options.resumed_flags import Change, changes, check_resumed, other_images
from options.run_folder import AUTO, DEFAULT_OUTPUT, auto_folder, resumed_folder
from options.train import train_parser
from runtime.errors import UsageError
from runtime.process import Process
from runtime.random_state import gather_objects
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint
from training.newest_state import newest_state, position

_logger = logging.getLogger("train")


def find_resumed(args: Namespace, process: Process) -> tuple[Namespace, Checkpoint | None, Path | None]:
    """Return the flags, with a file where --resume was auto, the checkpoint, and the folder in which the run continues.

    Raises:
        UsageError: the checkpoint cannot be used, or not with these flags.
    """
    if args.resume != AUTO:
        resumed = read_checkpoint(args.resume) if args.resume else None
        folder = resumed_folder(args.resume, args.output, args.experiment)
    else:
        folder = auto_folder(args) or Path(args.output or DEFAULT_OUTPUT)  # the parser has refused that there is none
        resumed = find_newest(args, process, folder)
        args = Namespace(**vars(args) | {"resume": f"{resumed.path}" if resumed else ""})
        if mistake := next(train_parser().rules.mistakes(args), None):  # a fresh start may lack what a flag needs
            raise UsageError(mistake)
    if resumed:
        epoch, step = position(resumed)
        check_resumed(resumed.path, resumed.trained_flags, args, process.world_size, epoch if step else None)
    return args, resumed, folder


def find_newest(args: Namespace, process: Process, folder: Path) -> Checkpoint | None:
    """Return the newest state of the run's folder, the same on every process, and log what is passed over and why."""

    def why_not(state: Checkpoint) -> str | None:
        moved, epoch = other_images(changed_flags(args, process, state)), position(state)[0]
        if state.optimizer is None and not args.no_resume_opt:
            return f"{state.path} has no state of an optimizer, as after refit.py"
        if position(state)[1] and moved and args.start_epoch is None:
            return f"{state.path} is inside epoch {epoch}, and {moved} gives its other steps other images"
        return None

    found, passed = newest_state(folder, why_not) if process.is_primary else (None, [])
    path = gather_objects(found and found.path, process.world_size)[0]  # every process takes the first one's choice
    for reason in passed:
        _logger.warning(f"--resume auto, passed over: {reason}")
    if path is None:
        _logger.info(f"--resume auto: {folder} has no state of training that can be used: a fresh start")
        return None
    found = found or read_checkpoint(path)
    epoch, step = position(found)
    _logger.info(f"--resume auto: {path}, which continues with epoch {epoch}" + (f" after step {step}" if step else ""))
    return found


def changed_flags(args: Namespace, process: Process, resumed: Checkpoint, **settled: Any) -> list[Change]:
    """Return the flags that differ from the resumed run's.

    Args:
        args: flags as typed.
        process: this process; the number of processes is compared too.
        resumed: the checkpoint.
        settled: flags whose values follow from others, as the checkpoint has them.
    """
    now = vars(args) | {"world_size": process.world_size} | settled
    # Without the flag the resumed run decides; and where --lr-base decides, --lr is unused.
    unsettled = {
        "freeze_bn": args.freeze_bn is None,
        "eval_metric": "eval_metric" not in settled,
        "lr": "lr" not in settled,
    }
    return changes(resumed.trained_flags, {dest: value for dest, value in now.items() if not unsettled.get(dest)})
