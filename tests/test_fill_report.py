"""The sentences about a filled table say how much, how right, and by what."""

import math
from dataclasses import replace

from reports.fill_report import FilledAttribute, fill_lines

COLOR = FilledAttribute(
    name="color",
    blank=1000,
    filled=780,
    unreadable=0,
    expected=(0.9712, 0.95891, 0.98091),
    held_out=1500,
    warranted=True,
    fewest=99,
    by_class=("Black", "Blue"),
    classes=12,
)
NONE = replace(COLOR, filled=0, expected=(math.nan,) * 3)


def line(one: FilledAttribute) -> str:
    return fill_lines([one], 0.97, "val.csv")[0]


def test_what_is_filled_has_its_expected_precision_and_interval() -> None:
    first, second = fill_lines([COLOR], 0.97, "val.csv")
    assert first == "color: 78% of 1,000 blank cells filled, 97.1% expected right (95% interval 95.8 to 98.1)"
    scope = "for each of 'Black', 'Blue', and for the other 10 classes together"
    assert second == f"  warranted {scope}, by 1,500 labeled cells of val.csv"
    assert line(replace(COLOR, filled=999, unreadable=1)).startswith("color: 999 of 1,000 blank cells (100%) filled, ")
    assert line(replace(COLOR, filled=999, unreadable=1)).endswith(", 1 have no readable image")
    assert line(replace(COLOR, blank=1, filled=1)).startswith("color: 1 of 1 blank cell (100%) filled")


def test_the_scope_of_the_promise_is_named() -> None:
    whole = fill_lines([replace(COLOR, by_class=())], 0.97, "val.csv")[1]
    assert (
        whole == "  warranted for the attribute as a whole, and not for each class, by 1,500 labeled cells of val.csv"
    )
    each = fill_lines([replace(COLOR, classes=2)], 0.97, "val.csv")[1]
    assert each.startswith("  warranted for each class ('Black', 'Blue'), by")


def test_nothing_filled_has_its_reason() -> None:
    assert line(replace(COLOR, blank=0, filled=0)) == "color: no cell is blank"
    start = "color: none of 1,000 blank cells filled"
    refused = "1,500 labeled cells of val.csv do not warrant precision 0.97, as the model errs too often on them"
    assert line(replace(NONE, warranted=False)) == f"{start}: {refused}"
    few = "60 labeled cells of val.csv do not warrant precision 0.97, as at least 99 are needed"
    assert line(replace(NONE, warranted=False, held_out=60)) == f"{start}: {few}"
    assert line(NONE) == f"{start}: the model is less sure of each than val.csv warrants"
    assert line(replace(NONE, unreadable=1000)).endswith("1,000 have no readable image: no image could be read")
