"""NT-Xent: recorded values, closed forms and extreme inputs. Properties of all losses: test_contrastive_losses.py."""

import math
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from contrastive_oracle import two_views, with_gradients
from distributed import run_on_processes

from simclr import NTXentLoss, chance_level, nt_xent_loss

CASES = ["tiny", "batch32", "cold", "odd", "uneven_ranks", "duplicates"]


@cache
def recorded():
    with np.load(Path(__file__).parent / "data" / "nt_xent.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def recorded_case(case, dtype=torch.float64):
    names = ("z_i", "z_j", "loss", "grad_i", "grad_j")
    z_i, z_j, *expected = (recorded()[f"{case}.{name}"].to(dtype) for name in names)
    return z_i, z_j, float(recorded()[f"{case}.temperature"]), expected


# Values and gradients


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_the_recorded_ones(case, dtype, tolerance):
    z_i, z_j, temperature, expected = recorded_case(case, dtype)
    found = with_gradients(NTXentLoss(temperature), z_i, z_j)
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == dtype
        # An entry of a gradient is a sum whose rounding error is relative to the largest entry.
        assert (value - reference).abs().max() <= tolerance * reference.abs().max()


@pytest.mark.parametrize("n", [2, 3, 50])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_equal_similarities_give_the_chance_level(n, temperature):
    same = torch.full((n, 4), 0.3)
    assert nt_xent_loss(same, same, temperature).item() == pytest.approx(math.log(2 * n - 1), rel=1e-6)
    assert chance_level(n) == pytest.approx(math.log(2 * n - 1), rel=1e-15)


def test_orthogonal_images_give_the_closed_form():
    z = torch.eye(4, dtype=torch.float64)  # each anchor: its positive at similarity 1, six negatives at 0
    assert nt_xent_loss(z, z, 0.5).item() == pytest.approx(math.log(1 + 6 * math.exp(-2)), rel=1e-14)


def test_at_a_low_temperature_equal_views_cost_nothing_and_opposite_views_two_over_the_temperature():
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert nt_xent_loss(z, z, 0.01).item() == 0
    assert nt_xent_loss(z, -z, 0.01).item() == pytest.approx(200, rel=1e-6)


def test_lightly_gives_the_same_value_and_gradients():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings of its dependencies
        peer = pytest.importorskip("lightly.loss.ntx_ent_loss").NTXentLoss
    z_i, z_j = two_views(9, 5)
    for value, reference in zip(
        with_gradients(NTXentLoss(0.1), z_i, z_j), with_gradients(peer(temperature=0.1), z_i, z_j), strict=True
    ):
        torch.testing.assert_close(value, reference, rtol=1e-10, atol=1e-12)


def test_a_low_temperature_distinguishes_images_and_a_very_high_one_does_not():
    z_i, z_j = two_views(6, 5)
    assert nt_xent_loss(z_i, z_j, 1e6).item() == pytest.approx(chance_level(6), rel=1e-5)
    assert nt_xent_loss(z_i, z_i, 0.05) < nt_xent_loss(z_i, z_i, 0.5) < chance_level(6)


# Extreme inputs


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float16, 65504),
        (torch.bfloat16, 1e38),
        (torch.float32, 1e30),
        (torch.float32, 3e38),
        (torch.float32, 1e-30),
        (torch.float64, 1e300),
        (torch.float64, 1e-300),
    ],
    ids=str,
)
def test_huge_and_tiny_projections_give_the_loss_of_their_directions(dtype, size, temperature):
    z_i, z_j = (z / z.abs().amax(dim=1, keepdim=True) for z in two_views(8, 16))
    z_i, z_j = (z_i * size).to(dtype), (z_j * size).to(dtype)
    found = with_gradients(nt_xent_loss, z_i, z_j, temperature)
    expected = with_gradients(nt_xent_loss, z_i.double() / size, z_j.double() / size, temperature)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=0)
    for gradient, reference in zip(found[1:], expected[1:], strict=True):
        assert gradient.isfinite().all()
        if dtype in (torch.float32, torch.float64) and size < 3e38:  # otherwise the exact gradient underflows the dtype
            error = (gradient.double() * size - reference).abs().max()
            assert error <= 1e-4 * reference.abs().max()


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float16, 0),
        (torch.bfloat16, 0),
        (torch.float32, 0),
        (torch.float32, 1e-45),  # the smallest float32, too small to have a direction
        (torch.float64, 0),
    ],
    ids=str,
)
def test_a_vector_of_zeros_has_equal_similarities_and_no_gradient(dtype, temperature, value):
    z_i, z_j = two_views(5, 4, dtype=dtype)
    z_i[2] = z_j[2] = z_j[4] = value
    loss, grad_i, grad_j = with_gradients(nt_xent_loss, z_i, z_j, temperature)
    assert loss.isfinite()
    assert grad_i[2].count_nonzero() == grad_j[2].count_nonzero() == grad_j[4].count_nonzero() == 0
    for gradient in (grad_i, grad_j):
        assert gradient.abs().max() <= 10 / temperature  # also false for NaN


