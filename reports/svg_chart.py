"""Small line charts inside a page, drawn by matplotlib as SVG in the page's colors, light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes

_INCHES = (4.3, 2.6)  # about the width of a phone's screen, so that letters keep their size there
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.115, 0.985, 0.175, 0.96
_COLORS = ("#010001", "#010002", "#010003", "#010004", "#010005")  # replaced by variables of the page's style
_INK, _SOFT, _LINE = "#010006", "#010007", "#010008"
_VARIABLES = {color: f"var(--series{place})" for place, color in enumerate(_COLORS)}
_VARIABLES |= {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)"}
_LOG_SCALE = 20.0  # the axis is logarithmic if the largest value exceeds the smallest by this factor

STYLE = """
:root { --series0: #0b63a5; --series1: #b35900; --series2: #007a55; --series3: #9c3f7c; --series4: #59636e; }
@media (prefers-color-scheme: dark) { :root { --series0: #6db3f2; --series1: #f0a04b; --series2: #3fc79a;
  --series3: #e08cc0; --series4: #a3adb8; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20.5rem), 1fr)); gap: 1.25rem 1.5rem;
  margin: .75rem 0 1rem; }
figure { margin: 0; } figcaption { font-size: .9rem; margin-bottom: .25rem; min-height: 3.1em; }
figcaption b { display: block; }
.key { white-space: nowrap; margin-right: .9rem; color: var(--soft); }
.key svg { width: 1.6rem; height: .7rem; margin-right: .3rem; vertical-align: middle; }
figure > svg { font-family: system-ui, sans-serif; display: block; width: 100%; height: auto; max-width: 30rem; }
"""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: its name in the key.
        x: places, ascending.
        y: values; NaN leaves a gap.
        color: index of a color, 0-4.
        dashed: whether it is dashed, so that it is distinct without its color too.
        marked: whether each point has a marker; otherwise only a single point has one.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    color: int = 0
    dashed: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        title: its heading.
        lines: the lines; those without a value are left out.
        x_label: what the horizontal axis shows.
        percent: whether the values are percentages.
        diagonal: whether a line marks where both axes are equal.
        whole: whether the horizontal axis has whole numbers only.
        x_range: ends of the horizontal axis; None fits the values.
        y_range: ends of the vertical axis; None fits the values.
    """

    title: str
    lines: tuple[Line, ...]
    x_label: str = "epoch"
    percent: bool = False
    diagonal: bool = False
    whole: bool = True
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


def charts(found: Sequence[Chart]) -> str:
    """Return charts beside each other, as many as the screen is wide; "" if none has a value."""
    drawn = "\n".join(filter(None, map(figure, found)))
    return f'<div class="charts">\n{drawn}\n</div>' if drawn else ""


@lru_cache(maxsize=256)  # a page that does not fit is made again with fewer parts
def figure(chart: Chart) -> str:
    """Return a chart as a figure with a heading and a key; "" if no line has a value."""
    lines = [line for line in chart.lines if np.isfinite(np.asarray(line.y, float)).any()]
    if not lines:
        return ""
    keys = "".join(f'<span class="key">{_sample(line)}{escape(line.label)}</span>' for line in lines)
    title = escape(chart.title)
    return f"<figure><figcaption><b>{title}</b>{keys}</figcaption>\n{_svg(chart, lines)}\n</figure>"


def _sample(line: Line) -> str:
    """Return a short piece of a line for the key."""
    dashes = ' stroke-dasharray="5 3"' if line.dashed else ""
    stroke = f'<path d="M0 5H24" style="stroke:var(--series{line.color})" stroke-width="2.4" fill="none"{dashes}/>'
    return f'<svg viewBox="0 0 24 10" aria-hidden="true">{stroke}</svg>'


def _svg(chart: Chart, lines: Sequence[Line]) -> str:
    """Return the drawing, with its numbers in words for screen readers."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": repr(chart.title), "font.size": 8.5}
    with rc_context(settings):
        drawing = Figure(figsize=_INCHES, facecolor="none")
        axes = drawing.add_axes((_LEFT, _BOTTOM, _RIGHT - _LEFT, _TOP - _BOTTOM), facecolor="none")
        _draw(axes, chart, lines)
        file = io.StringIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawing.savefig(file, format="svg", transparent=True, metadata=none)
    return _inline(file.getvalue(), _in_words(chart, lines))


def _draw(axes: Axes, chart: Chart, lines: Sequence[Line]) -> None:
    """Draw the lines on axes."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    # axes
    axes.grid(True, color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(colors=_SOFT, length=0, pad=4)
    axes.set_xlabel(chart.x_label, color=_SOFT, labelpad=3)
    if chart.diagonal:
        axes.plot([0, 100], [0, 100], color=_SOFT, linewidth=0.9, linestyle=(0, (2, 2)))

    # lines
    for line in lines:
        single = len(line.x) == 1 or line.marked
        axes.plot(
            line.x,
            line.y,
            color=_COLORS[line.color],
            linewidth=1.6,
            linestyle=(0, (4, 2)) if line.dashed else "solid",
            marker="o" if single else "",
            markersize=3.2,
        )

    # limits and ticks
    if chart.x_range:
        axes.set_xlim(*chart.x_range)
    if chart.y_range:
        axes.set_ylim(*chart.y_range)
    if chart.whole:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    values = np.concatenate([np.asarray(line.y, float) for line in lines])
    values = values[np.isfinite(values)]
    if not chart.percent and values.min() > 0 and values.max() / values.min() > _LOG_SCALE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif not chart.y_range:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if chart.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        if not chart.y_range:
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -2), min(high, 102))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _inline(text: str, words: str) -> str:
    """Return matplotlib's SVG for use inside a page: without a head, names of parts, and colors of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"<defs>\s*</defs>", "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r" *font-family: [^;]+;", "", text)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    text = re.sub(r"<svg[^>]*>", f'<svg {view[0]} role="img" aria-label="{escape(words)}">', text, count=1)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return re.sub(r"\n\s*", "\n", text).strip()


def _in_words(chart: Chart, lines: Sequence[Line]) -> str:
    """Return the first and last value of each line in words."""
    parts = []
    for line in lines:
        values = [value for value in line.y if np.isfinite(value)]
        unit = "%" if chart.percent else ""
        ends = f"{values[0]:.3g}{unit}" + (f" to {values[-1]:.3g}{unit}" if len(values) > 1 else "")
        parts.append(f"{line.label} {ends}")
    return f"{chart.title}: {'; '.join(parts)}"
