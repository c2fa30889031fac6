"""The checkpoints that a command line names: a file, a folder of runs, or a pattern."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from runtime.regular_file import irregular_file
from timm.models.multi_label_checkpoint import CheckpointError
from timm.utils import natural_key

_logger = logging.getLogger(__name__)

EXTENSION = ".pth.tar"
ONNX = ".onnx"
_UNFINISHED = ("tmp", "recovery_tmp")  # names that timm's saver writes to before renaming


def find_checkpoints(text: str) -> list[Path]:
    """Return the checkpoints without duplicates, sorted by name with numbers in numeric order.

    A run keeps one file under several names (last, model_best and checkpoint-N, by hard links). The name with the
    epoch is returned.

    Args:
        text: a file; an exported folder; another folder, searched with its subfolders; or a pattern of files and
            folders, in which ** matches folders at any depth.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    path = Path(text)
    if path.is_file() or is_exported_folder(path):
        return [path]
    if fault := irregular_file(path, folders=True):
        raise CheckpointError(fault)
    if path.is_dir():
        places: list[Path] = [path]
    else:
        places = [Path(name) for name in glob.glob(text, recursive=True)]  # noqa: PTH207 - Path's takes no absolute pattern
        if not places:
            raise CheckpointError(f"no checkpoint at {text}")
    found = [file for place in places for file in ([place] if place.is_file() else place.rglob(f"*{EXTENSION}"))]
    found = [file for file in found if file.name.endswith(EXTENSION) and stem(file) not in _UNFINISHED]
    if not found:
        raise CheckpointError(f"{text} has no checkpoint: none of its files is called *{EXTENSION}")
    return _once(found)


def run_checkpoint(source: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a source names: the file itself, or the best or else the last one of a run's folder.

    Raises:
        CheckpointError: a folder has neither.
    """
    path = Path(source)
    if not path.is_dir():
        return path
    names = [f"{name}{EXTENSION}" for name in ("model_best", "last")]
    if found := next((path / name for name in names if (path / name).is_file()), None):
        return found
    runs = sorted({file.parent.name for name in names for file in path.glob(f"*/{name}")}, key=natural_key)
    hint = f"its folders that have one are {', '.join(runs[:5])}" if runs else "name the folder of a run, or a file"
    raise CheckpointError(f"{path} has neither {names[0]} nor {names[1]}: {hint}")


def is_several(text: str) -> bool:
    """Return whether a text may name several checkpoints, even if only one exists now."""
    return not (Path(text).is_file() or is_exported_folder(Path(text)))


def is_exported_folder(path: Path) -> bool:
    """Return whether a folder holds an exported model in timm's format."""
    return all((path / name).is_file() for name in ("config.json", "model.safetensors"))


def matches(arch: str, pattern: str) -> bool:
    """Return whether an architecture matches a name or pattern, with or without timm's weight tag."""
    plain = arch.partition(".")[0]
    return any(
        fnmatchcase(name, wanted)
        for name, wanted in ((arch, pattern), (plain, pattern), (arch, pattern.partition(".")[0]))
    )


def stem(path: Path) -> str:
    """Return a checkpoint's file name without the extension."""
    return path.name.removesuffix(EXTENSION) if path.name.endswith(EXTENSION) else path.stem


def names_below(paths: Iterable[Path]) -> list[str]:
    """Return a name for each path: its place below the common folder, joined by dashes, without the extension."""
    paths = [path.absolute() for path in paths]
    shared = set(paths[0].parents).intersection(*(path.parents for path in paths))
    base = max(shared, key=lambda folder: len(folder.parts))
    return ["-".join((*path.relative_to(base).parent.parts, stem(path))) for path in paths]


def _once(files: Iterable[Path]) -> list[Path]:
    """Keep one name of each file, if possible one with a number."""
    kept: dict[tuple[int, int], Path] = {}
    # Names with a number come first, so that they are kept.
    for file in sorted(set(files), key=lambda file: (not any(map(str.isdigit, stem(file))), natural_key(str(file)))):
        status = file.stat()
        first = kept.setdefault((status.st_dev, status.st_ino), file)
        if first is not file:
            _logger.info(f"{file} is the same file as {first.name}: scored once")
    return sorted(kept.values(), key=lambda file: natural_key(str(file)))
