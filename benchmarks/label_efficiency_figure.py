"""The figure of the label-efficiency report: accuracy and paired difference against the share of labels."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from label_efficiency_cells import ROOT
from label_efficiency_settings import METHODS, STARTS, VARIANTS, baseline_of

mpl.use("Agg")
from matplotlib import pyplot as plt

FIGURE = ROOT / "imgs" / "experiments.png"
SMALL = [method for method, settings in METHODS.items() if "scratch" in settings]
COLORS = {method: "#1a1a1a" if not number else f"C{number - 1}" for number, method in enumerate(SMALL)}
LONGER = [method for method in VARIANTS if baseline_of(method) == "classification for long"]
DRAWN = [*SMALL, *LONGER]


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw mean accuracy above the paired difference, against the share of labels, one column for each start.

    Args:
        rows: the figures of the methods to draw, from `summary`.
    """
    starts = [start for start in STARTS if any(row["start"] == start for row in rows)]
    figure, axes = plt.subplots(
        2, len(starts), figsize=(5.2 * len(starts) + 1, 7), squeeze=False, sharex=True, layout="constrained"
    )

    # lines and axes
    for (top, bottom), start in zip(axes.T, starts, strict=True):
        top.set_title(STARTS[start].title, loc="left", weight="bold")
        bottom.axhline(0, color=COLORS["classification"], linewidth=1)
        for method in DRAWN:
            _draw_method(top, bottom, start, method, rows)
        _set_shares(bottom, sorted({row["fraction"] for row in rows}))
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)

    # labels and legend
    axes[0, 0].set_ylabel("accuracy, mean of the attributes, %")
    axes[1, 0].set_ylabel("difference to classification only,\npoints (dashed: to that for as long)")
    lines = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0, -1].legend(lines.values(), lines, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)


def _draw_method(top: Any, bottom: Any, start: str, method: str, rows: list[dict[str, Any]]) -> None:
    """Draw a method's accuracies and differences, with their intervals."""
    color = COLORS[VARIANTS[method][0] if method in LONGER else method]
    style = {"linestyle": "--", "markerfacecolor": "white"} if method in LONGER else {}
    for axis, name, bounds in [
        (top, "accuracy", ("low", "high")),
        (bottom, "difference", ("difference_low", "difference_high")),
    ]:
        points = [
            (row["fraction"] * _shift(row, rows), row[name], *(row[bound] for bound in bounds))
            for row in rows
            if (row["start"], row["method"]) == (start, method) and row[name] != ""
        ]
        if points:
            x, y, low, high = np.array(points).T
            axis.errorbar(x, y, (y - low, high - y), color=color, marker="o", capsize=3, label=method, **style)


def _set_shares(axis: Any, fractions: list[float]) -> None:
    """Label the shares of labels; leave room for the methods beside the first and the last tick."""
    ends = (fractions[0] / 1.3, fractions[-1] * 1.3)
    axis.set(xscale="log", xlabel="share of labels kept", xticks=fractions, xlim=ends)
    axis.set_xticks([], minor=True)
    axis.set_xticklabels([f"{fraction:.0%}" for fraction in fractions])


def _shift(row: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """Return the factor that moves a point sideways, so that the methods of a fraction surround its tick."""
    there = [other["method"] for other in rows if all(other[name] == row[name] for name in ("start", "fraction"))]
    beside = [method for method in DRAWN if method in there]
    return float(1.05 ** (beside.index(row["method"]) - (len(beside) - 1) / 2))
