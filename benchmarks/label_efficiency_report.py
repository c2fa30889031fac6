"""The report of the label-efficiency study: a CSV file, the Markdown tables of benchmarks/README.md, and a figure."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from label_efficiency_cells import (
    RESULTS,
    Cell,
    Row,
    best_setting,
    predictions_of,
    read_cells,
    read_predictions,
    read_rows,
    tuning_scores,
)
from label_efficiency_cost_figure import draw_cost
from label_efficiency_figure import DRAWN, draw
from label_efficiency_settings import (
    COMMON,
    LARGE,
    METHODS,
    STARTS,
    TUNING_SEEDS,
    VARIANTS,
    baseline_of,
)
from label_efficiency_statistics import FEWEST_SEEDS, Key, Runs, difference, summary
from readme_tables import markdown_table, write_into_page

PAGES = {  # name of a table -> the baseline of its methods, and that baseline's name in the table
    "label-efficiency": ("classification", "classification only"),
    "more-steps": ("classification for long", "classification for as long"),
    "classified-view": ("joint", "the first view"),
}
COMPARED = {  # the baselines at 128 pixels, and their names in the table
    "fine-tuning": "fine-tuning",
    "logistic regression, 128 pixels": "logistic regression, 128 pixels",
    "fine-tuning, frozen batch norm, from solved heads": "fine-tuning from solved heads",
}


def report(data: Path, starts: Sequence[str]) -> None:
    """Report every method and fraction that has enough finished cells, for some starts of a dataset.

    Args:
        data: folder of the dataset; its val.csv has the labels of the test split.
        starts: names of starts whose attributes the dataset has.
    """
    # figures
    labels, cells = read_rows(data / "val.csv"), read_cells()
    runs = {key: seeds for key, seeds in finished_runs(cells).items() if key[0] in starts}
    keys = [key for key in sorted(runs, key=_order) if len(runs[key]) >= FEWEST_SEEDS]
    rows = [summary(key, runs, labels, baseline_of(key[2])) for key in keys]
    if not rows:
        sys.exit(f"{RESULTS} has no method with {FEWEST_SEEDS} finished seeds: run the grid first")

    # files
    pages = {}
    if small := [row for row in rows if row["start"] not in LARGE]:
        chosen = {
            name: [row for row in small if baseline_of(row["method"]) == base] for name, (base, _) in PAGES.items()
        }
        pages = {name: tables(chosen[name], heading) for name, (_, heading) in PAGES.items()}
        pages["label-efficiency"].append(majority_line(labels, STARTS["scratch"].attributes))
        pages["tuning"] = tuning_table(cells, [start for start in STARTS if start not in LARGE])
        draw([row for row in small if row["method"] in DRAWN])
    for start in [start for start in LARGE if any(row["start"] == start for row in rows)]:
        name, own = STARTS[start].results, [row for row in rows if row["start"] == start]
        pages[name] = large_table(own, runs, labels)
        pages[name] += ["", majority_line(labels, STARTS[start].attributes)]
        if STARTS[start].tuned_on is None:
            pages[f"{name}-tuning"] = tuning_table(cells, [start])
        draw_cost(own, [*METHODS, *VARIANTS])
    for results in {STARTS[row["start"]].results for row in rows}:
        write_csv(results, [row for row in rows if STARTS[row["start"]].results == results])
    for name, lines in pages.items():
        write_into_page(name, lines)

    # output, last: the reader of a pipe may have closed it
    for lines in pages.values():
        print("\n".join(lines))


def finished_runs(cells: list[Cell]) -> Runs:
    """Return the grid's cells at each method's best setting, with their predictions, by key and seed."""
    stored = read_predictions()
    runs: Runs = defaultdict(dict)
    tested = [cell for cell in cells if cell["seed"] not in TUNING_SEEDS]
    best = {pair: best_setting(*pair, cells) for pair in {(cell["start"], cell["method"]) for cell in tested}}
    for cell in tested:
        if cell["stages"] == best[cell["start"], cell["method"]]:
            key = cell["start"], cell["fraction"], cell["method"]
            runs[key][cell["seed"]] = cell | {"predicted": predictions_of(cell, stored)}
    return runs


def write_csv(results: str, rows: list[dict[str, Any]]) -> None:
    """Write the figures of all methods beside the results."""
    with (RESULTS / f"{results}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(
            {
                name: f"{value:.3f}" if isinstance(value, float) and name != "fraction" else value
                for name, value in row.items()
            }
            for row in rows
        )


def tables(rows: list[dict[str, Any]], base: str) -> list[str]:
    """Return the lines of a Markdown table for each start.

    Args:
        rows: the figures of methods with one baseline, from `summary`.
        base: the baseline's name in the table.
    """
    lines = []
    for start in STARTS:
        chosen = [row for row in rows if row["start"] == start]
        if chosen:
            header = ["labels", "method", "seeds", "accuracy", f"difference to {base}"]
            header += ["article", "kids", "balanced", "exact match", "held-out"]
            lines += [f"**{STARTS[start].title}**", "", *markdown_table(header, [_columns(row) for row in chosen]), ""]
    return lines


def _columns(row: dict[str, Any]) -> list[str]:
    """Return one method's row of a table."""
    difference, article, held_out = "", f"{row['article']:.1f}", f"{row['held_out']:.1f}"
    if row["difference"] != "":
        difference = _with_interval(row, "difference", "difference_low", "difference_high")
        article += f"; {_with_interval(row, 'article_difference', 'article_low', 'article_high')}"
        held_out += f" ({row['held_out_difference']:+.1f}, {row['held_out_wins']} of {row['paired_seeds']})"
    return [
        f"{row['fraction']:.0%}",
        row["method"],
        f"{row['seeds']}",
        f"{row['accuracy']:.1f} ± {row['deviation']:.1f}",
        difference,
        article,
        *(f"{row[name]:.1f}" for name in ("kids", "balanced_accuracy", "exact_match")),
        held_out,
    ]


