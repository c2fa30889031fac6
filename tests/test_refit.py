"""Strengths are chosen by validation or by folds, and heads are refitted only where that helps."""

import math
from typing import Any

import pytest
import torch
from distributed import run_on_processes
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from catalog.label_space import UNKNOWN, LabelSpace
from simclr.collectives import rank, world_size
from timm.task.head_solver import HeadProblem
from timm.task.refit import STRENGTHS, Features, Refit, attribute_metrics, refit_heads, refit_line, replace_head

torch.set_num_threads(1)

CPU = torch.device("cpu")
WIDTH = 16
SPACE = LabelSpace({"kind": ("a", "b", "c"), "tags": ("x", "y"), "empty": ("u", "v")}, ["tags"])
METRICS = {"kind": "top1", "tags": "map", "empty": "top1"}


def drawn(rows: int, seed: int) -> Features:
    """Return features whose first entries decide the labels; the last attribute has none."""
    draw = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, WIDTH, generator=draw)
    noise = 2 * torch.randn(rows, 5, generator=draw)
    kinds = (h[:, :3] + noise[:, :3]).argmax(dim=1)
    tags = ((h[:, 3:5] + noise[:, 3:] > 0).long() << torch.arange(2)).sum(dim=1)
    target = torch.stack([kinds, tags, torch.full((rows,), UNKNOWN)], dim=1)
    target[torch.rand(rows, 3, generator=draw) < 0.1] = UNKNOWN
    return Features(h, target, torch.arange(rows))


def refitted(train: Features, validation: Features | None, **options: Any) -> dict[str, Refit]:
    settings = {"given": {}, "metrics": METRICS, "weights": {}, "margins": {}, "device": CPU, "cross_validate": False}
    return refit_heads(train, validation, SPACE, **(settings | options))


def accuracy_by_scikit_learn(strength: float, train: Features, split: Features) -> float:
    """Return the accuracy of `kind` on a split, in percent."""
    known, scored = train.target[:, 0] >= 0, split.target[:, 0] >= 0
    scaler = StandardScaler().fit(train.h[known].double())
    classifier = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000)
    classifier.fit(scaler.transform(train.h[known].double()), train.target[known, 0])
    return 100 * classifier.score(scaler.transform(split.h[scored].double()), split.target[scored, 0])


def test_validation_chooses_a_strength_that_no_other_beats() -> None:
    train, validation = drawn(150, 0), drawn(150, 1)
    found = refitted(train, validation)["kind"]
    near = [s for s in STRENGTHS if found.strength / 10 < s < found.strength * 10]
    best = max(accuracy_by_scikit_learn(strength, train, validation) for strength in near)
    assert found.after == pytest.approx(accuracy_by_scikit_learn(found.strength, train, validation))
    assert found.after == pytest.approx(best)
    assert math.isnan(found.before)


def test_labels_of_the_validation_split_do_not_enter_the_weights() -> None:
    train, validation = drawn(150, 0), drawn(150, 1)
    found = refitted(train, validation)["tags"]
    head = next(HeadProblem(train.h, train.target[:, 1:2], 2).solve([found.strength]))
    assert found.head is not None
    torch.testing.assert_close(found.head.weight, head.weight)


def test_an_attribute_without_a_validation_label_is_left_alone_or_cross_validated() -> None:
    train = drawn(150, 0)
    assert not refitted(train, None)["kind"].kept
    found = refitted(train, None, cross_validate=True)
    assert found["kind"].kept
    assert math.isnan(found["kind"].after)
    assert found["empty"].head is None  # no training label either
    assert not found["empty"].kept


def test_with_validation_folds_decide_for_no_head_that_exists_unless_its_classes_changed() -> None:
    train, validation = drawn(150, 0), drawn(150, 1)
    validation.target[:, 0] = UNKNOWN
    given = {"kind": nn.Linear(WIDTH, 3)}
    assert refitted(train, validation, given=given, cross_validate=True)["kind"].head is None
    assert refitted(train, validation, cross_validate=True)["kind"].kept
    assert refitted(train, validation, given=given, cross_validate=True, changed=["kind"])["kind"].kept
    assert refitted(train, None, given=given, cross_validate=True)["kind"].kept


