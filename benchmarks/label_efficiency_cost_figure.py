"""The figure of the study at 128 pixels: accuracy against the share of labels, and gain against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from label_efficiency_cells import ROOT
from label_efficiency_settings import STARTS, TUNING_FRACTION

mpl.use("Agg")
from matplotlib import pyplot as plt

FOLDER = ROOT / "imgs"


def draw_cost(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> None:
    """Draw one start: the gain of a tenth of the labels against core minutes, and before it accuracy against labels.

    The second is left out where only one share of labels has finished.

    Args:
        rows: the figures of the start's methods, from `summary`.
        methods: all methods in their order, so that a method keeps its color in all figures.
    """
    start, shares = rows[0]["start"], sorted({row["fraction"] for row in rows})
    both = len(shares) > 1
    figure, axes = plt.subplots(1, 1 + both, figsize=(12 if both else 9, 4.6), layout="constrained", squeeze=False)
    cost = axes[0, -1]
    for number, method in enumerate(methods):
        own, color = [row for row in rows if row["method"] == method], plt.get_cmap("tab20")(number % 20)
        for row in own:
            if row["fraction"] == TUNING_FRACTION:
                gain = row["difference"] or 0.0  # the baseline has none to itself
                error = None if row["difference"] == "" else _error(row, gain, "difference_low", "difference_high")
                cost.errorbar(row["minutes"], gain, error, color=color, marker="o", capsize=3, label=method)
        if both and own:
            accuracies = [row["accuracy"] for row in own]
            bounds = [[row["accuracy"] - row["low"] for row in own], [row["high"] - row["accuracy"] for row in own]]
            axes[0, 0].errorbar(
                [row["fraction"] for row in own], accuracies, bounds, color=color, marker="o", capsize=3
            )

    # axes
    minutes = [0.2, 0.5, 1, 2, 5, 10, 20, 50]
    cost.axhline(0, color="#1a1a1a", linewidth=1)
    gain_label = f"gain over fine-tuning, points,\n{TUNING_FRACTION:.0%} of the labels"
    cost.set(xscale="log", xlabel="core minutes", ylabel=gain_label)
    cost.set_xticks(minutes, [f"{minute:g}" for minute in minutes])
    if both:
        axes[0, 0].set(xscale="log", xlabel="share of labels kept", ylabel="accuracy, mean of the attributes, %")
        axes[0, 0].set_xticks(shares, [f"{share:.0%}" for share in shares])
    for axis in axes[0]:
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_title(STARTS[start].title, loc="left", weight="bold")
    figure.legend(loc="outside right upper", frameon=False)
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"{STARTS[start].results}.png", dpi=110)
    plt.close(figure)


def _error(row: dict[str, Any], middle: float, low: str, high: str) -> list[list[float]]:
    """Return the lengths of an error bar below and above a point."""
    return [[middle - row[low]], [row[high] - middle]]
