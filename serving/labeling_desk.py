"""A queue of cells and the labels that people give them, for a page that several browser tabs may show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog.answer_file import AnswerFile, check_class
from catalog.data_error import DataError, did_you_mean
from catalog.label_space import SEPARATOR, LabelSpace
from catalog.queue_file import WaitingCell, find_image

MOST_CLASSES = 2000  # that a page offers for an attribute

_MOST_VALUES = 100  # in a cell


class LabelingDesk:
    """The cells of a queue and their labels; cells are named by number, and images never by path.

    Args:
        cells: the cells in order.
        roots: the folders of their images.
        answers: the table that receives the labels.
        label_space: the attributes and classes of the model.
    """

    def __init__(
        self, cells: Sequence[WaitingCell], roots: Sequence[Path], answers: AnswerFile, label_space: LabelSpace
    ) -> None:
        self.cells, self.roots, self.answers, self.label_space = cells, roots, answers, label_space
        self._new: dict[str, set[str]] = {}  # classes that were added, by attribute

    def facts(self) -> dict[str, Any]:
        """Return what a page says about the queue, in plain values."""
        attributes = dict.fromkeys(cell.attribute for cell in self.cells)
        classes = {name: self.classes(name) for name in attributes}
        return {
            "answers": str(self.answers.path),
            "attributes": {
                name: {"classes": classes[name][:MOST_CLASSES], "several": name in self.label_space.multi_valued}
                for name in attributes
            },
        } | self.progress()

    def progress(self) -> dict[str, int]:
        """Return the numbers of cells and of those with a label."""
        return {"cells": len(self.cells), "done": sum(map(self._is_done, range(len(self.cells))))}

    def classes(self, attribute: str) -> list[str]:
        """Return the classes of an attribute: the model's, or those that were guessed if it has none."""
        if attribute in self.label_space.classes:
            return list(self.label_space.classes[attribute])
        guesses = (guess for cell in self.cells if cell.attribute == attribute for guess, _ in cell.guesses)
        return sorted(dict.fromkeys(guesses))

    def next(self, after: int) -> dict[str, Any]:
        """Return the next cell without a label, from a number on and then from the start; `cell` is None if none is.

        Args:
            after: number of the cell to begin behind, -1 for the first.
        """
        count = len(self.cells)
        order = ((after + 1 + step) % count for step in range(count))
        found = next((number for number in order if not self._is_done(number)), None)
        return self.progress() | {"cell": None if found is None else self.describe(found)}

    def describe(self, number: int) -> dict[str, Any]:
        """Return a cell in plain values."""
        cell = self.cells[number]
        guesses = [{"name": guess, "probability": probability} for guess, probability in cell.guesses]
        return {
            "number": number,
            "name": cell.image_path,
            "attribute": cell.attribute,
            "guesses": guesses,
            "label": self.answers.get(cell.image_path, cell.attribute),
        }

    def image(self, number: int) -> str:
        """Return the file of a cell's image, or "" if it is not there."""
        return find_image(self.cells[number].image_path, self.roots)

    def answer(self, number: int, values: Sequence[str], new: bool) -> dict[str, Any]:
        """Write the label of a cell; return it, and whether it is the one that was given.

        Another tab may have labeled the cell meanwhile: its label stays.

        Args:
            number: the cell.
            values: its class; or its values, possibly none.
            new: whether a class that nobody knows is meant.

        Returns:
            `label`, `written`; or `unknown`, a sentence about a class that nobody knows, if `new` is false.

        Raises:
            DataError: the values are no label.
        """
        cell = self.cells[number]
        several = cell.attribute in self.label_space.multi_valued
        separator = self.label_space.separator if several else SEPARATOR
        if len(values) > _MOST_VALUES or (len(values) != 1 and not several):
            count = f"{_MOST_VALUES} at most" if several else "one"
            raise DataError(f"{len(values)} classes were given for {cell.attribute}, which takes {count}")
        known = self.classes(cell.attribute)
        chosen = []
        for value in values:
            name = value if value in known else check_class(value, separator)
            if cell.attribute in self.label_space.classes:
                name = self.label_space.class_of(cell.attribute, name) or name
            if name not in known and name not in self._new.get(cell.attribute, ()) and not new:
                similar = did_you_mean(name, known)
                return {"unknown": f"{name!r} is a new class of {cell.attribute}{similar or '.'}"}
            chosen.append(name)
        self._new.setdefault(cell.attribute, set()).update(chosen)
        label = (separator.join(dict.fromkeys(chosen)) or separator) if several else chosen[0]
        written = self.answers.put(cell.image_path, cell.attribute, label)
        return {"label": written, "written": written == label}

    def undo(self, number: int) -> None:
        """Take the label of a cell back."""
        cell = self.cells[number]
        self.answers.remove(cell.image_path, cell.attribute)

    def _is_done(self, number: int) -> bool:
        cell = self.cells[number]
        return self.answers.has(cell.image_path, cell.attribute)
