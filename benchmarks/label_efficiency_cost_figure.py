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
    """Draw one start: accuracy against the share of labels, and beside it the gain of a tenth against core minutes.

    Args:
        rows: the figures of the start's methods, from `summary`.
        methods: all methods in their order, so that a method keeps its color in all figures.
    """
    # lines: accuracy
    start = rows[0]["start"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    fractions = sorted({row["fraction"] for row in rows})
    for number, method in enumerate(methods):
        own = [row for row in rows if row["method"] == method]
        if not own:
            continue
        color = plt.get_cmap("tab20")(number % 20)
        x, y = [row["fraction"] for row in own], [row["accuracy"] for row in own]
        bounds = [[row["accuracy"] - row["low"] for row in own], [row["high"] - row["accuracy"] for row in own]]
        left.errorbar(x, y, bounds, color=color, marker="o", capsize=3, label=method)

        # points: gain and cost
        for row in own:
            if row["fraction"] == TUNING_FRACTION and row["difference"] != "":
                gain = row["difference"]
                error = [[gain - row["difference_low"]], [row["difference_high"] - gain]]
                right.errorbar(row["minutes"], gain, error, color=color, marker="o", capsize=3)

    # axes
    left.set(xscale="log", xlabel="share of labels kept", ylabel="accuracy, mean of the attributes, %")
    minutes = [0.2, 0.5, 1, 2, 5, 10, 20, 50]
    right.axhline(0, color="#1a1a1a", linewidth=1)
    gain_label = f"gain over fine-tuning, points,\n{TUNING_FRACTION:.0%} of the labels"
    right.set(xscale="log", xlabel="core minutes", ylabel=gain_label)
    left.set_xticks(fractions, [f"{fraction:.0%}" for fraction in fractions])
    right.set_xticks(minutes, [f"{minute:g}" for minute in minutes])
    for axis in (left, right):
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_title(STARTS[start].title, loc="left", weight="bold")
    figure.legend(loc="outside right upper", frameon=False)
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"{STARTS[start].results}.png", dpi=110)
    plt.close(figure)
