"""The report compares candidates on the splits of both, and says when it does not know."""

import math

import numpy as np
import pytest
from scipy import stats

from reports.choice_report import FinishedRun, Standing, best, choice_lines, standing
from reports.split_statistics import Estimate


def runs(*means: float, half: bool = False, name: str = "a") -> dict[int, FinishedRun]:
    """Return runs whose two scores have these means, by split; NaN leaves a split out."""
    return {
        split: FinishedRun(name, split, half, {"color": mean - 5, "size": mean + 5}, 2.0, 100)
        for split, mean in enumerate(means)
        if not math.isnan(mean)
    }


def test_a_difference_is_paired_by_split_and_uses_the_splits_of_both() -> None:
    first, second = runs(70, 60, 80, 75), runs(72, math.nan, 81, 79)
    one = standing("second", second, {}, first, share=0.2, held_out=50)
    assert one.difference is not None
    gains = np.array([2.0, 1.0, 4.0])
    half = stats.t.ppf(0.975, 2) * gains.std(ddof=1) * math.sqrt(1 / 3 + 0.2 / 0.8)
    assert one.difference == pytest.approx((gains.mean(), gains.mean() - half, gains.mean() + half), rel=1e-4)
    assert one.scores == pytest.approx({"color": 232 / 3 - 5, "size": 232 / 3 + 5})
    assert (one.splits, one.mean, one.seconds, one.rate) == pytest.approx((3, 232 / 3, 2, 50))
    assert standing("first", first, {}, None, 0.2, 50).difference is None


def test_the_gain_of_twice_the_labels_uses_the_splits_that_have_both() -> None:
    one = standing("a", runs(80, 80, 60), runs(70, 70, half=True), None, share=0.2, held_out=50)
    assert one.gain is not None
    assert one.gain.value == pytest.approx(20 - 20 * 2 / 3)  # the error falls from 30 to 20, so from 20 to 13.3
    assert standing("a", runs(80), {}, None, 0.2, 50).gain is None


def known(title: str, splits: int, difference: Estimate | None, gain: Estimate | None = None) -> Standing:
    return Standing(title, splits, {"color": 70.0}, 70.0, difference, 10.0, 5.0, gain)


@pytest.mark.parametrize(
    ("differences", "winner", "sentence"),
    [
        ([Estimate(2, 1, 3), Estimate(1, -1, 3)], 1, "Best: one. Its interval against first is above 0."),
        ([Estimate(2, -1, 5), Estimate(1, -1, 3)], 1, "Best: one, but not clearly: its interval against first inclu"),
        ([Estimate(-2, -3, -1), Estimate(-1, -2, -0.1)], 0, "Best: first. The intervals of all others are below 0."),
        ([Estimate(-2, -3, -1), Estimate(-1, -2, 0.1)], 0, "Best: first, but not clearly: the interval of another"),
        ([None, Estimate(1, -1, 3)], 2, "Best: two, but not clearly"),
    ],
)
def test_the_winner_and_how_clearly_it_wins(differences: list[Estimate | None], winner: int, sentence: str) -> None:
    standings = [
        known("first", 5, None),
        *(known(*row) for row in zip(["one", "two"], [5, 5], differences, strict=True)),
    ]
    assert best(standings) == winner
    assert any(line.startswith(sentence) for line in choice_lines(standings))


def test_one_split_gives_question_marks_instead_of_intervals() -> None:
    unknown = Estimate(1.5, -math.inf, math.inf)
    lines = choice_lines([known("first", 1, None), known("one", 1, unknown, unknown)])
    assert "+1.5 (?)" in lines[2]
    assert any("a single split gives no interval" in line for line in lines)
    assert not any("inf" in line for line in lines)
    many = choice_lines([known("first", 5, None), known("one", 5, Estimate(1.5, 0.5, 2.5))])
    assert "+1.5 (+0.5 to +2.5)" in many[2]
    assert not any("(?)" in line or "few splits" in line for line in many)
    assert all(len(line) <= 110 for line in many)
