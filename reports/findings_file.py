"""The findings of an audit as rows of text: findings.csv, and the lines of a terminal."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from catalog.audited_rows import AuditedRows
from catalog.finding import KINDS, Finding
from runtime.atomic_file import atomic_file
from runtime.errors import printable

COLUMNS = ("kind", "severity", "split", "row", "image path", "attribute", "detail", "other image")

_SEVERITIES = ("error", "warning", "notice")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of a formula
_EXAMPLES = 5  # kinds of findings whose first one a terminal shows


@dataclass(frozen=True)
class FindingText:
    """A finding in words, in the order of `COLUMNS`.

    Attributes:
        kind: a key of `catalog.finding.KINDS`.
        severity: error, warning or notice.
        split: the name of the split, or "".
        row: the line in the table's file, for Parquet the row's number; "" if it concerns no single row.
        image: the row's image path as the table spells it.
        attribute: the attribute, or "".
        detail: what is wrong, with the place of the other row.
        other: image path of the other row, or "".
    """

    kind: str
    severity: str
    split: str
    row: str
    image: str
    attribute: str
    detail: str
    other: str


def describe(findings: Iterable[Finding], rows: AuditedRows) -> list[tuple[Finding, FindingText]]:
    """Return findings with their words, the worst kinds first, each in the order of the rows.

    Args:
        findings: the findings.
        rows: the audited rows.
    """
    order = {kind: (_SEVERITIES.index(KINDS[kind].severity), place) for place, kind in enumerate(KINDS)}
    ordered = sorted(findings, key=lambda one: (order[one.kind], len(rows) if one.row is None else one.row))
    lines = rows.lines({row for one in ordered for row in (one.row, one.other) if row is not None})
    return [(one, _in_words(one, rows, lines)) for one in ordered]


def _in_words(one: Finding, rows: AuditedRows, lines: dict[int, int]) -> FindingText:
    split = one.split if one.row is None else int(rows.split[one.row])
    detail = one.detail
    if one.other is not None:
        table = rows.tables[int(rows.split[one.other])]
        kind = "row" if table.path.suffix.lower() == ".parquet" else "line"
        detail += f" {table.path.name} {kind} {lines[one.other]}"
    return FindingText(
        kind=one.kind,
        severity=KINDS[one.kind].severity,
        split="" if split is None else rows.names[split],
        row="" if one.row is None else str(lines[one.row]),
        image="" if one.row is None else rows.image_path(one.row),
        attribute=one.attribute,
        detail=detail,
        other="" if one.other is None else rows.image_path(one.other),
    )


def write_findings(path: Path, texts: Iterable[FindingText]) -> None:
    """Write findings.csv.

    A spreadsheet runs cells that begin like a formula. Such a path gets ./ in front, and other text an apostrophe.

    Args:
        path: the file; it changes completely or not at all.
        texts: the findings.
    """
    names = [one.name for one in fields(FindingText)]
    with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for text in texts:
            writer.writerow([_harmless(name, getattr(text, name)) for name in names])


def _harmless(name: str, cell: str) -> str:
    cell = cell.encode(errors="replace").decode()  # halves of characters cannot be written
    if not cell.startswith(_FORMULA):
        return cell
    return f"./{cell}" if name in ("image", "other") else f"'{cell}"


def count_kinds(texts: Iterable[FindingText]) -> dict[str, int]:
    """Return the number of findings of each kind that occurs, the worst first."""
    return dict(Counter(text.kind for text in texts))


def summary_lines(texts: Sequence[FindingText], rows: AuditedRows) -> list[str]:
    """Return what a terminal shows: what was read, the counts, and the first finding of each of the worst kinds.

    Args:
        texts: the findings, the worst first.
        rows: the audited rows.
    """
    tables = ", ".join(f"{table.path.name} has {len(table):,}" for table in rows.tables)
    sizes = (_counted(len(rows), "row"), _counted(len(rows.files), "image"), _counted(len(rows.columns), "attribute"))
    lines = ["{} with {} and {}: {}.".format(*sizes, tables)]
    if not texts:
        return [*lines, "Nothing was found."]
    by_severity = Counter(text.severity for text in texts)
    found = ", ".join(_counted(by_severity[one], one) for one in _SEVERITIES if by_severity[one])
    lines.append(f"Found {found}:")
    for kind, count in count_kinds(texts).items():
        lines.append(
            f"  {count:>7,}  {KINDS[kind].title.lower() if not kind.startswith('leak') else KINDS[kind].title}"
        )
    first = {text.kind: text for text in reversed(texts) if text.severity != "notice"}
    examples = [text for text in texts if first.get(text.kind) is text][:_EXAMPLES]
    if examples:
        lines.append("The first of each of the worst kinds:")
        lines += [f"  {_line(text)}" for text in examples]
    return list(map(printable, lines))


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _line(text: FindingText) -> str:
    place = f"{text.split} line {text.row}" if text.row else text.split
    words = [f"{place}:" if place else "", text.image, text.attribute, text.detail]
    line = " ".join(filter(None, words))
    return line if len(line) <= 200 else line[:199] + "…"
