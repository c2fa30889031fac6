"""Approximate search with faiss, an optional extra for indexes of more than a million images.

Embeddings are grouped around centers. A search reads the groups nearest to the query, proposes rows, and compares these
exactly. When the groups are made, the number of groups to read is chosen so that on average 99% of the ten most similar
rows are found; queries are rows of the index. A filter that few rows fit reads more groups in proportion.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.atomic_file import atomic_file
from runtime.errors import UsageError, first_line
from runtime.json_file import read_json
from runtime.progress import progress_bar
from serving.exact_search import Floats, Rows, exact_products, nearest
from serving.index_folder import IndexInfo

_logger = logging.getLogger("search")

FILE, INFO = "faiss.index", "faiss.json"
BEYOND = 1_000_000  # rows that exact search handles in a fraction of a second

_RECALL, _NEIGHBORS, _QUERIES = 0.99, 10, 100
_TRAINED = 64  # rows for each center that the centers are computed from
_BLOCK = 1 << 16  # rows that are added at a time
_PROPOSED = 4  # rows to compare exactly for each one to return


@dataclass(frozen=True)
class FaissInfo:
    """What the groups of an index are.

    Attributes:
        made_by: hashes of the index that they belong to.
        groups: the number of groups.
        read: groups that a search without filters reads.
        recall: share of the ten most similar rows that was found, over the queries.
        queries: the number of queries.
    """

    made_by: list[str]
    groups: int
    read: int
    recall: float
    queries: int


@dataclass(frozen=True, eq=False)
class FaissSearch:
    """Groups of embeddings, ready to search.

    Attributes:
        groups: faiss's index.
        info: what they are.
    """

    groups: Any
    info: FaissInfo

    def nearest(
        self, embeddings: npt.NDArray[np.float16], query: npt.NDArray[np.float32], top: int, rows: Rows
    ) -> tuple[Rows, Floats]:
        """Return the rows most similar to a query, as `serving.exact_search.nearest` does, though it may miss some."""
        top = min(top, len(rows))
        if not top:
            return rows[:0], np.zeros(0)
        read = min(self.info.groups, math.ceil(self.info.read * len(embeddings) / len(rows)))
        count = min(len(rows), _PROPOSED * max(top, _NEIGHBORS))
        proposed = _proposed(self.groups, query, count, read, rows, len(embeddings))
        while len(proposed) < top and read < self.info.groups:  # the groups nearby have too few rows that fit
            read = min(self.info.groups, 2 * read)
            proposed = _proposed(self.groups, query, count, read, rows, len(embeddings))
        exact = exact_products(embeddings, query, proposed)
        best = np.lexsort((proposed, -exact))[:top]
        return proposed[best], exact[best]


def is_installed() -> bool:
    """Return whether faiss can be imported."""
    return importlib.util.find_spec("faiss") is not None


def is_built(folder: Path) -> bool:
    """Return whether the groups of an index were made."""
    return (folder / FILE).is_file() and (folder / INFO).is_file()


def open_faiss(
    folder: Path, info: IndexInfo, embeddings: npt.NDArray[np.float16], readable: npt.NDArray[np.bool_]
) -> FaissSearch:
    """Return the groups of an index; make them first if they are not there.

    Args:
        folder: the folder of the index.
        info: what the index is.
        embeddings: float16 [N, D].
        readable: which rows may be returned, bool [N].

    Raises:
        UsageError: faiss is not installed, or the files are damaged.
    """
    if not is_installed():
        raise UsageError(
            "the engine faiss needs the package faiss-cpu: pip install -r requirements-search.txt, or use the exact one"
        )
    faiss = _faiss()
    made_by = [info.checkpoint_sha256, info.rows_sha256]
    if is_built(folder):
        try:
            about = FaissInfo(**read_json(folder / INFO))
            if about.made_by == made_by:
                return FaissSearch(faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP), about)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UsageError(f"{folder / FILE} is damaged ({first_line(error)}): delete it and {INFO}") from None
    _logger.info(f"Grouping {len(embeddings):,} embeddings for faiss, once")
    groups = group_rows(embeddings, np.flatnonzero(readable))
    about = measure_recall(groups, made_by, embeddings, np.flatnonzero(readable))
    with atomic_file(folder / FILE) as unfinished:
        faiss.write_index(groups, str(unfinished))
    with atomic_file(folder / INFO) as unfinished:
        unfinished.write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")
    return FaissSearch(groups, about)


def group_rows(embeddings: npt.NDArray[np.float16], rows: Rows) -> Any:
    """Return faiss's index of some rows, whose ids are their numbers."""
    faiss = _faiss()
    count, width = max(1, math.isqrt(len(rows))), embeddings.shape[1]
    groups = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, count, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    groups.cp.min_points_per_centroid = 1  # no warning about small indexes
    sample = np.random.default_rng(0).permutation(rows)[: _TRAINED * count]
    groups.train(embeddings[np.sort(sample)].astype(np.float32))
    with progress_bar(len(rows), "Grouping", "image") as bar:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            groups.add_with_ids(embeddings[block].astype(np.float32), block)
            bar.update(len(block))
    return groups


def measure_recall(groups: Any, made_by: list[str], embeddings: npt.NDArray[np.float16], rows: Rows) -> FaissInfo:
    """Return how many groups must be read for the recall, measured against exact search.

    Args:
        groups: faiss's index.
        made_by: hashes of the index that they belong to.
        embeddings: float16 [N, D].
        rows: the rows in the groups, among which are the queries.
    """
    queries = np.random.default_rng(1).permutation(rows)[:_QUERIES]
    exact = []
    for row in queries:  # the nearest row is the query itself
        others = rows[rows != row]
        exact.append(nearest(embeddings, embeddings[row].astype(np.float32), _NEIGHBORS, others)[0])
    wanted, read = sum(map(len, exact)), 1
    while True:
        info = FaissInfo(made_by, groups.nlist, min(read, groups.nlist), 1.0, len(queries))
        search = FaissSearch(groups, info)
        found = 0
        for row, right in zip(queries, exact, strict=True):
            near = search.nearest(embeddings, embeddings[row].astype(np.float32), _NEIGHBORS + 1, rows)[0]
            found += len(np.intersect1d(near[near != row][:_NEIGHBORS], right))
        recall = found / max(wanted, 1)
        if recall >= _RECALL or read >= groups.nlist:
            _logger.info(
                f"faiss: reads {info.read} of {groups.nlist} groups, recall@{_NEIGHBORS} {recall:.3f} on "
                f"{len(queries)} images"
            )
            return FaissInfo(made_by, groups.nlist, info.read, recall, len(queries))
        read *= 2


def _proposed(groups: Any, query: npt.NDArray[np.float32], count: int, read: int, rows: Rows, total: int) -> Rows:
    """Return the rows that faiss proposes among those that fit, in ascending order."""
    faiss = _faiss()
    settings: dict[str, Any] = {"nprobe": read}
    if len(rows) < groups.ntotal:
        fits = np.zeros(total, bool)
        fits[rows] = True
        bits = np.packbits(fits, bitorder="little")
        settings["sel"] = faiss.IDSelectorBitmap(bits)
    found = groups.search(query[None], count, params=faiss.SearchParametersIVF(**settings))[1][0]
    near: Rows = np.sort(found[found >= 0])
    return near


def _faiss() -> Any:
    """Import faiss, without the lines that it logs about the processor."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    import faiss

    return faiss
