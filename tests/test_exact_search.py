"""Exact search, compared with a sorted product in float64."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.exact_search import error_bound, nearest


def unit(rng: np.random.Generator, rows: int, width: int) -> npt.NDArray[np.float32]:
    values = rng.normal(size=(rows, width)).astype(np.float32)
    scaled: npt.NDArray[np.float32] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return scaled


def sorted_rows(table: npt.NDArray[np.float16], query: npt.NDArray[np.float32], top: int, rows: list[int]) -> list[int]:
    products = table.astype(np.float64) @ query.astype(np.float64)
    return sorted(rows, key=lambda row: (-products[row], row))[:top]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([1, 3, 8, 100]), st.integers(1, 70), st.booleans())
def test_the_rows_are_those_of_a_sorted_product(seed: int, count: int, width: int, top: int, similar: bool) -> None:
    rng = np.random.default_rng(seed)
    table = unit(rng, count, width)
    if similar:  # differences far below the precision of float16, and ties
        table = unit(rng, 1, width) + 1e-4 * rng.integers(0, 3, (count, 1)) * table
    half = table.astype(np.float16)
    query = unit(rng, 1, width)[0]
    rows = np.flatnonzero(rng.random(count) < rng.choice([0.1, 0.6, 1]))
    found, products = nearest(half, query, top, rows)
    assert found.tolist() == sorted_rows(half, query, top, rows.tolist())
    assert np.allclose(products, half[found].astype(np.float64) @ query.astype(np.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("width", [7, 1280])
def test_the_rough_product_stays_within_its_bound(width: int) -> None:
    from serving.exact_search import _rough_products

    rng = np.random.default_rng(0)
    for query in unit(rng, 4, width):
        table = np.concatenate([unit(rng, 200, width), query[None], -query[None], 0 * query[None]]).astype(np.float16)
        exact = table.astype(np.float64) @ query.astype(np.float64)
        rough = _rough_products(table, query, np.arange(len(table)))
        assert np.abs(rough - exact).max() <= error_bound(query)
        few = np.array([3, 200, 202])
        assert np.array_equal(_rough_products(table, query, few), rough[few])


def test_rows_that_are_equal_are_in_their_order() -> None:
    table = np.repeat(unit(np.random.default_rng(0), 1, 16), 40_000, axis=0).astype(np.float16)  # more than one block
    found, products = nearest(table, table[0].astype(np.float32), 5, np.arange(len(table)))
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert len(set(products.tolist())) == 1
