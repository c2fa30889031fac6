"""The files for people have one row a cell, in order, with the columns that other programs read."""

import csv
from pathlib import Path

from reports.fill_files import SUSPECT_COLUMNS, QueuedCell, SuspectCell, write_queue, write_suspects


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_queue_has_as_many_guesses_as_its_widest_cell(tmp_path: Path) -> None:
    cells = [
        QueuedCell("a, b.jpg", "kind", [("x", 0.51), ("y", 0.4), ("z", 0.00004)]),
        QueuedCell("c.jpg", "flag", [("yes", 1.0), ("no", 0.0)]),
    ]
    write_queue(tmp_path / "q.csv", iter(cells))
    pairs = ["guess_1", "probability_1", "guess_2", "probability_2", "guess_3", "probability_3"]
    assert read(tmp_path / "q.csv") == [
        ["rank", "image_path", "attribute", *pairs],
        ["1", "a, b.jpg", "kind", "x", "0.5100", "y", "0.4000", "z", "0.0000"],
        ["2", "c.jpg", "flag", "yes", "1.0000", "no", "0.0000", "", ""],
    ]
    write_queue(tmp_path / "q.csv", [])
    assert read(tmp_path / "q.csv") == [["rank", "image_path", "attribute", "guess_1", "probability_1"]]


def test_suspects_name_both_classes_and_a_spreadsheet_runs_none(tmp_path: Path) -> None:
    cell = SuspectCell("a.jpg", 7, "kind", "=x", "y", 0.01, 0.98)
    write_suspects(tmp_path / "s.csv", [cell])
    assert read(tmp_path / "s.csv") == [[*SUSPECT_COLUMNS], ["1", "a.jpg", "7", "kind", "=x", "y", "0.0100", "0.9800"]]
    write_suspects(tmp_path / "s.csv", [cell], spreadsheet_safe=True)
    assert read(tmp_path / "s.csv")[1][4] == "'=x"
