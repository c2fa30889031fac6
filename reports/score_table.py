"""The scores of a run's attributes: accuracies with their intervals, beside what costs nothing to reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.attribute_section import percent
from reports.bootstrap import accuracy, interval
from reports.confusions import confusion_matrix, value_counts
from reports.page_style import cell, escape, number, table
from reports.per_class import class_scores
from reports.probability_curves import attribute_reliability
from reports.run_results import AttributeResults, Floats, RunResults

_INTERVAL, _BAR = "95% interval", "0% to 100%"
_ERRORS = ("calibration error", "after calibration")
_HEADS = (
    *("labeled", "accuracy", _INTERVAL, _BAR, "always guessing", "20 neighbors", "logistic regression"),
    *("balanced", "F1", *_ERRORS),
)


def verdict(results: RunResults) -> str:
    """Return the result in a sentence or a few."""
    if not results.attributes:
        return f"The model predicts no attribute. It represents the {len(results.images):,} images of this report."
    if not results.heads_trained:
        return "Labels have not trained the heads: what the representation is worth shows in the nearest neighbors."
    labeled = [one for one in results.attributes if len(one)]
    if not labeled:
        return f"{escape(results.split)} has no label that could be scored."
    shown = [_sentence(one) for one in labeled[:3]] if len(labeled) <= 3 else [_mean_sentence(results)]
    return " ".join(shown)


def _sentence(one: AttributeResults) -> str:
    low, high = interval(one.right[None].astype(float))
    guess = 100 * float(one.guess.mean())
    value = 100 * float(one.right.mean())
    return (
        f"<b>{escape(one.name)}: {value:.1f}% right</b> (95% interval {low:.1f} to {high:.1f}); "
        f"always guessing the most frequent label gives {guess:.1f}%."
    )


def _mean_sentence(results: RunResults) -> str:
    right = results.right()
    low, high = interval(right)
    guesses = [float(one.guess.mean()) for one in results.attributes if len(one)]
    return (
        f"<b>{accuracy(right):.1f}% right, as the mean of {len(guesses)} attributes</b> (95% interval {low:.1f} to "
        f"{high:.1f}); always guessing the most frequent label gives {100 * float(np.mean(guesses)):.1f}%."
    )


def score_table(results: RunResults) -> str:
    """Return the table of the attributes' scores, with a sentence on what its columns mean."""
    shown = [one for one in results.attributes if len(one)]
    if not shown:
        return "<p>No label of the split could be scored.</p>"
    rows = [_scores(one, results.heads_trained) for one in shown]
    if len(shown) > 1:
        rows.append(_mean(rows, results))
    heads = [head for head in _HEADS if any(row.values.get(head) is not None for row in rows)]
    lines = [[cell(row.name, "long", "attribute"), *_cells(row, heads)] for row in rows]
    heads = ["attribute", *heads]
    numbers = [place for place, head in enumerate(heads) if head not in ("attribute", _INTERVAL, _BAR)]
    return _explanation(results) + table("Scores by attribute", heads, lines, numbers, "stack")


def _explanation(results: RunResults) -> str:
    count = f"{len(results.images):,}"
    thinned = len(results.images) < results.total
    some = f"{count} of its {results.total:,} images, evenly spread" if thinned else f"its {count} images"
    parts = [
        f"On {escape(results.split)}, {some}. Intervals are from bootstrap draws of the images. The bar shows the "
        "interval, the thin line in it the accuracy, the orange line always guessing the most frequent training label."
    ]
    if any(one.neighbors is not None for one in results.attributes):
        parts.append("Neighbors: the 20 training images with the most similar representation vote.")
    if results.logistic_images:
        parts.append(
            f"Logistic regression: on the representations of {results.logistic_images:,} labeled training images."
        )
    if any(one.multi_valued for one in results.attributes):
        parts.append("A set of values is right if every value is; its F1 is over all values.")
    return f"<p>{' '.join(parts)}</p>"


