"""Planted errors are among the first suspects, by cell, and by value where cells hold several."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serving.suspect_labels import SuspectLabel, suspect_labels

ROWS = 240
NAMES = ("bag", "hat", "shirt", "shoe")


def features_of(codes: npt.NDArray[np.int64], seed: int = 0) -> npt.NDArray[np.float32]:
    """Return features around the mean of their class, which overlap a little."""
    random = np.random.default_rng(seed)
    found: npt.NDArray[np.float32] = (random.normal(size=(len(codes), 16)) + 4 * np.eye(16)[codes]).astype(np.float32)
    return found


def column(cells: Sequence[str | None]) -> pa.DictionaryArray:
    return pa.array(cells, pa.string()).dictionary_encode()


def test_most_planted_errors_are_in_the_first_twice_as_many_suspects() -> None:
    random = np.random.default_rng(0)
    codes = np.arange(ROWS) % 4
    planted = random.choice(ROWS, ROWS // 20, replace=False)
    given = codes.copy()
    given[planted] = (codes[planted] + random.integers(1, 4, len(planted))) % 4
    cells: list[str | None] = [NAMES[code] for code in given]
    for row in range(0, ROWS, 50):
        if row not in planted:
            cells[row] = None
    found = suspect_labels({"kind": column(cells)}, frozenset(), features_of(codes), np.arange(ROWS))
    first = {one.row for one in found[: 2 * len(planted)]}
    assert np.isin(planted, list(first)).mean() >= 0.8
    by_row = {one.row: one for one in found}
    right = [by_row[row].likely == NAMES[codes[row]] for row in planted.tolist() if row in by_row]
    assert np.mean(right) > 0.9
    assert all(one.given == cells[one.row] != one.likely for one in found)
    margins = [one.margin for one in found]
    assert margins == sorted(margins)
    assert all(one.probability_likely > one.probability_given for one in found[: len(planted) // 2])


def test_values_of_sets_are_judged_one_by_one() -> None:
    random = np.random.default_rng(0)
    codes = np.arange(ROWS) % 4
    true = [{0: {"new", "sale"}, 1: {"new"}, 2: {"sale"}, 3: set()}[code] for code in codes.tolist()]
    planted = random.choice(ROWS, ROWS // 20, replace=False).tolist()
    given = [one ^ {"sale"} if row in planted else one for row, one in enumerate(true)]
    cells = column(["|".join(sorted(one)) or "|" for one in given])
    found = suspect_labels({"tags": cells}, frozenset(["tags"]), features_of(codes), np.arange(ROWS))
    first = found[: 2 * len(planted)]
    assert np.isin(planted, [one.row for one in first]).mean() >= 0.8
    hits = [one for one in first if one.row in planted]
    assert np.mean([set(one.likely.split("|")) - {""} == true[one.row] for one in hits]) > 0.9


def test_labels_that_cannot_be_judged_are_named_and_unreadable_images_left_out() -> None:
    codes = np.arange(40) % 4
    features = features_of(codes)
    features[3] = np.nan
    cells = {
        "kind": column([NAMES[code] for code in codes]),
        "rare": column(["x"] * 5 + [None] * 35),
        "single": column(["x"] * 40),
        "blank": column([None] * 40),
    }
    judged: dict[str, tuple[int, str]] = {}

    def note(name: str, count: int, why: str) -> None:
        judged[name] = (count, why)

    found: list[SuspectLabel] = suspect_labels(cells, frozenset(), features, np.arange(40), note)
    few = (0, "there are fewer than 10")
    assert judged == {"kind": (39, ""), "rare": few, "single": (0, "they have a single class"), "blank": few}
    assert 3 not in {one.row for one in found}
    suspect_labels({"kind": cells["kind"]}, frozenset(), features, np.zeros(40, int), note)
    assert judged["kind"] == (0, "they are of a single image")


def test_few_right_labels_are_suspected() -> None:
    codes = np.arange(ROWS) % 4
    cells = column([NAMES[code] for code in codes])
    found = suspect_labels({"kind": cells}, frozenset(), features_of(codes, 1), np.arange(ROWS))
    assert len(found) < 0.03 * ROWS
