"""The figures of the label-efficiency report: accuracies, and their bootstrap intervals.

An interval is the middle 95% of 10,000 bootstrap draws over test images and seeds together. A difference between two
methods is paired by both: each draw takes the same images and the same seeds of both methods. Each draw takes n - 1 of
n seeds; drawing n would underestimate the variance by a factor of (n - 1) / n.

- J. N. K. Rao, C. F. J. Wu: Resampling inference with complex survey data, JASA 83, 1988, section 2
"""

from __future__ import annotations

from typing import Any

import numpy as np
from label_efficiency_cells import Cell, Predictions, Row
from label_efficiency_settings import STARTS

DRAWS = 10_000
COSTS = ("minutes", "trained", "scored")  # minutes of one core; views with a backward pass; views without
FEWEST_SEEDS = 3  # with fewer the spread is unknown, and the report leaves out the method or the difference
Array = np.ndarray[Any, np.dtype[Any]]
Key = tuple[str, float, str]  # start, fraction, method
Runs = dict[Key, dict[int, Cell]]  # each run with its predictions under "predicted", by seed


def summary(key: Key, runs: Runs, labels: list[Row], baseline: str) -> dict[str, Any]:
    """Return the figures of one method in percent, and its paired difference to a baseline."""
    # the method alone
    start, fraction, method = key
    seeds = sorted(runs[key])
    scores = [score(runs[key][seed]["predicted"], labels) for seed in seeds]
    low, high = interval([right(runs[key][seed]["predicted"], labels) for seed in seeds])
    row: dict[str, Any] = {"start": start, "fraction": fraction, "method": method, "seeds": len(seeds)}
    row |= {"accuracy": float(np.mean([one["accuracy"] for one in scores])), "low": low, "high": high}
    row["deviation"] = float(np.std([one["accuracy"] for one in scores], ddof=1))
    row |= {name: float(np.mean([one[name] for one in scores])) for name in scores[0] if name != "accuracy"}
    for name in ("held_out", *COSTS):
        if all(name in runs[key][seed] for seed in seeds):  # older cells have no cost
            row[name] = float(np.mean([runs[key][seed][name] for seed in seeds]))
    return row | difference(key, runs, labels, baseline)


def difference(key: Key, runs: Runs, labels: list[Row], baseline: str) -> dict[str, Any]:
    """Return a method's paired difference to a baseline, over the seeds of both; blank if these are too few."""
    # the seeds of both
    start, fraction, method = key
    first = STARTS[start].attributes[0]
    names = [
        *("paired_seeds", "difference", "difference_low", "difference_high"),
        *(f"{first}_difference", f"{first}_low", f"{first}_high"),
        *("balanced_difference", "held_out_difference", "held_out_wins"),
    ]
    base = runs.get((start, fraction, baseline), {})
    both = [seed for seed in sorted(runs[key]) if seed in base]
    if method == baseline or len(both) < FEWEST_SEEDS:
        return dict.fromkeys(names, "")

    # their differences
    these, others = ([right(run[seed]["predicted"], labels) for seed in both] for run in (runs[key], base))
    article = [hits[:1] for hits in these], [hits[:1] for hits in others]
    balanced = [
        np.mean([score(run[seed]["predicted"], labels)["balanced_accuracy"] for seed in both])
        for run in (runs[key], base)
    ]
    gains = [runs[key][seed]["held_out"] - base[seed]["held_out"] for seed in both]
    figures = (
        *(len(both), _difference(these, others), *interval(these, others)),
        *(_difference(*article), *interval(*article), float(balanced[0] - balanced[1])),
        *(float(np.mean(gains)), sum(gain > 0 for gain in gains)),
    )
    return dict(zip(names, figures, strict=True))


def _difference(runs: list[Array], baseline: list[Array]) -> float:
    return float(_accuracy(runs).mean() - _accuracy(baseline).mean())


def score(predicted: Predictions, labels: list[Row]) -> dict[str, float]:
    """Return one run's accuracies, mean and by attribute, balanced accuracy and exact match, in percent."""
    hits = right(predicted, labels)
    balanced = []
    for name, hit in zip(predicted, hits, strict=True):
        truth = np.array([row[name] for row in labels])
        balanced.append(np.mean([hit[truth == kind].mean() for kind in sorted({*truth} - {""})]))
    labeled = ~np.isnan(hits).all(axis=0)
    return {
        "accuracy": float(_accuracy([hits])[0]),
        **{name: 100 * float(np.nanmean(hit)) for name, hit in zip(predicted, hits, strict=True)},
        "balanced_accuracy": 100 * float(np.mean(balanced)),
        "exact_match": 100 * float(np.nanmin(hits[:, labeled], axis=0).mean()),
    }


def right(predicted: Predictions, labels: list[Row]) -> Array:
    """Return 1 where a prediction is right, 0 where it is wrong and NaN where the label is blank, [A, N]."""
    columns = []
    for name, classes in predicted.items():
        hits = zip(classes, labels, strict=True)
        columns.append([float(guess == row[name]) if row[name] else np.nan for guess, row in hits])
    return np.array(columns)


def interval(runs: list[Array], baseline: list[Array] | None = None) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the mean accuracy, or of its difference to a baseline.

    Args:
        runs: results of `right`, one for each seed, [A, N].
        baseline: the baseline's results with the same seeds in the same order.
    """
    rng = np.random.default_rng(0)
    seeds, (_, images) = len(runs), runs[0].shape
    image_weights = rng.multinomial(images, np.full(images, 1 / images), size=DRAWS).astype(np.float64)  # [draws, N]
    drawn = max(1, seeds - 1)
    seed_weights = rng.multinomial(drawn, np.full(seeds, 1 / seeds), size=DRAWS) / drawn  # [draws, seeds]
    values = _drawn(runs, image_weights) - (0 if baseline is None else _drawn(baseline, image_weights))
    low, high = np.percentile((values * seed_weights).sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _drawn(runs: list[Array], weights: Array) -> Array:
    """Return each run's mean accuracy under each draw's weights of the images, [draws, runs], in percent."""
    hits = np.stack(runs)  # [runs, A, N]
    accuracies = [
        weights @ np.nan_to_num(hits[:, index]).T / (weights @ ~np.isnan(hits[0, index]))[:, None]
        for index in range(hits.shape[1])
    ]
    return np.asarray(100 * np.mean(accuracies, axis=0))


def _accuracy(runs: list[Array]) -> Array:
    """Return each run's mean accuracy in percent, [runs]."""
    return 100 * np.array([np.nanmean(run, axis=1).mean() for run in runs])
