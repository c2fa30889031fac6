"""When a run is told that it does not learn: at chance or collapsed, for two epochs after warm-up, and once."""

import logging
import math
from argparse import Namespace
from typing import Any

import pytest
import torch

from simclr import best_level, chance_level, dcl_best_level, dcl_chance_level, dcl_loss, nt_xent_loss
from training.health_check import HealthCheck, contrast_levels, make_health_check

LEVELS = (3.0, 1.0)
HEALTHY = {"simclr_loss": 2.5, "effective_rank_z": 20.0, "variance_z": 0.5, "effective_rank_h": 90.0, "variance_h": 0.2}


def told(epochs: list[dict[str, float]], warmup: int = 0, levels: tuple[float, float] | None = LEVELS) -> list[str]:
    """Return the first words of what is said of a run's epochs, each with its epoch."""
    said: list[str] = []
    alarm = HealthCheck(lambda sentence: said.append(f"{epoch}: {sentence}"), warmup, levels)
    for epoch, numbers in enumerate(epochs):
        alarm.check(epoch, HEALTHY | numbers)
    return [" ".join(sentence.split()[:4]) for sentence in said]


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
    ],
)
def test_each_sentence_is_said_once_after_two_bad_epochs_in_a_row(
    epochs: list[dict[str, float]], expected: list[str]
) -> None:
    assert told(epochs) == expected


def test_warm_up_is_left_alone() -> None:
    assert told([CHANCE] * 4, warmup=3) == []
    assert told([CHANCE] * 5, warmup=3) == ["4: simclr_loss has been"]


def test_what_was_not_measured_is_not_bad() -> None:
    said: list[str] = []
    alarm = HealthCheck(said.append, 0, None)
    alarm.check(0, {"effective_rank_h": 1.0, "variance_h": 0.0})
    alarm.check(1, {})  # an epoch in which neighbors were not asked
    alarm.check(2, {"effective_rank_h": 1.0, "variance_h": 0.0, "simclr_loss": 9.0})
    assert len(said) == 1


def flags(**values: Any) -> Namespace:
    defaults = {"batch_size": 4, "contrastive_batch_size": None, "world_size": 2, "temperature": 0.5}
    loss = {"contrastive": "ntxent", "mask_false_negatives": False, "unlabeled": None, "unlabeled_ratio": None}
    return Namespace(**(defaults | loss | {"sched": "cosine", "warmup_epochs": 3, "rank": 0} | values))


def test_levels_are_means_over_an_epochs_images() -> None:
    assert contrast_levels(flags(), 7) == pytest.approx((chance_level(8), best_level(8, 0.5)))
    dcl = contrast_levels(flags(contrastive="dcl"), 7)
    assert dcl == pytest.approx((dcl_chance_level(8), dcl_best_level(8, 0.5)))
    chance, best = contrast_levels(flags(contrastive_batch_size=8), 5) or (0, 0)  # steps of 16, 16 and 8 images
    assert chance == pytest.approx((4 * chance_level(16) + chance_level(8)) / 5)
    assert best == pytest.approx((4 * best_level(16, 0.5) + best_level(8, 0.5)) / 5)
    beside = contrast_levels(
        flags(unlabeled=["more"], unlabeled_ratio=2.0), 7
    )  # as many more for each of both processes
    assert beside == pytest.approx((chance_level(24), best_level(24, 0.5)))


@pytest.mark.parametrize(
    "other",
    [{"contrastive": "supcon"}, {"contrastive": "dcl", "mask_false_negatives": True}, {"mask_false_negatives": True}],
)
def test_losses_whose_level_depends_on_labels_are_not_judged(other: dict[str, Any]) -> None:
    alarm = make_health_check(flags(**other), logging.getLogger("test"), 7, contrast=True)
    assert alarm.levels is None


@pytest.mark.parametrize(("n", "temperature"), [(2, 0.5), (4, 0.1), (5, 2.0)])
def test_no_loss_is_below_the_best_level(n: int, temperature: float) -> None:
    centered = torch.eye(n, dtype=torch.float64) - 1 / n  # a regular simplex
    assert float(nt_xent_loss(centered, centered, temperature)) == pytest.approx(best_level(n, temperature))
    assert float(dcl_loss(centered, centered, temperature)) == pytest.approx(dcl_best_level(n, temperature))
    for seed in range(20):
        z = torch.randn(2, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert float(nt_xent_loss(z[0], z[1], temperature)) > best_level(n, temperature)
        assert float(dcl_loss(z[0], z[1], temperature)) > dcl_best_level(n, temperature)


def test_only_the_first_process_speaks_and_without_a_schedule_there_is_no_warm_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for rank, sched, lines in ((0, "none", 1), (1, "none", 1), (0, "cosine", 1)):
        alarm = make_health_check(flags(rank=rank, sched=sched), logging.getLogger("test"), 7, contrast=True)
        for epoch in range(3):
            alarm.check(epoch, {"simclr_loss": chance_level(8)})
        assert len(caplog.records) == lines
    assert "try a lower --temperature" in caplog.text
