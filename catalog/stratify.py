"""Parts of a table, such as train, val and test: classes spread in given shares, and units of rows kept whole.

Units are placed one by one, those with the largest share of any class first, into the part that keeps all classes of
the unit closest to their shares. Rare classes are thus spread before common ones, as in iterative stratification:

- K. Sechidis, G. Tsoumakas, I. Vlahavas: On the stratification of multi-label data, ECML PKDD 2011

Two rules are added. A class in at least as many units as there are parts reaches every part, and a rarer class reaches
the first part, as long as other classes leave a unit for it that is no larger than the part. `catalog.folds` has folds
of equal size; a table of millions of rows needs the sparse counts here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.attribute_column import has_separator
from catalog.cover_parts import PartCover
from catalog.label_space import values_of

Rows = npt.NDArray[np.int64]
Unit = tuple[int, list[tuple[int, int]]]  # labeled rows, and its classes with the rows of each

_AT_ONCE = 1 << 16  # units whose classes become Python numbers at a time
_DIGITS = 9  # the last bits of a cost, which depend on the order of additions, must not decide ties


@dataclass(frozen=True)
class Labels:
    """The known cells of a table, each value of a cell as a pair of a row and a class.

    Attributes:
        rows: row of each pair, int64 [N].
        classes: class of each pair, an index into `names`, int64 [N].
        names: attribute and class name, sorted within each attribute. The name "" stands for a set without values.
    """

    rows: Rows
    classes: Rows
    names: list[tuple[str, str]]


def table_labels(columns: Mapping[str, pa.DictionaryArray], lists: AbstractSet[str] = frozenset()) -> Labels:
    """Return the labels in a table's columns.

    Args:
        columns: the attributes' columns.
        lists: attributes that have several values; those with a `|` in a cell always have.
    """
    rows, classes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    names: list[tuple[str, str]] = []
    for attribute, column in columns.items():
        cells = column.dictionary.to_pylist()
        several = attribute in lists or has_separator(column)
        sets = [values_of(cell) or [""] if several else [cell] for cell in cells]
        values = sorted({value for one in sets for value in one})
        code = {value: len(names) + index for index, value in enumerate(values)}
        names += [(attribute, value) for value in values]

        # every row gets the entries of its cell
        flat = np.array([code[value] for one in sets for value in one], dtype=np.int64)
        lengths = np.array([len(one) for one in sets], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        known = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        cell = column.indices.drop_null().to_numpy().astype(np.int64)
        counts = lengths[cell]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows.append(np.repeat(known, counts))
        classes.append(flat[np.repeat(starts[cell], counts) + within])
    return Labels(np.concatenate(rows), np.concatenate(classes), names)


def joined_units(rows: int, *groupings: Rows) -> Rows:
    """Return each row's unit, int64 [rows]: rows that share a group in any of the groupings are in one unit.

    Args:
        rows: number of rows.
        groupings: group of each row, int64 [rows], from 0.
    """
    units = np.arange(rows)
    while True:
        before = units
        for groups in groupings:
            smallest = np.full(int(groups.max(initial=-1)) + 1, rows)
            np.minimum.at(smallest, groups, units)
            units = smallest[groups]
        units = units[units]  # a chain of groups halves
        if np.array_equal(units, before):
            numbered: Rows = np.unique(units, return_inverse=True)[1].reshape(-1)
            return numbered


def row_keys(names: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Return a random number for each row that depends on its name and the seed alone, uint64 [rows]."""
    start = hashlib.blake2b(f"{seed}\n".encode(), digest_size=8)

    def key(name: str) -> bytes:
        digest = start.copy()
        digest.update(name.encode(errors="surrogatepass"))
        return digest.digest()

    return np.frombuffer(b"".join(map(key, names)), dtype=np.uint64)


