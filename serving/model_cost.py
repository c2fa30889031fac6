"""The cost of a model that is ready to predict: parameters, multiply-adds and latency, as columns and in words."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist

from serving.cost import count_macs, count_parameters, measure_latency
from serving.loading import EvaluationModel
from timm.task.evaluate import predict

_logger = logging.getLogger("validate")

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
    with ready.autocast():
        macs = count_macs(ready.model, image)
    if macs.uncounted:
        _logger.warning(f"GMACs leave out {', '.join(macs.uncounted)}, which PyTorch's counter does not know")
    cost: Cost = {
        "param_count": round(count_parameters(ready.model) / 1e6, 4),
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
    parts = [f"{cost['param_count']:.2f} M parameters"]
    if unused := count_parameters(ready.model.projector):
        parts[0] += f" ({unused / 1e6:.2f} M of them the projection head, which predicts nothing)"
    parts.append("GMACs not countable" if cost["gmacs"] is None else f"{cost['gmacs']:.3f} GMACs")
    if cost["latency_ms"] is not None:
        parts.append(
            f"{cost['latency_ms']:.2f} ms for one image on {ready.device} (median of {cost['latency_runs']} runs, "
            f"95% within {cost['latency_p95_ms']:.2f} ms)"
        )
    return ", ".join(parts)