@dataclass(frozen=True)
class _Scores:
    """The scores of a row, in percent by column; an absent or None value is unknown.

    Attributes:
        name: the attribute.
        labeled: number of labeled images; None in the row of means.
        ends: the interval of the accuracy.
        values: the scores by column.
        solved: the interval of the logistic regression's accuracy; None without one.
    """

    name: str
    labeled: int | None
    ends: tuple[float, float]
    values: dict[str, float | None]
    solved: tuple[float, float] | None = None


def _scores(one: AttributeResults, trained: bool) -> _Scores:
    """Return the scores of an attribute; its head has scores only if labels have trained it."""
    values: dict[str, float | None] = {"labeled": len(one), "always guessing": 100 * float(one.guess.mean())}
    values["20 neighbors"], solved = one.neighbors, None
    if one.logistic is not None:
        values["logistic regression"] = 100 * float(one.logistic.mean())
        solved = interval(one.logistic[None].astype(float))
    if not trained:
        return _Scores(one.name, len(one), (math.nan, math.nan), values, solved)
    balanced, f1 = _by_class(one)
    errors = [attribute_reliability(one, calibrated).error for calibrated in (False, True)]
    accuracy = 100 * float(one.right.mean())
    values |= {"accuracy": accuracy, _INTERVAL: accuracy, _BAR: accuracy, "balanced": balanced, "F1": f1}
    values |= dict(zip(_ERRORS, errors, strict=True))
    return _Scores(one.name, len(one), interval(one.right[None].astype(float)), values, solved)


def _mean(rows: Sequence[_Scores], results: RunResults) -> _Scores:
    """Return the means of the attributes; an interval is over draws of the images, for all attributes together."""
    values: dict[str, float | None] = {}
    for head in _HEADS[1:]:
        known = [value for row in rows if (value := row.values.get(head)) is not None and not math.isnan(value)]
        values[head] = sum(known) / len(known) if known else None
    return _Scores("mean", None, interval(results.right()), values)


def _cells(row: _Scores, heads: Sequence[str]) -> list[str]:
    """Return the cells of a row besides its name."""
    found = []
    for head in heads:
        value = row.values.get(head)
        known = math.nan if value is None else value
        if head == "labeled":
            found.append(cell("–", "number", head) if row.labeled is None else number(row.labeled, "", head))
        elif value is None:
            found.append(percent(math.nan, head))
        elif head == _INTERVAL:
            low, high = row.ends
            found.append(f'<td class="range" data-head="{head}" data-sort="{low:.4f}">{low:.1f} to {high:.1f}</td>')
        elif head == _BAR:
            found.append(bar(known, *row.ends, row.values.get("always guessing") or 0.0))
        elif head == "logistic regression" and row.solved is not None:
            low, high = row.solved
            found.append(number(round(known, 4), f"{known:.1f}% ({low:.1f}–{high:.1f})", head))
        else:
            found.append(percent(known, head))
    return found


def _by_class(one: AttributeResults) -> tuple[float, float]:
    """Return balanced accuracy and macro-F1 in percent; for sets, NaN and micro-F1."""
    if one.multi_valued:
        counts = value_counts(one.truth, one.predicted).sum(axis=0)
        whole = counts[0] + counts[2]
        return float("nan"), 200 * float(counts[1]) / float(whole) if whole else float("nan")
    scores = class_scores(confusion_matrix(one.truth, one.predicted, len(one.classes)))
    return _nan_mean(scores["recall"]), _nan_mean(scores["f1"])


def _nan_mean(values: Floats) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def bar(value: float, low: float, high: float, guess: float) -> str:
    """Return a cell that draws an accuracy, its interval and a baseline on a line from 0% to 100%."""
    parts = (
        f'<i class="range" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<i class="point" style="left:{value:.1f}%"></i><i class="guess" style="left:{guess:.1f}%"></i>'
    )
    return f'<td class="bars" data-head="{_BAR}" data-sort="{value:.4f}"><span class="track">{parts}</span></td>'
