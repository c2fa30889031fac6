"""Pictures of a training run: accuracy, losses and representation by epoch, drawn from its summary.csv.

A run redraws them as it goes. To redraw them by hand:

    python -m reports.curves output/train/RUN/summary.csv
    python -m reports.curves SUMMARY.csv FOLDER
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reports.figure_text import drawable, font_families
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError, report_usage_errors

if TYPE_CHECKING:  # matplotlib takes a second to import and a run without pictures needs none of it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Row = dict[str, float]  # of an epoch: finite values by column

_REQUIRED = ("epoch", "train_loss", "classification_loss", "eval_balanced_accuracy")  # the last two enclose attributes
_INCHES, _DPI = (8.0, 5.0), 150  # 1200 x 750 pixels with letters that stay readable at the width of a README
_INK, _GRAY, _RULE = "#1a1a1a", "#6b6b6b", "#e4e4e4"
# Okabe and Ito's colors for the color-blind (2008, https://jfly.uni-koeln.de/color/); for their yellow, which is
# faint on white, and for more, Paul Tol's wine, indigo and olive. Markers tell the lines apart without any color.
# The eighth of theirs is kept for what is best.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#882255", "#332288", "#999933")
_BEST = "#D55E00"
_MARKERS = "os^Dv<>pPX*h"  # not a multiple of the colors, so that pairs repeat late
_EVERY_POINT = 40  # up to so many points each gets its marker
_MARKERS_A_LINE = 10
_LEGEND_LINES, _NAME_LENGTH = 14, 20
_LOG_SCALE = 12.0  # largest over smallest loss from which a linear axis would flatten the smaller ones
_WATCHED = ("train_contrastive_top1", "train_effective_rank_h")
_EMA_ATTRIBUTES = 4  # with more, a second curve of each, of averaged weights or neighbors, would be a thicket


@dataclass(frozen=True)
class Summary:
    """What a run has logged.

    Args:
        rows: one for each epoch, in order; blank cells, NaN and infinity are absent from it.
        attributes: their names, in the order of the columns.
    """

    rows: list[Row]
    attributes: list[str]


@dataclass(frozen=True)
class _Curve:
    """How a column is drawn; one without a label is not in the legend."""

    column: str
    label: str
    color: str
    marker: str = "o"
    width: float = 1.4
    dashed: bool = False

    def averaged(self, column: str, label: str = "") -> _Curve:
        """Return the curve of the averaged weights (EMA) that belongs to this one."""
        return replace(self, column=column, label=label, width=0.75 * self.width, dashed=True)


def draw_curves(summary: Path, folder: Path) -> list[Path]:
    """Draw `accuracy.png` and `losses.png`, each replaced whole, so that a viewer never sees half a picture.

    A run that watched its projections or its representation has a third, `representation.png`. Epochs without a
    value, such as those between two validations, are passed over: the line joins their neighbors.

    Args:
        summary: the summary.csv of a run.
        folder: where the pictures go; it is created.

    Returns:
        The pictures' paths.

    Raises:
        UsageError: summary is not a run's summary.csv or has no epoch yet, or folder cannot be written.
    """
    run = read_summary(summary)
    pictures = {"accuracy.png": _draw_accuracy(run), "losses.png": _draw_losses(run)}
    if any(column in row for row in run.rows for column in _WATCHED):
        pictures["representation.png"] = _draw_representation(run)
    return [_write(figure, folder / name) for name, figure in pictures.items()]


def read_summary(path: Path) -> Summary:
    """Read a run's summary.csv.

    Of an epoch that is there twice, as after resuming from an earlier checkpoint, the later row counts.

    Raises:
        UsageError: the file cannot be read, lacks a column, has a cell that is not a number, or has no epoch.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {path} ({reason}): give the summary.csv that train.py wrote") from error
    if absent := [column for column in _REQUIRED if column not in header]:
        raise UsageError(f"{path} has no column {absent[0]!r}: give the summary.csv that train.py wrote")
    rows = {}
    for number, cells in enumerate(lines, start=2):
        if any(cell.strip() for cell in cells):
            row = _parse_row(header, cells, f"{path} row {number}")
            rows[row["epoch"]] = row
    if not rows:
        raise UsageError(f"{path} has no epoch yet: draw it after the first")
    start, stop = header.index("classification_loss") + 1, header.index("eval_balanced_accuracy")
    return Summary([rows[epoch] for epoch in sorted(rows)], header[start:stop])


def _parse_row(header: Sequence[str], cells: Sequence[str], where: str) -> Row:
    row: Row = {}
    for column, cell in zip(header, cells, strict=False):  # a row that is being written may be short
        try:
            value = float(cell) if cell.strip() else math.nan
        except ValueError as error:
            raise UsageError(f"{where}: {column} {cell!r} is not a number: correct it or delete the row") from error
        if math.isfinite(value):
            row.setdefault(column, value)
    if "epoch" not in row:
        raise UsageError(f"{where} has no epoch: give it its number or delete the row")
    return row


