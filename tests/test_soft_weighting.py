"""A teacher's soft targets and weights against loops in float64, and on four processes against one."""

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from catalog.label_space import LabelSpace
from timm.task.pseudo_loss import SoftTargets
from timm.task.soft_weighting import SoftWeighting, align

SPACE = LabelSpace({"size": ("L", "S", "M"), "tags": ("a", "b", "c", "d")}, ["tags"])
SHARES = [torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.1, 0.3, 0.05])]
Step = tuple[list[Tensor], list[Tensor]]  # predictions and cells by attribute


def _draw(rows: int, seed: int) -> Step:
    g = torch.Generator().manual_seed(seed)
    predictions = [(2 * torch.randn(rows, 3, generator=g)).softmax(dim=1), torch.rand(rows, 4, generator=g)]
    return predictions, [torch.rand(rows, generator=g) < 0.6 for _ in predictions]


def _aligned(p: list[float], share: list[float], mean: list[float], several: bool) -> list[float]:
    scaled = [x * s / m for x, s, m in zip(p, share, mean, strict=True)]
    if not several:
        return [x / sum(scaled) for x in scaled]
    absent = [(1 - x) * (1 - s) / (1 - m) for x, s, m in zip(p, share, mean, strict=True)]
    return [x / (x + y) for x, y in zip(scaled, absent, strict=True)]


def _loops(steps: list[Step], attribute: int) -> tuple[list[list[float]], list[float], dict[str, Any]]:
    """Return the soft targets and weights of the last step for one attribute, and its statistics."""
    several, share = attribute == 1, SHARES[attribute].tolist()
    count, predicted, mean, variance = 0, [0.0] * len(share), 0.0, 0.0
    values: list[list[float]] = []
    confidences: list[float] = []
    for predictions, cells in steps:
        rows, unlabeled = predictions[attribute].double().tolist(), cells[attribute].tolist()
        chosen = [row for row, used in zip(rows, unlabeled, strict=True) if used]
        newest = 1 / min(count + 1, 100)
        if chosen:
            batch_mean = [sum(column) / len(chosen) for column in zip(*chosen, strict=True)]
            predicted = [old + newest * (new - old) for old, new in zip(predicted, batch_mean, strict=True)]
        values = [_aligned(row, share, predicted, several) for row in rows]
        confidences = [sum(max(x, 1 - x) for x in row) / len(row) if several else max(row) for row in values]
        if chosen:
            known = [c for c, used in zip(confidences, unlabeled, strict=True) if used]
            average = sum(known) / len(known)
            spread = sum((c - average) ** 2 for c in known) / max(len(known) - 1, 1)
            mean, variance = mean + newest * (average - mean), variance + newest * (spread - variance)
            count += 1
    weights = [1.0 if c >= mean else math.exp(-((c - mean) ** 2) / (2 * variance / 4)) for c in confidences]
    return values, weights, {"steps": count, "predicted": predicted, "mean": mean, "variance": variance}


def _weigh(steps: list[Step], weighting: SoftWeighting | None = None) -> tuple[SoftTargets, SoftWeighting]:
    weighting = weighting or SoftWeighting(SPACE, SHARES, torch.device("cpu"))
    for predictions, cells in steps:
        soft = weighting(predictions, cells)
    return soft, weighting


@pytest.mark.parametrize("count", [1, 2, 130])
def test_targets_weights_and_statistics_equal_loops(count: int) -> None:
    steps = [_draw(12, seed) for seed in range(count)]
    soft, weighting = _weigh(steps)
    for attribute in range(2):
        values, weights, state = _loops(steps, attribute)
        torch.testing.assert_close(soft.values[attribute], torch.tensor(values))
        torch.testing.assert_close(soft.weights[attribute], torch.tensor(weights))
        assert torch.equal(soft.cells[attribute], steps[-1][1][attribute])
        predicted = weighting.predicted.split([3, 4])[attribute].tolist()
        assert predicted == pytest.approx(state["predicted"], rel=1e-6)
        for name in ("steps", "mean", "variance"):
            assert getattr(weighting, name)[attribute].item() == pytest.approx(state[name], rel=1e-6)


