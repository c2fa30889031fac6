"""Weights and margins of rare classes, and the classification loss with them."""

import math

import pytest
import torch
import torch.nn.functional as F
from distributed import run_on_processes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from timm.task.attribute_loss import AttributeLoss
from timm.task.class_imbalance import BETA, class_weights, logit_margins

SPACE = LabelSpace.numbered({"kind": 3, "color": 4})


def targets_of(*counts: tuple[int, ...]) -> Tensor:
    """Return targets [N, A] with the given number of labels of each class; other cells are unknown."""
    columns = [torch.cat([torch.full((n,), label) for label, n in enumerate(column)]) for column in counts]
    rows = max(map(len, columns))
    return torch.stack([F.pad(column, (0, rows - len(column)), value=UNKNOWN) for column in columns], dim=1)


def test_inverse_weights_give_each_class_the_same_total() -> None:
    weights = class_weights(targets_of((6, 3, 1), (2, 2, 2, 2)), SPACE, "inverse")
    assert weights is not None
    assert weights[0].tolist() == pytest.approx([10 / (3 * n) for n in (6, 3, 1)])
    assert weights[1].tolist() == pytest.approx([1.0] * 4)


def test_effective_weights_follow_the_papers_formula_and_approach_a_constant() -> None:
    counts = (20_000, 10_000, 1)
    weights = class_weights(targets_of(counts, (1, 1, 1, 1)), SPACE, "effective")
    assert weights is not None
    raw = [(1 - BETA) / (1 - BETA**n) for n in counts]
    scale = sum(counts) / sum(w * n for w, n in zip(raw, counts, strict=True))
    assert weights[0].tolist() == pytest.approx([w * scale for w in raw], rel=1e-5)
    assert float(weights[0][1] / weights[0][0]) < 1.001, "both classes are large enough for the limit"
    assert float(weights[0][2] / weights[0][1]) == pytest.approx(1 / (1 - BETA), rel=1e-2)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.sampled_from(["inverse", "effective"]))
def test_the_mean_weight_of_the_training_labels_is_one(counts: list[int], kind: str) -> None:
    targets = targets_of(tuple(counts), (1, 0, 0, 0))
    weights = class_weights(targets, SPACE, kind)
    assert weights is not None
    assert all(weight.isfinite().all() for weight in weights)
    labels = targets[:, 0][targets[:, 0] >= 0]
    if len(labels):
        assert float(weights[0][labels].mean()) == pytest.approx(1, rel=1e-4)


def test_margins_are_logarithms_of_shares_and_finite_for_classes_without_labels() -> None:
    margins = logit_margins(targets_of((6, 3, 1), (4, 0, 0, 0)), SPACE, 2.0)
    assert margins is not None
    assert margins[0].tolist() == pytest.approx([2 * math.log(n / 10) for n in (6, 3, 1)])
    assert margins[1].tolist() == pytest.approx([0, *[2 * math.log(1 / 4)] * 3])
    assert logit_margins(targets_of((1, 1, 1), (1, 1, 1, 1)), SPACE, 0) is None
    assert class_weights(targets_of((1, 1, 1), (1, 1, 1, 1)), SPACE, "none") is None


def drawn(rows: int) -> tuple[dict[str, Tensor], Tensor, list[Tensor], list[Tensor]]:
    """Return logits, targets with blanks, weights and margins."""
    g = torch.Generator().manual_seed(0)
    logits = {name: torch.randn(rows, k, generator=g, dtype=torch.float64) for name, k in SPACE.num_classes.items()}
    target = torch.stack([torch.randint(k, (rows,), generator=g) for k in SPACE.num_classes.values()], dim=1)
    target = target.masked_fill(torch.rand(target.shape, generator=g) < 0.3, UNKNOWN)
    sizes = SPACE.num_classes.values()
    weights, margins = ([torch.rand(k, generator=g) + 0.1 for k in sizes] for _ in range(2))
    return logits, target, weights, margins


def test_the_loss_is_pytorchs_weighted_mean_of_the_shifted_logits() -> None:
    logits, target, weights, margins = drawn(40)
    losses = AttributeLoss(SPACE, 0, 0, weights, margins)(logits, target)
    for index, name in enumerate(SPACE.attributes):
        shifted, weight = logits[name] + margins[index], weights[index].double()
        expected = F.cross_entropy(shifted, target[:, index], weight, ignore_index=UNKNOWN)
        assert losses[index].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("weighted", "shifted"), [(True, False), (False, True), (True, True)])