def best_epoch(rows: Sequence[Row], column: str, lowest: bool = False) -> tuple[int, float] | None:
    """Return the epoch with a column's highest (or lowest) value, and the value.

    Of several the first, which is also the one that a run keeps as its best checkpoint; None where there is no value.
    """
    points = [(int(row["epoch"]), row[column]) for row in rows if column in row]
    return (min if lowest else max)(points, key=lambda point: point[1], default=None)


def _draw_accuracy(run: Summary) -> Figure:
    """Return accuracies above the losses of both splits."""
    from matplotlib.ticker import PercentFormatter

    figure, (upper, lower) = _panels(run.rows, (2, 1), ("Validation accuracy", "Loss"))
    mean = _Curve("eval_top1", "mean" if len(run.attributes) > 1 else "accuracy", _INK, width=2.2)
    curves = [mean, *_attribute_curves(run, "")]
    ema = [mean.averaged("ema_top1", f"{mean.label}, EMA")]
    if len(run.attributes) <= _EMA_ATTRIBUTES:
        ema += [curve.averaged(f"ema_{curve.column}") for curve in curves[1:]]
    _draw(upper, run.rows, [*ema, *curves])
    upper.yaxis.set_major_formatter(PercentFormatter(100))
    bottom, top = upper.get_ylim()
    upper.set_ylim(max(bottom, -2), min(top, 102))  # margins need not promise more than 100 %
    _mark(upper, run.rows, "eval_top1", "best {value:.1f}% in epoch {epoch}")

    losses = [
        _Curve("train_loss", "training, weighted sum", _GRAY, "D"),
        _Curve("classification_loss", "training, classification", _COLORS[0], "^"),
        _Curve("eval_loss", "validation", _INK, width=2.2),
    ]
    _draw(lower, run.rows, [losses[-1].averaged("ema_loss", "validation, EMA"), *losses])
    _scale_losses(lower)
    _mark(lower, run.rows, "eval_loss", "lowest validation {value:.3f} in epoch {epoch}", lowest=True)
    return figure


def _draw_losses(run: Summary) -> Figure:
    """Return the terms of the training loss above the attributes' validation losses."""
    figure, (upper, lower) = _panels(run.rows, (1, 1), ("Training loss", "Validation loss"))
    terms = [
        _Curve("train_loss", "weighted sum", _INK, width=2.2),
        _Curve("simclr_loss", "SimCLR", _COLORS[1], "s"),
        _Curve("classification_loss", "classification", _COLORS[0], "^"),
    ]
    _draw(upper, run.rows, terms)
    mean = _Curve("eval_loss", "mean" if len(run.attributes) > 1 else "loss", _INK, width=2.2)
    _draw(lower, run.rows, [mean.averaged("ema_loss", f"{mean.label}, EMA"), mean, *_attribute_curves(run, "_loss")])
    for axes in (upper, lower):
        _scale_losses(axes)
    _mark(lower, run.rows, "eval_loss", "lowest {value:.3f} in epoch {epoch}", lowest=True)
    return figure


def _draw_representation(run: Summary) -> Figure:
    """Return what neighbors and the projections get right, how these lie, and how many directions they fill."""
    from matplotlib.ticker import PercentFormatter

    titles = ("Nearest neighbors and contrast", "Alignment and uniformity (lower is better)", "Effective rank")
    figure, (upper, middle, lower) = _panels(run.rows, (4, 3, 3), titles)
    attributes = _attribute_curves(run, "_knn20")[:_EMA_ATTRIBUTES]
    neighbors = [replace(curve, label=f"{curve.label}, 20", dashed=True, width=1.0) for curve in attributes]
    _draw(
        upper,
        run.rows,
        [
            *neighbors,
            _Curve("eval_knn20", "20 neighbors", _INK, width=2.2),
            _Curve("eval_knn200", "200 neighbors", _GRAY, "D"),
            _Curve("train_contrastive_top1", "contrastive top-1", _COLORS[5], "s"),
            _Curve("train_false_negatives", "false negatives", _BEST, "X", width=0.9),
        ],
    )
    upper.yaxis.set_major_formatter(PercentFormatter(100))
    _mark(upper, run.rows, "eval_knn20", "best {value:.1f}% in epoch {epoch}")
    _draw(
        middle,
        run.rows,
        [
            _Curve("train_alignment", "alignment", _COLORS[0], "^"),
            _Curve("train_uniformity", "uniformity", _COLORS[2], "v"),
        ],
    )
    _draw(
        lower,
        run.rows,
        [
            _Curve("train_effective_rank_h", "representation", _INK, width=2.2),
            _Curve("train_effective_rank_z", "projections", _COLORS[1], "s"),
        ],
    )
    return figure


