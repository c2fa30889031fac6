"""The joint task: every attribute's classification loss and SimCLR's contrastive loss, from one forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from timm.data.multi_label_mixup import MultiLabelMixup
from timm.data.target_codes import label_codes
from timm.data.view_plan import ViewPlan
from timm.models.multi_label import MultiLabelModel
from timm.task import ClassificationTask
from timm.task.attribute_evaluator import AttributeEvaluator
from timm.task.attribute_loss import AttributeLoss
from timm.task.contrastive_loss import ContrastiveLoss
from timm.task.pseudo_loss import PseudoLoss, SoftTargets
from timm.utils.model import unwrap_model

Targets = Tensor | Sequence[Tensor]
Chunk = tuple[Tensor, Tensor]  # images [V*B, C, H, W] and targets [B, C], a batch of the loader


class SoftTargetSource(Protocol):
    """What gives the unlabeled cells of a step their soft targets."""

    def __call__(self, chunks: Sequence[Chunk]) -> list[SoftTargets]:
        """Return the soft targets of each chunk's B images; every rank calls this once per step, without a graph."""
        ...

    def factor(self) -> float:
        """Return the current share of the loss's weight, 0-1."""
        ...

    def numbers(self) -> dict[str, float]:
        """Return what was measured since the last call, in percent 0-100, by name; every rank calls this."""
        ...


