"""The report that a training leaves in its folder, and what it needs of the run: its record and its first views."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.atomic_file import atomic_file
from runtime.commit import commit
from runtime.errors import first_line, printable
from runtime.log import errors_only
from runtime.process import Process
from training.outputs import DrawViews

_logger = logging.getLogger("train")

_PACKAGES = ("torch", "timm", "torchvision", "numpy", "pillow")
_IMAGES = 8  # whose views a report shows
_SIDE = 112  # pixels of a view's longer side
_BATCH = 64


def leave_report(folder: Path, device: torch.device, workers: int) -> None:
    """Write report.html and the model card into a run's folder.

    The run is over and its files are whole, so nothing that goes wrong here ends it: one warning says why there is no
    report, and how to make it.

    Args:
        folder: folder of the run.
        device: device to compute on.
        workers: processes that load images.
    """
    command = f"python report.py {shlex.quote(str(folder))}"
    start = time.perf_counter()
    try:
        # only here: a run that ends early needs none of it
        from serving.run_report import leave_page

        with errors_only():  # the run has logged what is odd about its tables and images
            path = leave_page(folder, device, _BATCH, workers, f"{command} adds a logistic regression on h.")
    except (Exception, KeyboardInterrupt) as error:  # whatever it is, the run has succeeded
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else printable(first_line(error))
        _logger.warning(f"No report: {reason}. Make it with {command}")
        return
    _logger.info(f"Report: {path}  ({time.perf_counter() - start:.1f}s)")


def session(process: Process, tables: dict[str, str], launch: str) -> dict[str, Any]:
    """Return the facts of this start of a run, for its record.

    Args:
        process: device and number of the processes.
        tables: hash of each table.
        launch: words that start the script as this process was started.
    """
    return {
        "command": f"{launch} {shlex.join(sys.argv[1:])}",
        "processes": process.world_size,
        "device": device_name(process.device),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "tables": tables,
    }


def device_name(device: torch.device) -> str:
    """Return the name of a device, as people know it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    return f"CPU with {torch.get_num_threads()} threads ({_processor()})"


@cache
def _processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


@cache
def _versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def keep_views(path: Path, draw: DrawViews, images: Tensor, target: Tensor) -> None:
    """Write the views of a batch's first images; a report without them is none the worse, so a failure is ignored.

    Args:
        path: the picture to write, a JPEG.
        draw: function that draws views.
        images: views [V*B, C, H, W], view 0 first.
        target: int64 [B, C], the labels.
    """
    count = min(_IMAGES, len(target))
    first = images.view(-1, len(target), *images.shape[1:])[:, :count].flatten(0, 1).float()
    scale = _SIDE / max(first.shape[2:])
    size = [max(1, round(scale * side)) for side in first.shape[2:]]
    shown = F.interpolate(first, size, mode="area")
    try:
        with atomic_file(path) as unfinished:
            draw(shown, target[:count]).save(unfinished, "JPEG", quality=85)
    except OSError as error:
        _logger.warning(f"No {path.name}: {error.strerror or error}")