def _attribute_curves(run: Summary, suffix: str) -> list[_Curve]:
    """Return a curve for each attribute; none for a single one, whose curve is the mean's."""
    names = run.attributes if len(run.attributes) > 1 else []
    curves = []
    for i, name in enumerate(names):
        column, label = name + suffix, _shortened(name)
        if not suffix and any(f"{name}_map" in row for row in run.rows):  # a whole set is seldom right
            column, label = f"{name}_map", f"{label}, mAP"
        curves.append(_Curve(column, label, _COLORS[i % len(_COLORS)], _MARKERS[1 + i % (len(_MARKERS) - 1)]))
    return curves


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1].rstrip() + "…"


def _panels(rows: Sequence[Row], heights: Sequence[int], titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels one above the other over the same epochs."""
    # Not pyplot: it keeps every figure, may open a window, and is not safe in a thread of a training process.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white", layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left", pad=8, fontsize=11, fontweight="bold", color=_INK)
        axes.set_facecolor("white")
        axes.grid(True, color=_RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(y=0.08)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_RULE)
        axes.tick_params(colors=_GRAY, labelsize=9, length=0)
    first, last = rows[0]["epoch"], rows[-1]["epoch"]
    margin = 0.015 * (last - first) or 0.5
    panels[0].set_xlim(first - margin, last + margin)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    panels[-1].set_xlabel("epoch", color=_GRAY, fontsize=9.5)
    return figure, panels


def _draw(axes: Axes, rows: Sequence[Row], curves: Sequence[_Curve]) -> None:
    """Draw the curves that have values, and a legend in the order of their right ends, dashed ones last."""
    drawn: list[tuple[bool, float, str, Line2D]] = []
    for curve in curves:
        points = [(row["epoch"], row[curve.column]) for row in rows if curve.column in row]
        if points:
            epochs, values = zip(*points, strict=True)
            line = axes.plot(
                epochs,
                values,
                color=curve.color,
                linewidth=curve.width,
                linestyle=(0, (4, 2)) if curve.dashed else "solid",
                marker=curve.marker,
                markersize=5.5 if len(points) == 1 else 3.8,
                markerfacecolor="white" if curve.dashed else curve.color,
                markevery=1 if len(points) <= _EVERY_POINT else max(1, len(points) // _MARKERS_A_LINE),
                zorder=3 if curve.column.startswith("eval_") else 2,
            )
            drawn.append((curve.dashed, -values[-1], curve.label, line[0]))
    if drawn:
        drawn.sort(key=lambda entry: entry[:2])
        _add_legend(axes, [(label, line) for _, _, label, line in drawn if label])
    else:
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", va="center", color=_GRAY)
        axes.set_yticks([])


def _add_legend(axes: Axes, entries: Sequence[tuple[str, Line2D]]) -> None:
    """Put a legend beside the panel: inside, it would lie on curves."""
    from matplotlib.font_manager import FontProperties

    families = font_families()
    columns = -(-len(entries) // _LEGEND_LINES)
    legend = axes.legend(
        [line for _, line in entries],
        ["-"] * len(entries),
        loc="upper left",
        bbox_to_anchor=(1.0, 1.03),
        ncols=columns,
        prop=FontProperties(family=families, size=9 if columns == 1 else 7),
        frameon=False,
        labelcolor=_INK,
        labelspacing=0.35,
    )
    # Names are set afterwards: `legend` takes a leading underscore for "leave this out", and $ begins a formula.
    for text, (label, _) in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(drawable(label, families))


def _mark(axes: Axes, rows: Sequence[Row], column: str, text: str, lowest: bool = False) -> None:
    """Ring a column's best value and write it at the panel's upper right corner, where no curve runs."""
    if (best := best_epoch(rows, column, lowest)) is None:
        return
    epoch, value = best
    axes.axvline(epoch, color=_BEST, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    axes.plot(
        epoch,
        value,
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=_BEST,
        markeredgewidth=1.8,
        zorder=4,
        clip_on=False,
    )
    axes.set_title(text.format(epoch=epoch, value=value), loc="right", pad=8, fontsize=9.5, color=_BEST)


def _scale_losses(axes: Axes) -> None:
    """Take a logarithmic axis where a linear one would flatten the smaller losses, and say so."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = map(float, axes.dataLim.intervaly)  # infinity to minus infinity where nothing is drawn
    if low > 0 and high / low > _LOG_SCALE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="both", length=0)
        axes.set_ylabel("log scale", color=_GRAY, fontsize=9)


def _write(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; the file changes at once or not at all."""
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Redraw a run's curves from the command line."""
    parser = argparse.ArgumentParser(prog="python -m reports.curves", description="Draw the curves of a training run.")
    parser.add_argument("summary", type=Path, help="the run's summary.csv")
    parser.add_argument("folder", type=Path, nargs="?", help="where the pictures go (default: beside summary.csv)")
    args = parser.parse_args(argv)
    with report_usage_errors("curves"):
        for path in draw_curves(args.summary, args.folder or args.summary.parent):
            print(path)


if __name__ == "__main__":
    main()
