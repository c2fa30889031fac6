"""Pictures of a training run: accuracy, losses and representation by epoch, drawn from its summary.csv.

A run redraws them after each epoch. To redraw them by hand:

    python -m reports.curves output/train/RUN/summary.csv
    python -m reports.curves SUMMARY.csv FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reports.curve_panels import (
    BEST,
    COLORS,
    GRAY,
    INK,
    MARKERS,
    Curve,
    draw_lines,
    make_panels,
    mark_best,
    scale_losses,
    write_figure,
)
from reports.summary_file import Summary, read_summary
from runtime.errors import printable, report_usage_errors

if TYPE_CHECKING:  # matplotlib takes a second to import; a run without pictures does not need it
    from matplotlib.figure import Figure

_NAME_LENGTH = 20
_REPRESENTATION = ("train_contrastive_top1", "train_effective_rank_h")  # one of these adds a third picture
_SECOND_CURVES = 4  # attributes; with more, second curves (averaged weights or neighbors) would hide the first


def draw_curves(summary: Path, folder: Path) -> list[Path]:
    """Draw `accuracy.png` and `losses.png`; a viewer never sees an unfinished picture.

    If the run measured its projections or its representation, also draw `representation.png`. A line skips epochs
    without a value, such as those between two validations.

    Args:
        summary: the summary.csv of a run.
        folder: the folder of the pictures; it is created.

    Returns:
        The pictures' paths.

    Raises:
        UsageError: if summary is not a run's summary.csv or has no epoch yet, or folder cannot be written.
    """
    run = read_summary(summary)
    pictures = {"accuracy.png": _draw_accuracy(run), "losses.png": _draw_losses(run)}
    if any(column in row for row in run.rows for column in _REPRESENTATION):
        pictures["representation.png"] = _draw_representation(run)
    return [write_figure(figure, folder / name) for name, figure in pictures.items()]


def attribute_curves(run: Summary, ending: str = "") -> list[Curve]:
    """Return a curve for each attribute; none if there is only one, since its curve equals the mean's.

    Args:
        run: the run.
        ending: the ending of the attributes' columns: "_loss", or "" for the accuracy. For a multi-valued attribute the
            accuracy is its mean average precision, since a whole set is seldom right.
    """
    curves = []
    for i, name in enumerate(run.attributes if len(run.attributes) > 1 else []):
        column, label = name + ending, _shortened(name)
        if not ending and any(f"{name}_map" in row for row in run.rows):
            column, label = f"{name}_map", f"{label}, mAP"
        curves.append(Curve(column, label, COLORS[i % len(COLORS)], MARKERS[1 + i % (len(MARKERS) - 1)]))
    return curves


def _draw_accuracy(run: Summary) -> Figure:
    """Return two panels: the validation accuracies, and below them the losses of both splits."""
    from matplotlib.ticker import PercentFormatter

    # accuracy
    figure, (upper, lower) = make_panels(run.rows, (2, 1), ("Validation accuracy", "Loss"))
    mean = Curve("eval_top1", "mean" if len(run.attributes) > 1 else "accuracy", INK, width=2.2)
    curves = [mean, *attribute_curves(run)]
    ema = [mean.averaged("ema_top1", f"{mean.label}, EMA")]
    if len(run.attributes) <= _SECOND_CURVES:
        ema += [curve.averaged(f"ema_{curve.column}") for curve in curves[1:]]
    draw_lines(upper, run.rows, [*ema, *curves])
    upper.yaxis.set_major_formatter(PercentFormatter(100))
    bottom, top = upper.get_ylim()
    upper.set_ylim(max(bottom, -2), min(top, 102))  # margins should not suggest more than 100 %
    mark_best(upper, run.rows, "eval_top1", "best {value:.1f}% in epoch {epoch}")

    # losses
    losses = [
        Curve("train_loss", "training, weighted sum", GRAY, "D"),
        Curve("classification_loss", "training, classification", COLORS[0], "^"),
        Curve("eval_loss", "validation", INK, width=2.2),
    ]
    draw_lines(lower, run.rows, [losses[-1].averaged("ema_loss", "validation, EMA"), *losses])
    scale_losses(lower)
    mark_best(lower, run.rows, "eval_loss", "lowest validation {value:.3f} in epoch {epoch}", lowest=True)
    return figure


def _draw_losses(run: Summary) -> Figure:
    """Return two panels: the terms of the training loss, and below them the validation loss of each attribute."""
    figure, (upper, lower) = make_panels(run.rows, (1, 1), ("Training loss", "Validation loss"))
    terms = [
        Curve("train_loss", "weighted sum", INK, width=2.2),
        Curve("simclr_loss", "SimCLR", COLORS[1], "s"),
        Curve("classification_loss", "classification", COLORS[0], "^"),
        Curve("pseudo_loss", "soft targets", COLORS[2], "v"),
    ]
    draw_lines(upper, run.rows, terms)
    mean = Curve("eval_loss", "mean" if len(run.attributes) > 1 else "loss", INK, width=2.2)
    ema = mean.averaged("ema_loss", f"{mean.label}, EMA")
    draw_lines(lower, run.rows, [ema, mean, *attribute_curves(run, "_loss")])
    for axes in (upper, lower):
        scale_losses(axes)
    mark_best(lower, run.rows, "eval_loss", "lowest {value:.3f} in epoch {epoch}", lowest=True)
    return figure


def _draw_representation(run: Summary) -> Figure:
    """Return three panels: neighbor and contrastive accuracies, alignment and uniformity, effective ranks."""
    from matplotlib.ticker import PercentFormatter

    titles = ("Nearest neighbors and contrast", "Alignment and uniformity (lower is better)", "Effective rank")
    figure, (upper, middle, lower) = make_panels(run.rows, (4, 3, 3), titles)
    attributes = attribute_curves(run, "_knn20")[:_SECOND_CURVES]
    neighbors = [
        *(replace(curve, label=f"{curve.label}, 20", dashed=True, width=1.0) for curve in attributes),
        Curve("eval_knn20", "20 neighbors", INK, width=2.2),
        Curve("eval_knn200", "200 neighbors", GRAY, "D"),
        Curve("train_contrastive_top1", "contrastive top-1", COLORS[5], "s"),
        Curve("train_false_negatives", "false negatives", BEST, "X", width=0.9),
    ]
    geometry = [
        Curve("train_alignment", "alignment", COLORS[0], "^"),
        Curve("train_uniformity", "uniformity", COLORS[2], "v"),
    ]
    ranks = [
        Curve("train_effective_rank_h", "representation", INK, width=2.2),
        Curve("train_effective_rank_z", "projections", COLORS[1], "s"),
    ]
    for axes, curves in ((upper, neighbors), (middle, geometry), (lower, ranks)):
        draw_lines(axes, run.rows, curves)
    upper.yaxis.set_major_formatter(PercentFormatter(100))
    mark_best(upper, run.rows, "eval_knn20", "best {value:.1f}% in epoch {epoch}")
    return figure


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1].rstrip() + "…"


def main(argv: Sequence[str] | None = None) -> None:
    """Redraw a run's curves from the command line."""
    parser = argparse.ArgumentParser(prog="python -m reports.curves", description="Draw the curves of a training run.")
    parser.add_argument("summary", type=Path, help="the run's summary.csv")
    parser.add_argument("folder", type=Path, nargs="?", help="folder of the pictures (default: beside summary.csv)")
    args = parser.parse_args(argv)
    with report_usage_errors("curves"):
        for path in draw_curves(args.summary, args.folder or args.summary.parent):
            print(printable(str(path)))


if __name__ == "__main__":
    main()
