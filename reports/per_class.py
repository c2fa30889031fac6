"""Scores of each class: tables of precision and recall, and confusion matrices."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from catalog.spreadsheet_text import escaped_text
from reports.curve_panels import GRAY, INK
from reports.figure_text import drawable, font_families
from runtime.atomic_file import atomic_file

if TYPE_CHECKING:  # matplotlib takes a second to import; most evaluations draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Matrix = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OUTSIDE = "(not in the label space)"  # name of the row for labels that are not classes of the model

_NAMED_CLASSES = 40  # with more classes, names would be too small to read
_WRITTEN_CLASSES = 12  # up to this number of classes, each cell shows its percent
_NAME_LENGTH = 24
_BYTES = 120  # longest stem of a file name; file systems allow 255 bytes for the whole name


def class_scores(matrix: Matrix) -> dict[str, Floats]:
    """Return precision, recall and F1 in percent, and the number of images ("support"), of each class.

    A score is NaN where it is undefined: the precision of a class that is never predicted, the recall of a class that
    no image has, and the F1 of a class that is neither.

    Args:
        matrix: counts [K + 1, K]: a row for each label, the last for labels outside the label space, and a column for
            each prediction.
    """
    hits = np.diagonal(matrix).astype(np.float64)
    return _scores(matrix.sum(axis=1)[:-1].astype(np.float64), hits, matrix.sum(axis=0).astype(np.float64))


def value_scores(counts: Matrix) -> dict[str, Floats]:
    """Return the scores of `class_scores` for each value of a multi-valued attribute.

    Args:
        counts: counts [K + 1, 3], a row for each value, the last for values outside the label space. The columns are
            images with the value, images with the value that are predicted to have it, and images predicted to have it.
    """
    return _scores(*counts[:-1].T.astype(np.float64))


def _scores(support: Floats, hits: Floats, predicted: Floats) -> dict[str, Floats]:
    return {
        "precision": _percent(hits, predicted),
        "recall": _percent(hits, support),
        "f1": _percent(2 * hits, support + predicted),
        "support": support,
    }


def write_per_class(
    folder: Path,
    matrices: Mapping[str, Matrix],
    classes: Mapping[str, Sequence[str]],
    title: str = "",
    multi_valued: Collection[str] = (),
    spreadsheet_safe: bool = False,
) -> list[Path]:
    """Write `<attribute>.csv`, `<attribute>-confusion.csv` and `<attribute>-confusion.png` for each attribute.

    A multi-valued attribute gets only the first file, since a wrong set is not a confusion of two classes.

    Args:
        folder: the folder of the files; it is created.
        matrices: the counts of each attribute, as `class_scores` takes them, or `value_scores` for a multi-valued one.
        classes: the class names of each attribute, in the order of its counts.
        title: a line for the pictures that names the model and data that were scored.
        multi_valued: the attributes with several values an image.
        spreadsheet_safe: whether class names are written so that a spreadsheet runs none of them.

    Returns:
        The paths of the files.
    """
    written = []
    for (attribute, matrix), stem in zip(matrices.items(), file_stems(matrices), strict=True):
        names = list(classes[attribute])
        # scores, for every attribute
        table, confusion, picture = (folder / f"{stem}{end}" for end in (".csv", "-confusion.csv", "-confusion.png"))
        scores = value_scores(matrix) if attribute in multi_valued else class_scores(matrix)
        written_names = [escaped_text(name) for name in names] if spreadsheet_safe else names
        _write_scores(table, written_names, scores)
        written.append(table)
        if attribute in multi_valued:
            continue

        # confusions, where an image has one class
        _write_confusion(confusion, written_names, matrix)
        figure = draw_confusion(attribute, names, matrix, title)
        with atomic_file(picture) as unfinished:
            figure.savefig(unfinished, format="png", metadata={"Software": None})
        written += [confusion, picture]
    return written


def file_stems(names: Iterable[str]) -> list[str]:
    """Return a file name's stem for each name; no two stems are equal, even where case is ignored.

    Letters and digits of any script stay; characters that a file system may refuse become underscores. If two names
    have the same stem, the second one gets a number.
    """
    taken: set[str] = set()
    stems = []
    for name in names:
        plain = re.sub(r"[^\w .()+-]", "_", name).strip(" .") or "_"
        plain = plain.encode()[:_BYTES].decode(errors="ignore")
        stem, number = plain, 2
        while {stem.casefold(), f"{stem}-confusion".casefold()} & taken:
            stem, number = f"{plain}-{number}", number + 1
        taken |= {stem.casefold(), f"{stem}-confusion".casefold()}
        stems.append(stem)
    return stems


def _write_scores(path: Path, names: Sequence[str], scores: Mapping[str, Floats]) -> None:
    with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *scores])
        for row, name in enumerate(names):
            percents = [scores[score][row] for score in ("precision", "recall", "f1")]
            shown = ["" if np.isnan(percent) else f"{percent:.4f}" for percent in percents]
            writer.writerow([name, *shown, int(scores["support"][row])])


def _write_confusion(path: Path, names: Sequence[str], matrix: Matrix) -> None:
    with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label \\ prediction", *names])
        writer.writerows([name, *counts] for name, counts in _rows(names, matrix))


def _rows(names: Sequence[str], matrix: Matrix) -> list[tuple[str, list[int]]]:
    """Return each row's name and counts; leave out the last row, `OUTSIDE`, if it has no labels."""
    rows: Matrix = matrix if matrix[-1].any() else matrix[:-1]
    return list(zip([*names, OUTSIDE], rows.tolist(), strict=False))


