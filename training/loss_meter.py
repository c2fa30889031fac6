"""Averages of an epoch's losses and metrics, which stay on the device until they are read, and a guard against NaN."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.errors import UsageError
from simclr import ProjectionMeter
from timm.task.gradient_cache import Chunk, Result
from timm.task.simclr_classification import SimCLRClassificationTask

_IN_A_ROW = 3
# what each part of an EpochMeter sums, from which a resumed epoch continues
_SUMS = {
    "losses": ("names", "sums", "rows"),
    "accuracy": ("num_samples", "loss_sum", "counts"),
    "projections": ("sums", "moments", "images", "pairs"),
    "teacher": ("by_attribute", "images"),
}
_STEPS_MEASURED = 20  # per epoch: enough for a steady mean, and a small share of a long epoch's time


class LossMeter:
    """Row-weighted averages of those entries of a task's result whose names end in `loss`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.last: Tensor | None = None
        self.rows = 0

    def update(self, result: Mapping[str, Tensor], rows: int) -> Tensor:
        """Add a step's losses, which are means over `rows` rows; return them as one tensor in the order of `names`."""
        names = [name for name in result if name.endswith("loss")]
        if names != self.names:  # the first step, also of a resumed run with other losses
            self.names, self.sums, self.rows = names, None, 0
        self.last = torch.stack([result[name].detach().float() for name in self.names])
        self.sums = self.last * rows if self.sums is None else self.sums + self.last * rows
        self.rows += rows
        return self.last

    def values(self) -> dict[str, float]:
        """Return the last step's losses."""
        return {} if self.last is None else dict(zip(self.names, self.last.tolist(), strict=True))

    def averages(self, distributed: bool = False) -> dict[str, float]:
        """Return the averages over all rows so far; with `distributed`, over the rows of all processes."""
        if self.sums is None:
            return {}
        joint = torch.cat([self.sums, self.sums.new_tensor([self.rows])])
        if distributed:
            dist.all_reduce(joint)
        means = joint[:-1] / joint[-1].clamp(min=1)
        return dict(zip(self.names, means.tolist(), strict=True))


class EpochMeter:
    """The losses, the accuracy and the projections of an epoch's training.

    Args:
        task: task that is trained.
        steps: steps per epoch; the projections of about 20 of them are measured.
        distributed: whether to average over all processes.
    """

    def __init__(self, task: SimCLRClassificationTask, steps: int, distributed: bool) -> None:
        self.task, self.steps, self.distributed = task, steps, distributed
        self.losses = LossMeter()
        self.accuracy = task.create_evaluator(keep_scores=False)
        self.projections = ProjectionMeter() if task.plan.contrast is not None else None

    def update(self, step: int, result: Result, chunks: Sequence[Chunk]) -> Tensor:
        """Add a step's result; return its losses in the order of `losses.names`.

        Args:
            step: index of the step, from 0.
            result: what the task returned for the step's batches together.
            chunks: the step's batches, on the task's device.
        """
        losses = self.losses.update(result, rows_of(chunks))
        targets = [target for _, target in chunks]
        self.accuracy.update(result["output"], torch.cat([self.task.classified_targets(target) for target in targets]))
        if self.projections is not None and is_measured(step, self.steps):
            labels = torch.cat([self.task.contrasted_labels(target) for target in targets])
            self.projections.update(result["projections"], labels)
        return losses

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return this process's sums, as plain values and tensors on the CPU."""
        return {
            part: {
                name: value.cpu() if isinstance(value := getattr(meter, name), Tensor) else value
                for name in _SUMS[part]
            }
            for part, meter in self._parts().items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Continue from the sums of the same process in an interrupted epoch.

        Raises:
            ValueError: a sum is missing, or has another type or shape.
        """
        found = []
        for part, meter in self._parts().items():
            for name in _SUMS[part]:
                value, now = state.get(part, {}).get(name), getattr(meter, name)
                fits = isinstance(value, Tensor if now is None else type(now))
                if isinstance(value, Tensor) and isinstance(now, Tensor):
                    fits = now.shape == value.shape or not now.numel()
                if not fits:
                    raise ValueError(f"{name} of {part}")
                found.append((meter, name, value.to(self.task.device) if isinstance(value, Tensor) else value))
        for meter, name, value in found:
            setattr(meter, name, value)

    def _parts(self) -> dict[str, Any]:
        """Return the parts of this meter that the task has, by name."""
        parts = {"losses": self.losses, "accuracy": self.accuracy, "projections": self.projections}
        parts["teacher"] = getattr(self.task.soft_source, "meter", None)
        return {part: meter for part, meter in parts.items() if meter is not None}

    def averages(self) -> dict[str, float]:
        """Return the average losses so far; a collective call where `distributed`."""
        return self.losses.averages(self.distributed)

    def top1(self) -> float:
        """Return the top-1 accuracy, percent 0-100; a collective call where `distributed`."""
        top1: float = self.accuracy.compute(distributed=self.distributed)["top1"]
        return top1

    def projection_metrics(self) -> dict[str, float]:
        """Return the metrics of the projections; nothing without a contrastive loss."""
        return {} if self.projections is None else self.projections.compute()


def rows_of(chunks: Sequence[Chunk]) -> int:
    """Return the number of images in a step's batches; an image counts once, whatever its number of views."""
    return sum(len(target) for _, target in chunks)


def is_measured(step: int, steps: int) -> bool:
    """Return whether a step's projections are measured, as in about 20 steps of an epoch."""
    return step % max(1, steps // _STEPS_MEASURED) == 0


class NonFiniteLossGuard:
    """A guard that ends a run whose loss is not finite a few steps in a row, and names the term.

    Args:
        lag: number of steps before a loss is read, so that reading it does not wait for the GPU.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.pending: deque[tuple[list[str], Tensor]] = deque()
        self.bad = 0

    def check(self, names: list[str], losses: Tensor) -> None:
        """Take a step's losses, and check the losses from `lag` steps ago.

        Raises:
            UsageError: a third loss in a row is NaN or infinite.
        """
        self.pending.append((names, losses))
        if len(self.pending) > self.lag:
            names, losses = self.pending.popleft()
            values = losses.tolist()
            broken = [name for name, value in zip(names, values, strict=True) if not abs(value) < float("inf")]
            self.bad = self.bad + 1 if broken else 0
            if self.bad >= _IN_A_ROW:
                terms = ", ".join(name for name in broken if name != "loss") or "loss"
                raise UsageError(
                    f"{terms} was not finite {_IN_A_ROW} steps in a row: lower --lr, clip with --clip-grad 1, or "
                    "train without --amp, whose number range may be too small; the last checkpoint is untouched"
                )
