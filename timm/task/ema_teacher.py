"""A teacher in the same run: the moving average of the weights labels a weak view of the unlabeled cells.

The student learns these labels on strong views, as in FixMatch (2020, https://arxiv.org/abs/2001.07685), with the
targets and weights of `SoftWeighting`. The averaged teacher is that of Mean Teacher (2017,
https://arxiv.org/abs/1703.01780).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from simclr.collectives import sum_over_processes
from timm.data.target_codes import by_attribute, value_sets
from timm.task.pseudo_loss import SoftTargets, blank_cells
from timm.task.simclr_classification import Chunk, SimCLRClassificationTask
from timm.task.soft_weighting import SoftWeighting, exact_dtype

_LEFT_OUT = 0.05  # an image whose cells all have a smaller weight counts as left out


class EmaTeacher:
    """The source of a task's soft targets: its moving average, in evaluation mode and without gradients.

    Args:
        task: task with a moving average and a plan with a teacher's view.
        shares: shares of the classes among the labels, from `timm.task.class_imbalance`.
        skipped: attributes that get no soft targets.
        warmup_steps: steps over which the loss's weight rises from 0; 0 for none.
    """

    def __init__(
        self,
        task: SimCLRClassificationTask,
        shares: Sequence[Tensor],
        skipped: Collection[str] = (),
        warmup_steps: int = 0,
    ) -> None:
        self.task = task
        self.label_space = task.label_space
        self.weighting = SoftWeighting(self.label_space, shares, task.device)
        # an attribute without any label has nothing to teach
        self.taught = [
            name not in skipped and bool(share.sum() > 0)
            for name, share in zip(self.label_space.attributes, shares, strict=True)
        ]
        self.warmup_steps = warmup_steps
        self.steps = 0
        self.meter = TeacherMeter(self.label_space, self.taught, task.device)

    def __call__(self, chunks: Sequence[Chunk]) -> list[SoftTargets]:
        """Return the soft targets of each chunk's B images. Every rank must call this once per step."""
        targets = torch.cat([target for _, target in chunks])
        by_chunk = [self.predict(images) for images, _ in chunks]
        predictions = [torch.cat(parts) for parts in zip(*by_chunk, strict=True)]
        blank = blank_cells(targets, self.label_space)
        cells = [mask & taught for mask, taught in zip(blank, self.taught, strict=True)]
        soft = self.weighting(predictions, cells)
        self.meter.update(predictions, soft, targets)
        self.steps += 1
        rows = [len(target) for _, target in chunks]
        pieces = zip(*(zip(*(values.split(rows) for values in entries), strict=True) for entries in soft), strict=True)
        return [SoftTargets(*map(list, piece)) for piece in pieces]

    @torch.no_grad()
    def predict(self, images: Tensor) -> list[Tensor]:
        """Return the teacher's probabilities of each attribute [B, K], given all views [V*B, C, H, W]."""
        plan = self.task.plan
        assert plan.teacher is not None
        model = self.task.get_eval_model(ema=True)
        assert model is not None
        if model.training:  # `task.train()` reaches the average too
            model.eval()
        logits = model(images.chunk(len(plan))[plan.teacher])
        losses = self.task.pseudo_loss.losses
        names = self.label_space.attributes
        return [loss.probabilities(logits[name]) for name, loss in zip(names, losses, strict=True)]

    def factor(self) -> float:
        """Return the share of the loss's weight in the current step, which rises during warm-up."""
        return min(1.0, self.steps / self.warmup_steps) if self.warmup_steps else 1.0

    def numbers(self) -> dict[str, float]:
        """Return what `TeacherMeter` measured since the last call; a collective call."""
        return self.meter.compute()

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors from which a resumed run continues."""
        return {"steps": self.steps, "weighting": self.weighting.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        self.steps = state["steps"]
        self.weighting.load_state_dict(state["weighting"])


class TeacherMeter:
    """How much the student learns from a teacher, and how often the teacher is right where the label is known.

    Args:
        label_space: the attributes and their classes.
        taught: whether each attribute gets soft targets.
        device: device of the predictions.
    """

    def __init__(self, label_space: LabelSpace, taught: Sequence[bool], device: torch.device) -> None:
        self.label_space, self.taught = label_space, taught
        # for each attribute: unlabeled cells, their weight, known cells, those that the teacher predicts
        dtype = exact_dtype(device)  # float32 cannot count beyond 2^24
        self.by_attribute = torch.zeros(len(taught), 4, device=device, dtype=dtype)
        self.images = torch.zeros(2, device=device, dtype=dtype)  # images without any label, and those left out

    def update(self, predictions: Sequence[Tensor], soft: SoftTargets, targets: Tensor) -> None:
        """Add a step.

        Args:
            predictions: the teacher's probabilities of each attribute, [N, K].
            soft: the soft targets that follow.
            targets: int64 [N, C], the labels that are known.
        """
        for index, labels in enumerate(by_attribute(targets, self.label_space)):
            known, agrees = _agreement(predictions[index], labels)
            weights, cells = soft.weights[index], soft.cells[index]
            entries = (cells.sum(), (weights * cells).sum(), known.sum(), (agrees * known).sum())
            self.by_attribute[index] += torch.stack([entry.to(self.images) for entry in entries])
        unlabeled = (targets < 0).all(dim=1)
        pairs = zip(soft.weights, soft.cells, strict=True)
        used = torch.stack([(weights >= _LEFT_OUT) & cells for weights, cells in pairs]).any(dim=0)
        self.images += torch.stack([unlabeled.sum(), (unlabeled & ~used).sum()])

    def compute(self) -> dict[str, float]:
        """Return the measurements since the last call, in percent 0-100; a collective call.

        Returns:
            For each taught attribute `<attribute>_pseudo_used`, the mean weight of its unlabeled cells, and
            `<attribute>_pseudo_agreement`, the share of known labels that the teacher predicts from the weak view; for
            a multi-valued attribute the mean share of its values. `pseudo_left_out` is the share of images without any
            label whose cells all have a weight below 5%. NaN where nothing was measured.
        """
        joint = sum_over_processes(torch.cat([self.by_attribute.flatten(), self.images]))
        *rows, images, left_out = joint.tolist()
        found = {}
        for index, name in enumerate(self.label_space.attributes):
            cells, weight, known, agreeing = rows[4 * index : 4 * index + 4]
            if self.taught[index]:
                found[f"{name}_pseudo_used"] = _percent(weight, cells)
                found[f"{name}_pseudo_agreement"] = _percent(agreeing, known)
        self.by_attribute.zero_()
        self.images.zero_()
        return found | {"pseudo_left_out": _percent(left_out, images)}


def _agreement(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows have a known label, bool [N], and to which degree the predictions agree with it, 0-1 [N]."""
    if labels.ndim == 2:
        sets = value_sets(labels, predictions.shape[1])
        return sets.known, ((predictions >= 0.5) == sets.values).float().mean(dim=1)
    return labels >= 0, (predictions.argmax(dim=1) == labels).float()


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else math.nan
