"""What a model costs to run: parameters, multiply-adds, and the time that one image takes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

# Operations that take a network's time; those of them that the counter does not know are named, not passed over.
_HEAVY = re.compile(r"conv|attention|fft|lstm|gru|^_?linear|(^|_)b?mm(_|$)|(^|_)(add|badd)b?mm")


@dataclass(frozen=True)
class Macs:
    """Multiply-adds.

    Attributes:
        count: of one forward pass; None where the model cannot be run under the counter.
        uncounted: names of operations that are not in it.
    """

    count: int | None
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass: the median, what 95 % of the runs stay below, and the number of runs."""

    median: float
    p95: float
    runs: int


class _Seen(TorchDispatchMode):
    """Notes heavy operations that PyTorch's counter has no formula for."""

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.known = known
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        if packet not in self.known and _HEAVY.search(packet.__name__):
            self.names.add(packet.__name__)
        return func(*args, **(kwargs or {}))


def count_parameters(module: nn.Module | None) -> int:
    """Return the number of parameters, 0 for None."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, images: Tensor) -> Macs:
    """Count a forward pass's multiply-adds: half of PyTorch's FLOPs, which are those of products and convolutions.

    Args:
        model: uncompiled, in evaluation mode.
        images: [1, C, H, W] for the count of one image.
    """
    formulas = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    seen = _Seen({*flop_registry, *formulas})
    try:
        with seen, counter:
            model(images)
    except (RuntimeError, TypeError, NotImplementedError):  # a model that no dispatch mode can follow
        return Macs(None)
    return Macs(counter.get_total_flops() // 2, tuple(sorted(seen.names)))


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Count attention's two products as PyTorch's own formula does, which it has for every fused kernel but this."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def measure_latency(
    run: Callable[[], object],
    device: torch.device,
    *,
    warmup: int = 10,
    least: int = 30,
    most: int = 200,
    seconds: float = 3.0,
) -> Latency:
    """Time a function, each run by itself and with the device idle before and after.

    The median, since one interruption by the machine would move a mean. The first runs are not timed: they compile,
    choose algorithms and fill caches.

    Args:
        run: one forward pass.
        device: what it runs on, waited for.
        warmup: runs before the first that is timed.
        least: runs to time, however long they take.
        most: runs to time at the most.
        seconds: after which no more than `least` are timed.
    """
    wait = _waiter(device)
    for _ in range(warmup):
        run()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - begin < seconds):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    middle = len(times) // 2
    median = times[middle] if len(times) % 2 else (times[middle - 1] + times[middle]) / 2
    return Latency(median, times[min(len(times) - 1, int(0.95 * len(times)))], len(times))


def _waiter(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has done all it was given."""
    if device.type == "cpu":
        return lambda: None
    module = getattr(torch, device.type)
    return lambda: module.synchronize()
