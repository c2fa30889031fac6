"""What each flag of train.py may change when a run is resumed. Imports no torch.

A checkpoint holds the flags of its run. Those that differ now are free to change, or they take effect and are logged,
or they are refused with the way out: the table is `resume_rule`.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from options.rules import flag
from runtime.errors import UsageError

Rule = Literal["free", "takes effect", "other network", "other optimizer", "other images"]

# They change no weight of the run: where and how often something is written or scored, and where it is computed. The
# first weights are no longer needed.
_FREE = {
    *("config", "resume", "no_resume_opt", "start_epoch", "pretrained", "pretrained_path", "initial_checkpoint"),
    *("probe_first", "output", "experiment", "checkpoint_hist", "recovery_interval", "on_save_error", "log_interval"),
    *(
        "save_images",
        "report",
        "log_tensorboard",
        "log_wandb",
        "log_trackio",
        "wandb_project",
        "synchronize_step",
        "val_interval",
        "knn_interval",
        "knn_images",
    ),
    *("tta", "validation_batch_size_multiplier", "val_split", "max_unreadable", "local_rank", "dist_backend"),
    *("device", "pin_mem", "cache", "cache_dir", "dataset", "num_classes", "apex_amp", "torchscript"),
}
# They take effect if the weights fit, and otherwise they are why the weights do not fit.
_NETWORK = {
    *("model", "model_kwargs", "gp", "img_size", "input_size", "projection_dim", "projection_layers"),
    *("projection_norm", "simclr_loss_weight", "contrastive", "balance", "split_bn", "attributes", "multi_valued"),
}
_OPTIMIZER = {"opt"}
# They choose the images of an epoch's steps, and which steps change the weights.
_IMAGES = {
    *("batch_size", "contrastive_batch_size", "grad_accum_steps", "seed", "train_split", "unlabeled"),
    *("unlabeled_ratio", "aug_repeats", "world_size"),
}
_RANDOM = {"workers", "worker_seeding", "augment_on", "no_prefetcher"}  # they draw other random numbers for the views


def resume_rule(dest: str) -> Rule:
    """Return what happens when an option differs from the resumed run's.

    "other network" is refused if the weights do not fit; "other optimizer" unless its state is left out; "other images"
    inside an epoch. What is not refused takes effect.
    """
    named: dict[Rule, set[str]] = {
        "free": _FREE, "other network": _NETWORK, "other optimizer": _OPTIMIZER, "other images": _IMAGES
    }  # fmt: skip
    return next((rule for rule, dests in named.items() if dest in dests), "takes effect")


class Change(NamedTuple):
    """An option that differs from the resumed run's.

    Attributes:
        dest: the option; `world_size` for the number of processes.
        before: its value in the run.
        now: its value now.
    """

    dest: str
    before: Any
    now: Any

    def __str__(self) -> str:
        if self.dest == "world_size":
            return f"{self.now} process{'es' if self.now > 1 else ''} (was {self.before})"
        return f"{flag(self.dest)} {_shown(self.now)} (was {_shown(self.before)})"


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Return the options that differ, in the order of the flags, without those that are free to change.

    Args:
        saved: the options in the checkpoint; those that it lacks, because it is older, are skipped.
        now: the options of this command, settled as the run settled them, with `world_size`.
    """
    return [
        Change(dest, saved[dest], value)
        for dest, value in now.items()
        if dest in saved and resume_rule(dest) != "free" and not _equal(saved[dest], value)
    ]


def check_resumed(path: Path, saved: Mapping[str, Any], args: Namespace, world_size: int, epoch: int | None) -> None:
    """Refuse what cannot continue from a checkpoint, before the data is read.

    Args:
        path: the checkpoint.
        saved: the options in it.
        args: the options of this command.
        world_size: number of processes.
        epoch: the epoch inside which the run continues, from 0; None where it begins one.

    Raises:
        UsageError: the optimizer is another one, or the steps of a begun epoch would have other images.
    """
    found = changes(saved, vars(args) | {"world_size": world_size})
    other = [change for change in found if resume_rule(change.dest) == "other optimizer"]
    if other and not args.no_resume_opt and str(other[0].before).lower() != str(other[0].now).lower():
        raise UsageError(
            f"--resume {path} has the averages of --opt {other[0].before}, which --opt {other[0].now} cannot use: keep "
            "the optimizer, or start it anew with --no-resume-opt"
        )
    if epoch is not None and args.start_epoch is None and (moved := other_images(found)):
        raise UsageError(
            f"--resume {path} is inside epoch {epoch}, and {moved} would give its other steps images that it had, or "
            f"leave some out: {way_out(path, epoch)}"
        )


def other_images(found: list[Change]) -> str:
    """Return the changes that only the end of an epoch allows, as words; "" for none."""
    return ", ".join(str(change) for change in found if resume_rule(change.dest) == "other images")


def way_out(path: Path, epoch: int) -> str:
    """Return what to do with a checkpoint inside an epoch that does not fit."""
    last = path.with_name("last.pth.tar")
    whole = f"resume {last}, the end of an epoch, " if last.exists() else ""
    return f"keep the run's, {whole}or repeat epoch {epoch} from these weights with --start-epoch {epoch}"


def change_lines(path: Path, found: list[Change]) -> list[str]:
    """Return the log lines about the options that take effect."""
    if not found:
        return []
    lines = [f"Resuming {path} with changed flags, which take effect: {', '.join(map(str, found))}"]
    if drawn := [str(change) for change in found if change.dest in _RANDOM]:
        lines.append(
            f"{', '.join(drawn)} draws other random numbers for the views: the run is valid, but not bit for bit the "
            "one that was interrupted"
        )
    return lines


def network_changes(found: list[Change]) -> str:
    """Return the changes that may make another network, as words; "" for none."""
    return ", ".join(str(change) for change in found if resume_rule(change.dest) == "other network")


def _equal(one: Any, other: Any) -> bool:
    listed = [list(value) if isinstance(value, tuple | list) else value for value in (one, other)]
    nothing = [value in (None, "") or value == [] or value == {} for value in listed]
    return all(nothing) or bool(listed[0] == listed[1])


def _shown(value: Any) -> str:
    """Return a value as it is typed, or a word where it is typed as none."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == "" or value == [] or value == {}:
        return "not given"
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items())
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join(map(str, values))
