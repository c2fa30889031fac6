"""The page that compares runs on the same images: accuracies, paired differences, classes, curves, and flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reports.attribute_section import percent
from reports.bootstrap import interval
from reports.page_style import cell, escape, number, page, plain, table
from reports.run_page import PageSize, write_page
from reports.run_results import AttributeResults, RunResults
from reports.summary_file import Summary
from reports.svg_chart import STYLE as CHART_STYLE
from reports.svg_chart import Chart, Line, charts

_CURVES = 5  # runs with a line in each chart
_CLASSES = 12  # rows of the table of classes that changed most
_CHARTS = (
    ("Validation accuracy", "eval_top1", True),
    ("Validation loss", "eval_loss", False),
    ("20 nearest neighbors", "eval_knn20", True),
    ("SimCLR loss", "simclr_loss", False),
)


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run in a comparison.

    Attributes:
        name: its name, which no other run of the comparison has.
        results: its predictions for the split that all runs share.
        summary: its epochs; None without any.
        flags: its flags.
    """

    name: str
    results: RunResults
    summary: Summary | None
    flags: Mapping[str, Any]


class Difference(NamedTuple):
    """How much better a run is than the first one, on the images that are labeled.

    Attributes:
        points: difference of the accuracies, in percentage points.
        low: lower end of its paired 95% bootstrap interval.
        high: upper end.
        gained: images that only this run gets right.
        lost: images that only the first run gets right.
        images: labeled images.
    """

    points: float
    low: float
    high: float
    gained: int
    lost: int
    images: int


def difference(first: AttributeResults, other: AttributeResults) -> Difference:
    """Return the paired difference between two runs for an attribute; both have the same labeled images.

    Args:
        first: the results of the first run.
        other: the results of the other run.
    """
    change = other.right.astype(np.float64) - first.right
    low, high = interval(change[None])
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return Difference(100 * float(change.mean()), low, high, gained, lost, len(change))


