"""Random numbers that are the same in a resumed run as in an uninterrupted one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

RandomState = dict[str, Any]

_EPOCHS = 1_000_003  # both are prime, so that the numbers of two (seed, epoch, rank) do not meet in practice
_RANKS = 7_919


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed of an epoch on a process, 0 to 2**32 - 1.

    Neighboring seeds, epochs and ranks give different numbers, unlike their sum.

    Args:
        seed: seed of the run.
        epoch: index of the epoch, from 0.
        rank: rank of the process; 0 for a seed that all processes share.
    """
    return (seed + _EPOCHS * epoch + _RANKS * rank) % 2**32


def seed_all(seed: int, rank: int = 0, epoch: int = 0) -> None:
    """Seed Python, NumPy and torch for an epoch of a process.

    Each epoch has its own seed, so a resumed run draws the same numbers as one that ran the earlier epochs too.
    """
    seed = epoch_seed(seed, epoch, rank)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  timm's augmentations draw from the global generator
    torch.manual_seed(seed)


def get_random_state() -> RandomState:
    """Return the state of the three generators and of this process's GPU, in types that a safe load allows."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), cached],
        "torch": torch.get_rng_state(),
        # Only the GPU in use: reading all of them would open a context on each, in every process.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def gather_objects(local: Any, world_size: int) -> list[Any]:
    """Return every process's object, by rank; a collective call where there are several processes."""
    objects = [local] * world_size
    if world_size > 1:
        dist.all_gather_object(objects, local)
    return objects


def set_random_state(state: RandomState) -> None:
    """Restore what `get_random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the random state afterwards."""
    before = get_random_state()
    try:
        yield
    finally:
        set_random_state(before)


def get_torch_random_state(device: torch.device) -> list[Tensor]:
    """Return the states of torch's generators of the CPU and of a device, which a forward pass draws from."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state(device)]


def set_torch_random_state(states: list[Tensor], device: torch.device) -> None:
    """Restore what `get_torch_random_state` returned for the same device."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1], device)


@contextmanager
def replayed_random_state(states: list[Tensor], device: torch.device) -> Iterator[None]:
    """Draw again the numbers that followed `states`; restore the present state afterwards."""
    now = get_torch_random_state(device)
    set_torch_random_state(states, device)
    try:
        yield
    finally:
        set_torch_random_state(now, device)