def stratified_parts(labels: Labels, units: Rows, keys: npt.NDArray[np.uint64], shares: Sequence[float]) -> Rows:
    """Return each row's part, int64 [rows], the same for any order of the rows.

    Units without a label are in the first part, where they can be learned from, unless no row has a label.

    Args:
        labels: the labels.
        units: unit of each row, int64 [rows], from 0; the rows of a unit share a part.
        keys: keys of the rows (`row_keys`), which decide between equal units.
        shares: share of the rows in each part, all above 0, together 1.
    """
    # the classes' rows and units
    count = int(units.max(initial=-1)) + 1
    pairs, classes = (labels.rows, labels.classes) if len(labels.rows) else (np.arange(len(units)), units * 0)
    total = max(len(labels.names), 1)
    found, sizes = np.unique(units[pairs] * total + classes, return_counts=True)
    holder, held = found // total, found % total
    in_rows = np.bincount(held, sizes, total)
    in_units = np.bincount(held, minlength=total)

    # the units' order: large shares of a class first; then by key
    largest = np.zeros(count)
    np.maximum.at(largest, holder, np.round(sizes / in_rows[held], _DIGITS + 3))
    smallest = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, units, keys)
    order = np.lexsort((smallest, -largest))[: np.count_nonzero(largest)]

    # within a unit, the classes that every part can have come first, and the rarest of them
    rank = np.empty(total, np.int64)
    rank[np.lexsort((in_rows, in_units < len(shares)))] = np.arange(total)
    place = np.empty(count, np.int64)
    place[order] = np.arange(len(order))
    sequence = np.lexsort((rank[held], place[holder]))
    ends = np.cumsum(np.bincount(place[holder], minlength=len(order)))
    labeled = np.bincount(units[np.unique(pairs)], minlength=count)[order]
    contents = _by_unit(held[sequence], sizes[sequence], ends, labeled)
    chosen = _placed(contents, in_rows.tolist(), in_units.tolist(), shares, int(labeled.sum()))
    placed = np.fromiter(chosen, np.int64, len(order))
    fits = (labeled[:, None] <= labeled.sum() * np.array(shares)) | (labeled[:, None] == 1)
    PartCover(place[holder][sequence], rank[held][sequence], placed, fits).improve()
    parts = np.zeros(count, np.int64)
    parts[order] = placed
    of_rows: Rows = parts[units]
    return of_rows


def _by_unit(classes: Rows, counts: Rows, ends: Rows, labeled: Rows) -> Iterator[Unit]:
    """Yield each unit."""
    start = 0
    for first in range(0, len(ends), _AT_ONCE):
        stops = ends[first : first + _AT_ONCE].tolist()
        offset, last = start, stops[-1]
        pairs = list(zip(classes[offset:last].tolist(), counts[offset:last].tolist(), strict=True))
        for stop, rows in zip(stops, labeled[first : first + _AT_ONCE].tolist(), strict=True):
            yield rows, pairs[start - offset : stop - offset]
            start = stop


def _placed(
    contents: Iterator[Unit], rows: Sequence[float], units: Sequence[int], shares: Sequence[float], labeled: int
) -> Iterator[int]:
    """Yield the part of each unit.

    A unit's cost in a part is the rise of the sum over parts and classes of (rows - wanted)^2 / wanted, where each
    class counts by its share of the unit.

    Args:
        contents: the units, in order.
        rows: rows with each class.
        units: units with each class.
        shares: share of each part.
        labeled: labeled rows of all units.
    """
    everywhere = (1 << len(shares)) - 1  # parts as bits
    lacking = [everywhere if count >= len(shares) else 1 for count in units]  # parts that a class must still reach
    left = list(units)  # units to place, while the class must reach a part
    fill = [[0.0] * len(shares) for _ in rows]  # twice the rows of a class in each part, over those wanted
    load = [0.0] * len(shares)
    inverse = [1 / count if count else 0.0 for count in rows]
    shared = [(index, 1 << index, 1 / share) for index, share in enumerate(shares)]
    for size, classes in contents:
        allowed, scale = everywhere, 0.0
        fitting = everywhere if size == 1 else sum(bit for _, bit, inverted in shared if size * inverted <= labeled)
        terms = []
        for name, count in classes:
            if must := lacking[name]:
                if left[name] <= must.bit_count() and allowed & must & fitting:
                    allowed &= must & fitting
                left[name] -= 1
            weight = count * inverse[name]
            scale += weight
            terms.append((weight, fill[name]))
        best, least, part = 0.0, inf, 0
        for index, bit, inverted in shared:
            if allowed & bit:
                cost = 0.0
                for weight, filled in terms:
                    cost += weight * (weight * inverted + filled[index])
                cost = round(cost / scale, _DIGITS)
                if cost < least or (cost == least and load[index] < best):
                    least, best, part = cost, load[index], index
        _, bit, inverted = shared[part]
        for weight, filled in terms:
            filled[part] += 2 * weight * inverted
        for name, _ in classes:
            if lacking[name]:
                lacking[name] &= ~bit
        load[part] += size * inverted
        yield part