def large_table(rows: list[dict[str, Any]], runs: Runs, labels: list[Row]) -> list[str]:
    """Return the lines of one start's Markdown table, with the differences to the baselines, and the cost."""
    attributes = STARTS[rows[0]["start"]].attributes
    header = ["labels", "method", "seeds", "accuracy", *(f"difference to {name}" for name in COMPARED.values())]
    header += [*attributes, "balanced", "core minutes", "views trained"]
    lines = []
    for row in rows:
        key = row["start"], row["fraction"], row["method"]
        found = [difference(key, runs, labels, base) for base in COMPARED]
        lines.append(
            [
                *(f"{row['fraction']:.0%}", row["method"], f"{row['seeds']}"),
                f"{row['accuracy']:.1f} ± {row['deviation']:.1f}",
                *(_with_interval(one, "difference", "difference_low", "difference_high") for one in found),
                *(f"{row[name]:.1f}" for name in (*attributes, "balanced_accuracy", "minutes")),
                f"{row['trained']:,.0f}",
            ]
        )
    return markdown_table(header, lines)


def _with_interval(row: dict[str, Any], name: str, low: str, high: str) -> str:
    """Return a difference with its interval, in bold if the interval excludes 0; blank if there is none."""
    if row[name] == "":
        return ""
    text = f"{row[name]:+.1f} ({row[low]:+.1f} to {row[high]:+.1f})"
    return f"**{text}**" if row[low] > 0 or row[high] < 0 else text


def majority_line(labels: list[Row], attributes: Sequence[str]) -> str:
    """Return a sentence with the accuracy of always guessing the test split's most frequent classes."""
    shares = []
    for name in attributes:
        known = [row[name] for row in labels if row[name]]
        kind = max(set(known), key=known.count)
        shares.append(f"`{name}` {100 * known.count(kind) / len(known):.1f} ({kind})")
    return f"Always guessing the test split's most frequent class would get {' and '.join(shares)}."


def tuning_table(cells: list[Cell], starts: Sequence[str]) -> list[str]:
    """Return the lines of a Markdown table of the tuned settings; a method's best is bold once all are finished."""
    rows = []
    for start in starts:
        for method in [method for method, settings in METHODS.items() if start in settings]:
            tried = tuning_scores(start, method, cells)
            finished = len(tried) == len(METHODS[method][start])
            for stages, score in tried.items():
                text = f"**{score:.1f}**" if finished and score == max(tried.values()) else f"{score:.1f}"
                flags = "<br>".join(f"`{stage}`" for stage in stages)
                rows.append([f"{start}: `{STARTS[start].model}`", method, flags, text])
    header = ["start", "method", "flags, a stage after the other", "held-out images"]
    return [f"All: `--img-size {STARTS[starts[0]].img_size} {COMMON}`", "", *markdown_table(header, rows)]


def _order(key: Key) -> tuple[int, float, int]:
    start, fraction, method = key
    return list(STARTS).index(start), fraction, [*METHODS, *VARIANTS].index(method)
