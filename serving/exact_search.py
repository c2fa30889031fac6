"""Exact search: the rows of an index whose embeddings are most similar to a query's.

A product in float16 proposes rows, and a bound on its error holds that no better row is missed. The product reads half
of the bytes that float32 would, and takes most of the time. The proposed rows are compared in float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BLOCK = 1 << 14  # rows that are compared in float64 at a time
_COPIED = 1 << 10  # rows that are copied at a time: the copy stays in the processor's cache
_FEW = 0.4  # share of the rows below which only these are read, instead of all
_HALF = 2.0**-11  # relative error of rounding to float16
_SINGLE = 2.0**-23  # bound of the relative error of an operation in float32
_SMALLEST = 1e-6  # absolute error of rounding to float16 near zero, generously


def nearest(
    embeddings: npt.NDArray[np.float16], query: npt.NDArray[np.float32], top: int, rows: Rows
) -> tuple[Rows, Floats]:
    """Return the rows whose product with a query is largest, the largest first, and the products.

    Equal products are in the order of the rows.

    Args:
        embeddings: float16 [N, D], each of length 1 or 0.
        query: float32 [D].
        top: number of rows to return; fewer rows give fewer.
        rows: the rows to search, in ascending order.
    """
    top = min(top, len(rows))
    if not top:
        return rows[:0], np.zeros(0)
    rough = _rough_products(embeddings, query, rows)
    least = np.partition(rough, len(rough) - top)[len(rough) - top]
    proposed = rows[rough >= least - 2 * error_bound(query)]
    exact = exact_products(embeddings, query, proposed)
    best = np.lexsort((proposed, -exact))[:top]
    return proposed[best], exact[best]


def error_bound(query: npt.NDArray[np.float32]) -> float:
    """Return how far a product in float16 may be from the exact one, for rows of length 1.

    The query is rounded, the sum is rounded at each of its D terms in float32, and the result is rounded.
    """
    rounded = query.astype(np.float16).astype(np.float64)
    length = float(np.linalg.norm(rounded)) + _SMALLEST
    by_query = float(np.linalg.norm(rounded - query))
    return (1 + _HALF) * (by_query + length * len(query) * _SINGLE + length * _HALF) + _SMALLEST


def exact_products(embeddings: npt.NDArray[np.float16], query: npt.NDArray[np.float32], rows: Rows) -> Floats:
    """Return the products of some rows with a query in float64."""
    wide = query.astype(np.float64)
    found = [embeddings[rows[i : i + _BLOCK]].astype(np.float64) @ wide for i in range(0, len(rows), _BLOCK)]
    return np.concatenate([np.zeros(0), *found])


def _rough_products(
    embeddings: npt.NDArray[np.float16], query: npt.NDArray[np.float32], rows: Rows
) -> npt.NDArray[np.float32]:
    """Return the products of some rows with a query, computed on float16 with sums in float32."""
    half = torch.from_numpy(query).half()
    table = torch.from_numpy(embeddings)
    if len(rows) > _FEW * len(embeddings):
        products = torch.mv(table, half).float().numpy()
        chosen: npt.NDArray[np.float32] = products if len(rows) == len(embeddings) else products[rows]
        return chosen
    found = np.empty(len(rows), np.float32)
    copied = torch.empty(min(_COPIED, len(rows)), table.shape[1], dtype=torch.float16)  # new memory costs more than it
    for start in range(0, len(rows), _COPIED):
        wanted = torch.from_numpy(rows[start : start + _COPIED])
        part = torch.index_select(table, 0, wanted, out=copied[: len(wanted)])
        found[start : start + len(wanted)] = torch.mv(part, half).numpy()
    return found
