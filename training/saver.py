"""The checkpoints of a run, which a kill at any moment leaves whole, and which the next resume completes."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.torch_file import torch_errors_explained
from timm.utils import CheckpointSaver

_RECOVERY = re.compile(r"recovery-(\d+)-(\d+)\.pth\.tar")
_KEPT = 2  # recovery files, as in timm: the newest, and the one before, in case the newest is damaged
_UNFINISHED = ("tmp.pth.tar", "recovery_tmp.pth.tar", ".*.[0-9]*")  # named by timm, and by atomic_file


class RunSaver(CheckpointSaver):
    """timm's saver, in which each name changes in one step from one whole file to another.

    A kill between two of an epoch's steps leaves later names behind: `checkpoint-N` may be missing, or `model_best` may
    be that of an earlier epoch. `complete` does what is left.
    """

    def save_checkpoint(self, epoch: int, metric: float | None = None) -> tuple[float | None, int | None]:
        """Save an epoch's state, and delete recovery files of later epochs: they are of an attempt that was given up.

        Args:
            epoch: index of the finished epoch, from 0.
            metric: value of the metric that ranks the checkpoint; None ranks it by its age.
        """
        best: tuple[float | None, int | None] = super().save_checkpoint(epoch, metric)
        self._prune_recovery_files((epoch + 1, 0))
        return best

    def save_recovery(self, epoch: int, batch_idx: int = 0) -> None:
        """Save the state inside an epoch, and keep the newest two such files, also from earlier attempts.

        Args:
            epoch: index of the epoch, from 0.
            batch_idx: index of the last finished step.
        """
        self.prev_recovery_file = ""  # timm would delete this one, even when it was just written again
        super().save_recovery(epoch, batch_idx)
        self._prune_recovery_files((epoch, batch_idx))

    def _prune_recovery_files(self, position: tuple[int, int]) -> None:
        """Delete the recovery files beyond a position (epoch, step), and all but the newest two before it."""
        files = recovery_files(Path(self.recovery_dir))
        given_up = [file for place, file in files if place > position]
        for file in [*given_up, *[file for place, file in files if place <= position][_KEPT:]]:
            with suppress(OSError):  # such as a folder that became read-only
                file.unlink()

    def _save(self, save_path: str, epoch: int, metric: float | None = None) -> None:
        with torch_errors_explained(Path(save_path)):
            super()._save(save_path, epoch, metric)
        _flush(Path(save_path))  # else a power cut after the renaming could leave an empty file under the new name

    def _replace(self, src: str, dst: str) -> None:
        os.replace(src, dst)  # noqa: PTH105 - timm's paths are strings

    def _duplicate(self, src: str, dst: str) -> None:
        source, target = Path(src), Path(dst)
        if target.exists() and target.samefile(source):
            return  # renaming a hard link to its own file would leave the unfinished name
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        unfinished.unlink(missing_ok=True)
        try:
            try:
                unfinished.hardlink_to(source)
            except (OSError, NotImplementedError):  # such as exFAT, SMB and many file systems in user space
                shutil.copy2(source, unfinished)
                _flush(unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def complete(self, state: dict[str, Any], resumed: Path, finished: bool) -> None:
        """Take over the history of a resumed checkpoint, and do what a kill has left undone after it was saved.

        Args:
            state: the checkpoint's entry `saver`.
            resumed: its file, in the folder of this saver.
            finished: whether it was saved after an epoch, not inside one.
        """
        # A recovery file has no place among the checkpoints, even if an attempt that was given up finished its epoch.
        self.load_state_dict(state if finished else {**state, "pending": (None, None)})
        epoch, metric = state.get("pending") or (None, None)
        if epoch is not None and finished and self._is_missing(epoch, metric):
            if len(self.checkpoint_files) >= self.max_history:
                self._cleanup_checkpoints(1)
            path = self._checkpoint_path(epoch)
            self._duplicate(f"{resumed}", path)
            self._track_checkpoint(path, epoch, metric, update_best_file=False)
        self._restore_best()
        self.remove_unfinished()

    def make_last_the_best(self) -> None:
        """Give `last` the name `model_best` too, for a run that has no value of its metric."""
        last, best = (Path(self.checkpoint_dir, f"{name}{self.extension}") for name in ("last", "model_best"))
        self._duplicate(f"{last}", f"{best}")

    def remove_unfinished(self) -> None:
        """Delete the files under temporary names, which a kill or a full disk has left."""
        for pattern in _UNFINISHED:
            for torn in Path(self.checkpoint_dir).glob(pattern):
                with suppress(OSError):  # such as a folder that became read-only
                    torn.unlink()

    def _is_missing(self, epoch: int, metric: float | None) -> bool:
        """Return whether an epoch has earned a file that does not exist."""
        if Path(self._checkpoint_path(epoch)).exists():
            return False
        if len(self.checkpoint_files) < self.max_history:
            return True
        worst = self.checkpoint_files[-1][1]
        return worst is None or (metric is not None and self.cmp(metric, worst))

    def _restore_best(self) -> None:
        """Make `model_best` the file of the best epoch, where that one is still kept."""
        if self.best_epoch is None:
            return
        best = Path(self._checkpoint_path(self.best_epoch))
        saved = Path(self.checkpoint_dir, f"model_best{self.extension}")
        if best.exists() and not (saved.exists() and _are_equal(best, saved)):
            self._duplicate(f"{best}", f"{saved}")


def unranked(history: dict[str, Any]) -> dict[str, Any]:
    """Return a saver's history without the values of the metric and without a best epoch."""
    epoch, _ = history.get("pending") or (None, None)
    files = [(name, None) for name, _ in history.get("checkpoint_files", [])]
    return {"checkpoint_files": files, "best_epoch": None, "best_metric": None, "pending": (epoch, None)}


def recovery_files(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    """Return the recovery files of a folder, the newest first, each with its epoch and its last step, from 0."""
    found = [(name, file) for file in folder.glob("recovery-*") if (name := _RECOVERY.fullmatch(file.name))]
    return sorted((((int(name[1]), int(name[2])), file) for name, file in found), reverse=True)


def _flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _are_equal(one: Path, other: Path) -> bool:
    """Return whether two files are one, or have the same size and time, as a copy has."""
    a, b = one.stat(), other.stat()
    return one.samefile(other) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)
