"""The page of an audit: counts, classes, combinations, and each kind of finding with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from catalog.audited_rows import AuditedRows
from catalog.finding import KINDS, Finding
from catalog.image_facts import ImageFacts
from catalog.label_counts import AttributeCounts, PairCounts
from reports.findings_file import FindingText
from reports.page_style import cell, escape, number, page, table
from reports.thumbnail import thumbnail
from runtime.atomic_file import atomic_file

MOST_BYTES = 1_900_000

# examples with pictures and lines of a table for each kind of finding; the first that fit into the page are taken
_SIZES = ((8, 40), (4, 20), (2, 10), (0, 5), (0, 0))
_SHOWN_CLASSES = 20  # the most frequent and as many of the rarest; up to twice as many are all shown
_SHOWN_ATTRIBUTES = 40  # with their classes
_SHOWN_PAIRS = 100

Described = Sequence[tuple[Finding, FindingText]]


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        title: what was audited.
        rows: the rows.
        facts: what is known of their files.
        attributes: the counts of each attribute.
        pairs: the combinations of each two attributes.
        whole: combinations of all attributes, and those that occur once.
        rare: training images below which a class is rare.
        findings: the findings and their words, the worst first.
        settings: the thresholds, in a sentence.
    """

    title: str
    rows: AuditedRows
    facts: ImageFacts
    attributes: Sequence[AttributeCounts]
    pairs: Sequence[PairCounts]
    whole: tuple[int, int]
    rare: int
    findings: Described
    settings: str


def write_audit_page(path: Path, audit: Audit) -> None:
    """Write the page as one file of at most 1.9 MB that loads nothing.

    Args:
        path: the file; it changes completely or not at all.
        audit: what was found.
    """
    pictures = cache(thumbnail)
    for examples, lines in _SIZES:
        text = audit_page(audit, examples, lines, pictures)
        if len(text.encode()) <= MOST_BYTES:
            break
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def audit_page(audit: Audit, examples: int, lines: int, picture: Callable[[str], str] = thumbnail) -> str:
    """Return the page.

    Args:
        audit: what was found.
        examples: examples with pictures for each kind of finding.
        lines: lines of the table of each kind.
        picture: returns the address of a file's picture, or "".
    """
    rows = audit.rows
    header = (
        f"<h1>Audit of {escape(audit.title)}</h1>\n<p>{len(rows):,} rows, {len(rows.files):,} images, "
        f"{len(rows.columns)} attributes. {_verdict(audit.findings)}</p>"
    )
    parts = [
        "<h2>Findings</h2>",
        _overview(audit),
        "<h2>Tables</h2>",
        _tables(audit),
        "<h2>Attributes</h2>",
        _attributes(audit),
        *map(_classes, [one for one in audit.attributes if not one.fault][:_SHOWN_ATTRIBUTES]),
        "<h2>Combinations of labels</h2>",
        _combinations(audit),
        "<h2>Findings one by one</h2>",
        *(_kind(audit, kind, examples, lines, picture) for kind in _kinds(audit.findings)),
    ]
    footer = f"<p>{escape(audit.settings)}</p>\n<p>Every finding is in findings.csv beside this page.</p>"
    return page(f"Audit of {audit.title}", header, "\n".join(part for part in parts if part), footer)


def _verdict(findings: Described) -> str:
    """Return the counts by severity as a sentence."""
    counts = Counter(text.severity for _, text in findings)
    if not counts:
        return "Nothing was found."
    words = [
        f'<span class="{name}">{counts[name]:,} {name}{"" if counts[name] == 1 else "s"}</span>'
        for name in ("error", "warning", "notice")
        if counts[name]
    ]
    return f"Found {', '.join(words)}."


def _kinds(findings: Described) -> list[str]:
    return list(dict.fromkeys(one.kind for one, _ in findings))


