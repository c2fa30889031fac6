"""Findings about images that occur twice, in one split or in several."""

from pathlib import Path

import numpy as np
from drawn_photograph import photograph
from table_files import write_table

from catalog.audited_rows import AuditedRows, read_audited_rows
from catalog.duplicate_findings import contradictions, exact_findings, group_findings, pair_findings
from catalog.image_facts import collect_image_facts
from catalog.near_duplicates import Pairs


def read(folder: Path, **splits: str) -> AuditedRows:
    """Write a table for each split: words such as a=red, the image and its color; return the rows."""
    for name, words in splits.items():
        rows = [dict(zip(("image_path", "color"), word.split("="), strict=True)) for word in words.split()]
        for row in rows:
            row["image_path"] += ".png"
            if not (folder / row["image_path"]).exists():  # a and a2 have the same pixels
                compressed = {"compress_level": len(row["image_path"])}
                photograph(ord(row["image_path"][0])).save(folder / row["image_path"], **compressed)
        write_table(folder / f"{name}.csv", rows)
    return read_audited_rows([folder / f"{name}.csv" for name in splits])


def facts_of(rows: AuditedRows):
    return collect_image_facts(rows.files.to_pylist(), 0, show=False)


def pairs_of(rows: AuditedRows, *ends: tuple[str, str, float]) -> Pairs:
    files = [Path(file).stem for file in rows.files.to_pylist()]
    first, second = (np.array([files.index(end[k]) for end in ends], np.int64).reshape(-1) for k in (0, 1))
    return Pairs(first, second, np.array([score for _, _, score in ends]), np.zeros(len(ends), bool))


def short(findings) -> list[tuple[str, int | None, int | None]]:
    return [(one.kind, one.row, one.other) for one in findings]


def test_a_row_is_reported_once_within_its_split_and_once_across(tmp_path: Path) -> None:
    rows = read(tmp_path, train="a= b= a= a2=", val="a2= c= a= a2=", test="a3= c=")
    assert sorted(short(exact_findings(rows, facts_of(rows)))) == [
        ("duplicate-exact", 3, 0),
        ("duplicate-exact", 6, 4),
        ("duplicate-file", 2, 0),
        ("duplicate-file", 7, 4),
        ("leakage-exact", 8, 0),
        ("leakage-file", 4, 3),
        ("leakage-file", 6, 0),
        ("leakage-file", 7, 3),
        ("leakage-file", 9, 5),
    ]


def test_a_pair_is_reported_for_the_later_row_with_its_most_similar_partner(tmp_path: Path) -> None:
    rows = read(tmp_path, train="a= b= c= d=", val="e= f= a=")
    pairs = pairs_of(rows, ("a", "b", 0.9), ("b", "c", 0.95), ("a", "e", 0.85), ("b", "e", 0.99), ("e", "f", 0.9))
    found = list(pair_findings(rows, facts_of(rows), pairs, "near", "correlation"))
    assert sorted(short(found)) == [
        ("duplicate-near", 1, 0),
        ("duplicate-near", 2, 1),
        ("duplicate-near", 5, 4),
        ("duplicate-near", 6, 4),
        ("leakage-near", 4, 1),
        ("leakage-near", 6, 1),
    ]
    assert found[0].detail.startswith("correlation 0.9")


def test_labels_contradict_within_an_image_and_between_near_ones(tmp_path: Path) -> None:
    rows = read(tmp_path, train="a=red a= a=blue b=red c=", val="a2=red b=red d=green c=red")
    pairs = pairs_of(rows, ("b", "d", 0.9), ("c", "b", 0.9))
    found = list(contradictions(rows, facts_of(rows), pairs))
    assert sorted(short(found)) == [("contradiction", 2, 0), ("contradiction", 7, 3)]
    assert {one.detail for one in found} == {"'blue' here, and 'red' in", "'green' here, and 'red' in"}


def test_groups_leak_only_across_splits_and_blank_ones_never(tmp_path: Path) -> None:
    read(tmp_path, train="a=m1 b=m1 c=", val="d=m2 e=m1 f=")
    rows = read_audited_rows([tmp_path / "train.csv", tmp_path / "val.csv"], group="color")
    assert short(group_findings(rows)) == [("leakage-group", 4, 0)]
    assert not list(group_findings(read(tmp_path, train="a=m1")))
