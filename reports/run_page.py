"""The report of a run: one page of scores, curves, confusions, mistakes, a map of the images, and how it was made."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from reports.attribute_section import SectionSize, attribute_section
from reports.map_section import map_section
from reports.page_style import escape, page
from reports.run_results import RunResults
from reports.score_table import score_table, verdict
from reports.summary_file import Summary
from reports.svg_chart import STYLE as CHART_STYLE
from reports.svg_chart import charts
from reports.thumbnail import picture_address
from reports.training_charts import attribute_chart, training_charts
from runtime.atomic_file import atomic_file

MOST_BYTES = 1_900_000

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class PageSize:
    """How much a page shows.

    Attributes:
        points: images on the map.
        examples: pictures of each attribute's mistakes, and of its suspicious labels.
        pictured: attributes with such pictures.
        charted: attributes with charts.
        classes: rows of a table by class.
        sections: attributes with a section.
    """

    points: int
    examples: int
    pictured: int
    charted: int
    classes: int
    sections: int


# The first that fits into the page is taken.
SIZES = (
    PageSize(1500, 12, 6, 12, 400, 60),
    PageSize(1500, 6, 12, 12, 400, 60),
    PageSize(800, 4, 8, 12, 300, 60),
    PageSize(400, 4, 4, 6, 150, 40),
    PageSize(200, 2, 2, 3, 60, 20),
    PageSize(0, 0, 0, 0, 40, 10),
)


@dataclass(frozen=True, eq=False)
class RunReport:
    """What the page of a run shows.

    Attributes:
        title: what was trained.
        checkpoint: which of the run's models, in words.
        results: its predictions; None without a validation split.
        summary: the epochs; None without any.
        facts: how the run was made, as pairs of a heading and a text.
        commands: how to use the model, as pairs of a sentence and commands.
        views: a JPEG of the views of some training images; None for none.
        notes: sentences about what the page lacks.
    """

    title: str
    checkpoint: str
    results: RunResults | None
    summary: Summary | None
    facts: Sequence[tuple[str, str]]
    commands: Sequence[tuple[str, str]]
    views: bytes | None = None
    notes: Sequence[str] = ()


def write_run_page(path: Path, report: RunReport) -> None:
    """Write the page as one file of at most 1.9 MB that loads nothing.

    Args:
        path: the file; it changes completely or not at all.
        report: what to show.
    """
    write_page(path, lambda size, picture: run_page(report, size, picture), report.results)


def write_page(path: Path, make: Callable[[PageSize, Callable[[int], str]], str], results: RunResults | None) -> None:
    """Write the largest page that fits.

    Args:
        path: the file; it changes completely or not at all.
        make: returns the page of a size, given a function from an image's index to the address of its picture.
        results: the results whose images are pictured.
    """

    @cache
    def picture(row: int) -> str:
        image: Image.Image | None = None if results is None else results.picture(row)
        return "" if image is None else picture_address(image)

    for size in SIZES:
        text = make(size, picture)
        if len(text.encode()) <= MOST_BYTES:
            break
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def run_page(report: RunReport, size: PageSize, picture: Callable[[int], str]) -> str:
    """Return the page.

    Args:
        report: what to show.
        size: how much of it.
        picture: returns the address of an image's picture, or "".
    """
    sections: list[tuple[str, str, str]] = []  # anchor, name in the list of contents, markup
    data: dict[str, Any] = {"matrices": [], "map": None}
    results = report.results

    # scores and curves
    if results is not None and results.attributes:
        sections.append(("scores", "Scores", f'<section id="scores"><h2>Scores</h2>{score_table(results)}</section>'))
    drawn = charts(training_charts(report.summary)) if report.summary else ""
    if drawn:
        sections.append(("training", "Training", f'<section id="training"><h2>Training</h2>{drawn}</section>'))

    # attributes
    for place, one in enumerate(results.attributes[: size.sections] if results else ()):
        examples = size.examples if place < size.pictured else 0
        epochs = [attribute_chart(report.summary, one.name)] if report.summary else []
        assert results is not None
        markup, matrix = attribute_section(
            one,
            place,
            SectionSize(examples, size.classes, place < size.charted),
            epochs=epochs,
            images=results.images,
            picture=picture,
            predicts=results.heads_trained,
        )
        data["matrices"].append(matrix)
        sections.append((f"attribute{place}", one.name, markup))

    # images
    if results is not None and results.map is not None and size.points:
        markup, data["map"] = map_section(results, size.points)
        sections.append(("map", "Map", markup))
    if report.views:
        sections.append(("views", "Views", _views(report.views)))

    # what remains
    sections.append(("use", "Use it", _usage(report.commands)))
    sections.append(("made", "How it was made", _facts(report)))
    return page(
        f"Report of {report.title}",
        _header(report, sections),
        "\n".join(markup for _, _, markup in sections),
        "<p>Made by report.py. This page loads nothing: send it as one file.</p>",
        style=CHART_STYLE + (_HERE / "run_page.css").read_text(encoding="utf-8"),
        script=(_HERE / "run_page.js").read_text(encoding="utf-8"),
        data=data,
    )


def _header(report: RunReport, sections: Sequence[tuple[str, str, str]]) -> str:
    links = "".join(f'<li><a href="#{anchor}">{escape(name, 40)}</a></li>' for anchor, name, _ in sections)
    lead = f'<p class="lead">{verdict(report.results)}</p>' if report.results is not None else ""
    notes = "".join(f'<p class="soft">{escape(note, 400)}</p>' for note in report.notes)
    return (
        f"<h1>Report of {escape(report.title)}</h1>\n{lead}<p>{escape(report.checkpoint, 400)}</p>{notes}\n"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>'
    )


def _views(sheet: bytes) -> str:
    """Return the section with the views of some training images."""
    address = f"data:image/jpeg;base64,{base64.b64encode(sheet).decode()}"
    words = (
        "What the model saw of some training images in its first step: the views of each side by side, and its labels. "
        "Augmentation that hides what a label is about shows here."
    )
    return (
        f'<section id="views"><h2>Views of training images</h2><p>{words}</p>\n<div class="scroll views" tabindex="0" '
        f'role="region" aria-label="Views of training images, which scroll"><img src="{address}" '
        'alt="The views of some training images side by side, with their labels"></div></section>'
    )


def _usage(commands: Sequence[tuple[str, str]]) -> str:
    """Return the section on using the model."""
    parts = [
        f'<p>{escape(sentence, 400)}</p>\n<div class="scroll" tabindex="0" role="region" aria-label="Command {place}">'
        f"<pre><code>{chr(10).join(escape(line, 4000) for line in text.splitlines())}</code></pre></div>"
        for place, (sentence, text) in enumerate(commands, start=1)
    ]
    return f'<section id="use"><h2>How to use this model</h2>{"".join(parts)}</section>'


def _facts(report: RunReport) -> str:
    """Return the section on how the run was made."""
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text, 4000)}</td></tr>' for name, text in report.facts
    )
    return f'<section id="made"><h2>How it was made</h2><table class="facts"><tbody>{lines}</tbody></table></section>'
