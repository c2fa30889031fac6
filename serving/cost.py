"""The cost of a model: parameters, multiply-adds and the latency of one image, as columns and in words."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from serving.exported import ExportedModel
from serving.loading import EvaluationModel
from timm.task.evaluate import predict

_logger = logging.getLogger("validate")

# Expensive operations; the ones that PyTorch's counter does not know are reported by name.
_HEAVY = re.compile(r"conv|attention|fft|lstm|gru|^_?linear|(^|_)b?mm(_|$)|(^|_)(add|badd)b?mm")

Cost = dict[str, Any]


def measure_cost(ready: EvaluationModel, tta: int = 0, latency: bool = True) -> Cost:
    """Return parameters in millions, multiply-adds of an image in 10^9, and the latency of an image in milliseconds.

    With several processes only the primary one measures the latency, while the others wait.

    Args:
        ready: the model.
        tta: 2 includes the mirror image.
        latency: whether to measure the latency; without it the columns hold None.
    """
    distributed = dist.is_available() and dist.is_initialized()
    image = ready.random_image()
    model = ready.model
    parameters = model.parameter_count if isinstance(model, ExportedModel) else count_parameters(model)
    with ready.autocast():
        macs = Macs(None) if isinstance(model, ExportedModel) else count_macs(model, image)
    if macs.uncounted:
        _logger.warning(f"GMACs leave out {', '.join(macs.uncounted)}, which PyTorch's counter does not know")
    cost: Cost = {
        "param_count": None if parameters is None else round(parameters / 1e6, 4),
        "gmacs": None if macs.count is None else round(macs.count / 1e9, 4),
        "latency_ms": None,
        "latency_p95_ms": None,
    }
    if latency and (not distributed or dist.get_rank() == 0):

        @torch.inference_mode()
        def run() -> None:
            with ready.autocast():
                predict(ready.run, image, tta)

        measured = measure_latency(run, ready.device)
        cost |= {"latency_ms": round(measured.median, 4), "latency_p95_ms": round(measured.p95, 4)}
        cost["latency_runs"] = measured.runs
    if distributed:
        dist.barrier()  # busy processes would slow down the measurement
    return cost


def cost_line(ready: EvaluationModel, cost: Cost) -> str:
    """Return the cost of a model in words."""
    count = cost["param_count"]
    parts = ["parameters not countable" if count is None else f"{count:.2f} M parameters"]
    if unused := count_parameters(ready.model.projector):
        parts[0] += f" ({unused / 1e6:.2f} M of them the projection head, which predicts nothing)"
    parts.append("GMACs not countable" if cost["gmacs"] is None else f"{cost['gmacs']:.3f} GMACs")
    if cost["latency_ms"] is not None:
        parts.append(
            f"{cost['latency_ms']:.2f} ms for one image on {ready.device} (median of {cost['latency_runs']} runs, "
            f"95% within {cost['latency_p95_ms']:.2f} ms)"
        )
    return ", ".join(parts)


@dataclass(frozen=True)
class Macs:
    """The multiply-adds of one forward pass.

    Attributes:
        count: their number; None where the model does not run under the counter.
        uncounted: names of expensive operations that the number leaves out.
    """

    count: int | None
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Latency:
    """The duration of one forward pass in milliseconds: median, 95th percentile, and number of runs."""

    median: float
    p95: float
    runs: int


class _Seen(TorchDispatchMode):
    """A dispatch mode that records expensive operations without a formula in PyTorch's counter."""

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
    """Count the multiply-adds of a forward pass: half of PyTorch's FLOPs, which cover products and convolutions.

    Args:
        model: the model, not compiled, in evaluation mode.
        images: the input [B, C, H, W]; B = 1 counts one image.
    """
    formulas = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    seen = _Seen({*flop_registry, *formulas})
    try:
        with seen, counter:
            model(images)
    except (RuntimeError, TypeError, NotImplementedError):  # the model does not run under a dispatch mode
        return Macs(None)
    return Macs(counter.get_total_flops() // 2, tuple(sorted(seen.names)))


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Count attention's two products; PyTorch has this formula for every fused kernel except the CPU's."""
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
    """Time each run of a function separately; the device is idle before and after it.

    The result is a median, because one interruption would distort a mean. The first runs are not timed: they compile,
    choose algorithms and fill caches.

    Args:
        run: a function that does one forward pass.
        device: the device that it runs on.
        warmup: number of untimed runs at the beginning.
        least: smallest number of timed runs.
        most: largest number of timed runs.
        seconds: duration after which runs beyond `least` are skipped.
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
    """Return a function that waits until the device is idle."""
    if device.type == "cpu":
        return lambda: None
    module = getattr(torch, device.type)
    return lambda: module.synchronize()
