"""Refit: solve the attribute heads on fixed features, each with the strength that scores best.

The validation split chooses the strength of an attribute's penalty; its labels do not enter the weights. Without a
validation label, stratified cross-validation on the training rows can choose. A new head replaces the given one where
it scores no lower on the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from simclr import gather_rows
from simclr.collectives import rank, sum_over_processes, world_size
from timm.data.target_codes import by_attribute, label_codes
from timm.models.multi_label import MultiLabelModel
from timm.task import evaluation_sample_limit
from timm.task.attribute_evaluator import AttributeEvaluator
from timm.task.head_solver import FINE, ROUGH, Head, HeadProblem

STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(8, -3, -1))  # 10,000 to 0.1
FOLDS = 5
_PATIENCE = 3  # weaker penalties tried after the best one

Value = tuple[float, float]  # a score, higher is better, and the negative loss, which decides between equal scores


class Features(NamedTuple):
    """Representations and targets of this process's share of a split.

    Attributes:
        h: float32 [n, D] in host memory.
        target: int64 [n, C].
        rows: index of each row in the split, int64 [n], so that folds do not depend on the number of processes.
    """

    h: Tensor
    target: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Refit:
    """The result for one attribute.

    Attributes:
        head: the solved head; None where the training rows hold no label or nothing can choose a strength.
        strength: factor of the penalty.
        metric: name of the score.
        before: score of the given head on the validation split; NaN without a head or a label.
        after: score of the solved head; NaN without a label.
        forced: whether the given head has other classes, so that the solved one replaces it whatever the scores.
    """

    head: Head | None
    strength: float
    metric: str
    before: float
    after: float
    forced: bool = False

    @property
    def kept(self) -> bool:
        """Whether the solved head replaces the given one: it scores no lower, or nothing can be compared."""
        lower = -1 if self.metric == "loss" else 1
        comparable = not math.isnan(self.before) and not math.isnan(self.after)
        worse = comparable and lower * self.after < lower * self.before
        return self.head is not None and (self.forced or not worse)


@torch.inference_mode()
def extract_features(
    model: MultiLabelModel,
    loader: Any,
    autocast: Callable[[], AbstractContextManager[Any]],
    to_device: Callable[[Tensor], Tensor],
    *,
    tta: int = 0,
    after_batch: Callable[[int], None] = lambda images: None,
) -> Features:
    """Return the features of this process's share of a loader's images.

    Args:
        model: model that represents the images; it is left in evaluation mode.
        loader: evaluation loader: batches of images [B, C, H, W] and targets [B, C].
        autocast: factory of the context that sets the precision of the forward pass.
        to_device: function that moves images to the model's device and memory format.
        tta: 2 averages the features of an image and its mirror image, whose head then averages their logits.
        after_batch: callback after each batch, with the number of images so far; what it raises ends the computation.

    Raises:
        UsageError: a feature is not finite.
    """
    model.eval()
    features, targets = [], []
    for images, target in loader:
        moved = to_device(images)
        with autocast():
            h = model.forward_features(moved).float()
            if tta == 2:
                h = (h + model.forward_features(moved.flip(-1)).float()) / 2
        features.append(h.cpu())
        targets.append(target.cpu())
        after_batch(sum(map(len, targets)))
    limit = evaluation_sample_limit(loader)
    h, target = torch.cat(features)[:limit], torch.cat(targets)[:limit]
    _check_finite(h, next(model.parameters()).device)
    return Features(h, target, torch.arange(len(target)) * world_size() + rank())


def _check_finite(h: Tensor, device: torch.device) -> None:
    """Raise a UsageError on every process if a feature of any process is not finite."""
    wrong = sum_over_processes((~h.isfinite().all(dim=1)).sum().to(device))
    if wrong:
        raise UsageError(
            f"the features of {int(wrong)} images are not finite: with amp try amp_dtype bfloat16; otherwise the "
            "weights have diverged, so use another checkpoint"
        )


def refit_heads(
    train: Features,
    validation: Features | None,
    label_space: LabelSpace,
    given: Mapping[str, nn.Linear],
    *,
    metrics: Mapping[str, str],
    weights: Mapping[str, Tensor | None],
    margins: Mapping[str, Tensor | None],
    device: torch.device,
    cross_validate: bool,
    changed: Collection[str] = (),
) -> dict[str, Refit]:
    """Return the result for each attribute that has a metric. Every process must make this call.

    Args:
        train: features of the training images.
        validation: features of the validation images; None without any.
        label_space: the attributes and their classes.
        given: heads to compare with, by attribute; an attribute without one gets its solved head.
        metrics: by attribute, the score of `AttributeEvaluator` that chooses; other attributes are left out.
        weights: class weights by attribute, [K] or None.
        margins: logit margins by attribute, [K] or None.
        device: device of the arithmetic.
        cross_validate: whether cross-validation chooses the strength of an attribute without a validation label; with a
            validation split this is for attributes without a given head, since nothing compares the two.
        changed: attributes whose given head has other classes, which the solved head always replaces.
    """
    results = {}
    train_labels = dict(zip(label_space.attributes, by_attribute(train.target, label_space), strict=True))
    for name, metric in metrics.items():
        problem = HeadProblem(
            train.h, train_labels[name], label_space.num_classes[name], weights.get(name), margins.get(name), device
        )
        scorer = _Scorer(name, label_space, metric, device)
        before = _of_given(given[name], validation, scorer) if name in given and validation else math.nan
        split = validation if validation and scorer.has_labels(validation) else None
        folds = cross_validate and (validation is None or name not in given or name in changed)
        if not problem.total or not (split or folds):
            results[name] = Refit(None, math.nan, metric, before, math.nan)
            continue
        strength = _on_split(problem, split, scorer) if split else _by_folds(problem, train, scorer)
        head = next(problem.solve([strength], tol=FINE))
        after = scorer.score([(head.logits(split.h), split.target)]) if split else (math.nan, math.nan)
        sign = -1 if metric == "loss" else 1
        results[name] = Refit(head, strength, metric, before, sign * after[0], name in changed)
    return results


def attribute_metrics(eval_metric: str, label_space: LabelSpace, attribute_weights: Sequence[float]) -> dict[str, str]:
    """Return the score of each attribute that the run's metric implies; attributes of weight 0 are left out.

    Args:
        eval_metric: column of summary.csv that chooses the best epoch.
        label_space: the attributes and their classes.
        attribute_weights: weight of each attribute in the classification loss.
    """
    known = ("balanced_accuracy", "macro_f1", "loss")
    of_training = "train" in eval_metric or eval_metric.endswith(("simclr_loss", "classification_loss", "pseudo_loss"))
    measure = next((end for end in known if eval_metric.endswith(end) and not of_training), None)
    return {
        name: measure or ("map" if name in label_space.multi_valued else "top1")
        for name, weight in zip(label_space.attributes, attribute_weights, strict=True)
        if weight
    }


@torch.no_grad()
def replace_head(linear: nn.Linear, head: Head) -> None:
    """Copy a solved head into a layer, in place."""
    linear.weight.copy_(head.weight)
    linear.bias.copy_(head.bias)


def put_heads(model: MultiLabelModel, results: Mapping[str, Refit]) -> None:
    """Replace the heads of a model by the solved ones that are kept."""
    for name, linear in zip(model.label_space.attributes, model.heads, strict=True):
        result = results.get(name)
        if result is not None and result.head is not None and result.kept:
            replace_head(linear, result.head)  # type: ignore[arg-type]  # a ModuleList names no type


def refit_line(attribute: str, result: Refit) -> str:
    """Return the log line of an attribute's result."""
    if result.head is None:
        return f"{attribute}: kept as it is, as the validation split or the training table has no label for it"
    if math.isnan(result.after):
        return f"{attribute}: strength {result.strength:g}, chosen by cross-validation"
    if math.isnan(result.before):
        return f"{attribute}: {result.metric} {result.after:.3f}, strength {result.strength:g}"
    scores = f"{result.metric} {result.before:.3f} before, {result.after:.3f} after, strength {result.strength:g}"
    if result.forced:
        return f"{attribute}: {scores}: refitted, as its classes are other ones"
    return f"{attribute}: {scores}: {'refitted' if result.kept else 'kept as trained'}"


