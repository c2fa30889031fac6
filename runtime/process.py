"""The device and the rank of this process, alone or in a process group, and its log."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from runtime.errors import UsageError, first_line
from runtime.host_memory import keep_freed_memory
from runtime.log import set_up_log
from runtime.process_group import join_process_group, launched_place, processes_here
from runtime.rank_watch import end_watch
from runtime.slurm import works_alone_in_slurm

_logger = logging.getLogger("process")


@dataclass(frozen=True)
class Process:
    """The place of this process in a run.

    Args:
        device: the device that this process computes on.
        rank: index of this process among all, from 0.
        local_rank: index of this process among the processes of its machine, from 0.
        world_size: number of processes.
        distributed: whether there is a process group; a launcher may start one for a single process.
    """

    device: torch.device
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    distributed: bool = False

    @property
    def is_primary(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0


@contextmanager
def leave_process_group() -> Iterator[None]:
    """Leave the process group in the end, also after an error: its running threads would abort the exit."""
    failed = True
    try:
        yield
        failed = False
    finally:
        leave_now(failed)


def leave_now(failed: bool = False) -> None:
    """Leave the process group, if there is one, before work that no other process waits for.

    Args:
        failed: whether this process ends with an error.
    """
    end_watch(failed)
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the memory layout of images and convolutions."""
    return torch.channels_last if channels_last else torch.contiguous_format


def set_up_process(
    device: str | None = None,
    dist_backend: str | None = None,
    dist_url: str | None = None,
    dist_timeout: float | None = None,
) -> Process:
    """Join the process group if there is one, open the device, and let only the primary process log.

    Args:
        device: name of a PyTorch device; None or "" for the GPU if there is one, else the CPU.
        dist_backend: PyTorch's backend of the process group; None for the usual one of the device.
        dist_url: where the processes meet; None for the launcher's environment variables.
        dist_timeout: seconds that a process waits for the others in an operation; None for the usual 30 minutes.

    Raises:
        UsageError: the device is unavailable, or the processes cannot join.
    """
    place = launched_place()

    # the device, before any process waits for the others
    device = str(open_device(device))

    # the process group
    process = Process(torch.device(device))
    if place is not None:
        kind = device.partition(":")[0]
        try:
            join_process_group(place, kind, dist_backend, dist_url, dist_timeout)
        except (RuntimeError, ValueError, AssertionError) as error:
            if isinstance(error, UsageError):
                raise
            backend = f" dist_backend {dist_backend}" if dist_backend else ""
            raise UsageError(
                f"device {device}{backend} cannot be used ({first_line(error)}): choose another device or dist_backend"
            ) from error
        own = torch.device(kind if kind == "cpu" else f"{kind}:{place.local_rank}")
        process = Process(own, place.rank, place.local_rank, place.world_size, distributed=True)
    if process.device.index is not None and process.device.type in ("cuda", "npu"):
        torch.get_device_module(process.device).set_device(process.device)

    # what is faster there, and the log
    if process.device.type == "cpu":
        keep_freed_memory()
    if process.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    set_up_log(logging.INFO if process.is_primary else logging.ERROR)
    if place is None and works_alone_in_slurm():
        _logger.warning(
            f"This Slurm job has {os.environ['SLURM_NTASKS']} tasks, but srun did not start this process, so it works "
            "alone: to use all, put srun before the command"
        )
    return process


def open_device(device: str | None = None) -> torch.device:
    """Return a device that works.

    Args:
        device: name of a PyTorch device; None or "" for the GPU if there is one, else the CPU.

    Raises:
        UsageError: it is unavailable.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda"):
        _check_gpus(device)
    try:
        if not device.startswith("cuda"):  # a tensor on a GPU would make every process open the first one
            torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UsageError(f"device {device}: PyTorch cannot use it here; try cpu, or leave it out") from error


def _check_gpus(device: str) -> None:
    """Refuse a GPU that does not exist, and more processes than GPUs."""
    if not torch.cuda.is_available():
        raise UsageError(f"device {device}: PyTorch finds no GPU here; leave it out to run on the CPU")
    here = torch.cuda.device_count()
    there_are = f"this machine has {here} GPU{'s' if here > 1 else ''}"
    processes = processes_here()
    if processes > here:
        raise UsageError(
            f"device {device}: {there_are}, too few for {processes} processes: start {here}, one per GPU, or use "
            "device cpu"
        )
    number = device.partition(":")[2]
    if number.isdecimal() and int(number) >= here:
        raise UsageError(f"device {device}: {there_are}, the last of them cuda:{here - 1}")