def test_a_head_of_other_classes_is_replaced_whatever_the_scores() -> None:
    train, validation = drawn(60, 0), drawn(150, 1)
    good = nn.Linear(WIDTH, 3)
    replace_head(good, next(HeadProblem(*validation[:1], validation.target[:, 0], 3).solve([1.0])))
    result = refitted(train, validation, given={"kind": good}, changed=["kind"])["kind"]
    assert result.after < result.before
    assert result.kept
    assert "its classes are other ones" in refit_line("kind", result)


def test_folds_choose_the_strength_that_a_fresh_split_agrees_with() -> None:
    train, fresh = drawn(200, 3), drawn(4000, 4)
    strength = refitted(train, None, cross_validate=True)["kind"].strength
    best = max(accuracy_by_scikit_learn(other, train, fresh) for other in STRENGTHS[::3])
    assert accuracy_by_scikit_learn(strength, train, fresh) > best - 2


def test_a_better_head_is_kept_and_a_worse_one_replaced() -> None:
    train, validation = drawn(60, 0), drawn(150, 1)
    good, bad = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)
    found = next(HeadProblem(*validation[:1], validation.target[:, 0], 3).solve([1.0]))  # knows the answers
    replace_head(good, found)
    for given, kept in ((good, False), (bad, True)):
        result = refitted(train, validation, given={"kind": given})["kind"]
        assert result.kept == kept
        assert (result.after >= result.before) == kept


def test_a_lower_loss_is_better() -> None:
    train, validation = drawn(150, 0), drawn(150, 1)
    result = refitted(train, validation, metrics={"kind": "loss"}, given={"kind": nn.Linear(WIDTH, 3)})["kind"]
    assert 0 < result.after < result.before
    assert result.kept
    losses = refitted(train, validation, metrics={"kind": "top1"})["kind"]
    assert result.strength >= losses.strength / 100


def test_class_weights_and_margins_reach_the_solver() -> None:
    train, validation = drawn(150, 0), drawn(150, 1)
    weights = {"kind": torch.tensor([1.0, 1.0, 30.0])}
    plain, weighted = (refitted(train, validation, weights=chosen)["kind"].head for chosen in ({}, weights))
    margin = refitted(train, validation, margins={"kind": torch.tensor([0.0, 0.0, -3.0])})["kind"].head
    counts = [head.logits(validation.h).argmax(dim=1).eq(2).sum() for head in (plain, weighted, margin) if head]
    assert counts[0] < min(counts[1:])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("top1", {"kind": "top1", "tags": "map"}),
        ("simclr_loss", {"kind": "top1", "tags": "map"}),
        ("ema_balanced_accuracy", {"kind": "balanced_accuracy", "tags": "balanced_accuracy"}),
        ("eval_loss", {"kind": "loss", "tags": "loss"}),
        ("train_loss", {"kind": "top1", "tags": "map"}),
    ],
)
def test_the_metric_of_the_run_chooses(metric: str, expected: dict[str, str]) -> None:
    assert attribute_metrics(metric, SPACE, [1.0, 0.5, 0.0]) == expected


def share(train: Features, validation: Features, folds: bool) -> list[Tensor]:
    """Return strengths, scores and weights that a process finds with its share of the rows."""
    parts = [Features(*(values[rank() :: world_size()] for values in split)) for split in (train, validation)]
    found = refitted(parts[0], None if folds else parts[1], cross_validate=folds)
    numbers = [torch.tensor([result.strength, result.after], dtype=torch.float64) for result in found.values()]
    return [*numbers, *(result.head.weight for result in found.values() if result.head is not None)]


@pytest.mark.parametrize("folds", [False, True])
def test_several_processes_equal_one(folds: bool) -> None:
    train, validation = drawn(101, 0), drawn(77, 1)
    expected = share(train, validation, folds)
    assert len(expected) == 5
    for found in run_on_processes(3, share, train, validation, folds):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, equal_nan=True)
