"""The queue begins with doubtful cells, and of near duplicates with one."""

import numpy as np
import numpy.typing as npt
import pytest

from serving import label_queue
from serving.label_queue import queue_order

Floats = npt.NDArray[np.float32]


def spread(rows: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    found: Floats = np.abs(random.normal(size=(rows, 12))).astype(np.float32)
    return found


def by_loops(doubt: Floats, features: Floats) -> list[int]:
    """Return the order by the definition: doubt times distance to the nearest cell before."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order: list[int] = []
    while len(order) < len(doubt):
        worth = [
            -1.0 if row in order else float(doubt[row]) * (1 - max([0.0, *(float(unit[row] @ unit[o]) for o in order)]))
            for row in range(len(doubt))
        ]
        order.append(int(np.argmax(worth)))
    return order


def test_each_cell_is_the_most_doubtful_and_most_distant_one() -> None:
    doubt = np.random.default_rng(1).random(40).astype(np.float32)
    assert queue_order(doubt, spread(40), np.zeros(40, int)).tolist() == by_loops(doubt, spread(40))


def test_of_near_duplicates_one_comes_early_and_the_others_last() -> None:
    features = spread(30)
    features[10:15] = features[3] * 1.01 + 1e-3
    doubt = np.full(30, 0.5, np.float32)
    doubt[[3, *range(10, 15)]] = 0.9
    order = queue_order(doubt, features, np.zeros(30, int)).tolist()
    assert {3, 10, 11, 12, 13, 14} & set(order[:20]) == {order[0]}
    assert set(order[-5:]) == {3, *range(10, 15)} - {order[0]}


def test_cells_of_several_attributes_are_not_duplicates_of_each_other() -> None:
    features = np.concatenate([spread(5), spread(5)])
    doubt = np.full(10, 0.5, np.float32)
    order = queue_order(doubt, features, np.repeat([0, 1], 5)).tolist()
    assert {row // 5 for row in order[:2]} == {0, 1}
    assert order[0] % 5 == order[1] % 5


@pytest.mark.parametrize(("chosen", "pool"), [(5, 100), (100, 20)])
def test_long_queues_are_ordered_by_what_the_chosen_cells_leave(
    chosen: int, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubt, features = np.random.default_rng(1).random(60).astype(np.float32), spread(60)
    features[59] = features[int(doubt.argmax())]
    monkeypatch.setattr(label_queue, "_CHOSEN", chosen)
    monkeypatch.setattr(label_queue, "_POOL", pool)
    order = queue_order(doubt, features, np.zeros(60, int)).tolist()
    assert sorted(order) == list(range(60))
    count = 5 if pool == 100 else 1
    assert order[:count] == by_loops(doubt, features)[:count]
    assert 59 in order[-3:]


def test_an_empty_queue_has_no_order() -> None:
    assert not len(queue_order(np.empty(0, np.float32), np.empty((0, 3), np.float32), np.empty(0, int)))
