"""The section of one attribute in a run's report: classes, confusions, probabilities, mistakes, likely label errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.confusions import (
    confusion_matrix,
    confusion_sentence,
    top_confusions,
    value_counts,
)
from reports.label_errors import likely_label_errors, worst_mistakes
from reports.page_style import cell, escape, number, plain, table
from reports.per_class import class_scores, value_scores
from reports.probability_curves import attribute_reliability, coverage_at, coverage_curve
from reports.run_results import AttributeResults, Floats, Ints
from reports.svg_chart import Chart, Line, charts

_SENTENCES = 10
_SENTENCE = 400  # characters of one, with two names
_PROMISES = (0.9, 0.95, 0.99)
_FEW_SHOWN = 25  # classes of the matrix's smaller choices

Picture = Callable[[int], str]


@dataclass(frozen=True)
class SectionSize:
    """How much a section shows.

    Attributes:
        examples: pictures of mistakes, and as many of suspicious labels.
        classes: rows of the table, and sides of the matrix.
        charts: whether it has charts.
    """

    examples: int
    classes: int
    charts: bool


def attribute_section(
    results: AttributeResults,
    place: int,
    size: SectionSize,
    *,
    epochs: Sequence[Chart],
    images: Sequence[str],
    picture: Picture,
    predicts: bool,
) -> tuple[str, dict[str, Any] | None]:
    """Return the section of an attribute, and what the script draws its matrix from; None without a matrix.

    Args:
        results: the results of the attribute.
        place: index of the attribute, which its anchor and its matrix have.
        size: how much to show.
        epochs: charts of the attribute over the epochs.
        images: names of the split's images.
        picture: returns the address of an image's picture, or "".
        predicts: whether labels have trained the head, so that its predictions mean something.
    """
    kind = "values, several an image" if results.multi_valued else "classes"
    head = f'<section id="attribute{place}">\n<h2>{escape(results.name)}</h2>'
    head += f"<p>{len(results.classes):,} {kind}; {len(results):,} labeled images.</p>"
    if not len(results) or not predicts:
        why = (
            "No image has a label of it." if predicts else "Labels have not trained its head, so it is not scored here."
        )
        return f"{head}<p>{why}</p>{charts(epochs) if size.charts else ''}</section>", None
    order = np.argsort(-_supports(results), kind="stable")
    matrix = None if results.multi_valued else matrix_data(results, order, size.classes)
    parts = [
        head,
        charts([*epochs, _reliability_chart(results), _coverage_chart(results)]) if size.charts else "",
        _coverage_words(results),
        "<h3>Confusions</h3>",
        _sentences(results),
        _matrix(results, place, matrix, min(size.classes, len(results.classes))) if matrix else "",
        "<h3>By class</h3>",
        _classes(results, order, size.classes),
        _pictures(results, size.examples, images, picture),
        "</section>",
    ]
    return "\n".join(filter(None, parts)), matrix


def matrix_data(results: AttributeResults, order: Ints, most: int) -> dict[str, Any]:
    """Return the confusion matrix for the page's script: cells that are not 0, and orders of classes to show.

    Args:
        results: the results of an attribute with one class an image.
        order: the classes, the most frequent first.
        most: number of classes in the matrix.
    """
    counts = confusion_matrix(results.truth, results.predicted, len(results.classes))[:-1]
    shown = order[:most]
    place = np.full(len(counts), -1)
    place[shown] = np.arange(len(shown))
    rows, columns = np.nonzero(counts)
    inside = (place[rows] >= 0) & (place[columns] >= 0)
    cells = [
        [int(place[row]), int(place[column]), int(counts[row, column])]
        for row, column in zip(rows[inside], columns[inside], strict=True)
    ]
    wrong = np.bincount(
        np.array([[row, column] for row, column, _ in cells if row != column], np.int64).reshape(-1),
        weights=np.repeat([count for row, column, count in cells if row != column], 2),
        minlength=len(shown),
    )
    confused = np.argsort(-wrong, kind="stable")[:_FEW_SHOWN]
    return {
        "names": [plain(results.classes[code]) for code in shown],
        "images": counts.sum(axis=1)[shown].tolist(),
        "cells": cells,
        "orders": [list(range(len(shown))), list(range(min(_FEW_SHOWN, len(shown)))), np.sort(confused).tolist()],
    }


def _supports(results: AttributeResults) -> Ints:
    """Return the number of labeled images of each class, [K]."""
    if results.multi_valued:
        counts: Ints = results.truth.sum(axis=0).astype(np.int64)
        return counts
    return np.bincount(results.truth[results.truth >= 0], minlength=len(results.classes)).astype(np.int64)


def _sentences(results: AttributeResults) -> str:
    found = top_confusions(results, _SENTENCES)
    if not found:
        return "<p>There is no confusion: no image with a known label is called another class.</p>"
    lines = "".join(f"<li>{escape(confusion_sentence(one, results.multi_valued), _SENTENCE)}</li>" for one in found)
    return f'<ol class="sentences">{lines}</ol>'


def _matrix(results: AttributeResults, place: int, matrix: dict[str, Any], shown: int) -> str:
    """Return the frame in which the script draws a matrix."""
    count = len(results.classes)
    every = f"all {count} classes" if shown == count else f"the {shown} most frequent of {count} classes"
    names = [every]
    if shown > _FEW_SHOWN:
        names += [f"the {_FEW_SHOWN} most frequent classes", f"the {_FEW_SHOWN} most confused classes"]
    options = "".join(f'<option value="{value}">{name}</option>' for value, name in enumerate(names))
    label = f"Confusion matrix of {results.name}"
    hint = "A row is a label, a column a prediction. Point at a cell, or move with the arrow keys."
    return (
        f'<div class="matrix" data-matrix="{place}">\n<p><label>Show <select>{options}</select></label></p>\n'
        f'<p class="readout" role="status" data-hint="{hint}">The matrix needs JavaScript.</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}, which scrolls">'
        f'<canvas tabindex="0" role="application" aria-label="{escape(label)}: arrow keys move from cell to cell">'
        "</canvas></div></div>"
    )


def _classes(results: AttributeResults, order: Ints, most: int) -> str:
    """Return the table by class."""
    if results.multi_valued:
        scores = value_scores(value_counts(results.truth, results.predicted))
        often: dict[int, str] = {}
    else:
        counts = confusion_matrix(results.truth, results.predicted, len(results.classes))
        scores = class_scores(counts)
        mistakes = counts[:-1] - np.diag(np.diagonal(counts[:-1]))
        often = {
            code: f"{results.classes[int(row.argmax())]} ({int(row.max()):,})"
            for code, row in enumerate(mistakes)
            if row.max(initial=0)
        }
    heads = ["class", "images", *(["training images"] if results.trained is not None else [])]
    heads += ["precision", "recall", "F1", *(["mostly taken for"] if not results.multi_valued else [])]
    lines = []
    for code in order[:most].tolist():
        line = [cell(results.classes[code], "long"), number(int(scores["support"][code]))]
        line += [number(int(results.trained[code]))] if results.trained is not None else []
        line += [percent(scores[name][code]) for name in ("precision", "recall", "f1")]
        line += [cell(often.get(code, "–"), "long")] if not results.multi_valued else []
        lines.append(line)
    left_out = len(order) - len(lines)
    note = f'<p class="soft">{left_out:,} rarer classes are left out.</p>' if left_out else ""
    numbers = [place for place, name in enumerate(heads) if name not in ("class", "mostly taken for")]
    return table(f"Classes of {results.name}", heads, lines, numbers, "dense") + note


def percent(value: float, head: str = "") -> str:
    """Return a cell with a percentage; a dash where it is undefined.

    Args:
        value: the percentage.
        head: the name of its column, for tables of the kind "stack".
    """
    return number(-1, "–", head) if np.isnan(value) else number(round(float(value), 4), f"{value:.1f}%", head)


def percents(shares: Floats) -> tuple[float, ...]:
    """Return shares, 0-1, as percentages."""
    return tuple((100 * shares).tolist())


def _reliability_chart(results: AttributeResults) -> Chart:
    before, after = (attribute_reliability(results, calibrated) for calibrated in (False, True))
    return Chart(
        f"Reliability (error {before.error:.1f}%, calibrated {after.error:.1f}%)",
        (
            Line("as trained", percents(before.confidence), percents(before.accuracy), 1, dashed=True, marked=True),
            Line("calibrated", percents(after.confidence), percents(after.accuracy), 0, marked=True),
        ),
        x_label="confidence (%); on the dotted line it is honest",
        percent=True,
        diagonal=True,
        whole=False,
        x_range=(-2, 102),
        y_range=(-4, 104),
    )


def _coverage_chart(results: AttributeResults) -> Chart:
    coverage, accuracy = coverage_curve(results.confidence, results.right)
    return Chart(
        "Accuracy of the most confident",
        (Line("accuracy", percents(coverage), percents(accuracy), 0),),
        x_label="coverage: the most confident share of the images (%)",
        percent=True,
        whole=False,
        x_range=(-2, 102),
    )


def _coverage_words(results: AttributeResults) -> str:
    """Return how many images the most confident predictions cover at some precisions."""
    shares = [(promise, coverage_at(results.confidence, results.right, promise)) for promise in _PROMISES]
    parts = ", ".join(
        f"{100 * share:.0f}% of the images at {100 * promise:.0f}% precision" for promise, share in shares
    )
    return f"<p>Keeping only the most confident predictions, this split allows {parts}.</p>"


def _pictures(results: AttributeResults, examples: int, images: Sequence[str], picture: Picture) -> str:
    """Return the likely label errors and the worst mistakes, with pictures."""
    errors, wrong = likely_label_errors(results), worst_mistakes(results)
    shown = errors[:examples]
    others = wrong[~np.isin(wrong, shown)][:examples]
    explained = (
        "Confident learning suspects these labels: the model, which was not trained on them, is more sure of another "
        "class than it usually is of that class's own images. Look before you correct."
    )
    parts = [f"<h3>Likely label errors ({len(errors):,})</h3><p>{explained}</p>" if len(errors) else ""]
    parts.append(_examples(results, shown, images, picture))
    if len(others):
        parts.append(f"<h3>Worst mistakes ({len(wrong):,} in all)</h3>")
        parts.append("<p>The most confident wrong predictions, without the images above.</p>" if len(shown) else "")
        parts.append(_examples(results, others, images, picture))
    return "\n".join(filter(None, parts))


def _examples(results: AttributeResults, places: Ints, images: Sequence[str], picture: Picture) -> str:
    """Return labeled images with their label and their prediction."""
    items = []
    for place in places.tolist():
        row = int(results.rows[place])
        address, name = picture(row), escape(images[row])
        shown = f'<div class="pictures"><img src="{address}" alt="{name}"></div>' if address else ""
        label, predicted = escape(results.label_text(place)), escape(results.prediction_text(place))
        sure = f"{100 * float(results.confidence[place]):.0f}%"
        words = f"labeled <b>{label}</b>, predicted <b>{predicted}</b> ({sure})"
        items.append(f'<li class="single">{shown}{words}<br><span class="soft">{name}</span></li>')
    return f'<ul class="examples">{"".join(items)}</ul>' if items else ""
