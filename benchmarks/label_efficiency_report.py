"""The label-efficiency grid as a CSV file, Markdown tables and a figure, with intervals.

Intervals are the middle 95% of 10,000 bootstrap draws over test images and over seeds at once; a difference to
classification alone is paired, by both: each draw takes the same images and the same seeds of both methods. Of n seeds
n - 1 are drawn, or the variance among so few would come out too small by a factor of (n - 1) / n.

- J. N. K. Rao, C. F. J. Wu: Resampling inference with complex survey data, JASA 83, 1988, section 2
"""

from __future__ import annotations

import csv
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from label_efficiency import (
    ATTRIBUTES,
    COMMON,
    METHODS,
    MODELS,
    RESULTS,
    ROOT,
    STARTS,
    TUNING_SEEDS,
    VARIANTS,
    Cell,
    best_setting,
    read_cells,
    read_rows,
    tuning_scores,
)
from page import write_into_page

mpl.use("Agg")
from matplotlib import pyplot as plt

DRAWS = 10_000
FEWEST_SEEDS = 3  # a method with fewer, or a difference, is left out: its spread is not known
BASELINE = dict.fromkeys(METHODS, "classification") | {
    "classification for long": "classification for long",
    "pretrain and fine-tune for long": "classification for long",
    "joint, both views": "joint",
    "joint, weak view": "joint",
}
PAGES = {  # tables by name: what their methods are compared with, and how that is called there
    "label-efficiency": ("classification", "classification only"),
    "more-steps": ("classification for long", "classification for as long"),
    "classified-view": ("joint", "the first view"),
}
FIGURE = ROOT / "imgs" / "experiments.png"
PAIRED = (
    *("paired_seeds", "difference", "difference_low", "difference_high"),
    *("article_difference", "article_low", "article_high", "held_out_difference", "held_out_wins"),
)

Array = np.ndarray[Any, np.dtype[Any]]
Key = tuple[str, float, str]  # start, fraction, method


def report(data: Path) -> None:
    """Write the report on every method, start and fraction that has enough finished cells.

    Args:
        data: folder of the data set, whose val.csv has the test split's labels.
    """
    labels = read_rows(data / "val.csv")
    runs: dict[Key, dict[int, Cell]] = defaultdict(dict)
    cells = read_cells()
    tested = [cell for cell in cells if cell["seed"] not in TUNING_SEEDS]
    best = {pair: best_setting(*pair, cells) for pair in {(cell["start"], cell["method"]) for cell in tested}}
    for cell in tested:
        if cell["stages"] == best[cell["start"], cell["method"]]:
            runs[cell["start"], cell["fraction"], cell["method"]][cell["seed"]] = cell
    finished = [key for key in sorted(runs, key=_order) if len(runs[key]) >= FEWEST_SEEDS]
    rows = [summary(key, runs, labels) for key in finished]
    with RESULTS.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {
                name: f"{value:.3f}" if isinstance(value, float) and name != "fraction" else value
                for name, value in row.items()
            }
            for row in rows
        )
    pages = {
        name: tables([row for row in rows if BASELINE[row["method"]] == base]) for name, (base, _) in PAGES.items()
    }
    pages["label-efficiency"].append(majority_line(labels))
    pages["tuning"] = tuning_table(cells)
    for name, lines in pages.items():
        write_into_page(name, lines)
    draw([row for row in rows if row["method"] in DRAWN])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader of the output may have seen enough, as head has
    for lines in pages.values():
        print("\n".join(lines))


def summary(key: Key, runs: dict[Key, dict[int, Cell]], labels: list[dict[str, str]]) -> dict[str, Any]:
    """Return the figures of one method, in percent, and its paired difference to what it is compared with."""
    start, fraction, method = key
    seeds = sorted(runs[key])
    scores = [score(runs[key][seed]["predicted"], labels) for seed in seeds]
    low, high = interval([right(runs[key][seed]["predicted"], labels) for seed in seeds])
    row: dict[str, Any] = {"start": start, "fraction": fraction, "method": method, "seeds": len(seeds)}
    row |= {"accuracy": float(np.mean([one["accuracy"] for one in scores])), "low": low, "high": high}
    row["deviation"] = float(np.std([one["accuracy"] for one in scores], ddof=1))
    row |= {name: float(np.mean([one[name] for one in scores])) for name in scores[0] if name != "accuracy"}
    row["held_out"] = float(np.mean([runs[key][seed]["held_out"] for seed in seeds]))
    base = runs.get((start, fraction, BASELINE[method]), {})
    both = [seed for seed in seeds if seed in base]
    if method == BASELINE[method] or len(both) < FEWEST_SEEDS:
        return row | dict.fromkeys(PAIRED, "")
    ours, theirs = ([right(run[seed]["predicted"], labels) for seed in both] for run in (runs[key], base))
    low, high = interval(ours, theirs)
    difference = float(_accuracy(ours).mean() - _accuracy(theirs).mean())
    article = float(_accuracy([run[:1] for run in ours]).mean() - _accuracy([run[:1] for run in theirs]).mean())
    article_interval = interval([run[:1] for run in ours], [run[:1] for run in theirs])
    held_out = [runs[key][seed]["held_out"] - base[seed]["held_out"] for seed in both]
    wins = sum(gain > 0 for gain in held_out)
    test = len(both), difference, low, high, article, *article_interval
    return row | dict(zip(PAIRED, (*test, float(np.mean(held_out)), wins), strict=True))


