"""The label space: which attributes there are, and which classes each has, in order.

It is built once from the data and saved in every checkpoint; nothing downstream derives it again, so that editing a
table cannot rename a trained model's outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from timm.data.data_error import DataError

UNKNOWN = -100  # a blank cell: PyTorch's ignore index, so that it counts in no loss
UNSEEN = -1  # a class that the model has no output for: reported, and counted as wrong


@dataclass(frozen=True, eq=False)
class LabelSpace:
    """The attributes and each one's classes, in the order of a model's heads and of their outputs.

    Order is part of its identity: two label spaces with the same names in another order are not equal. One without
    attributes is allowed; it belongs to a model that is only pretrained.

    Args:
        classes: Each attribute's class names, at least two; a name's position is its int64 code.

    Raises:
        DataError: If a name is blank, is not a string, or occurs twice, or an attribute has fewer than two classes.
    """

    classes: Mapping[str, tuple[str, ...]]
    _codes: dict[str, dict[str, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for attribute, names in self.classes.items():
            _check(attribute, names)
        classes = {str(attribute): tuple(map(str, names)) for attribute, names in self.classes.items()}
        object.__setattr__(self, "classes", classes)
        object.__setattr__(
            self, "_codes", {a: {n: code for code, n in enumerate(names)} for a, names in classes.items()}
        )

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "LabelSpace":
        """Returns the label space that `to_dict` made plain.

        Args:
            saved: `{"attributes": [...], "classes": [[...], ...]}`.

        Raises:
            DataError: If it is not of that form, or names an attribute twice.
        """
        attributes, classes = (saved.get(key) if isinstance(saved, Mapping) else None for key in _KEYS)
        if not (isinstance(attributes, list | tuple) and isinstance(classes, list | tuple)):
            raise DataError(
                f"the saved label space has no lists {' and '.join(_KEYS)}: is the checkpoint this project's?"
            )
        if len(attributes) != len(classes):
            raise DataError(f"the saved label space has {len(attributes)} attributes, but classes for {len(classes)}")
        if twice := [name for i, name in enumerate(attributes) if name in attributes[:i]]:
            raise DataError(f"the label space names attribute {twice[0]!r} twice: attribute names must differ")
        return cls(dict(zip(attributes, classes, strict=True)))

    @classmethod
    def numbered(cls, num_classes: Mapping[str, int]) -> "LabelSpace":
        """Returns a label space whose classes are named by their codes, for old checkpoints that saved no names.

        Args:
            num_classes: The number of classes of each attribute, as in `{"color": 47}`: "0", "1", ..., "46".
        """
        return cls({attribute: tuple(map(str, range(count))) for attribute, count in num_classes.items()})

    def to_dict(self) -> dict[str, list[Any]]:
        """Returns it as plain lists and strings, which `torch.load(weights_only=True)` and JSON both read."""
        return dict(zip(_KEYS, (list(self.attributes), [list(names) for names in self.classes.values()]), strict=True))

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes, in order."""
        return tuple(self.classes)

    @property
    def num_classes(self) -> dict[str, int]:
        """The number of classes of each attribute, in order."""
        return {attribute: len(names) for attribute, names in self.classes.items()}

    def encode(
        self, attribute: str, column: pa.Array | pa.ChunkedArray | Sequence[str | None]
    ) -> npt.NDArray[np.int64]:
        """Returns the code of every cell of a column.

        Args:
            attribute: Which attribute's classes to look the cells up in.
            column: Strings, dictionary-encoded or not; a null and an empty string are blank.

        Returns:
            int64 [rows]: a class's position, `UNKNOWN` for a blank cell, `UNSEEN` for a class not in the label space.
        """
        if not isinstance(column, pa.Array | pa.ChunkedArray):
            column = pa.array(column, pa.string())
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        codes = self._codes[attribute]
        known = [codes.get(name, UNSEEN) if name else UNKNOWN for name in encoded.dictionary.to_pylist()]
        # A null's index is sent to the extra last entry, so that one look-up serves all rows.
        positions = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        targets: npt.NDArray[np.int64] = np.array([*known, UNKNOWN], dtype=np.int64)[positions]
        return targets

    def __len__(self) -> int:
        return len(self.classes)

    def __eq__(self, other: object) -> bool:
        # Comparing the dicts would not see a different order of attributes.
        return isinstance(other, LabelSpace) and tuple(self.classes.items()) == tuple(other.classes.items())

    def __hash__(self) -> int:
        return hash(tuple(self.classes.items()))


_KEYS = ("attributes", "classes")


def _check(attribute: object, names: object) -> None:
    """Raises a DataError unless these can be an attribute and its classes."""
    if not isinstance(attribute, str) or not attribute.strip():
        raise DataError(
            f"an attribute of the label space is named {attribute!r}: a name must be a string, and not blank"
        )
    # A string is a sequence of strings as well, and would pass for one-letter classes.
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise DataError(f"the classes of {attribute!r} are {names!r}: they must be a list of names")
    if wrong := [name for name in names if not isinstance(name, str) or not name.strip()]:
        raise DataError(f"a class of {attribute!r} is named {wrong[0]!r}: a name must be a string, and not blank")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{attribute!r} has the class {twice!r} twice: class names must differ")
    if len(names) < 2:
        raise DataError(f"{attribute!r} has {len(names)} classes: an attribute needs at least two to choose from")