class _Scorer:
    """Scores one attribute over all processes."""

    def __init__(self, name: str, label_space: LabelSpace, metric: str, device: torch.device) -> None:
        several = name in label_space.multi_valued
        self.space = LabelSpace({name: label_space.classes[name]}, [name] if several else [])
        self.name, self.metric, self.device = name, metric, device
        self.columns = label_space.columns[name]
        self.evaluator = AttributeEvaluator(self.space, device=device, keep_scores=several)

    def score(self, parts: Sequence[tuple[Tensor, Tensor]]) -> Value:
        """Return the score of logits [n, K] on targets [n, C], and the negative loss; NaN without a label."""
        self.evaluator.reset()
        for logits, target in parts:
            self.evaluator.update({self.name: logits}, target[:, self.columns].to(self.device))
        metrics = self.evaluator.compute(distributed=world_size() > 1)["attributes"][self.name]
        loss = -metrics["loss"]
        return (loss if self.metric == "loss" else metrics[self.metric]), loss

    def has_labels(self, split: Features) -> bool:
        """Return whether any process has a label of the attribute."""
        classes = self.space.num_classes[self.name]
        zeros = torch.zeros(len(split.target), classes, device=self.device)
        return not math.isnan(self.score([(zeros, split.target)])[1])


def _of_given(linear: nn.Linear, split: Features, scorer: _Scorer) -> float:
    """Return the score of a head that is a layer of a model."""
    bias = linear.bias.detach().double()
    head = Head(linear.weight.detach().to(scorer.device, torch.float64), bias.to(scorer.device))
    value = scorer.score([(head.logits(split.h), split.target)])[0]
    return -value if scorer.metric == "loss" else value


