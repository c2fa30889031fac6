"""The confusions of an attribute: how often one class is called another, in counts and in sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reports.per_class import Matrix
from reports.run_results import AttributeResults, Bools, Ints


@dataclass(frozen=True)
class Confusion:
    """A kind of mistake.

    Attributes:
        label: the class that the images have; for sets, the value that is missing in the prediction.
        predicted: the class that they are called; for sets, the value that is wrongly predicted in the same image.
        count: number of such images.
        images: number of images with this label.
    """

    label: str
    predicted: str
    count: int
    images: int


def confusion_matrix(truth: Ints, predicted: Ints, classes: int) -> Matrix:
    """Return counts [K + 1, K]: a row for each label, the last for unknown ones, and a column for each prediction.

    Args:
        truth: labels [n], -1 for a class that is none of the K.
        predicted: predictions [n].
        classes: K.
    """
    rows = np.where(truth < 0, classes, truth)
    counts: Matrix = np.bincount(rows * classes + predicted, minlength=(classes + 1) * classes)
    return counts.reshape(classes + 1, classes).astype(np.int64)


def value_counts(truth: Bools, predicted: Bools) -> Matrix:
    """Return the counts [K + 1, 3] of a multi-valued attribute, as `reports.per_class.value_scores` takes them."""
    counts = np.stack([truth.sum(axis=0), (truth & predicted).sum(axis=0), predicted.sum(axis=0)], axis=1)
    return np.concatenate([counts, np.zeros((1, 3), np.int64)]).astype(np.int64)


def top_confusions(results: AttributeResults, most: int) -> list[Confusion]:
    """Return the most frequent confusions; equally frequent ones are in the order of the classes.

    Args:
        results: the results of an attribute.
        most: the number of confusions.
    """
    count = len(results.classes)
    if results.multi_valued:
        missed, given = results.truth & ~results.predicted, results.predicted & ~results.truth
        pairs = missed.T.astype(np.int64) @ given.astype(np.int64)
        images = results.truth.sum(axis=0)
    else:
        matrix = confusion_matrix(results.truth, results.predicted, count)[:-1]
        images = matrix.sum(axis=1)
        pairs = matrix - np.diag(np.diagonal(matrix))
    flat = pairs.ravel()
    order = np.argsort(-flat, kind="stable")[:most]
    return [
        Confusion(
            results.classes[cell // count], results.classes[cell % count], int(flat[cell]), int(images[cell // count])
        )
        for cell in order.tolist()
        if flat[cell]
    ]


def confusion_sentence(confusion: Confusion, multi_valued: bool = False) -> str:
    """Return a confusion as a sentence, such as "Navy Blue is called Black 41 times, in 34% of its images."."""
    times = "once" if confusion.count == 1 else f"{confusion.count:,} times"
    share = f"in {100 * confusion.count / max(1, confusion.images):.0f}% of its images"
    if multi_valued:
        return f"{confusion.label} is missed and {confusion.predicted} given instead {times}, {share}."
    return f"{confusion.label} is called {confusion.predicted} {times}, {share}."
