"""findings.csv: its columns, harmless cells, and the lines of the terminal."""

import csv
import io
from pathlib import Path

from drawn_photograph import photograph
from table_files import write_table

from catalog.audited_rows import read_audited_rows
from catalog.finding import KINDS, Finding
from reports.findings_file import COLUMNS, describe, summary_lines, write_findings


def rows_of(folder: Path):
    names = ["a.png", "=1+2.png", "-b.png"]
    for name in names:
        photograph(0).save(folder / name)
    write_table(folder / "train.csv", [{"image_path": name, "color": "red"} for name in names])
    write_table(folder / "val.csv", [{"image_path": "a.png", "color": "red"}])
    return read_audited_rows([folder / "train.csv", folder / "val.csv"])


def test_each_finding_is_a_row_the_worst_first(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    findings = [
        Finding("gray", "no color", 1),
        Finding("rare-class", "few", attribute="=color", split=0),
        Finding("duplicate-near", "looks like", 2, 1),
        Finding("leakage-file", "is the file of", 3, 0),
        Finding("duplicate-near", "looks like", 1, 0),
    ]
    texts = [text for _, text in describe(findings, rows)]
    write_findings(tmp_path / "findings.csv", texts)
    assert list(csv.reader(io.StringIO((tmp_path / "findings.csv").read_text()))) == [
        list(COLUMNS),
        ["leakage-file", "error", "val", "2", "a.png", "", "is the file of train.csv line 2", "a.png"],
        ["duplicate-near", "warning", "train", "3", "./=1+2.png", "", "looks like train.csv line 2", "a.png"],
        ["duplicate-near", "warning", "train", "4", "./-b.png", "", "looks like train.csv line 3", "./=1+2.png"],
        ["gray", "notice", "train", "3", "./=1+2.png", "", "no color", ""],
        ["rare-class", "notice", "train", "", "", "'=color", "few", ""],
    ]


def test_the_terminal_shows_counts_and_the_first_of_the_worst(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    findings = [Finding("unreadable", "it is \x1b[2J damaged", row) for row in range(2)] + [
        Finding("gray", "no color", 2)
    ]
    lines = summary_lines([text for _, text in describe(findings, rows)], rows)
    assert lines == [
        "4 rows with 3 images and 1 attribute: train.csv has 3, val.csv has 1.",
        "Found 2 errors, 1 notice:",
        "        2  unreadable images",
        "        1  images without color",
        "The first of each of the worst kinds:",
        "  train line 2: a.png it is \\x1b[2J damaged",
    ]
    assert summary_lines([], rows)[1:] == ["Nothing was found."]


def test_every_kind_says_what_to_do() -> None:
    for kind in KINDS.values():
        assert kind.severity in ("error", "warning", "notice")
        assert kind.title
        assert kind.advice.endswith(".")
