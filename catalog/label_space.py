"""The label space: the attributes and each one's classes, in order.

It is built once from the data and saved in every checkpoint. Nothing downstream derives it again, so editing a table
cannot rename a trained model's outputs.

An image has any number of a multi-valued attribute's classes at once, such as its tags. The target is a bit set with
62 classes a column. It is int64 like other targets, negative where the cell is blank, and equal for equal sets:

    tags             target   (the classes are cotton, striped, summer)
    striped|cotton   0b0011
    |                0b0000   none of the classes
    (blank)          -100     nothing is known
    striped|wool     0b1010   wool is not a class: the bit behind the classes is set
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.cell_text import normalized_cells
from catalog.data_error import DataError

UNKNOWN = -100  # a blank cell: PyTorch's ignore index, so that it counts in no loss
UNSEEN = -1  # a class for which the model has no output: it is reported, and counts as wrong
SEPARATOR = "|"  # between the values of a cell
BITS = 62  # classes in a column of a bit set; an int64 of 62 bits is never negative

_KEYS = ("attributes", "classes")


@dataclass(frozen=True, eq=False)
class LabelSpace:
    """The attributes and each one's classes, in the order of a model's heads and of their outputs.

    Order counts: label spaces with the same names in another order are not equal. A label space may have no
    attributes; it belongs to a model that is only pretrained.

    Args:
        classes: the class names of each attribute: at least two, or one for a multi-valued attribute. A name's
            position is its int64 code.
        multi_valued: the attributes that allow an image any number of classes.
        separator: the text between the values of a cell in the user's tables. It does not count when label spaces are
            compared, and the cells that `encode` takes always have `|`.

    Raises:
        DataError: if a name is blank, is not a string, or occurs twice; if an attribute has too few classes; or if a
            multi-valued attribute is unknown, or has the separator in a class.
    """

    classes: Mapping[str, tuple[str, ...]]
    multi_valued: Collection[str] = ()
    separator: str = SEPARATOR
    _codes: dict[str, dict[str, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for attribute, names in self.classes.items():
            _check(attribute, names, attribute in self.multi_valued)
        if unknown := [name for name in self.multi_valued if name not in self.classes]:
            raise DataError(
                f"multi_valued: there is no attribute {unknown[0]!r}, only {', '.join(map(str, self.classes))}"
            )
        _check_separator(self.classes, self.multi_valued, self.separator)
        classes = {str(attribute): tuple(map(str, names)) for attribute, names in self.classes.items()}
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "multi_valued", frozenset(map(str, self.multi_valued)))
        object.__setattr__(self, "_codes", {a: _codes_of(names) for a, names in classes.items()})

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "LabelSpace":
        """Return the label space that `to_dict` saved.

        Args:
            saved: `{"attributes": [...], "classes": [[...], ...], "multi_valued": [...], "separator": ";"}`; the last
                two keys are optional.

        Raises:
            DataError: if the form differs, or an attribute is named twice.
        """
        attributes, classes = (saved.get(key) if isinstance(saved, Mapping) else None for key in _KEYS)
        if not (isinstance(attributes, list | tuple) and isinstance(classes, list | tuple)):
            raise DataError(f"the lists {' and '.join(_KEYS)} are missing: use a file that this project has written")
        if len(attributes) != len(classes):
            raise DataError(
                f"{len(attributes)} attributes are saved, but the classes of {len(classes)}: the file is damaged, "
                "so use another"
            )
        lists = [attributes, saved.get("multi_valued", ()), *classes]
        if not all(isinstance(names, list | tuple) and all(isinstance(n, str) for n in names) for names in lists):
            raise DataError("a saved name of an attribute or a class is not text: the file is damaged: use another")
        if twice := [name for name, count in Counter(map(str, attributes)).items() if count > 1]:
            raise DataError(f"attribute {twice[0]!r} is named twice: name each attribute once")
        classes_of, several = dict(zip(attributes, classes, strict=True)), tuple(saved.get("multi_valued", ()))
        return cls(classes_of, several, saved.get("separator", SEPARATOR))

    @classmethod
    def numbered(cls, num_classes: Mapping[str, int]) -> "LabelSpace":
        """Return a label space whose classes are named by their codes, for old checkpoints that saved no names.

        Args:
            num_classes: the number of classes of each attribute; `{"color": 47}` gives "0", "1", ..., "46".
        """
        return cls({attribute: tuple(map(str, range(count))) for attribute, count in num_classes.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, which both `torch.load(weights_only=True)` and JSON can read."""
        plain: dict[str, Any] = {
            "attributes": list(self.attributes),
            "classes": [list(names) for names in self.classes.values()],
        }
        if self.multi_valued:
            plain["multi_valued"] = sorted(self.multi_valued)
        return plain | ({"separator": self.separator} if self.separator != SEPARATOR else {})

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes, in order."""
        return tuple(self.classes)

    @property
    def num_classes(self) -> dict[str, int]:
        """The number of classes of each attribute, in order."""
        return {attribute: len(names) for attribute, names in self.classes.items()}

    @cached_property
    def columns(self) -> dict[str, slice]:
        """The target columns of each attribute: one, or as many as a multi-valued attribute's bits need."""
        slices, start = {}, 0
        for attribute, names in self.classes.items():
            width = columns_of_set(len(names)) if attribute in self.multi_valued else 1
            slices[attribute] = slice(start, start + width)
            start += width
        return slices

    @property
    def width(self) -> int:
        """The number of target columns, C; without multi-valued attributes it is the number of attributes."""
        return max((columns.stop for columns in self.columns.values()), default=0)

    def __str__(self) -> str:
        """Return the attributes with their numbers of classes: "color (47), tags (12, several an image)"."""
        several = dict.fromkeys(self.multi_valued, ", several an image")
        return ", ".join(f"{name} ({k}{several.get(name, '')})" for name, k in self.num_classes.items()) or "none"

    def class_of(self, attribute: str, value: str) -> str | None:
        """Return the class that a value is a label of, in its own or its normalized form; None if there is none."""
        codes = self._codes[attribute]
        code = codes.get(value, codes.get(normalized_cells(pa.array([value], pa.string()))[0].as_py()))
        return None if code is None else self.classes[attribute][code]

    def encode(
        self, attribute: str, column: pa.Array | pa.ChunkedArray | Sequence[str | None]
    ) -> npt.NDArray[np.int64]:
        """Return the targets of every cell in a column.

        Args:
            attribute: the attribute whose classes the cells are looked up in.
            column: strings, dictionary-encoded or plain; a null and an empty string are blank.

        Returns:
            int64 [rows, columns of the attribute]: the position of a class, or the bits of a multi-valued attribute's
            set; `UNKNOWN` for a blank cell, `UNSEEN` for a class not in the label space.
        """
        if not isinstance(column, pa.Array | pa.ChunkedArray):
            column = pa.array(column, pa.string())
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        code = self._bits if attribute in self.multi_valued else self._code
        columns = self.columns[attribute]
        blank = [UNKNOWN] * (columns.stop - columns.start)
        known = [code(attribute, cell) if cell else blank for cell in encoded.dictionary.to_pylist()]
        # A null's index points to the extra last entry, so one look-up serves all rows.
        positions = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        targets: npt.NDArray[np.int64] = np.array([*known, blank], dtype=np.int64)[positions]
        return targets

    def _code(self, attribute: str, cell: str) -> list[int]:
        return [self._codes[attribute].get(cell, UNSEEN)]

    def _bits(self, attribute: str, cell: str) -> list[int]:
        codes, outside = self._codes[attribute], len(self.classes[attribute])
        words = [0] * columns_of_set(outside)
        for value in values_of(cell):
            position = codes.get(value, outside)
            words[position // BITS] |= 1 << position % BITS
        return words

    def describe(self, target: Sequence[int]) -> list[str]:
        """Return an image's labels as text, one string for each attribute; a dash where the label is unknown.

        Args:
            target: one row of the targets, C integers.
        """
        texts = []
        for attribute, columns in self.columns.items():
            names, words = self.classes[attribute], target[columns]
            if words[0] < 0:
                texts.append("\u2013")
            elif attribute in self.multi_valued:
                values = [name for i, name in enumerate(names) if words[i // BITS] >> i % BITS & 1]
                texts.append(self.separator.join(values) or self.separator)
            else:
                texts.append(names[words[0]])
        return texts

    def __len__(self) -> int:
        return len(self.classes)

    def __eq__(self, other: object) -> bool:
        # Dicts compare equal in any order of their keys.
        return isinstance(other, LabelSpace) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, ...]:
        return tuple(self.classes.items()), self.multi_valued


def columns_of_set(count: int) -> int:
    """Return the number of target columns that hold the bits of `count` classes and the one for all other classes."""
    return count // BITS + 1


def values_of(cell: str) -> list[str]:
    """Return the values in a cell of a multi-valued attribute, each once; a lone `|` has none."""
    return list(dict.fromkeys(filter(None, map(str.strip, cell.split(SEPARATOR)))))


def _codes_of(names: Sequence[str]) -> dict[str, int]:
    """Return the code of each name and of its normalized form, since older label spaces have names as they were."""
    codes = {name: code for code, name in enumerate(names)}
    for code, name in enumerate(normalized_cells(pa.array(names, pa.string())).to_pylist()):
        codes.setdefault(name, code)
    return codes


def _check_separator(classes: Mapping[str, Sequence[str]], multi_valued: Collection[str], separator: str) -> None:
    """Raise a DataError if a value of a multi-valued attribute contains the separator, as a list's may."""
    if separator == SEPARATOR:
        return
    values = ((attribute, name) for attribute in multi_valued for name in classes[attribute] if separator in name)
    if wrong := next(values, None):
        raise DataError(
            f"value {wrong[1]!r} of {wrong[0]} contains the separator {separator!r}: choose another separator"
        )


def _check(attribute: object, names: object, multi_valued: bool) -> None:
    """Raise a DataError unless these can be an attribute and its classes."""
    if not isinstance(attribute, str) or not attribute.strip():
        raise DataError(f"an attribute is named {attribute!r}: give each attribute a name, as text that is not blank")
    # A string is a sequence of strings too; it would pass for one-letter classes.
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise DataError(f"the classes of {attribute!r} are {names!r}: they must be a list of names")
    if wrong := [name for name in names if not isinstance(name, str) or not name.strip()]:
        raise DataError(f"a class of {attribute!r} is named {wrong[0]!r}: name each class, as text that is not blank")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{attribute!r} has the class {twice!r} twice: class names must differ")
    if not names and multi_valued:
        raise DataError(
            f"multi-valued attribute {attribute!r} has no class: add at least one, or leave this attribute out"
        )
    if len(names) < 2 and not multi_valued:
        raise DataError(f"attribute {attribute!r} has fewer than two classes: add classes, or leave this attribute out")
