"""Warnings that a run does not learn: at chance or collapsed, for two epochs after warm-up, and once."""

import math
from typing import Any

import pytest
import torch

from simclr import best_level, chance_level, dcl_best_level, dcl_chance_level, dcl_loss, nt_xent_loss
from training.health_check import HealthCheck, contrast_levels

LEVELS = (3.0, 1.0)
HEALTHY = {"simclr_loss": 2.5, "effective_rank_z": 20.0, "variance_z": 0.5, "effective_rank_h": 90.0, "variance_h": 0.2}
NT_XENT: dict[str, Any] = {"name": "ntxent", "temperature": 0.5, "mask_false_negatives": False}


def warnings(epochs: list[dict[str, float]], warmup: int = 0, levels: tuple[float, float] | None = LEVELS) -> list[str]:
    """Return the first words of each warning about a run's epochs, each with its epoch."""
    found: list[str] = []
    check = HealthCheck(lambda sentence: found.append(f"{epoch}: {sentence}"), warmup, levels)
    for epoch, numbers in enumerate(epochs):
        check.check(epoch, HEALTHY | numbers)
    return [" ".join(sentence.split()[:4]) for sentence in found]


CHANCE = {"simclr_loss": 2.99}
Z, H = "The projections have", "The representations have"


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ([{}] * 9, []),
        ([CHANCE] * 5, ["1: simclr_loss has been"]),
        ([CHANCE, {}, CHANCE, {}, CHANCE], []),
        ([{"simclr_loss": 2.95}] * 5, []),
        ([{"simclr_loss": math.nan}] * 5, []),
        ([{"effective_rank_z": 1.2}] * 5, [f"1: {Z}"]),
        ([{"variance_z": 1e-6}] * 5, [f"1: {Z}"]),
        ([{}, {"effective_rank_h": 1.01}, {"effective_rank_h": 1.01}], [f"2: {H}"]),
        ([{"variance_h": 0.0, "effective_rank_h": 0.0} | CHANCE] * 3, ["1: simclr_loss has been", f"1: {H}"]),
        ([{"effective_rank_z": math.nan, "variance_z": math.nan}] * 3, []),
        ([{"tags_pseudo_used": 0.4}] * 3, ["1: Under 1% of"]),
        ([{"tags_pseudo_used": 99.5, "size_pseudo_used": 0.1}] * 2, ["1: Over 99% of", "1: Under 1% of"]),
        ([{"tags_pseudo_used": 99.5}, {"tags_pseudo_used": 98.5}] * 3, []),
        ([{"tags_pseudo_used": math.nan}] * 3, []),
    ],
)
def test_each_warning_is_given_once_after_two_bad_epochs_in_a_row(
    epochs: list[dict[str, float]], expected: list[str]
) -> None:
    assert warnings(epochs) == expected


def test_warm_up_is_not_checked() -> None:
    assert warnings([CHANCE] * 4, warmup=3) == []
    assert warnings([CHANCE] * 5, warmup=3) == ["4: simclr_loss has been"]


def test_an_epoch_without_a_measurement_is_not_bad() -> None:
    found: list[str] = []
    check = HealthCheck(found.append, 0, None)
    check.check(0, {"effective_rank_h": 1.0, "variance_h": 0.0})
    check.check(1, {})  # an epoch without nearest neighbors
    check.check(2, {"effective_rank_h": 1.0, "variance_h": 0.0, "simclr_loss": 9.0})
    assert len(found) == 1


def test_levels_are_means_over_an_epochs_images() -> None:
    assert contrast_levels([8] * 7, **NT_XENT) == pytest.approx((chance_level(8), best_level(8, 0.5)))
    dcl = contrast_levels([8] * 7, **NT_XENT | {"name": "dcl"})
    assert dcl == pytest.approx((dcl_chance_level(8), dcl_best_level(8, 0.5)))
    chance, best = contrast_levels([16, 16, 8], **NT_XENT) or (0, 0)
    assert chance == pytest.approx((4 * chance_level(16) + chance_level(8)) / 5)
    assert best == pytest.approx((4 * best_level(16, 0.5) + best_level(8, 0.5)) / 5)


@pytest.mark.parametrize(
    "other",
    [{"name": "supcon"}, {"name": "dcl", "mask_false_negatives": True}, {"mask_false_negatives": True}],
)
def test_a_loss_whose_levels_depend_on_labels_has_none(other: dict[str, Any]) -> None:
    assert contrast_levels([8], **NT_XENT | other) is None


@pytest.mark.parametrize(("n", "temperature"), [(2, 0.5), (4, 0.1), (5, 2.0)])
def test_no_loss_is_below_the_best_level(n: int, temperature: float) -> None:
    centered = torch.eye(n, dtype=torch.float64) - 1 / n  # a regular simplex
    assert float(nt_xent_loss(centered, centered, temperature)) == pytest.approx(best_level(n, temperature))
    assert float(dcl_loss(centered, centered, temperature)) == pytest.approx(dcl_best_level(n, temperature))
    for seed in range(20):
        z = torch.randn(2, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert float(nt_xent_loss(z[0], z[1], temperature)) > best_level(n, temperature)
        assert float(dcl_loss(z[0], z[1], temperature)) > dcl_best_level(n, temperature)