def draw_confusion(attribute: str, names: Sequence[str], matrix: Matrix, title: str = "") -> Figure:
    """Return a picture of the predictions for each class, in percent of the class's images.

    Up to 40 classes are named; more are numbered from 1 in their order. Rows without an image are gray.

    Args:
        attribute: the attribute's name.
        names: the names of its classes.
        matrix: counts [K + 1, K], as `class_scores` takes them.
        title: a line that names the model and data that were scored.
    """
    # Not pyplot, which keeps every figure and may open a window.
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    # a figure whose cells keep their size
    rows = _rows(names, matrix)
    counts = np.array([row for _, row in rows], dtype=np.float64)
    shares = _percent(counts, counts.sum(axis=1, keepdims=True))
    named = len(names) <= _NAMED_CLASSES
    side = max(2.6, 0.34 * len(names)) if named else max(9.0, 0.062 * len(names))
    margin = 2.6 if named else 1.2
    figure = Figure(
        figsize=(side + margin + 1.0, side * len(rows) / len(names) + margin), dpi=120, layout="constrained"
    )
    axes = figure.subplots()

    # colors and numbers of the cells
    colors = colormaps["Blues"].with_extremes(bad="#d9d9d9")
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=colors, vmin=0, vmax=100, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 4.0 / side + 0.4), aspect=30, pad=0.02)
    bar.ax.tick_params(labelsize=8, length=0, colors=GRAY)
    bar.outline.set_visible(False)
    bar.set_label("% of the row", fontsize=8, color=GRAY)
    _name_classes(axes, [name for name, _ in rows], names, named)
    if len(names) <= _WRITTEN_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share):
                ink = "white" if share > 55 else INK
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=ink)

    # headings
    total, hits = int(counts.sum()), int(np.trace(matrix))
    right = f"{100 * hits / total:.1f}% of {total} right" if total else "no labels"
    _write(axes.set_title("", loc="left", fontsize=11, fontweight="bold", color=INK), f"{attribute}: {right}", 80)
    heading = figure.supxlabel("", x=0.01, ha="left", fontsize=7.5, color=GRAY)
    numbers = "" if named else "classes are numbered from 1 in the order of the tables beside this picture"
    _write(heading, "; ".join(filter(None, (title, numbers))), 160)
    return figure


def _name_classes(axes: Axes, labels: Sequence[str], predictions: Sequence[str], named: bool) -> None:
    """Label both axes with the classes: with all names, or with every tenth number."""
    axes.set_xlabel("prediction", fontsize=9.5, color=GRAY)
    axes.set_ylabel("label", fontsize=9.5, color=GRAY)
    axes.tick_params(length=0 if named else 2, labelsize=8, colors=INK)
    axes.spines[:].set_visible(False)
    if named:
        axes.set_xticks(
            range(len(predictions)), [""] * len(predictions), rotation=45, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(labels)), [""] * len(labels))
        for axis, names in ((axes.xaxis, predictions), (axes.yaxis, labels)):
            # Disable markup here and not on the tick labels, which each drawing makes anew from these strings.
            shown = [drawable(name, font_families(), _NAME_LENGTH) for name in names]
            axis.set_ticklabels(shown, family=font_families(), parse_math=False)
        return
    numbers = [0, *range(9, len(predictions), 10)]
    axes.set_xticks(numbers, [str(number + 1) for number in numbers])
    outside = [len(predictions)] if len(labels) > len(predictions) else []
    axes.set_yticks([*numbers, *outside], [*(str(number + 1) for number in numbers), *[OUTSIDE for _ in outside]])


def _write(text: Text, words: str, length: int) -> None:
    """Set a text with a user's words: $ begins no formula, and characters that no font has are escaped."""
    text.set_fontfamily(font_families())
    text.set_parse_math(False)
    text.set_text(drawable(words, font_families(), length))


def _percent(part: Floats, whole: Floats) -> Floats:
    shape = np.broadcast_shapes(part.shape, whole.shape)
    shares: Floats = np.divide(100 * part, whole, out=np.full(shape, np.nan), where=whole > 0)
    return shares
