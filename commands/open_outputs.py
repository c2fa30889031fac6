"""The output folder of a run: made or continued, with its flags, checkpoints and loggers."""

from __future__ import annotations

import logging
import math
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from commands.leave_report import keep_views, session
from options.run_folder import DEFAULT_OUTPUT
from options.train import train_parser
from options.yaml_file import args_text
from reports.run_record import VIEWS, RunRecord, table_hashes
from runtime.atomic_file import atomic_file, check_writable
from runtime.process import Process
from timm import utils
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.gradient_cache import steps_per_epoch
from training.loggers import SERVICES, Loggers, RunLogger, TensorBoardLogger, WandbLogger
from training.optimization import plateau_memory
from training.optimizer_state import parameter_names
from training.outputs import Outputs
from training.resume import (
    restore_saver,
)
from training.run import Run
from training.saver import RunSaver
from training.summary import drop_rows
from training.view_sheet import view_sheet

_logger = logging.getLogger("train")


def open_outputs(
    args: Namespace, run: Run, lr: float, decreasing: bool, resumed: Checkpoint | None, continued: Path | None
) -> Outputs:
    """Make the output folder, or continue in one.

    Args:
        args: flags as typed.
        run: run without outputs.
        lr: learning rate, computed from the flags.
        decreasing: whether a lower metric is better.
        resumed: checkpoint that the run resumes; None for none.
        continued: folder in which the run continues, or starts fresh after --resume auto; None for a new one.
    """
    # folder
    if continued:
        folder = continued
        check_writable(folder / "args.yaml")
        drop_rows(folder / "summary.csv", run.start["epoch"])  # a resumed run repeats these epochs
    else:
        size = run.data_config["input_size"][-1]
        name = args.experiment or f"{datetime.now():%Y%m%d-%H%M%S}-{args.model.replace('/', '_')}-{size}"
        folder = Path(utils.get_outdir(args.output or DEFAULT_OUTPUT, name, inc=True))
    # In a continued folder, args.yaml repeats the whole run, so the flags that resume it have their defaults.
    unset = {dest: train_parser().defaults[dest] for dest in ("resume", "no_resume_opt", "start_epoch")}
    text = args_text(Namespace(**vars(args) | unset) if continued else args)
    with atomic_file(folder / "args.yaml") as unfinished:
        unfinished.write_text(text, encoding="utf-8")

    # checkpoints
    task = run.task
    settled = {"eval_metric": run.settings.eval_metric, "lr": lr, "device": str(run.process.device)}
    settled["freeze_bn"] = utils.model.unwrap_model(task.get_trainable_module()).keeps_statistics
    recorded = vars(args) | vars(run.process) | settled
    steps = steps_per_epoch(len(run.train_loader), run.settings.chunks)
    epoch = {"steps": steps, "updates": math.ceil(steps / args.grad_accum_steps)}
    names = parameter_names(run.optimizer, utils.model.unwrap_model(task.get_trainable_module()))
    task.checkpoint_extras |= {
        "args": lambda: dict(recorded),
        "progress": lambda: run.progress | epoch,
        "parameter_names": lambda: names,
        "plateau": lambda: plateau_memory(run.scheduler),
        "early_stop": run.early_stop.state,
    }
    saver = RunSaver(
        model=task.get_trainable_module(),
        optimizer=run.optimizer,
        amp_scaler=run.backward if hasattr(run.backward, "state_dict") else None,
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
        decreasing=decreasing,
        max_history=args.checkpoint_hist,
        task=task,
    )
    if continued and resumed:
        restore_saver(saver, resumed, run.settings.eval_metric)
    elif continued:
        saver.remove_unfinished()

    # loggers
    options: dict[str, Any] = {"continues": args.on_save_error == "go-on", "launch": launch_words(run.process)}
    options["loggers"] = open_loggers(args, folder, run.start["epoch"], task.label_space.attributes, recorded)
    options["class_names"] = task.label_space.classes
    record = RunRecord(folder, session(run.process, table_hashes(args.data_dir, args.train_split, args.val_split)))
    record.write()
    options["log_row"] = lambda row: record.write()

    # views
    draw = partial(view_sheet, kinds=run.plan.kinds, data_config=run.data_config, describe=task.label_space.describe)
    options |= {"draw_views": draw, "saves_views": args.save_images}
    options["keep_views"] = partial(keep_views, folder / VIEWS, draw)
    return Outputs(folder, saver, run.settings.eval_metric, task.label_space.attributes, **options)


def open_loggers(
    args: Namespace, folder: Path, first_epoch: int, attributes: Sequence[str], recorded: Mapping[str, Any]
) -> Loggers:
    """Return the loggers that the flags ask for.

    Args:
        args: the flags.
        folder: folder of the run.
        first_epoch: index of the first epoch to train.
        attributes: names of the attributes.
        recorded: the settings that a service shows beside the run.
    """
    found: dict[str, RunLogger] = {}
    if args.log_tensorboard:
        found["TensorBoard"] = TensorBoardLogger(folder / "tensorboard", first_epoch, attributes)
    for package in SERVICES:
        if getattr(args, f"log_{package}"):
            found[package] = WandbLogger(package, args.wandb_project, folder, recorded)
    return Loggers(found)


def launch_words(process: Process) -> str:
    """Return the words that start train.py as this process was started, for its user to repeat."""
    if process.world_size == 1:
        return "python train.py"
    here = os.environ.get("LOCAL_WORLD_SIZE")  # torchrun sets it
    return f"./distributed_train.sh {here}" if here else "srun python train.py"
