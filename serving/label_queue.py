"""The order in which cells are worth a label: doubtful ones first, and of near duplicates one.

The next cell is the one whose doubt times its distance to the cells before it is largest; the distance is one minus the
largest cosine similarity of their representations. So a near duplicate of a cell before has almost no value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_CHOSEN = 1000  # cells of an attribute that are chosen one by one
_POOL = 10_000  # doubtful cells that they are chosen from
_BLOCK = 8192  # rows that are compared with the chosen ones at a time


def queue_order(doubt: Floats, features: Floats, attributes: Rows) -> Rows:
    """Return the order of cells, the most valuable first, int64 [N].

    Args:
        doubt: how doubtful the model is about each cell, [N], 0-1.
        features: representation of each cell's image, float32 [N, D].
        attributes: number of each cell's attribute, int64 [N]; only cells of one attribute are compared.
    """
    value = np.zeros(len(doubt))
    for number in np.unique(attributes):
        rows = np.flatnonzero(attributes == number)
        value[rows] = _values(doubt[rows].astype(np.float64), features[rows])
    return np.argsort(-value, kind="stable")


def _values(doubt: npt.NDArray[np.float64], features: Floats) -> npt.NDArray[np.float64]:
    """Return the value of each cell of one attribute when its turn comes, [N].

    Beyond the first `_CHOSEN` cells, the value is that beside all chosen ones.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    pool = np.argsort(-doubt, kind="stable")[:_POOL]
    candidates, similarity = features[pool], np.zeros(len(pool))
    chosen: list[int] = []
    value = np.full(len(doubt), -1.0)
    for _ in range(min(_CHOSEN, len(pool))):
        worth = np.where(value[pool] < 0, doubt[pool] * (1 - similarity), -1)
        place = int(worth.argmax())
        value[pool[place]] = worth[place]
        chosen.append(int(pool[place]))
        similarity = np.maximum(similarity, np.clip(candidates @ candidates[place], 0, 1))
    rest = np.flatnonzero(value < 0)
    for start in range(0, len(rest), _BLOCK):
        rows = rest[start : start + _BLOCK]
        nearest = np.clip((features[rows] @ features[chosen].T).max(axis=1), 0, 1)
        value[rows] = np.minimum(doubt[rows] * (1 - nearest), value[chosen[-1]])
    return value
