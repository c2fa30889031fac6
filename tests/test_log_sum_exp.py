"""The log-sum-exp in blocks against loops, and its gradient against autograd on the whole matrix."""

import math

import numpy as np
import pytest
import torch
from contrastive_losses import LargestTensor, blocks_of
from distributed import run_on_processes
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr import similarity_blocks
from simclr.collectives import rank, row_counts
from simclr.log_sum_exp import log_sum_exp_of_others
from simclr.pair_roles import PairRoles

# Logits up to 40, in float64 up to 300, are bounded and need no shift by the maximum; larger ones do.
FLOAT32 = [0.5, 0.04, 1 / 39, 1 / 41, 0.01, 0.001]
FLOAT64 = [0.5, 1 / 41, 1 / 290, 1 / 310, 0.001]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
CASES = [(torch.float32, t) for t in FLOAT32] + [(torch.float64, t) for t in FLOAT64]
SHARES = [[4, 4], [7, 2], [0, 5], [5, 0], [1, 1], [3, 0, 4], [0, 0, 6], [1, 6, 2, 3]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Use blocks of three rows, so that few rows make several blocks, often with a smaller last one."""
    monkeypatch.setitem(similarity_blocks.BLOCK_SIZE, "cpu", 3)


def unit_rows(n, width=6, seed=0, dtype=torch.float64):
    rows = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1).to(dtype)


def weights(n, seed=1):
    """Draw upstream gradients of both signs."""
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_loops(units, temperature):
    """Return the definition, one pair of rows at a time."""
    rows = units.tolist()
    logs = []
    for i, row in enumerate(rows):
        exponents = [math.fsum(map(float.__mul__, row, other)) / temperature for k, other in enumerate(rows) if k != i]
        largest = max(exponents)
        logs.append(largest + math.log(math.fsum(math.exp(exponent - largest) for exponent in exponents)))
    return torch.tensor(logs, dtype=torch.float64)


def in_one_matrix(units, temperature):
    """Return the definition from the whole matrix, for autograd."""
    itself = torch.eye(len(units), dtype=torch.bool)
    return (units @ units.T / temperature).masked_fill(itself, -math.inf).logsumexp(dim=1)


def in_blocks(units, temperature):
    return log_sum_exp_of_others(units, temperature, row_counts(units))


def with_gradient(function, units, temperature, upstream):
    units = units.clone().requires_grad_()
    logs = function(units, temperature)
    return logs.detach(), torch.autograd.grad(logs, units, upstream.to(logs.dtype))[0]


def assert_equals_the_definition(units, temperature, upstream=None):
    """Compare logarithms with loops, and gradients with autograd in float64."""
    upstream = weights(len(units)) if upstream is None else upstream
    logs, gradient = with_gradient(in_blocks, units, temperature, upstream)
    _, expected = with_gradient(in_one_matrix, units.double(), temperature, upstream)
    assert logs.dtype == torch.float64
    assert gradient.dtype == units.dtype
    tolerance = TOLERANCE[units.dtype] / min(temperature, 1)  # the rounding error of a logit is relative to its size
    torch.testing.assert_close(logs, in_loops(units, temperature), rtol=0, atol=tolerance)
    largest = max(expected.abs().max().item(), 1)
    torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=4 * tolerance * largest)


# Values and gradients


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8, 16, 17, 64, 256])
@pytest.mark.parametrize(("dtype", "temperature"), CASES, ids=str)
def test_every_block_size_equals_the_definition(monkeypatch, dtype, temperature, block):
    monkeypatch.setitem(similarity_blocks.BLOCK_SIZE, "cpu", block)
    assert_equals_the_definition(unit_rows(16, dtype=dtype), temperature)


@settings(max_examples=60)
@given(
    n=st.integers(2, 14),
    width=st.integers(1, 5),
    temperature=st.floats(0.002, 10),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_rows_equal_the_definition(n, width, temperature, seed, dtype):
    assert_equals_the_definition(unit_rows(n, width, seed, dtype), temperature, weights(n, seed % 1000))


@pytest.mark.parametrize(("dtype", "temperature"), CASES, ids=str)
def test_the_temperature_decides_whether_logits_are_shifted_and_both_ways_agree(monkeypatch, dtype, temperature):
    bounded = 1 / temperature <= similarity_blocks.LARGEST_LOGIT[dtype]
    shifted = []
    add = similarity_blocks._add_shifted
    monkeypatch.setattr(similarity_blocks, "_add_shifted", lambda *args: shifted.append(1) or add(*args))
    units = unit_rows(10, dtype=dtype)
    upstream = weights(10)
    found = with_gradient(in_blocks, units, temperature, upstream)
    assert bool(shifted) != bounded
    if bounded:
        monkeypatch.setattr(similarity_blocks, "LARGEST_LOGIT", {dtype: 0})
        other = with_gradient(in_blocks, units, temperature, upstream)
        assert shifted
        tolerance = TOLERANCE[dtype] / min(temperature, 1)
        torch.testing.assert_close(found, other, rtol=0, atol=4 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_largest_bounded_logit_equal_and_opposite_rows_stay_finite(dtype):
    temperature = 1 / similarity_blocks.LARGEST_LOGIT[dtype]
    row = unit_rows(1, dtype=dtype)
    for units in (row.expand(9, -1), torch.cat([row, -row]), torch.cat([row, row, -row, -row])):
        assert_equals_the_definition(units, temperature)


@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_zeros_have_equal_similarities(dtype, temperature):
    units = unit_rows(8, dtype=dtype)
    units[[0, 3, 7]] = 0
    assert_equals_the_definition(units, temperature)
    logs = in_blocks(torch.zeros(8, 4, dtype=dtype), temperature)
    torch.testing.assert_close(logs, torch.full((8,), math.log(7), dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.001])
@pytest.mark.parametrize("n", [2, 3, 4, 11])
def test_identical_rows_give_the_closed_form(n, temperature):
    logs = in_blocks(unit_rows(1).expand(n, -1).contiguous(), temperature)
    expected = torch.full((n,), math.log(n - 1) + 1 / temperature, dtype=torch.float64)
    torch.testing.assert_close(logs, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("temperature", [0.5, 0.001])
def test_a_single_row_has_the_logarithm_of_an_empty_sum(temperature):
    assert in_blocks(unit_rows(1), temperature).tolist() == [-math.inf]


@pytest.mark.parametrize("temperature", [0.5, 0.001])
def test_no_rows_have_no_logarithms(temperature):
    logs, gradient = with_gradient(in_blocks, unit_rows(0), temperature, torch.zeros(0))
    assert logs.shape == (0,)
    assert gradient.shape == (0, 6)


@pytest.mark.parametrize("temperature", [0.5, 0.001])
def test_a_nan_row_gives_nan(temperature):
    units = unit_rows(7)
    units[4, 0] = math.nan
    assert in_blocks(units, temperature).isnan().all()


def test_the_rows_are_not_modified():
    units = unit_rows(7)
    with_gradient(in_blocks, units, 0.1, weights(7))
    assert torch.equal(units, unit_rows(7))


@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.002])
def test_the_gradient_is_that_of_finite_differences(temperature):
    units = unit_rows(7, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: in_blocks(rows, temperature) * temperature, units)


@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_the_second_derivative_is_that_of_finite_differences(temperature):
    units = unit_rows(5, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda rows: in_blocks(rows, temperature) * temperature, units)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_create_graph_gives_the_same_gradient_and_its_derivative(dtype):
    rows = unit_rows(7, dtype=dtype).requires_grad_()
    units = rows * 1.0  # not a leaf, as in NT-Xent
    upstream = weights(7)
    (plain,) = torch.autograd.grad(in_blocks(units, 0.1), rows, upstream, retain_graph=True)
    (gradient,) = torch.autograd.grad(in_blocks(units, 0.1), rows, upstream, create_graph=True)
    torch.testing.assert_close(gradient, plain, rtol=1e-4, atol=20 * TOLERANCE[dtype])
    (again,) = torch.autograd.grad(gradient.square().sum(), rows)

    reference = rows.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(in_one_matrix(reference, 0.1), reference, upstream, create_graph=True)
    (expected,) = torch.autograd.grad(expected.square().sum(), reference)
    torch.testing.assert_close(again.double(), expected, rtol=1e-4, atol=1e3 * TOLERANCE[dtype])


def test_the_backward_pass_can_be_run_twice():
    units = unit_rows(7).requires_grad_()
    logs = in_blocks(units, 0.1)
    first, second = (torch.autograd.grad(logs, units, weights(7), retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("temperature", [0.5, 0.01])
def test_rows_that_are_not_contiguous_give_the_same(temperature):
    units = unit_rows(8)
    strided = units.T.contiguous().T
    for found, expected in zip(
        with_gradient(in_blocks, strided, temperature, weights(8)),
        with_gradient(in_blocks, units, temperature, weights(8)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


# Memory


@pytest.mark.parametrize("temperature", [0.5, 0.01])
def test_no_tensor_is_larger_than_a_block_or_the_rows(monkeypatch, temperature):
    monkeypatch.setitem(similarity_blocks.BLOCK_SIZE, "cpu", 32)
    for n, width in ((500, 2), (301, 1), (200, 8)):
        units = unit_rows(n, width, dtype=torch.float32).requires_grad_()
        with LargestTensor() as largest:
            logs = in_blocks(units, temperature)
            logs.backward(torch.ones_like(logs))
        assert 32 * 32 <= largest.numel <= max(32 * 32, n * width, 2 * n)


def test_tensors_saved_for_the_backward_pass_are_no_larger_than_the_rows():
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    units = unit_rows(60, 4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        in_blocks(units, 0.1)
    assert sum(kept) <= 60 * 4 + 60


def test_by_default_a_block_fits_a_second_level_cache_and_symmetry_saves_almost_half(monkeypatch):
    monkeypatch.undo()
    assert similarity_blocks.BLOCK_SIZE["cpu"] ** 2 * 4 <= 2**18
    columns = torch.zeros(1024, 4)
    blocks = similarity_blocks.SimilarityBlocks(
        columns, PairRoles(slice(0, 1024), None, columns.dtype, False, False), 0.5
    )
    assert len(list(blocks.positions())) == 10  # 16 blocks, 6 of them mirrored


# Several processes


def local_logs_and_gradient(units, upstream, shares, cases):
    """Return for each case this process's logarithms and gradient, for its share of the upstream gradient."""
    results = []
    with blocks_of(3):
        for dtype, temperature in cases:
            local = units.to(dtype).split(shares)[rank()]
            results.append(with_gradient(in_blocks, local, temperature, upstream.split(shares)[rank()]))
    return results


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_several_processes_equal_one_for_any_upstream_gradient(shares):
    n = sum(shares)
    units, upstream = unit_rows(n), weights(n)
    by_rank = run_on_processes(len(shares), local_logs_and_gradient, units, upstream, shares, CASES)
    for (dtype, temperature), found in zip(CASES, zip(*by_rank, strict=True), strict=True):
        logs, gradients = zip(*found, strict=True)
        assert [len(part) for part in logs] == [len(part) for part in gradients] == shares
        rows = units.to(dtype)
        _, expected = with_gradient(in_one_matrix, rows.double(), temperature, upstream)
        tolerance = TOLERANCE[dtype] / min(temperature, 1)
        torch.testing.assert_close(torch.cat(logs), in_loops(rows, temperature), rtol=0, atol=tolerance)
        largest = max(expected.abs().max().item(), 1)
        torch.testing.assert_close(torch.cat(gradients).double(), expected, rtol=0, atol=4 * tolerance * largest)


def gradient_with_graph(units, upstream, shares):
    local = units.split(shares)[rank()].clone().requires_grad_()
    logs = in_blocks(local, 0.2)
    return torch.autograd.grad(logs, local, upstream.split(shares)[rank()], create_graph=True)[0].detach()


@pytest.mark.parametrize("shares", [[4, 3], [0, 5], [2, 0, 3]], ids=str)
def test_with_create_graph_several_processes_equal_one(shares):
    units, upstream = unit_rows(sum(shares)), weights(sum(shares))
    by_rank = run_on_processes(len(shares), gradient_with_graph, units, upstream, shares)
    _, expected = with_gradient(in_one_matrix, units, 0.2, upstream)
    torch.testing.assert_close(torch.cat(by_rank), expected)


def largest_tensor_of_a_process(units, shares):
    local = units.split(shares)[rank()].clone().requires_grad_()
    with blocks_of(32), LargestTensor() as largest:
        logs = in_blocks(local, 0.1)
        logs.backward(torch.ones_like(logs))
    return largest.numel


@pytest.mark.parametrize("shares", [[200, 100], [0, 300]], ids=str)
def test_on_each_process_no_tensor_is_larger_than_a_block_or_the_joint_rows(shares):
    for numel in run_on_processes(2, largest_tensor_of_a_process, unit_rows(300, 2), shares):
        assert numel <= max(32 * 32, len(shares) * max(shares) * 2)


def test_random_numbers_of_rows_equal_the_definition_in_float32():
    for n in np.random.default_rng(0).integers(2, 90, 8).tolist():
        assert_equals_the_definition(unit_rows(n, 16, n, torch.float32), 0.1)
