"""Heads solved on fixed features equal scikit-learn's, float64 loops, and the heads that several processes solve."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from catalog.label_space import UNKNOWN
from timm.task import head_solver
from timm.task.head_solver import Head, HeadProblem

torch.set_num_threads(1)

ROWS, WIDTH, CLASSES = 240, 12, 5
GRID = (100.0, 3.0, 0.3)


def drawn(seed: int = 0, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Return features of very different scales, and labels that depend on them; a tenth is blank."""
    draw = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, WIDTH, generator=draw) @ torch.randn(WIDTH, WIDTH, generator=draw)
    h = h * torch.logspace(-2, 2, WIDTH) + torch.arange(WIDTH) * 3
    scaled = (h - h.mean(dim=0)) / h.std(dim=0)
    scores = scaled @ torch.randn(WIDTH, CLASSES, generator=draw) + 2 * torch.randn(rows, CLASSES, generator=draw)
    labels = (scores - torch.arange(CLASSES)).argmax(dim=1)
    labels[torch.rand(rows, generator=draw) < 0.1] = UNKNOWN
    return h, labels


def drawn_sets(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features, and the columns of a multi-valued attribute; a tenth is blank."""
    draw = torch.Generator().manual_seed(seed)
    h, _ = drawn(seed)
    scaled = (h - h.mean(dim=0)) / h.std(dim=0)
    scores = scaled @ torch.randn(WIDTH, CLASSES, generator=draw) + 2 * torch.randn(len(h), CLASSES, generator=draw)
    words = ((scores > 1).long() << torch.arange(CLASSES)).sum(dim=1, keepdim=True)
    words[torch.rand(len(h), generator=draw) < 0.1] = UNKNOWN
    return h, words


def solved(problem: HeadProblem, strength: float, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the weights on standardized features, and the intercepts, that a problem has at a strength."""
    head = next(problem.solve([strength], **options))
    return head.weight * problem.std, head.bias + head.weight @ problem.mean


def by_scikit_learn(
    h: Tensor, labels: Tensor, strength: float, weights: Tensor | None = None
) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Return coefficients and intercepts of logistic regression on standardized features."""
    x = StandardScaler().fit_transform(h.double().numpy())
    classifier = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=20_000)
    classifier.fit(x, labels.numpy(), sample_weight=None if weights is None else weights.double().numpy())
    return classifier.coef_, classifier.intercept_


@pytest.mark.parametrize("strength", GRID)
@pytest.mark.parametrize("weighted", [False, True])
def test_heads_equal_those_of_scikit_learn(strength: float, weighted: bool) -> None:
    h, labels = drawn()
    known = labels >= 0
    class_weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0]) if weighted else None
    sample_weights = None if class_weights is None else class_weights[labels[known]]
    coefficients, intercepts = by_scikit_learn(h[known], labels[known], strength, sample_weights)
    weight, bias = solved(HeadProblem(h, labels, CLASSES, class_weights), strength)
    np.testing.assert_allclose(weight.numpy(), coefficients, atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), intercepts - intercepts.mean(), atol=1e-4)


@pytest.mark.parametrize("strength", GRID)
@pytest.mark.parametrize("weighted", [False, True])
def test_values_are_independent_binary_regressions_of_scikit_learn(strength: float, weighted: bool) -> None:
    h, words = drawn_sets()
    known = words[:, 0] >= 0
    value_weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0])
    weight, bias = solved(HeadProblem(h, words, CLASSES, value_weights if weighted else None), strength)
    for value in range(CLASSES):
        present = words[known, 0] >> value & 1
        sample_weights = torch.where(present > 0, value_weights[value], 1.0) if weighted else None
        coefficients, intercepts = by_scikit_learn(h[known], present, strength, sample_weights)
        np.testing.assert_allclose(weight[value].numpy(), coefficients[0], atol=1e-4)
        np.testing.assert_allclose(bias[value].numpy(), intercepts[0], atol=1e-4)


def loss_by_loops(
    h: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, class_weights: Tensor, margins: Tensor, strength: float
) -> float:
    """Return the objective as loops over rows and classes, in float64."""
    known = [row for row in range(len(labels)) if labels[row] >= 0]
    x = StandardScaler().fit_transform(h[known].double().numpy())
    total = strength / 2 * float(weight.square().sum())
    for place, row in enumerate(known):
        scores = [
            sum(float(w) * value for w, value in zip(weight[k], x[place], strict=True)) + float(bias[k] + margins[k])
            for k in range(CLASSES)
        ]
        highest = max(scores)
        log_sum = highest + math.log(sum(math.exp(score - highest) for score in scores))
        label = int(labels[row])
        total += float(class_weights[label]) * (log_sum - scores[label])
    return total


def test_margins_and_class_weights_minimize_the_loss_of_float64_loops() -> None:
    h, labels = drawn(rows=60)
    assert set(labels.tolist()) == {UNKNOWN, *range(CLASSES)}
    class_weights, margins = torch.tensor([0.5, 1, 2, 3, 4]), torch.tensor([0.0, -0.5, -1, -1.5, -2])
    weight, bias = solved(HeadProblem(h, labels, CLASSES, class_weights, margins), 0.7)
    arguments = (class_weights, margins, 0.7)
    lowest = loss_by_loops(h, labels, weight, bias, *arguments)
    draw = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-2):  # the lowest point of a convex function is lower than its surroundings
        for _ in range(4):
            step = torch.randn(CLASSES, WIDTH, generator=draw, dtype=torch.float64) * size
            shift = torch.randn(CLASSES, generator=draw, dtype=torch.float64) * size
            up = loss_by_loops(h, labels, weight + step, bias + shift, *arguments)
            down = loss_by_loops(h, labels, weight - step, bias - shift, *arguments)
            assert min(up, down) > lowest


def test_a_head_takes_features_as_they_are() -> None:
    h, labels = drawn()
    problem = HeadProblem(h, labels, CLASSES)
    head = next(problem.solve([1.0]))
    weight, bias = solved(problem, 1.0)
    x = StandardScaler().fit_transform(h[labels >= 0].double().numpy())
    np.testing.assert_allclose(head.logits(h[labels >= 0]), x @ weight.numpy().T + bias.numpy(), atol=1e-8)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99), strength=st.floats(0.3, 300), chunk=st.integers(60, ROWS))
def test_chunks_change_nothing(seed: int, strength: float, chunk: int) -> None:
    h, labels = drawn(seed)
    whole = solved(HeadProblem(h, labels, CLASSES), strength)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_solver, "CHUNK_ROWS", chunk)
        patch.setattr(head_solver, "KEPT_BYTES", 0)
        streamed = solved(HeadProblem(h.half().float(), labels, CLASSES), strength)
        exact = solved(HeadProblem(h, labels, CLASSES), strength)
    for found, expected in zip(exact, whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(streamed[0], whole[0])


def test_a_path_ends_where_each_strength_alone_does() -> None:
    h, labels = drawn()
    problem = HeadProblem(h, labels, CLASSES)
    for strength, head in zip(GRID, problem.solve(GRID), strict=True):
        alone = next(problem.solve([strength]))
        torch.testing.assert_close(head.weight * problem.std, alone.weight * problem.std, atol=1e-4, rtol=1e-4)


def test_rows_left_out_count_in_no_loss() -> None:
    h, labels = drawn()
    problem = HeadProblem(h, labels, CLASSES)
    included = torch.arange(len(problem.known)) % 3 > 0
    head = next(problem.solve([1.0], included))
    changed = labels.clone()
    changed[problem.known[~included]] = 0
    again = next(HeadProblem(h, changed, CLASSES).solve([1.0], included))
    torch.testing.assert_close(head.weight, again.weight, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(head.weight, next(problem.solve([1.0])).weight, atol=1e-3)


def test_more_features_than_rows_and_constant_features_are_solved() -> None:
    h, labels = drawn()
    wide = torch.cat([h, h[:, :1] * 2, torch.full((ROWS, 1), 7.3)], dim=1)[:10]
    known = labels[:10] >= 0
    coefficients, intercepts = by_scikit_learn(wide[known], labels[:10][known], 2.0)
    present = labels[:10][known].unique()
    weight, bias = solved(HeadProblem(wide, labels[:10], CLASSES), 2.0)
    np.testing.assert_allclose(weight[present].numpy(), coefficients, atol=1e-4)
    np.testing.assert_allclose(bias[present].numpy(), intercepts - intercepts.mean(), atol=1e-4)


def test_a_class_without_a_label_is_never_predicted() -> None:
    h, labels = drawn()
    labels[labels == 2] = UNKNOWN
    head = next(HeadProblem(h, labels, CLASSES).solve([1.0]))
    assert not head.weight[2].any()
    assert head.bias.isfinite().all()
    assert 2 not in head.logits(h[labels >= 0]).argmax(dim=1)
    sets, words = drawn_sets()
    words[words >= 0] |= 1  # every image has the first value
    words[words >= 0] &= ~2  # no image has the second
    logits = next(HeadProblem(sets, words, CLASSES).solve([1.0])).logits(sets)
    assert (logits[:, 0] > 3).all()
    assert (logits[:, 1] < -3).all()


def test_one_class_alone_is_always_predicted() -> None:
    h, labels = drawn()
    head = next(HeadProblem(h, labels.clamp(max=0), CLASSES).solve([1.0]))
    assert (head.logits(h).argmax(dim=1) == 0).all()


def stacked(problem: HeadProblem, heads: list[Head]) -> Tensor:
    """Return the weights on standardized features, and the intercepts, of several heads."""
    parts = [
        torch.cat([head.weight * problem.std, (head.bias + head.weight @ problem.mean)[:, None]], dim=1)
        for head in heads
    ]
    return torch.stack(parts)


def solve_share(h: Tensor, labels: Tensor, sizes: list[int]) -> Tensor:
    """Return the weights that a process finds with its share of the rows."""
    rank = dist.get_rank()
    problem = HeadProblem(h.split(sizes)[rank], labels.split(sizes)[rank], CLASSES)
    included = (problem.known + sum(sizes[:rank])) % 4 > 0
    heads = [*problem.solve(GRID), *problem.solve(GRID[:1], included)]
    return stacked(problem, heads)


@pytest.mark.parametrize("sizes", [[200, 40], [0, 240]])
@pytest.mark.parametrize("draw", [drawn, drawn_sets])
def test_several_processes_equal_one(draw: Any, sizes: list[int]) -> None:
    h, labels = draw()
    problem = HeadProblem(h, labels, CLASSES)
    heads = [*problem.solve(GRID), *problem.solve(GRID[:1], problem.known % 4 > 0)]
    first, second = run_on_processes(2, solve_share, h, labels, sizes)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, stacked(problem, heads), atol=1e-5, rtol=1e-4)
