"""Opening the device of a run, alone or as one of several processes, and its log."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from runtime.errors import UsageError, first_line
from runtime.host_memory import keep_freed_memory
from timm.utils import init_distributed_device


@contextmanager
def leave_process_group() -> Iterator[None]:
    """Leave the group of processes in the end, also after an error: threads of it that run on abort the exit."""
    try:
        yield
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return how images and convolutions lie in memory."""
    return torch.channels_last if channels_last else torch.contiguous_format


def set_up_process(args: Namespace) -> torch.device:
    """Settle device, rank and world size into args, and let only the primary process log.

    Raises:
        UsageError: a device was asked for that is not there, or the processes cannot be joined.
    """
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.device.startswith("cuda"):
        _check_gpus(args.device)
    else:  # of a GPU a tensor would have every process open the first one
        try:
            torch.empty(0, device=args.device)
        except (RuntimeError, AssertionError, ImportError) as error:
            raise UsageError(f"--device {args.device}: PyTorch cannot use it here; try cpu, or leave it out") from error
    try:
        device: torch.device = init_distributed_device(args)
    except (RuntimeError, ValueError, AssertionError) as error:
        backend = getattr(args, "dist_backend", None)
        flags = f"--device {args.device}" + (f" --dist-backend {backend}" if backend else "")
        raise UsageError(f"{flags}: {first_line(error)}") from error
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    logging.basicConfig(level=logging.INFO if args.rank == 0 else logging.ERROR, format="%(message)s", force=True)
    return device


def _check_gpus(device: str) -> None:
    """Refuse a GPU that is not there, and more processes than GPUs, before any process waits for the others."""
    if not torch.cuda.is_available():
        raise UsageError(f"--device {device}: no GPU that PyTorch can use; leave it out to run on the CPU")
    here = torch.cuda.device_count()
    there_are = f"this machine has {here} GPU{'s' if here > 1 else ''}"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # as torchrun says
    if processes > here:
        raise UsageError(
            f"--device {device}: {there_are} for {processes} processes; start {here}, one a GPU, or add --device cpu"
        )
    number = device.partition(":")[2]
    if number.isdecimal() and int(number) >= here:
        raise UsageError(f"--device {device}: {there_are}, the last of them cuda:{here - 1}")
