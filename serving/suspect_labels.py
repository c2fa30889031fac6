"""A table's given labels that are probably wrong, by cell: out-of-fold heads on a model's features judge them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from catalog.attribute_column import class_names
from catalog.label_space import SEPARATOR, LabelSpace, values_of
from serving.confident_learning import FEWEST, confident_suspects
from serving.out_of_fold import Floats, out_of_fold_probabilities
from timm.data.target_codes import value_sets

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SuspectLabel:
    """A label that is probably wrong.

    Attributes:
        row: position of its row.
        attribute: the attribute.
        given: the class in the table; for several values, all of them joined by `|`.
        likely: the class that is more likely; for several values, the given ones with one added or removed.
        probability_given: out-of-fold probability of the given class, or that the value is as given, 0-1.
        probability_likely: out-of-fold probability of the likely class, or that the value is not as given, 0-1.
        margin: the first probability less the largest other one; lower is more suspect.
    """

    row: int
    attribute: str
    given: str
    likely: str
    probability_given: float
    probability_likely: float
    margin: float


def suspect_labels(
    columns: dict[str, pa.DictionaryArray],
    multi_valued: frozenset[str],
    features: npt.NDArray[np.float32],
    groups: Rows,
    after_attribute: Callable[[str, int, str], object] = lambda name, judged, why: None,
) -> list[SuspectLabel]:
    """Return the labels that are probably wrong, the most suspect first.

    An attribute with a single class, or too few labels, is not judged.

    Args:
        columns: the attributes' columns; null is blank, and several values are joined by `|`.
        multi_valued: the attributes with several values.
        features: representation of each row's image, float32 [N, D], NaN where it is unreadable.
        groups: number of each row's image, int64 [N]; equal for images with the same content.
        after_attribute: called with each attribute, the number of its labels that were judged, and why none was.
    """
    readable = np.isfinite(features).all(axis=1)
    found: list[SuspectLabel] = []
    for name, column in columns.items():
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False) & readable)
        codes = np.unique(groups[rows], return_inverse=True)[1]
        several = name in multi_valued
        classes = class_names(column, several)
        why = _unfit(len(rows), codes, classes, several)
        if not why:
            space = LabelSpace({name: tuple(classes)}, [name] if several else [])
            labeled = column.take(pa.array(rows))
            targets = torch.from_numpy(space.encode(name, labeled))
            labels = targets if several else targets[:, 0]
            probabilities = out_of_fold_probabilities(torch.from_numpy(features[rows]), labels, len(classes), codes)
            judge = _suspect_sets if several else _suspect_classes
            found += judge(name, labeled.to_pylist(), classes, rows, labels, probabilities)
        after_attribute(name, 0 if why else len(rows), why)
    return sorted(found, key=lambda one: one.margin)


def _unfit(labels: int, images: Rows, classes: Sequence[str], several: bool) -> str:
    """Return why the labels of an attribute cannot be judged; "" if they can."""
    if labels < 2 * FEWEST:
        return f"there are fewer than {2 * FEWEST}"
    if len(classes) < 2 - several:
        return "they have a single class"
    return "they are of a single image" if images.max() == 0 else ""


def _suspect_classes(
    name: str, cells: Sequence[str], classes: Sequence[str], rows: Rows, labels: torch.Tensor, probabilities: Floats
) -> Iterator[SuspectLabel]:
    """Yield the suspects of an attribute with one class per image.

    Args:
        name: the attribute.
        cells: the given classes, N.
        classes: the classes, K.
        rows: position of each label's row, int64 [N].
        labels: codes of the given classes, int64 [N].
        probabilities: out-of-fold probabilities, [N, K].
    """
    found = confident_suspects(probabilities, labels.numpy())
    for place, likely, margin in zip(found.rows.tolist(), found.likely.tolist(), found.margin.tolist(), strict=True):
        given = float(probabilities[place, labels[place]])
        other = float(probabilities[place, likely])
        yield SuspectLabel(int(rows[place]), name, cells[place], classes[likely], given, other, margin)


def _suspect_sets(
    name: str, cells: Sequence[str], classes: Sequence[str], rows: Rows, labels: torch.Tensor, probabilities: Floats
) -> Iterator[SuspectLabel]:
    """Yield the suspects of a multi-valued attribute, value by value, each as a question of yes and no.

    Args:
        name: the attribute.
        cells: the given sets, N, joined by `|`.
        classes: the values, K.
        rows: position of each label's row, int64 [N].
        labels: columns of the given sets, int64 [N, W].
        probabilities: out-of-fold probability of each value, [N, K].
    """
    given = value_sets(labels, len(classes)).values.numpy()
    for code, value in enumerate(classes):
        both = np.stack([1 - probabilities[:, code], probabilities[:, code]], axis=1)
        found = confident_suspects(both, given[:, code].astype(np.int64))
        for place, likely, margin in zip(
            found.rows.tolist(), found.likely.tolist(), found.margin.tolist(), strict=True
        ):
            known = values_of(cells[place])
            others = [*known, value] if likely else [one for one in known if one != value]
            text = SEPARATOR.join(others) or SEPARATOR
            sure = float(both[place, 1 - likely]), float(both[place, likely])
            yield SuspectLabel(int(rows[place]), name, cells[place], text, *sure, margin)
