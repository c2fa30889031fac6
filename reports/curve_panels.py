"""Panels of a figure with curves over epochs: their colors, lines, legends and marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reports.figure_text import drawable, font_families
from reports.summary_file import Row, best_epoch
from runtime.atomic_file import atomic_file

if TYPE_CHECKING:  # matplotlib takes a second to import; a run without pictures does not need it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK, GRAY = "#1a1a1a", "#6b6b6b"
# Okabe and Ito's colors for the color-blind (2008, https://jfly.uni-koeln.de/color/). Their yellow is faint on white;
# Paul Tol's wine, indigo and olive replace it and extend the list. Markers distinguish the lines without any color.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#882255", "#332288", "#999933")
BEST = "#D55E00"  # Okabe and Ito's eighth color, reserved for the best epoch
MARKERS = "os^Dv<>pPX*h"  # 11 follow the first, prime to the 8 colors: attributes repeat a pair only after 88

_INCHES, _DPI = (8.0, 5.0), 150  # 1200 x 750 pixels, with letters that are readable at the width of a README
_RULE = "#e4e4e4"
_EVERY_POINT = 40  # a line with at most this number of points has a marker at each
_MARKERS_A_LINE = 10  # approximate number of markers on a longer line
_LEGEND_LINES = 14
_MOST_NAMED = 3 * _LEGEND_LINES  # curves that a legend names; more columns would leave the panel no width
_LOG_SCALE = 12.0  # the axis is logarithmic if the largest loss exceeds the smallest by this factor


@dataclass(frozen=True)
class Curve:
    """The style of the line for a column of summary.csv; a curve without a label is not in the legend."""

    column: str
    label: str
    color: str
    marker: str = "o"
    width: float = 1.4
    dashed: bool = False

    def averaged(self, column: str, label: str = "") -> Curve:
        """Return the same curve for the averaged weights (EMA), thinner and dashed."""
        return replace(self, column=column, label=label, width=0.75 * self.width, dashed=True)


def make_panels(rows: Sequence[Row], heights: Sequence[int], titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, one above the other, over the same epochs.

    Args:
        rows: the epochs.
        heights: the panels' relative heights, from the top.
        titles: the panels' titles.
    """
    # Not pyplot: it keeps every figure, may open a window, and is not safe in a thread of a training process.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white", layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left", pad=8, fontsize=11, fontweight="bold", color=INK)
        axes.set_facecolor("white")
        axes.grid(True, color=_RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(y=0.08)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_RULE)
        axes.tick_params(colors=GRAY, labelsize=9, length=0)
    first, last = rows[0]["epoch"], rows[-1]["epoch"]
    margin = 0.015 * (last - first) or 0.5
    panels[0].set_xlim(first - margin, last + margin)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    panels[-1].set_xlabel("epoch", color=GRAY, fontsize=9.5)
    return figure, panels


def draw_lines(axes: Axes, rows: Sequence[Row], curves: Sequence[Curve]) -> None:
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
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", va="center", color=GRAY)
        axes.set_yticks([])


def mark_best(axes: Axes, rows: Sequence[Row], column: str, text: str, lowest: bool = False) -> None:
    """Circle a column's best value, and write it above the panel's right corner, where no curve is.

    Args:
        axes: the panel.
        rows: the epochs.
        column: the column whose best value counts.
        text: a template with `{epoch}` and `{value}`.
        lowest: whether the lowest value is the best.
    """
    if (best := best_epoch(rows, column, lowest)) is None:
        return
    epoch, value = best
    axes.axvline(epoch, color=BEST, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    axes.plot(
        epoch,
        value,
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=BEST,
        markeredgewidth=1.8,
        zorder=4,
        clip_on=False,
    )
    axes.set_title(text.format(epoch=epoch, value=value), loc="right", pad=8, fontsize=9.5, color=BEST)


def scale_losses(axes: Axes) -> None:
    """Use a logarithmic axis, and label it, where a linear axis would flatten the smaller losses."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = map(float, axes.dataLim.intervaly)  # infinity to minus infinity where nothing is drawn
    if low > 0 and high / low > _LOG_SCALE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="both", length=0)
        axes.set_ylabel("log scale", color=GRAY, fontsize=9)


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG file, which changes at once or not at all; return its path."""
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return path


def _add_legend(axes: Axes, entries: Sequence[tuple[str, Line2D]]) -> None:
    """Put a legend beside the panel; inside, it would cover curves. It names the first curves if there are many."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D

    if len(entries) > _MOST_NAMED:
        others = len(entries) - _MOST_NAMED + 1
        entries = [*entries[: _MOST_NAMED - 1], (f"and {others:,} more", Line2D([], [], linewidth=0))]
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
        labelcolor=INK,
        labelspacing=0.35,
    )
    # Names are set afterwards: `legend` leaves out labels with a leading underscore, and $ begins a formula.
    for text, (label, _) in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(drawable(label, families))