def _on_split(problem: HeadProblem, split: Features, scorer: _Scorer) -> float:
    """Return the strength whose head scores best on a split."""
    values = (scorer.score([(head.logits(split.h), split.target)]) for head in problem.solve(STRENGTHS, tol=ROUGH))
    return _best(values)


def _by_folds(problem: HeadProblem, train: Features, scorer: _Scorer) -> float:
    """Return the strength whose heads score best on the folds of the training rows that they were not solved on."""
    folds = _folds(train, scorer)[problem.known]
    paths = [problem.solve(STRENGTHS, included=folds != fold, tol=ROUGH) for fold in range(FOLDS)]
    h, target = train.h[problem.known], train.target[problem.known]
    values = (
        scorer.score([(head.logits(h[folds == fold]), target[folds == fold]) for fold, head in enumerate(heads)])
        for heads in zip(*paths, strict=True)
    )
    return _best(values)


def _best(values: Any) -> float:
    """Return the strength with the highest value; the search ends when weaker penalties no longer help."""
    best, place = (-math.inf, -math.inf), 0
    for index, value in enumerate(values):
        if value > best:
            best, place = value, index
        elif index - place >= _PATIENCE:
            break
    return STRENGTHS[place]


def _folds(train: Features, scorer: _Scorer) -> Tensor:
    """Return the fold of each row, int64 [n], with each class spread evenly over the folds of all processes."""
    codes = label_codes(train.target[:, scorer.columns], scorer.space).long()
    local = torch.cat([codes, train.rows[:, None]], dim=1).to(scorer.device)
    rows = gather_rows(local).cpu()
    rows = rows[rows[:, 0] >= 0]
    order = rows[:, 1].argsort()
    order = order[rows[order, 0].argsort(stable=True)]  # by label, then by row
    folds = torch.zeros(int(rows[:, 1].max()) + 1, dtype=torch.int64)
    folds[rows[order, 1]] = torch.arange(len(rows)) % FOLDS
    return folds[train.rows.clamp(max=len(folds) - 1)]