def test_a_label_weighs_its_smoothed_target_and_margins_distribute_the_smoothing(weighted: bool, shifted: bool) -> None:
    logits, target, weights, margins = drawn(40)
    given = weights if weighted else None, margins if shifted else None
    losses = AttributeLoss(SPACE, 0.2, 0, *given)(logits, target)
    for index, name in enumerate(SPACE.attributes):
        margin = margins[index].tolist() if shifted else [0.0] * len(margins[index])
        spread = [math.exp(m) / sum(map(math.exp, margin)) for m in margin]
        total = count = 0.0
        for row, label in zip(logits[name].tolist(), target[:, index].tolist(), strict=True):
            if label != UNKNOWN:
                moved = [x + m for x, m in zip(row, margin, strict=True)]
                log_p = [x - math.log(sum(map(math.exp, moved))) for x in moved]
                weight = float(weights[index][label]) if weighted else 1.0
                smooth = [0.2 * share + 0.8 * (k == label) for k, share in enumerate(spread)]
                total -= weight * sum(q * p for q, p in zip(smooth, log_p, strict=True))
                count += weight
        assert losses[index].item() == pytest.approx(total / count, rel=1e-6)


@pytest.mark.parametrize("rare", [1, 30])
@pytest.mark.parametrize(("kind", "tau"), [("inverse", 0.0), ("effective", 0.0), ("none", 1.0), ("inverse", 1.0)])
@pytest.mark.parametrize("soft", [False, True])
def test_a_perfect_fit_predicts_each_label_also_with_smoothing(kind: str, tau: float, rare: int, soft: bool) -> None:
    """Optimize the logits of one image of each class for the loss over the training labels."""
    space = LabelSpace.numbered({"kind": 3})
    labels = targets_of((9_000, 600, rare))
    counts = torch.bincount(labels[:, 0]).double()
    criterion = AttributeLoss(
        space, 0.1, 0, class_weights(labels, space, kind), logit_margins(labels, space, tau)
    ).double()
    target = torch.arange(3)[:, None]
    given = [torch.eye(3, dtype=torch.float64)] if soft else target
    logits = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        rows = [
            criterion({"kind": logits[i : i + 1]}, [given[0][i : i + 1]] if soft else target[i : i + 1], torch.ones(1))
            for i in range(3)
        ]
        loss = (torch.cat(rows) * counts / counts.sum()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert logits.argmax(dim=1).tolist() == [0, 1, 2]


def test_one_hot_soft_targets_give_the_same_loss() -> None:
    logits, target, weights, margins = drawn(40)
    soft = [
        F.one_hot(column.clamp(min=0), k) * (column >= 0)[:, None].double()
        for column, k in zip(target.unbind(1), SPACE.num_classes.values(), strict=True)
    ]
    criterion = AttributeLoss(SPACE, 0.1, 0, weights, margins)
    torch.testing.assert_close(criterion(logits, soft), criterion(logits, target))


def losses_of_a_share(rank_rows: list[list[int]]) -> Tensor:
    import torch.distributed as dist

    logits, target, weights, margins = drawn(40)
    rows = rank_rows[dist.get_rank()]
    criterion = AttributeLoss(SPACE, 0.1, 0, weights, margins)
    return criterion({name: values[rows] for name, values in logits.items()}, target[rows])


def test_several_processes_average_to_the_weighted_mean_of_the_joint_batch() -> None:
    logits, target, weights, margins = drawn(40)
    expected = AttributeLoss(SPACE, 0.1, 0, weights, margins)(logits, target)
    shares = [list(range(7)), list(range(7, 40))]
    torch.testing.assert_close(torch.stack(run_on_processes(2, losses_of_a_share, shares)).mean(dim=0), expected)


def test_margins_do_not_change_the_divergence_of_splits() -> None:
    logits, target, _, margins = drawn(40)
    equal_splits = {name: values[:20].repeat(2, 1) for name, values in logits.items()}
    repeated = target[:20].repeat(2, 1)
    split = AttributeLoss(SPACE, 0.0, 2, None, margins)(equal_splits, repeated)
    torch.testing.assert_close(split, AttributeLoss(SPACE, 0.0, 0, None, margins)(equal_splits, repeated))