def write_comparison(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Write the page as one file of at most 1.9 MB that loads nothing.

    Args:
        path: the file; it changes completely or not at all.
        runs: the runs; the first one is what the others are compared with.
    """
    write_page(path, lambda size, picture: comparison_page(runs, size, picture), runs[0].results)


def comparison_page(runs: Sequence[ComparedRun], size: PageSize, picture: Callable[[int], str]) -> str:
    """Return the page.

    Args:
        runs: the runs.
        size: how much to show.
        picture: returns the address of an image's picture, or "".
    """
    first = runs[0]
    names = [one.name for one in first.results.attributes if len(one)]
    shared = [name for name in names if all(_attribute(run, name) is not None for run in runs)]
    title = " and ".join(run.name for run in runs) if len(runs) == 2 else f"{len(runs)} runs"
    sentences = [_sentence(first, run, name) for run in runs[1:] for name in shared[:4]]
    header = (
        f"<h1>Comparison of {escape(title)}</h1>\n<p>On the same {len(first.results.images):,} images of "
        f"{escape(first.results.split)}. Differences are paired: each bootstrap draw takes the same images of both "
        f'runs.</p>\n<ul class="sentences">{"".join(f"<li>{one}</li>" for one in sentences)}</ul>'
    )
    parts = [
        f"<section><h2>Accuracy</h2>{_accuracies(runs)}</section>",
        f"<section><h2>Difference to {escape(first.name)}</h2>{_differences(runs, shared)}</section>",
        *(_attribute_section(runs, name, size, picture) for name in shared[: size.sections]),
        _curves(runs),
        _flags(runs),
    ]
    return page(
        f"Comparison of {title}",
        header,
        "\n".join(filter(None, parts)),
        "<p>Made by report.py. This page loads nothing: send it as one file.</p>",
        style=CHART_STYLE + (Path(__file__).parent / "run_page.css").read_text(encoding="utf-8"),
    )


def _attribute(run: ComparedRun, name: str) -> AttributeResults | None:
    """Return a run's results for an attribute; None if it has none, or no trained head."""
    found = [one for one in run.results.attributes if one.name == name and len(one)]
    return found[0] if found and run.results.heads_trained else None


def _sentence(first: ComparedRun, run: ComparedRun, name: str) -> str:
    """Return the difference of two runs in an attribute as a sentence."""
    found = difference(*_pair(first, run, name))
    ends = f"95% interval {found.low:+.1f} to {found.high:+.1f} points"
    what, who, other = escape(name), escape(run.name), escape(first.name)
    if found.low <= 0 <= found.high:
        return f"<b>{what}:</b> no difference shows between {who} and {other} ({found.points:+.1f}; {ends})."
    kind = "better" if found.points > 0 else "worse"
    return (
        f'<b>{what}:</b> {who} is <span class="{kind}">{kind}</span> than {other} by {abs(found.points):.1f} points '
        f"({ends})."
    )


def _pair(first: ComparedRun, run: ComparedRun, name: str) -> tuple[AttributeResults, AttributeResults]:
    pair = _attribute(first, name), _attribute(run, name)
    assert pair[0] is not None
    assert pair[1] is not None
    return pair[0], pair[1]


def _accuracies(runs: Sequence[ComparedRun]) -> str:
    """Return the accuracy of each run, with its interval, by attribute."""
    names = dict.fromkeys(one.name for run in runs for one in run.results.attributes if len(one))
    lines = []
    for name in names:
        line = [cell(name, "long")]
        for run in runs:
            one = _attribute(run, name)
            if one is None:
                line.append(percent(float("nan")))
                continue
            value, (low, high) = 100 * float(one.right.mean()), interval(one.right[None].astype(float))
            line.append(number(round(value, 4), f"{value:.1f}% ({low:.1f}–{high:.1f})"))
        lines.append(line)
    heads = ["attribute", *(run.name for run in runs)]
    return table("Accuracy by attribute and run", heads, lines, tuple(range(1, len(heads))))


def _differences(runs: Sequence[ComparedRun], names: Sequence[str]) -> str:
    """Return the paired differences to the first run."""
    lines = []
    for run in runs[1:]:
        for name in names:
            found = difference(*_pair(runs[0], run, name))
            clear = "" if found.low <= 0 <= found.high else "better" if found.points > 0 else "worse"
            lines.append(
                [
                    cell(run.name, "long"),
                    cell(name, "long"),
                    number(round(found.points, 4), f"{found.points:+.1f}"),
                    f'<td data-sort="{found.low:.4f}">{found.low:+.1f} to {found.high:+.1f}</td>',
                    cell(clear or "none shows", clear),
                    number(found.gained),
                    number(found.lost),
                    number(found.images),
                ]
            )
    heads = ["run", "attribute", "points", "95% interval", "verdict", "only it right", "only the first right", "images"]
    return table("Paired differences", heads, lines, (2, 5, 6, 7), "dense")


def _attribute_section(runs: Sequence[ComparedRun], name: str, size: PageSize, picture: Callable[[int], str]) -> str:
    """Return the classes that changed most, and images that only one of the first two runs gets right."""
    first, other = _pair(runs[0], runs[1], name)
    parts = [f"<section><h2>{escape(name)}: {escape(runs[0].name)} and {escape(runs[1].name)}</h2>"]
    if not first.multi_valued:
        parts.append(_changed_classes(runs, first, other))
    change = other.right.astype(int) - first.right
    for sign, run in ((1, runs[1]), (-1, runs[0])):
        places = np.flatnonzero(change == sign)
        sure = (other if sign > 0 else first).confidence[places]
        chosen = places[np.argsort(-sure, kind="stable")][: size.examples]
        if len(chosen):
            parts.append(f"<h3>Only {escape(run.name)} is right ({len(places):,})</h3>")
            parts.append(_examples(runs, first, other, chosen.tolist(), picture))
    return "\n".join([*parts, "</section>"])


def _changed_classes(runs: Sequence[ComparedRun], first: AttributeResults, other: AttributeResults) -> str:
    """Return the classes whose images changed most, with the accuracy of each run on them."""
    texts = np.array([first.label_text(place) for place in range(len(first))])
    kinds, codes = np.unique(texts, return_inverse=True)
    images = np.bincount(codes)
    hits = [np.bincount(codes, weights=one.right.astype(float), minlength=len(kinds)) for one in (first, other)]
    change = hits[1] - hits[0]
    order = [code for code in np.argsort(-np.abs(change), kind="stable").tolist() if change[code]][:_CLASSES]
    if not order:
        return "<p>No class changed.</p>"
    lines = [
        [
            cell(kinds[code], "long"),
            number(int(images[code])),
            *(percent(100 * float(one[code]) / float(images[code])) for one in hits),
            number(int(change[code]), f"{int(change[code]):+d}"),
        ]
        for code in order
    ]
    heads = ["class", "images", runs[0].name, runs[1].name, "images gained"]
    return table(f"Classes of {first.name} that changed most", heads, lines, (1, 2, 3, 4), "dense")


def _examples(
    runs: Sequence[ComparedRun],
    first: AttributeResults,
    other: AttributeResults,
    places: Sequence[int],
    picture: Callable[[int], str],
) -> str:
    items = []
    for place in places:
        row = int(first.rows[place])
        name, address = escape(runs[0].results.images[row]), picture(row)
        shown = f'<div class="pictures"><img src="{address}" alt="{name}"></div>' if address else ""
        words = "<br>".join(
            f"{head} <b>{escape(text)}</b>"
            for head, text in (
                ("labeled", first.label_text(place)),
                (f"{escape(runs[0].name, 40)}:", first.prediction_text(place)),
                (f"{escape(runs[1].name, 40)}:", other.prediction_text(place)),
            )
        )
        items.append(f'<li class="single">{shown}{words}<br><span class="soft">{name}</span></li>')
    return f'<ul class="examples">{"".join(items)}</ul>'


def _curves(runs: Sequence[ComparedRun]) -> str:
    """Return charts with a line for each run."""
    found = []
    for title, column, of_hundred in _CHARTS:
        lines = []
        for place, run in enumerate(runs[:_CURVES]):
            rows = [row for row in run.summary.rows if column in row] if run.summary else []
            epochs, values = tuple(row["epoch"] for row in rows), tuple(row[column] for row in rows)
            lines.append(Line(plain(run.name, 60), epochs, values, place, dashed=place > 0, marked=len(rows) <= 25))
        found.append(Chart(title, tuple(lines), percent=of_hundred))
    drawn = charts(found)
    return f"<section><h2>Curves</h2>{drawn}</section>" if drawn else ""


def _flags(runs: Sequence[ComparedRun]) -> str:
    """Return the flags that differ."""
    names = sorted({name for run in runs for name in run.flags} - {"output", "experiment", "resume", "config"})
    lines = []
    for name in names:
        values = [run.flags.get(name) for run in runs]
        if any(value != values[0] for value in values):
            lines.append([cell(name), *(cell(_shown(value), "long") for value in values)])
    if not lines:
        return "<section><h2>Flags</h2><p>The runs had the same flags.</p></section>"
    heads = ["flag", *(run.name for run in runs)]
    return f"<section><h2>Flags that differ</h2>{table('Flags that differ', heads, lines)}</section>"


def _shown(value: Any) -> str:
    return "–" if value is None or value == "" or value == [] else str(value)