def _overview(audit: Audit) -> str:
    counts = Counter((text.kind, text.split) for _, text in audit.findings)
    lines = []
    for kind in _kinds(audit.findings):
        what = KINDS[kind]
        by_split = [counts[kind, name] for name in audit.rows.names]
        total = sum(count for (name, _), count in counts.items() if name == kind)
        lines.append(
            [
                cell(what.severity, what.severity),
                number(total),
                f'<td class="long"><a href="#{kind}">{escape(what.title)}</a></td>',
                *map(number, by_split),
            ]
        )
    if not lines:
        return "<p>Nothing was found.</p>"
    heads = ["severity", "count", "finding", *(f"in {name}" for name in audit.rows.names)]
    return table("Findings by kind and split", heads, lines, (1, *range(3, len(heads))))


def _tables(audit: Audit) -> str:
    rows, facts = audit.rows, audit.facts
    lines = []
    for split, (name, source) in enumerate(zip(rows.names, rows.tables, strict=True)):
        files = rows.file[rows.split == split]
        labeled = np.zeros(len(rows), bool)
        for one in audit.attributes:
            labeled[one.entry_rows] = True
        readable = np.unique(files[facts.readable[files]])
        size = "-"
        if len(readable):
            width, height = np.median(facts.size[readable], axis=0).astype(int).tolist()
            size = f"{width} x {height}"
        lines.append(
            [
                cell(name),
                cell(source.path.name),
                number(len(files)),
                number(len(np.unique(files))),
                number(int((~labeled[rows.split == split]).sum())),
                cell(size),
            ]
        )
    heads = ["split", "file", "rows", "images", "rows without a label", "median size"]
    return table("Tables", heads, lines, (2, 3, 4))


def _attributes(audit: Audit) -> str:
    names = audit.rows.names
    lines = []
    for one in audit.attributes:
        totals, trained = one.counts.sum(axis=0), one.counts[0]
        few = int(((trained > 0) & (trained < audit.rare)).sum())
        labels = max(int(one.labeled.sum()), 1)
        top = f"{one.classes[0]} ({100 * totals[0] / labels:.0f}%)" if one.classes else "-"
        blank = [100 * (1 - labeled / max(rows, 1)) for labeled, rows in zip(one.labeled, one.rows, strict=True)]
        lines.append(
            [
                cell(one.name + (" (several values)" if one.multi_valued else "")),
                number(len(one.classes)),
                cell(top, "long"),
                number(few),
                *(number(round(share, 3), f"{share:.1f}%") for share in blank),
            ]
        )
    heads = ["attribute", "classes", "most frequent", "rare classes", *(f"blank in {name}" for name in names)]
    rare = f"A class is rare if {escape(names[0])} has fewer than {audit.rare} rows of it."
    if not lines:
        return "<p>The tables have no attribute.</p>"
    return f"<p>{rare}</p>" + table("Attributes", heads, lines, (1, 3, *range(4, len(heads))))


def _classes(one: AttributeCounts) -> str:
    """Return the classes of an attribute, the most frequent first, in a box that opens."""
    totals = one.counts.sum(axis=0)
    count = len(one.classes)
    shown = list(range(count))
    left_out = count - 2 * _SHOWN_CLASSES
    if left_out > 0:
        shown = [*shown[:_SHOWN_CLASSES], *shown[-_SHOWN_CLASSES:]]
    labels, most = max(int(one.labeled.sum()), 1), max(int(totals.max(initial=0)), 1)
    lines = [
        [
            cell(one.classes[code], "long"),
            number(int(totals[code])),
            number(round(100 * totals[code] / labels, 3), f"{100 * totals[code] / labels:.1f}%"),
            f'<td class="bars" data-sort="{totals[code]}"><span class="bar" '
            f'style="width:{100 * totals[code] / most:.1f}%"></span></td>',
            *map(number, one.counts[:, code].tolist()),
        ]
        for code in shown
    ]
    note = f"<p>{left_out:,} classes between the most frequent and the rarest are left out.</p>" if left_out > 0 else ""
    half = int(np.searchsorted(np.cumsum(totals), totals.sum() / 2)) + 1 if count else 0
    title = f"{one.name}: {count:,} classes; the {half:,} most frequent have half of the labels"
    if half == 1:
        title = f"{one.name}: {count:,} classes; the most frequent has half of the labels or more"
    heads = ["class", "rows", "share", "bar", *(f"table {split + 1}" for split in range(len(one.counts)))]
    body = table(f"Classes of {one.name}", heads, lines, (1, 2, *range(4, len(heads))))
    return f"<details><summary>{escape(title)}</summary>\n{note}{body}</details>"