def test_a_batch_of_zeros_is_at_chance_level():
    zeros = torch.zeros(3, 4)
    loss, grad_i, grad_j = with_gradients(nt_xent_loss, zeros, zeros)
    assert loss.item() == pytest.approx(chance_level(3), rel=1e-6)
    assert grad_i.count_nonzero() == grad_j.count_nonzero() == 0


# Invalid inputs


@pytest.mark.parametrize("temperature", [0, -0.5, math.nan, math.inf])
def test_a_temperature_that_is_not_finite_and_above_zero_raises(temperature):
    with pytest.raises(ValueError, match="expected a finite temperature above 0, got"):
        NTXentLoss(temperature)
    with pytest.raises(ValueError, match="expected a finite temperature above 0, got"):
        nt_xent_loss(*two_views(3, 2), temperature)


@pytest.mark.parametrize(
    ("z_i", "z_j", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), r"one shape \[n, P\], got \[3, 2\] and \[4, 2\]"),
        (torch.zeros(3, 2), torch.zeros(3, 4), r"one shape \[n, P\], got \[3, 2\] and \[3, 4\]"),
        (torch.zeros(3), torch.zeros(3), r"one shape \[n, P\], got \[3\] and \[3\]"),
        (torch.zeros(3, 2, 1), torch.zeros(3, 2, 1), r"one shape \[n, P\], got \[3, 2, 1\]"),
        (torch.zeros(3, 0), torch.zeros(3, 0), r"one shape \[n, P\], got \[3, 0\]"),
        (torch.zeros(3, 2), torch.zeros(3, 2).double(), "one floating dtype, got torch.float32 and torch.float64"),
        (torch.zeros(3, 2).long(), torch.zeros(3, 2).long(), "one floating dtype, got torch.int64 and torch.int64"),
        (torch.zeros(3, 2), torch.zeros(3, 2, device="meta"), "one device, got cpu and meta"),
        (torch.zeros(1, 2), torch.zeros(1, 2), "at least 2 images over all processes, got 1: there are no negatives"),
        (torch.zeros(0, 2), torch.zeros(0, 2), "at least 2 images over all processes, got 0: there are no negatives"),
    ],
)
def test_projections_of_wrong_shape_dtype_device_or_number_raise(z_i, z_j, message):
    with pytest.raises(ValueError, match=message):
        nt_xent_loss(z_i, z_j)


def test_the_chance_level_needs_two_images():
    with pytest.raises(ValueError, match="expected at least 2 images, got 1"):
        chance_level(1)


# Several processes


def losses_and_averaged_gradients(cases):
    """Return for each case this process's loss, and its slices of the gradients that DDP would average."""
    results = []
    for z_i, z_j, temperature, batches in cases:
        local_i, local_j = z_i.split(batches)[dist.get_rank()], z_j.split(batches)[dist.get_rank()]
        loss, grad_i, grad_j = with_gradients(nt_xent_loss, local_i, local_j, temperature)
        results.append((loss, grad_i / dist.get_world_size(), grad_j / dist.get_world_size()))
    return results


@pytest.mark.parametrize("batches", [[5, 7], [12, 0], [3, 4, 5], [6, 1, 0, 5]], ids=str)
def test_several_processes_equal_the_recorded_values(batches):
    z_i, z_j, temperature, (loss, grad_i, grad_j) = recorded_case("uneven_ranks")
    by_rank = run_on_processes(len(batches), losses_and_averaged_gradients, [(z_i, z_j, temperature, batches)])
    for local_loss, _, _ in (found for (found,) in by_rank):
        torch.testing.assert_close(local_loss, loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(torch.cat([found[1] for (found,) in by_rank]), grad_i, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.cat([found[2] for (found,) in by_rank]), grad_j, rtol=1e-10, atol=1e-12)


def error_message(batches):
    n = batches[dist.get_rank()]
    try:
        nt_xent_loss(torch.ones(n, 2), torch.ones(n, 2))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("batches", [[1, 0], [0, 1], [0, 0], [0, 0, 1]], ids=str)
def test_fewer_than_two_images_over_all_processes_raise_on_every_process(batches):
    messages = run_on_processes(len(batches), error_message, batches)
    expected = f"expected at least 2 images over all processes, got {sum(batches)}: there are no negatives"
    assert messages == [expected] * len(batches)


def half_precision_with_zeros(z_i, z_j):
    local_i, local_j = z_i.chunk(2)[dist.get_rank()], z_j.chunk(2)[dist.get_rank()]
    return with_gradients(nt_xent_loss, local_i, local_j, 0.01)


def test_half_precision_and_zeros_stay_finite_on_several_processes():
    z_i, z_j = two_views(6, 4, dtype=torch.float16)
    z_i[1] = z_j[1] = z_j[5] = 0
    for loss, grad_i, grad_j in run_on_processes(2, half_precision_with_zeros, z_i, z_j):
        assert loss.item() == pytest.approx(nt_xent_loss(z_i, z_j, 0.01).item(), rel=1e-5)
        assert grad_i.isfinite().all()
        assert grad_j.isfinite().all()
