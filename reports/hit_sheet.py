"""The answers of a search with thumbnails: a page that loads nothing, or a PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reports.figure_text import drawable, font_families
from reports.hits import Hits, label_texts
from reports.page_style import escape, page
from reports.thumbnail import SIDE, small_image, thumbnail
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError

MOST_IMAGES = 1000  # on a sheet
_ACROSS = 6  # images beside each other in a PNG
_GAP, _LINE = 8, 13  # pixels: around an image, height of a line of text
_CHARACTERS = 27  # in a line below an image
_DPI = 100
_TALLEST = 60_000  # pixels; no picture is higher than 2**16

_Rows = list[dict[str, Any]]


def write_hit_page(path: Path, hits: Hits, title: str) -> None:
    """Write the answers as a page of one file that loads nothing; it changes completely or not at all.

    Args:
        path: the file.
        hits: the answers.
        title: what was searched; a user's text.
    """
    sections = "\n".join(_section(hits, rows) for rows in _by_query(hits))
    filters = f"<p>Filters: {escape(' and '.join(hits.filters))}</p>" if hits.filters else ""
    header = f"<h1>{escape(title)}</h1>\n{filters}"
    footer = "<p>Similarity is the cosine of two embeddings. A class with a probability in brackets is predicted.</p>"
    with atomic_file(path) as unfinished:
        unfinished.write_text(page(title, header, sections, footer), encoding="utf-8")


def write_hit_picture(path: Path, hits: Hits) -> None:
    """Write the answers as a PNG; it changes completely or not at all. Each query is the first image of its row.

    Args:
        path: the file.
        hits: the answers.

    Raises:
        UsageError: the picture would be too large.
    """
    from matplotlib.figure import Figure

    # the layout
    cells = list(_cells(hits))
    width, height = SIDE + 4 * _GAP, SIDE + 2 * _GAP + max(len(one.words) for one in cells) * _LINE
    size = width * (1 + max(one.column for one in cells)), height * (1 + cells[-1].row)
    if size[1] > _TALLEST:
        raise UsageError(f"a picture of {len(cells):,} images would be {size[1]:,} pixels high: write a page, .html")

    # the images and the words below them
    canvas = np.full((size[1], size[0], 3), 255, np.uint8)
    figure = Figure((size[0] / _DPI, size[1] / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    families = font_families()
    for one in cells:
        left, bottom = one.column * width + _GAP, one.row * height + _GAP + SIDE
        if (image := small_image(one.file)) is not None:
            canvas[bottom - image.height : bottom, left : left + image.width] = np.asarray(image)
        text = "\n".join(drawable(words, families, _CHARACTERS) for words in one.words)
        # without parse_math a dollar sign is one
        axes.text(left, bottom + 4, text, fontsize=6.2, va="top", family=families, parse_math=False)
    axes.imshow(canvas, extent=(0, size[0], size[1], 0), interpolation="nearest")
    axes.set_axis_off()
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=_DPI)


def check_sheet(hits: Hits) -> None:
    """Raise unless a sheet has room for the answers.

    Raises:
        UsageError: there are too many.
    """
    if len(hits.table) > MOST_IMAGES:
        raise UsageError(
            f"a sheet shows at most {MOST_IMAGES:,} images, not {len(hits.table):,}: ask for fewer, or write .csv"
        )


class _Cell(NamedTuple):
    """An image of a PNG: its file, the words below it, and its place."""

    file: str
    words: list[str]
    row: int
    column: int


def _cells(hits: Hits) -> Iterator[_Cell]:
    """Yield the images of a PNG: a query begins a row, and its answers take as many rows as they need."""
    first = 0
    for rows in _by_query(hits):
        yield _Cell(rows[0]["query_file"], ["query", _end(rows[0]["query"] or "in memory")], first, 0)
        for number, row in enumerate(rows):
            words = [f"{row['rank']}.  {row['similarity']:.4f}", _end(row["image_path"])]
            words += [text for _, text in label_texts(hits, row)]
            yield _Cell(row["image_file"], words, first + number // _ACROSS, 1 + number % _ACROSS)
        first += -(-len(rows) // _ACROSS)


def _end(path: str) -> str:
    """Return the end of a path, which differs more than its beginning."""
    return path if len(path) <= _CHARACTERS else "…" + path[1 - _CHARACTERS :]


def _by_query(hits: Hits) -> Iterator[_Rows]:
    """Yield the answers to each query."""
    rows = hits.table.to_pylist()
    starts = [place for place, row in enumerate(rows) if row["rank"] == 1]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield rows[start:end]


def _section(hits: Hits, rows: _Rows) -> str:
    """Return the part of the page for a query: its picture, and an item for each answer."""
    name = rows[0]["query"] or "an image in memory"
    own = f'<div class="pictures">{_picture(rows[0]["query_file"], name)}</div>' if rows[0]["query_file"] else ""
    items = "\n".join(_item(hits, row) for row in rows)
    return f'<section><h2>Similar to {escape(name)}</h2>\n{own}<ol class="examples">\n{items}\n</ol></section>'


def _item(hits: Hits, row: dict[str, Any]) -> str:
    words = "<br>".join(escape(text) for _, text in label_texts(hits, row))
    picture = _picture(row["image_file"], row["image_path"])
    return (
        f'<li class="single"><div class="pictures">{picture}</div>'
        f"<b>{row['rank']}.</b> {row['similarity']:.4f}<br>{escape(row['image_path'])}<br>{words}</li>"
    )


def _picture(file: str, name: str) -> str:
    address = thumbnail(file)
    return f'<img src="{address}" alt="{escape(name)}">' if address else '<span class="soft">no picture</span>'
