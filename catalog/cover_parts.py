"""Moving a few units between the parts of a table, so that every class reaches every part that it can reach."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

_TRIED = 30  # units of a class that are tried at a time
_DEPTH = 3  # moves that make up for a move


class PartCover:
    """The parts of units, with the classes that must not leave a part.

    Args:
        units: unit of each pair of a unit and a class, int64 [N], from 0.
        classes: class of each pair, int64 [N], from 0.
        parts: part of each unit, int64 [units]; changed by `improve`.
        movable: which parts a unit may be moved into, bool [units, parts].
    """

    def __init__(self, units: Rows, classes: Rows, parts: Rows, movable: npt.NDArray[np.bool_]) -> None:
        self.units, self.classes, self.parts, self.movable = units, classes, parts, movable
        count = int(classes.max(initial=-1)) + 1
        self.counts = np.zeros((count, movable.shape[1]), np.int64)  # units of each class in each part
        np.add.at(self.counts, (classes, parts[units]), 1)
        self.wanted = np.zeros_like(self.counts, dtype=bool)  # parts that each class must reach
        in_units = self.counts.sum(axis=1)
        self.wanted[in_units >= movable.shape[1]] = True
        self.wanted[in_units > 0, 0] = True
        self.trail: list[tuple[int, int]] = []  # units that were moved, and where they were

    def improve(self) -> None:
        """Move units so that classes reach the parts that they lack, if no other class leaves a part by that.

        A class that would otherwise miss the first part, from which models learn, may make another leave its part.
        """
        lacking = np.argwhere(self.wanted & (self.counts == 0))
        if not len(lacking):
            return
        self._index()
        for name, part in lacking.tolist():
            if not self.counts[name, part]:
                self.trail.clear()
                covered = any(self._cover(name, part, depth) for depth in range(_DEPTH + 1))
                if part == 0 and not covered:
                    self._take(name)

    def _index(self) -> None:
        """Sort the pairs by class and by unit."""
        by_class, by_unit = np.argsort(self.classes, kind="stable"), np.argsort(self.units, kind="stable")
        self.holders, self.held = self.units[by_class], self.classes[by_unit]
        self.class_ends = np.searchsorted(self.classes[by_class], np.arange(len(self.counts) + 1))
        self.unit_ends = np.searchsorted(self.units[by_unit], np.arange(len(self.parts) + 1))

    def _cover(self, name: int, part: int, depth: int) -> bool:
        """Move a unit with a class into a part; up to `depth` moves deep, make up for what its old part loses."""
        holders = self.holders[self.class_ends[name] : self.class_ends[name + 1]][:_TRIED]
        moved = {unit for unit, _ in self.trail}
        for unit in holders[self.movable[holders, part]].tolist():
            old = int(self.parts[unit])
            if unit in moved or old == part:
                continue
            held = self.held[self.unit_ends[unit] : self.unit_ends[unit + 1]]
            lost = held[self.wanted[held, old] & (self.counts[held, old] == 1)].tolist()
            if lost and not depth:
                continue
            mark = len(self.trail)
            self.trail.append((unit, old))
            self._move(unit, held, part)
            if all(self.counts[one, old] or self._cover(one, old, depth - 1) for one in lost):
                return True
            while len(self.trail) > mark:
                back, place = self.trail.pop()
                self._move(back, self.held[self.unit_ends[back] : self.unit_ends[back + 1]], place)
        return False

    def _take(self, name: int) -> None:
        """Move the unit of a class into the first part whose other classes lose the fewest parts by that."""
        holders = self.holders[self.class_ends[name] : self.class_ends[name + 1]][:_TRIED]
        found = []
        for unit in holders[self.movable[holders, 0]].tolist():
            held = self.held[self.unit_ends[unit] : self.unit_ends[unit + 1]]
            lost = int((self.wanted[held, self.parts[unit]] & (self.counts[held, self.parts[unit]] == 1)).sum())
            found.append((lost, unit, held))
        if found:
            _, unit, held = min(found, key=lambda one: one[:2])
            self._move(unit, held, 0)

    def _move(self, unit: int, held: Rows, part: int) -> None:
        self.counts[held, self.parts[unit]] -= 1
        self.counts[held, part] += 1
        self.parts[unit] = part