class SimCLRClassificationTask(ClassificationTask):
    """loss = simclr_loss * simclr_loss_weight + classification_loss * classification_loss_weight.

    An attribute's loss is the mean over its labels. The classification loss is the mean of these, weighted by
    `attribute_weights`. With a source of soft targets, `pseudo_loss * pseudo_weight` joins the sum: `PseudoLoss` on the
    plan's taught views, with the same mean over the attributes.

    Args:
        model: returns logits by attribute and projections, for all views in one batch.
        plan: which views each loss reads.
        simclr_loss_weight: factor on the contrastive loss, from 0.
        classification_loss_weight: factor on the classification loss, from 0.
        contrastive: the contrastive loss; None for NT-Xent at temperature 0.5.
        attribute_weights: weight by attribute, 1 for the others.
        smoothing: label smoothing, 0-1.
        jsd: AugMix's Jensen-Shannon loss between the classified views.
        mixup: mixes the classified views and their labels, or None.
        class_weights: weights [K] of each attribute's classes, by `timm.task.class_imbalance`; None for equal weights.
        logit_margins: margins [K] of each attribute's classes, by `timm.task.class_imbalance`; None for no margins.
        multi_valued_loss: name of the loss in `timm.task.multi_valued_loss`.
        pseudo_weight: factor on the loss on soft targets, from 0; without effect until `soft_source` is set.
        device: device of the task's tensors.
        dtype: number format of the model's parameters.
    """

    criterion: AttributeLoss

    def __init__(
        self,
        model: MultiLabelModel,
        plan: ViewPlan,
        *,
        simclr_loss_weight: float = 0.5,
        classification_loss_weight: float = 0.5,
        contrastive: ContrastiveLoss | None = None,
        attribute_weights: Mapping[str, float] | None = None,
        smoothing: float = 0.0,
        jsd: bool = False,
        mixup: MultiLabelMixup | None = None,
        class_weights: Sequence[Tensor] | None = None,
        logit_margins: Sequence[Tensor] | None = None,
        multi_valued_loss: str = "bce",
        pseudo_weight: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        splits = len(plan.classify) if jsd else 0
        criterion = AttributeLoss(
            model.label_space, smoothing, splits, class_weights, logit_margins, multi_valued_loss
        ).to(device)
        super().__init__(model, criterion, device=device, dtype=dtype, verbose=False)
        self.plan = plan
        self.simclr_loss_weight = simclr_loss_weight
        self.classification_loss_weight = classification_loss_weight
        self.contrastive = contrastive or ContrastiveLoss()
        self.mixup = mixup
        self.label_space = model.label_space
        self.pseudo_weight = pseudo_weight
        self.pseudo_loss = PseudoLoss(self.label_space, logit_margins).to(device)
        self.soft_source: SoftTargetSource | None = None
        self.attribute_weights = [(attribute_weights or {}).get(name, 1.0) for name in self.label_space.attributes]
        # What validation chooses by attribute: "thresholds" of multi-valued ones and "temperatures" for the model,
        # "thresholds_ema" and "temperatures_ema" for its average.
        self.chosen: dict[str, dict[str, float]] = {}
        # Entries that the run adds to each checkpoint, by key; each is read when the checkpoint is written.
        self.checkpoint_extras: dict[str, Callable[[], Any]] = {}
        weights = torch.tensor(self.attribute_weights, device=device)
        self.register_buffer("_shares", weights / weights.sum(), persistent=False)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Any]:
        """Return the losses of a step, its outputs, and entries for the log.

        Args:
            input: [V*B, C, H, W], view 0 first; with mixup its classified views are changed in place.
            target: int64 [B, C] of the label space, a row an image whatever the number of views; -100 where unknown.
                A further column, which only a source of soft targets reads, may number the images.

        Returns:
            `loss`, with a graph; `classification_loss` and one `<attribute>_loss` per attribute, unweighted; `output`,
            the classified views' logits by attribute. With a contrastive loss also `simclr_loss`, unweighted, and
            `projections` [2, B, P] without a graph. With soft targets also `pseudo_loss`, unweighted.
        """
        soft = self.soft_targets([(input, target)])
        targets = self.prepare_targets(input, target)
        contrast = partial(self.contrastive, labels=self.contrasted_labels(target))
        outputs = self.trainable_module(self.forwarded_views(input))
        return self.losses(outputs, targets, contrast=contrast, soft=soft[0] if soft else None)

    def forwarded_views(self, input: Tensor) -> Tensor:
        """Return the views that the student reads, of a batch [V*B, C, H, W]."""
        return input if self.plan.forwarded == len(self.plan) else input[: -(len(input) // len(self.plan))]

    @torch.no_grad()
    def soft_targets(self, chunks: Sequence[Chunk]) -> list[SoftTargets]:
        """Return the soft targets of each chunk's taught views, one copy for each view; no entries without a source.

        Every rank must call this once per step, with all chunks of the step.
        """
        if self.soft_source is None:
            return []
        return [targets.repeated(len(self.plan.taught)) for targets in self.soft_source(chunks)]

    def soft_numbers(self) -> dict[str, float]:
        """Return what the source of soft targets measured since the last call; a collective call."""
        return {} if self.soft_source is None else self.soft_source.numbers()

    def prepare_targets(self, input: Tensor, target: Tensor) -> Targets:
        """Return the targets of the classified views; with mixup mix these views, in place.

        Args:
            input: images [V*B, C, H, W]; with mixup the classified views are changed in place.
            target: int64 [B, C].

        Returns:
            int64 [N, C], or with mixup soft targets for each attribute.
        """
        return self.classified_targets(target) if self.mixup is None else self._mix(input, target)

    def losses(
        self,
        outputs: tuple[dict[str, Tensor], Tensor],
        targets: Targets,
        counts: Tensor | None = None,
        contrast: Callable[[Tensor, Tensor], Tensor] | None = None,
        part: float = 1.0,
        soft: SoftTargets | None = None,
        soft_counts: Tensor | None = None,
    ) -> dict[str, Any]:
        """Return the results of `forward` for the model's outputs of a batch, or of a chunk of a batch.

        Args:
            outputs: the model's logits by attribute [V*B, K], and projections [V*B, P].
            targets: targets of the classified views, by `prepare_targets`.
            counts: with a chunk, the whole batch's label counts by `AttributeLoss.joint_counts`; the losses are then
                summands of the batch's losses.
            contrast: maps the projections [B, P] of two views to the contrastive loss, or a chunk's to its summand.
                None contrasts without labels.
            part: share of the batch in the chunk, 0-1, for terms that are not sums over images.
            soft: soft targets of the taught views, from `soft_targets`; None without them.
            soft_counts: with a chunk, the whole batch's cell counts by `PseudoLoss.joint_counts`.
        """
        logits, projections = outputs
        classified = {name: self._rows(values, self.plan.classify) for name, values in logits.items()}
        if counts is None and self.log_variances is not None:
            counts = self.criterion.joint_counts([targets])
        losses = self.criterion(classified, targets, counts)
        classification_loss = (self._balanced(losses, counts, part) * self.get_buffer("_shares")).sum()
        result = {
            "output": classified,
            "classification_loss": classification_loss,
            **{f"{name}_loss": loss for name, loss in zip(self.label_space.attributes, losses.detach(), strict=True)},
        }
        loss = classification_loss * self.classification_loss_weight
        if self.plan.contrast is not None:
            views = self.contrasted_views(projections)
            result["simclr_loss"] = (contrast or self.contrastive)(*views)
            result["projections"] = torch.stack([view.detach() for view in views])
            loss = loss + result["simclr_loss"] * self.simclr_loss_weight
        if soft is not None:
            taught = {name: self._rows(values, self.plan.taught) for name, values in logits.items()}
            result["pseudo_loss"] = (self.pseudo_loss(taught, soft, soft_counts) * self.get_buffer("_shares")).sum()
            factor = 1.0 if self.soft_source is None else self.soft_source.factor()
            loss = loss + result["pseudo_loss"] * (self.pseudo_weight * factor)
        result["loss"] = loss
        return result

    @property
    def log_variances(self) -> Tensor | None:
        """The attributes' learned log-variances [A]; None if their weights are fixed."""
        learned: Tensor | None = unwrap_model(self.get_trainable_module()).log_variances
        return learned

    def weights(self) -> dict[str, float]:
        """Return the current factors on both losses, and on each attribute in the classification loss."""
        factors: Tensor = self.get_buffer("_shares")
        if self.log_variances is not None:
            factors = factors * (-self.log_variances.detach()).exp()
        both = {"simclr": self.simclr_loss_weight, "classification": self.classification_loss_weight}
        named = both | dict(zip(self.label_space.attributes, factors.tolist(), strict=True))
        return {f"{name}_weight": value for name, value in named.items()}

    def _balanced(self, losses: Tensor, counts: Tensor | None, part: float) -> Tensor:
        """Return the losses [A]; with learned variances v, loss / v + log(v) / 2 each (arXiv:1705.07115, eq. 10)."""
        if self.log_variances is None:
            return losses
        assert counts is not None
        s = self.log_variances.to(losses.dtype)
        # Without a label in the batch, an attribute's variance gets no gradient.
        return losses * (-s).exp() + s * (counts > 0) * (part / 2)

    def classified_targets(self, target: Tensor) -> Tensor:
        """Return the targets [N, C] of `output`'s rows: an image's target once for each classified view."""
        views, target = len(self.plan.classify), target[:, : self.label_space.width]
        return target.repeat(views, 1) if views > 1 else target

    def contrasted_views(self, projections: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two views [B, P] that the contrastive loss pairs, given projections [V*B, P]."""
        assert self.plan.contrast is not None
        view_i, view_j = self.plan.contrast
        return self._rows(projections, (view_i,)), self._rows(projections, (view_j,))

    def contrasted_labels(self, target: Tensor) -> Tensor:
        """Return a code [B, A] for each label of the images that are contrasted, given their targets."""
        return label_codes(target[:, : self.label_space.width], self.label_space)

    def _rows(self, batch: Tensor, views: Sequence[int]) -> Tensor:
        """Return the rows of some views of the student's outputs [V*B, ...], in their order."""
        chunks = batch.chunk(self.plan.forwarded)
        return torch.cat([chunks[view] for view in views]) if len(views) > 1 else chunks[views[0]]

    def _mix(self, input: Tensor, target: Tensor) -> list[Tensor]:
        """Mix each classified view in place; return the soft targets of each attribute, as `MultiLabelMixup` does."""
        assert self.mixup is not None
        images = input.chunk(len(self.plan))
        mixed = [self.mixup(images[view], target)[1] for view in self.plan.classify]
        return [torch.cat(views) for views in zip(*mixed, strict=True)]

    def get_clip_parameters(self, exclude_head: bool = False) -> list[torch.nn.Parameter]:
        """Return the parameters to clip; adaptive clipping leaves the heads out, as its paper does."""
        model = unwrap_model(self.get_trainable_module())
        heads = {id(parameter) for parameter in model.head_parameters()} if exclude_head else set()
        return [parameter for parameter in model.parameters() if id(parameter) not in heads]

    def create_evaluator(self, **kwargs: Any) -> AttributeEvaluator:
        """Return a fresh evaluator for the model's logits."""
        return AttributeEvaluator(self.label_space, self.attribute_weights, device=self.device, **kwargs)

    def get_checkpoint_state(self, ema: bool = False, unwrap_fn: Callable[..., Any] = unwrap_model) -> dict[str, Any]:
        """Return the weights, and plain values that rebuild the model from the checkpoint alone."""
        state: dict[str, Any] = super().get_checkpoint_state(ema=ema, unwrap_fn=unwrap_fn)
        if ema:
            return state
        config = unwrap_fn(self.get_trainable_module()).config
        extras = {key: read() for key, read in self.checkpoint_extras.items()}
        return state | {"arch": config["arch"], "multi_label": config} | self.chosen | extras