def test_a_step_without_an_unlabeled_cell_changes_no_statistic() -> None:
    steps = [_draw(12, seed) for seed in range(3)]
    _, weighting = _weigh(steps)
    before = weighting.state_dict()
    predictions, _ = _draw(5, 9)
    soft = weighting(predictions, [torch.zeros(5, dtype=torch.bool)] * 2)
    assert all(torch.equal(before[name], value) for name, value in weighting.state_dict().items())
    assert all(torch.isfinite(entry).all() for entries in soft for entry in entries)


def test_aligned_predictions_have_the_shares_of_the_labels_if_they_differ_by_a_factor_only() -> None:
    shares, mean = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(align(mean[None], shares, mean, multi_valued=False)[0], shares)
    torch.testing.assert_close(align(mean[None], shares, mean, multi_valued=True)[0], shares)


def test_a_class_without_labels_gets_no_target() -> None:
    predictions = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])
    aligned = align(predictions, torch.tensor([0.6, 0.4, 0.0]), predictions.mean(dim=0), multi_valued=False)
    assert not aligned[:, 2].any()
    assert torch.isfinite(aligned).all()


def test_equal_confidences_have_weight_one() -> None:
    same = [torch.tensor([[0.5, 0.3, 0.2]]).repeat(6, 1), torch.full((6, 4), 0.25)]
    soft, _ = _weigh([(same, [torch.ones(6, dtype=torch.bool)] * 2)])
    for weights in soft.weights:
        torch.testing.assert_close(weights, torch.ones(6))


def test_a_saved_state_continues_bit_for_bit() -> None:
    steps = [_draw(12, seed) for seed in range(6)]
    expected, whole = _weigh(steps)
    _, first = _weigh(steps[:4])
    second = SoftWeighting(SPACE, SHARES, torch.device("cpu"))
    second.load_state_dict(first.state_dict())
    found, _ = _weigh(steps[4:], second)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert all(
        torch.equal(a, b) for one, other in zip(expected, found, strict=True) for a, b in zip(one, other, strict=True)
    )


def _on_share(sizes: list[int]) -> tuple[SoftTargets, dict[str, Any]]:
    """Return the soft targets of this process's rows after three steps, and the statistics."""
    first = sum(sizes[: dist.get_rank()])
    rows = slice(first, first + sizes[dist.get_rank()])
    steps = []
    for seed in range(3):
        predictions, cells = _draw(sum(sizes), seed)
        steps.append(([p[rows] for p in predictions], [c[rows] for c in cells]))
    soft, weighting = _weigh(steps)
    return soft, weighting.state_dict()


@pytest.mark.parametrize("sizes", [[5, 2, 3, 4], [6, 0, 1, 5]])
def test_four_processes_have_the_targets_and_the_statistics_of_one(sizes: list[int]) -> None:
    expected, weighting = _weigh([_draw(sum(sizes), seed) for seed in range(3)])
    shares = run_on_processes(4, _on_share, sizes)
    for place, entries in enumerate(expected):
        for attribute, entry in enumerate(entries):
            torch.testing.assert_close(torch.cat([soft[place][attribute] for soft, _ in shares]), entry)
    for _, state in shares:
        for name, value in weighting.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-12, atol=1e-12)
            assert torch.equal(state[name], shares[0][1][name])


@settings(max_examples=40)
@given(
    rows=st.integers(1, 9),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    seed=st.integers(0, 99),
    steps=st.integers(1, 3),
)
def test_targets_are_distributions_and_weights_fractions_however_certain_the_teacher(
    rows: int, scale: float, seed: int, steps: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    shares = [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.5, 0.5])]
    weighting = SoftWeighting(SPACE, shares, torch.device("cpu"))
    for _ in range(steps):
        predictions = [(scale * torch.randn(rows, k, generator=g)) for k in (3, 4)]
        predictions = [predictions[0].softmax(dim=1), predictions[1].sigmoid()]
        soft = weighting(predictions, [torch.rand(rows, generator=g) < 0.7 for _ in predictions])
    for attribute in range(2):
        values, weights = soft.values[attribute], soft.weights[attribute]
        assert ((values >= 0) & (values <= 1 + 1e-6)).all()
        assert ((weights >= 0) & (weights <= 1)).all()
    total = soft.values[0].sum(dim=1)
    assert torch.isclose(total, torch.ones(rows)).logical_or(total < 1e-6).all()  # or all was on classes without labels
