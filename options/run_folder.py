"""The folder of a run: which one a checkpoint continues in, and where --resume auto looks. Imports no torch."""

import re
from argparse import Namespace
from pathlib import Path

DEFAULT_OUTPUT = "./output/train"
AUTO = "auto"  # the value of --resume that takes the newest state in the run's folder


def resumed_folder(resume: str, output: str, experiment: str) -> Path | None:
    """Return the folder of the resumed checkpoint if the run continues in it; None where the flags name another.

    Args:
        resume: file of the checkpoint; "" for none.
        output: folder for runs; "" for any.
        experiment: name of the run's folder, or its path below `output`; "" for any.
    """
    folder = Path(resume).resolve().parent
    # A run that was killed in its first epoch has no row in summary.csv yet.
    is_run = any((folder / name).is_file() for name in ("summary.csv", "args.yaml"))
    return folder if resume and is_run and _is_folder_of(folder, output, experiment) else None


def auto_folder(args: Namespace) -> Path | None:
    """Return the folder in which --resume auto looks and continues; None if no flag names one.

    That is the folder of the `args.yaml` given with -c, where it holds a run and no flag names another; else the folder
    that --experiment names.
    """
    beside = Path(args.config).resolve().parent
    holds_run = (beside / "summary.csv").is_file() or any(beside.glob("*.pth.tar"))
    if Path(args.config).name == "args.yaml" and holds_run and _is_folder_of(beside, args.output, args.experiment):
        return beside
    return Path(args.output or DEFAULT_OUTPUT, args.experiment) if args.experiment else None


def _is_folder_of(folder: Path, output: str, experiment: str) -> bool:
    """Return whether an absolute path is the folder that the flags name, or a numbered one beside it, `NAME-1`."""
    named = Path(experiment or folder.name)
    depth = len(named.parts)
    if not 0 < depth <= len(folder.parents):
        return False
    above = folder.parents[depth - 1]
    return (
        re.fullmatch(rf"{re.escape(named.name)}(-\d+)?", folder.name) is not None
        and folder.parent == above / named.parent
        and (not output or Path(output).resolve() == above)
    )
