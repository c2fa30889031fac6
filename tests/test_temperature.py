"""Temperatures against a dense grid in float64, a planted temperature, and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.metrics import log_loss
from torch import Tensor

from timm.task.temperature import (
    HIGHEST,
    LOWEST,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)


def draw(rows: int, k: int, sets: bool, temperature: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits [N, K], and labels drawn from their probabilities at a temperature."""
    random = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(rows, k, generator=random)
    if sets:
        return logits, torch.rand(rows, k, generator=random) < (logits / temperature).sigmoid()
    return logits, torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=random)[:, 0]


def likelihood_by_loops(logits: Tensor, truth: Tensor, temperature: float) -> float:
    """Return the negative log-likelihood by Python's floats."""
    total = 0.0
    for scores, labels in zip(logits.double().tolist(), truth.tolist(), strict=True):
        scaled = [score / temperature for score in scores]
        if isinstance(labels, list):
            total += sum(math.log1p(math.exp(-s if present else s)) for s, present in zip(scaled, labels, strict=True))
        else:
            total += math.log(sum(math.exp(s) for s in scaled)) - scaled[labels]
    return total / truth.numel()


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("planted", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_recovered(sets: bool, planted: float) -> None:
    logits, truth = draw(20_000, 4, sets, planted)
    assert fit_temperature(logits, truth) == pytest.approx(planted, rel=0.03)


@pytest.mark.parametrize("sets", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(2, 6), planted=st.sampled_from([0.3, 1.0, 3.0]))
def test_no_temperature_of_a_dense_grid_is_better(sets: bool, seed: int, k: int, planted: float) -> None:
    logits, truth = draw(25, k, sets, planted, seed)
    found = fit_temperature(logits, truth)
    grid = np.geomspace(LOWEST, HIGHEST, 2001)
    losses = [negative_log_likelihood(logits, truth, temperature) for temperature in grid]
    assert negative_log_likelihood(logits, truth, found) <= min(losses) + 1e-12
    assert abs(math.log(found / grid[int(np.argmin(losses))])) <= math.log(grid[1] / grid[0]) * 1.01


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_is_scipys_optimum_of_scikit_learns_loss(sets: bool, seed: int) -> None:
    logits, truth = draw(120, 4, sets, 1.7, seed)
    scores, labels = logits.double().numpy(), truth.numpy()

    def loss(logarithm: float) -> float:
        scaled = scores / math.exp(logarithm)
        if sets:
            return sum(float(log_loss(labels[:, k], expit(scaled[:, k]), labels=[0, 1])) for k in range(4))
        return float(log_loss(labels, softmax(scaled, axis=1), labels=range(4)))

    best = minimize_scalar(
        loss, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded", options={"xatol": 1e-9}
    )
    assert fit_temperature(logits, truth) == pytest.approx(math.exp(best.x), rel=1e-5)


@pytest.mark.parametrize("sets", [False, True])
def test_the_likelihood_equals_loops(sets: bool) -> None:
    logits, truth = draw(30, 3, sets, 1.0)
    for temperature in (0.5, 1.0, 7.0):
        expected = likelihood_by_loops(logits, truth, temperature)
        assert negative_log_likelihood(logits, truth, temperature) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sets", [False, True])
def test_the_calibration_error_equals_loops(sets: bool) -> None:
    logits, truth = draw(400, 3, sets, 2.0)
    probability = (logits.double() / 1.5).sigmoid() if sets else (logits.double() / 1.5).softmax(dim=1)
    if sets:
        pairs = list(zip(probability.flatten().tolist(), truth.flatten().tolist(), strict=True))
    else:
        pairs = [(float(row.max()), int(row.argmax()) == int(y)) for row, y in zip(probability, truth, strict=True)]
    error = 0.0
    for number in range(15):
        inside = [(p, y) for p, y in pairs if number / 15 < p <= (number + 1) / 15]
        if inside:
            confidence, accuracy = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            error += len(inside) / len(pairs) * abs(confidence - accuracy)
    assert calibration_error(logits, truth, 1.5) == pytest.approx(100 * error, rel=1e-9)


def test_limits_and_rows_without_information() -> None:
    right, wrong = torch.tensor([[3.0, -3.0]]), torch.tensor([[-3.0, 3.0]])
    first = torch.tensor([0])
    assert fit_temperature(right, first) == LOWEST  # sharper is always better
    assert fit_temperature(wrong, first) == HIGHEST
    assert fit_temperature(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)) == 1
    assert fit_temperature(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)) == 1
    assert math.isnan(negative_log_likelihood(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)))
    assert math.isnan(calibration_error(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)))


@pytest.mark.parametrize("sets", [False, True])
def test_rows_that_are_not_finite_do_not_count(sets: bool) -> None:
    logits, truth = draw(50, 3, sets, 2.0)
    bad = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0]])
    more, labels = torch.cat([bad, logits]), torch.cat([truth[:2], truth])
    assert fit_temperature(more, labels) == fit_temperature(logits, truth)
    assert calibration_error(more, labels) == calibration_error(logits, truth)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, truth = draw(100, 4, False, 2.0)
    whole = fit_temperature(logits, truth)
    monkeypatch.setattr("timm.task.temperature._CHUNK", 28)
    assert fit_temperature(logits, truth) == pytest.approx(whole, rel=1e-9)


def test_large_logits_have_no_overflow() -> None:
    logits, truth = draw(200, 3, False, 1.0)
    assert fit_temperature(1000 * logits, truth) == HIGHEST
    assert fit_temperature(3 * logits + 1e4, truth) == pytest.approx(3 * fit_temperature(logits, truth), rel=1e-3)
