"""The report of choose.py: what each candidate reached, its cost, and which one wins."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.split_statistics import Estimate, gain_of_twice_the_labels, mean_over_splits

_MANY = 5  # splits from which an interval is not wide only because they are few


@dataclass(frozen=True)
class FinishedRun:
    """One training of a candidate and its scores.

    Attributes:
        candidate: name of the candidate.
        split: index of the split, from 0.
        half: whether half of the training labels were taken away.
        scores: score of each attribute on the held-out rows, in percent.
        seconds: time of training and scoring.
        images: images trained on, counted once per step.
    """

    candidate: str
    split: int
    half: bool
    scores: dict[str, float]
    seconds: float
    images: int

    @property
    def mean(self) -> float:
        """The mean score over the attributes."""
        return _mean(list(self.scores.values()))


@dataclass(frozen=True)
class Standing:
    """What is known of a candidate.

    Attributes:
        title: its name.
        splits: number of splits that it was scored on.
        scores: mean score of each attribute over these splits, in percent.
        mean: mean of `scores`.
        difference: difference to the first candidate on the splits of both, in points; None for the first itself, and
            without a common split.
        seconds: mean time of a training.
        rate: images trained on per second.
        gain: points that twice as many labels would add; None if no split was trained with half of the labels.
    """

    title: str
    splits: int
    scores: Mapping[str, float]
    mean: float
    difference: Estimate | None
    seconds: float
    rate: float
    gain: Estimate | None


Runs = Mapping[int, FinishedRun]  # by split


def standing(title: str, runs: Runs, halves: Runs, first: Runs | None, share: float, held_out: int) -> Standing:
    """Return what is known of a candidate.

    Args:
        title: its name.
        runs: its trainings with all labels of the training rows; at least one.
        halves: its trainings with half of the labels.
        first: trainings of the first candidate with all labels; None for the first itself.
        share: part of the labeled rows that a split holds out.
        held_out: smallest number of rows that a split holds out.
    """
    scores = {name: _mean([run.scores[name] for run in runs.values()]) for name in next(iter(runs.values())).scores}
    differences = [] if first is None else [runs[i].mean - first[i].mean for i in sorted(runs.keys() & first.keys())]
    seconds = sum(run.seconds for run in runs.values())
    curve = sorted(runs.keys() & halves.keys())
    errors, errors_with_half = ([100 - part[split].mean for split in curve] for part in (runs, halves))
    smallest = 100 / (2 * held_out)  # half an image
    return Standing(
        title,
        len(runs),
        scores,
        _mean(list(scores.values())),
        mean_over_splits(differences, share) if differences else None,
        seconds / len(runs),
        sum(run.images for run in runs.values()) / max(seconds, 1e-9),
        gain_of_twice_the_labels(errors, errors_with_half, share, smallest) if curve else None,
    )


def best(standings: Sequence[Standing]) -> int:
    """Return the index of the winner: the largest difference to the first, which has difference 0."""
    gains = [standing.difference.value if standing.difference else -math.inf for standing in standings]
    gains[0] = 0.0
    return max(range(len(standings)), key=lambda index: gains[index])


def choice_lines(standings: Sequence[Standing]) -> list[str]:
    """Return the table of the candidates, and sentences on what it says and does not say."""
    winner = standings[best(standings)]
    return [*_table(standings), "", *wrapped([*_conclusion(standings, winner), *_caveats(standings, winner)])]


def wrapped(sentences: Sequence[str]) -> list[str]:
    """Return sentences as lines of at most 110 characters, each sentence on lines of its own."""
    return [line for sentence in sentences for line in textwrap.wrap(sentence, 110, break_on_hyphens=False)]


def _table(standings: Sequence[Standing]) -> list[str]:
    names = list(standings[0].scores)
    header = ["candidate", *names, "mean", "against first", "splits", "seconds", "images/s", "twice the labels"]
    rows = [header]
    for one in standings:
        scores = [f"{one.scores[name]:.1f}" for name in names]
        difference = "" if one.difference is None else estimate_text(one.difference)
        gain = "" if one.gain is None else estimate_text(one.gain)
        cost = [f"{one.seconds:.0f}", f"{one.rate:.0f}"]
        rows.append([one.title, *scores, f"{one.mean:.1f}", difference, f"{one.splits}", *cost, gain])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]


def estimate_text(estimate: Estimate) -> str:
    """Return an estimate in points with its interval: "+1.2 (-0.3 to +2.7)", or "+1.2 (?)" without one."""
    if not math.isfinite(estimate.low):
        return f"{estimate.value:+.1f} (?)"
    return f"{estimate.value:+.1f} ({estimate.low:+.1f} to {estimate.high:+.1f})"


def _conclusion(standings: Sequence[Standing], winner: Standing) -> list[str]:
    first = standings[0]
    if len(standings) == 1:
        return [f"Best: {winner.title}, the only candidate that finished."]
    if winner is first:
        clear = all(one.difference is not None and one.difference.high < 0 for one in standings[1:])
        if clear:
            return [f"Best: {first.title}. The intervals of all others are below 0."]
        return [f"Best: {first.title}, but not clearly: the interval of another candidate reaches 0."]
    assert winner.difference is not None
    if winner.difference.low > 0:
        return [f"Best: {winner.title}. Its interval against {first.title} is above 0."]
    return [
        f"Best: {winner.title}, but not clearly: its interval against {first.title} includes 0. The latter takes "
        f"{first.seconds:.0f} seconds, the best {winner.seconds:.0f}."
    ]


def _caveats(standings: Sequence[Standing], winner: Standing) -> list[str]:
    lines = []
    fewest = min(one.splits for one in standings)
    if fewest == 1:
        lines.append("(?): a single split gives no interval. A larger budget allows more splits.")
    lines.append("Intervals: 95%, paired by split, corrected for training rows that the splits share.")
    if fewest < _MANY:
        lines.append("With few splits they are wide: each further split narrows them.")
    if winner.gain is not None:
        lines.append(
            f"Twice the labels: {estimate_text(winner.gain)} points for the best. This assumes a power law: each "
            "doubling of the labels divides the error by the same factor. If errors level off, the gain is smaller. "
            "The interval covers the splits, not this assumption."
        )
    return lines


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
