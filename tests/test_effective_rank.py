"""The effective rank against its definition and against matrices of known rank."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simclr import effective_rank, unit_variance


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_it_is_the_exponential_of_the_entropy_of_the_singular_values(rows: int, columns: int, seed: int) -> None:
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    singular = torch.linalg.svdvals(x)
    shares = [float(value / singular.sum()) for value in singular]
    expected = math.exp(-sum(share * math.log(share) for share in shares if share > 0))
    assert effective_rank(x) == pytest.approx(expected, rel=1e-5)
    assert 1 - 1e-9 <= effective_rank(x) <= min(rows, columns) + 1e-9


@pytest.mark.parametrize(
    ("x", "rank"),
    [
        (torch.eye(5), 5.0),
        (torch.ones(7, 3), 1.0),
        (torch.zeros(4, 3), 0.0),
        (torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), 2.0),
    ],
)
def test_simple_matrices_have_their_known_rank(x: torch.Tensor, rank: float) -> None:
    assert effective_rank(x) == pytest.approx(rank, abs=1e-6)


def test_a_matrix_with_a_non_finite_entry_has_rank_nan() -> None:
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan]])))


def test_the_variance_is_0_for_equal_vectors_and_1_for_opposite_ones() -> None:
    assert unit_variance(torch.tensor([[0.6, 0.8]] * 5)) == pytest.approx(0, abs=1e-12)
    assert unit_variance(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(1)