def score(predicted: dict[str, list[str]], labels: list[dict[str, str]]) -> dict[str, float]:
    """Return mean accuracy, each attribute's, mean balanced accuracy and exact match of one run, in percent."""
    hits = right(predicted, labels)
    balanced = []
    for name, hit in zip(ATTRIBUTES, hits, strict=True):
        truth = np.array([row[name] for row in labels])
        balanced.append(np.mean([hit[truth == kind].mean() for kind in sorted({*truth} - {""})]))
    labeled = ~np.isnan(hits).all(axis=0)
    return {
        "accuracy": float(_accuracy([hits])[0]),
        **{name: 100 * float(np.nanmean(hit)) for name, hit in zip(ATTRIBUTES, hits, strict=True)},
        "balanced_accuracy": 100 * float(np.mean(balanced)),
        "exact_match": 100 * float(np.nanmin(hits[:, labeled], axis=0).mean()),
    }


def right(predicted: dict[str, list[str]], labels: list[dict[str, str]]) -> Array:
    """Return for each attribute and image 1 where it is right, 0 where it is wrong, NaN without a label, [A, N]."""
    columns = []
    for name in ATTRIBUTES:
        hits = zip(predicted[name], labels, strict=True)
        columns.append([float(guess == row[name]) if row[name] else np.nan for guess, row in hits])
    return np.array(columns)