def _combinations(audit: Audit) -> str:
    if not audit.pairs:
        return "<p>There are no two attributes to combine.</p>"
    kinds, once = audit.whole
    words = (
        f"<p>The rows have {kinds:,} different combinations of all labels; {once:,} of them occur once. "
        "For each two attributes:</p>"
    )
    lines = []
    for pair in audit.pairs[:_SHOWN_PAIRS]:
        lines.append(
            [
                cell(f"{pair.first.name} x {pair.second.name}", "long"),
                number(pair.counts.size),
                number(int((pair.counts > 1).sum())),
                number(int((pair.counts == 1).sum())),
                number(int((pair.counts == 0).sum())),
            ]
        )
    more = len(audit.pairs) - _SHOWN_PAIRS
    note = f"<p>{more:,} more pairs of attributes are left out.</p>" if more > 0 else ""
    heads = ["attributes", "possible", "in several rows", "in one row", "in no row"]
    return words + table("Combinations of two attributes", heads, lines, (1, 2, 3, 4)) + note


def _kind(audit: Audit, kind: str, examples: int, lines: int, picture: Callable[[str], str]) -> str:
    """Return the section of a kind of finding: what it means, examples with pictures, and a table."""
    what = KINDS[kind]
    found = [(one, text) for one, text in audit.findings if one.kind == kind]
    shown = [] if kind == "unreadable" else [_example(audit, *pair, picture) for pair in found[:examples]]
    pictures = "".join(filter(None, shown))
    columns = [(head, name) for head, name in _HEADS if any(getattr(text, name) for _, text in found)]
    body = [[_cell(text, name, head) for head, name in columns] for _, text in found[:lines]]
    numbers = [place for place, (_, name) in enumerate(columns) if name == "row"]
    left_out = len(found) - len(body)
    parts = [
        f'<section><h3 id="{kind}">{escape(what.title)} ({len(found):,})</h3>',
        f'<p><span class="{what.severity}">{what.severity}:</span> {escape(what.advice)}</p>',
        f'<ul class="examples">{pictures}</ul>' if pictures else "",
        table(what.title, [head for head, _ in columns], body, numbers, "stack") if body else "",
        f'<p class="soft">{left_out:,} more are in findings.csv.</p>' if left_out else "",
        "</section>",
    ]
    return "\n".join(filter(None, parts))


_HEADS = (
    ("split", "split"),
    ("row", "row"),
    ("image", "image"),
    ("attribute", "attribute"),
    ("detail", "detail"),
    ("other image", "other"),
)


def _cell(text: FindingText, name: str, head: str) -> str:
    value = getattr(text, name)
    if name == "row" and value:
        return number(int(value), value, head)
    return cell(value, "long" if name in ("image", "detail", "other") else "", head)


def _example(audit: Audit, one: Finding, text: FindingText, picture: Callable[[str], str]) -> str:
    """Return the pictures of a finding; "" if there is none."""
    rows = [row for row in (one.row, one.other) if row is not None]
    files = [str(audit.rows.files[int(audit.rows.file[row])]) for row in rows]
    addresses = [picture(file) for file in files]
    names = [text.image, text.other]
    images = "".join(
        f'<img src="{address}" alt="{escape(name)}">'
        for address, name in zip(addresses, names, strict=False)
        if address
    )
    if not images:
        return ""
    words = f"{text.split} line {text.row}: {text.attribute} {text.detail}"
    single = "" if one.other is not None else ' class="single"'
    return f'<li{single}><div class="pictures">{images}</div>{escape(words)}</li>'