def interval(ours: list[Array], theirs: list[Array] | None = None) -> tuple[float, float]:
    """Return the bootstrap's 95% interval of the mean accuracy, or of its difference to another method's.

    Args:
        ours: of each seed what `right` gives, [A, N].
        theirs: the other method's, of the same seeds in the same order.
    """
    rng = np.random.default_rng(0)
    seeds, (_, images) = len(ours), ours[0].shape
    image_weights = rng.multinomial(images, np.full(images, 1 / images), size=DRAWS).astype(np.float64)  # [draws, N]
    drawn = max(1, seeds - 1)
    seed_weights = rng.multinomial(drawn, np.full(seeds, 1 / seeds), size=DRAWS) / drawn  # [draws, seeds]
    values = _drawn(ours, image_weights) - (0 if theirs is None else _drawn(theirs, image_weights))
    low, high = np.percentile((values * seed_weights).sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _drawn(runs: list[Array], weights: Array) -> Array:
    """Return each run's mean accuracy under each draw's weights of the images, [draws, runs], in percent."""
    hits = np.stack(runs)  # [runs, A, N]
    accuracies = [
        weights @ np.nan_to_num(hits[:, index]).T / (weights @ ~np.isnan(hits[0, index]))[:, None]
        for index in range(hits.shape[1])
    ]
    return np.asarray(100 * np.mean(accuracies, axis=0))


def _accuracy(runs: list[Array]) -> Array:
    """Return each run's mean accuracy in percent, [runs]."""
    return 100 * np.array([np.nanmean(run, axis=1).mean() for run in runs])


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table for each start."""
    lines = []
    for start in STARTS:
        of_start = [row for row in rows if row["start"] == start]
        if not of_start:
            continue
        base = dict(PAGES.values())[BASELINE[of_start[0]["method"]]]
        lines += [f"**{TITLES[start]}**", ""]
        lines += [
            f"| labels | method | seeds | accuracy | difference to {base} | article | kids | balanced | exact match | "
            "held-out |"
        ]
        lines += ["|---" * 10 + "|"]
        for row in of_start:
            difference, article, held_out = "", f"{row['article']:.1f}", f"{row['held_out']:.1f}"
            if row["difference"] != "":
                difference = _with_interval(row, "difference", "difference_low", "difference_high")
                article += f"; {_with_interval(row, 'article_difference', 'article_low', 'article_high')}"
                held_out += f" ({row['held_out_difference']:+.1f}, {row['held_out_wins']} of {row['paired_seeds']})"
            figures = [row["kids"], row["balanced_accuracy"], row["exact_match"]]
            cells = [f"{row['fraction']:.0%}", row["method"], f"{row['seeds']}"]
            cells += [
                f"{row['accuracy']:.1f} ± {row['deviation']:.1f}",
                difference,
                article,
                *(f"{value:.1f}" for value in figures),
                held_out,
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _with_interval(row: dict[str, Any], name: str, low: str, high: str) -> str:
    """Return a difference with its interval, in bold if that is clear of 0."""
    text = f"{row[name]:+.1f} ({row[low]:+.1f} to {row[high]:+.1f})"
    return f"**{text}**" if row[low] > 0 or row[high] < 0 else text


def majority_line(labels: list[dict[str, str]]) -> str:
    """Return a sentence on what the most frequent class of each attribute of the test split would get."""
    shares = []
    for name in ATTRIBUTES:
        known = [row[name] for row in labels if row[name]]
        kind = max(set(known), key=known.count)
        shares.append(f"`{name}` {100 * known.count(kind) / len(known):.1f} ({kind})")
    return f"Always guessing the test split's most frequent class would get {' and '.join(shares)}."


def tuning_table(cells: list[Cell]) -> list[str]:
    """Return the lines of a Markdown table of the settings that were tried, each finished method's best one in bold."""
    lines = [
        f"All: `{COMMON}`",
        "",
        "| start | method | flags, a stage after the other | held-out images |",
        "|---" * 4 + "|",
    ]
    for start in STARTS:
        for method, settings in METHODS.items():
            tried = tuning_scores(start, method, cells)
            finished = len(tried) == len(settings[start])
            for stages, score in tried.items():
                text = f"**{score:.1f}**" if finished and score == max(tried.values()) else f"{score:.1f}"
                flags = "<br>".join(f"`{stage}`" for stage in stages)
                lines.append(f"| {start}: `{MODELS[start]}` | {method} | {flags} | {text} |")
    return lines


TITLES = {"scratch": "From scratch", "imagenet": "From ImageNet weights"}
COLORS = {method: "#1a1a1a" if not number else f"C{number - 1}" for number, method in enumerate(METHODS)}
LONGER = [method for method in VARIANTS if BASELINE[method] == PAGES["more-steps"][0]]  # compared among themselves
DRAWN = [*METHODS, *LONGER]


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw mean accuracy and the paired difference against the fraction of labels, a column a start."""
    starts = [start for start in STARTS if any(row["start"] == start for row in rows)]
    figure, axes = plt.subplots(
        2, len(starts), figsize=(5.2 * len(starts) + 1, 7), squeeze=False, sharex=True, layout="constrained"
    )
    fractions = sorted({row["fraction"] for row in rows})
    for column, start in enumerate(starts):
        top, bottom = axes[:, column]
        top.set_title(TITLES[start], loc="left", weight="bold")
        bottom.axhline(0, color=COLORS["classification"], linewidth=1)
        for method in DRAWN:
            line = [row for row in rows if (row["start"], row["method"]) == (start, method)]
            color = COLORS[VARIANTS[method][0] if method in LONGER else method]
            style = {"linestyle": "--", "markerfacecolor": "white"} if method in LONGER else {}
            for axis, name, bounds in [
                (top, "accuracy", ("low", "high")),
                (bottom, "difference", ("difference_low", "difference_high")),
            ]:
                points = [
                    (row["fraction"] * _shift(row, rows), row[name], *(row[bound] for bound in bounds))
                    for row in line
                    if row[name] != ""
                ]
                if points:
                    x, y, low, high = np.array(points).T
                    errors = (y - low, high - y)
                    axis.errorbar(x, y, errors, color=color, marker="o", capsize=3, label=method, **style)
        # Wide enough that the methods of a fraction stand around its tick, also where it is the only one.
        ends = (fractions[0] / 1.3, fractions[-1] * 1.3)
        bottom.set(xscale="log", xlabel="share of labels kept", xticks=fractions, xlim=ends)
        bottom.set_xticks([], minor=True)
        bottom.set_xticklabels([f"{fraction:.0%}" for fraction in fractions])
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("accuracy, mean of the attributes, %")
    axes[1, 0].set_ylabel("difference to classification only,\npoints (dashed: to that for as long)")
    lines = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0, -1].legend(lines.values(), lines, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)


def _shift(row: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """Return by how much a point is moved so that those of a fraction stand side by side, around its tick."""
    there = [other["method"] for other in rows if all(other[name] == row[name] for name in ("start", "fraction"))]
    beside = [method for method in DRAWN if method in there]
    return float(1.05 ** (beside.index(row["method"]) - (len(beside) - 1) / 2))


def _order(key: Key) -> tuple[int, float, int]:
    start, fraction, method = key
    return STARTS.index(start), fraction, [*METHODS, *VARIANTS].index(method)
