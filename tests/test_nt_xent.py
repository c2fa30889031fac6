import ast
import math
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import simclr
from simclr import NTXentLoss, chance_level, nt_xent_loss

CASES = ["tiny", "batch32", "cold", "odd", "uneven_ranks", "duplicates"]
BATCHES = [
    [3, 3],
    [5, 2],
    [0, 4],
    [4, 0],
    [1, 1],
    [2, 2, 2],
    [1, 4, 2],
    [0, 3, 0],
    [2, 2, 2, 2],
    [1, 0, 5, 2],
    [3, 3, 1, 0],
]


@cache
def golden():
    with np.load(Path(__file__).parent / "data" / "nt_xent.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def golden_case(case, dtype=torch.float64):
    names = ("z_i", "z_j", "loss", "grad_i", "grad_j")
    z_i, z_j, *expected = (golden()[f"{case}.{name}"].to(dtype) for name in names)
    return z_i, z_j, float(golden()[f"{case}.temperature"]), expected


def two_views(n, width, seed=0, dtype=torch.float64):
    return torch.randn(2, n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_gradients(loss_function, z_i, z_j, *args):
    """Returns the loss, its gradient for z_i and its gradient for z_j."""
    z_i, z_j = z_i.clone().requires_grad_(), z_j.clone().requires_grad_()
    loss = loss_function(z_i, z_j, *args)
    return loss.detach(), *torch.autograd.grad(loss, (z_i, z_j))


def algorithm_of_the_paper(z_i, z_j, temperature):
    """Algorithm 1 of arXiv:2002.05709, one pair of projections at a time."""
    z = [row for pair in zip(z_i, z_j, strict=True) for row in pair]  # the views of image k are z[2k] and z[2k + 1]

    def similarity(a, b):
        return (a @ b) / (a.square().sum().sqrt() * b.square().sum().sqrt())

    def anchor_loss(i, j):
        others = [torch.exp(similarity(z[i], z[k]) / temperature) for k in range(len(z)) if k != i]
        return -torch.log(torch.exp(similarity(z[i], z[j]) / temperature) / sum(others))

    n = len(z_i)
    return sum(anchor_loss(2 * k, 2 * k + 1) + anchor_loss(2 * k + 1, 2 * k) for k in range(n)) / (2 * n)


# The value and its gradient


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_the_recorded_ones(case, dtype, tolerance):
    z_i, z_j, temperature, expected = golden_case(case, dtype)
    found = with_gradients(NTXentLoss(temperature), z_i, z_j)
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == dtype
        # Entries of a gradient that happen to cancel are as exact as the largest ones, no better.
        assert (value - reference).abs().max() <= tolerance * reference.abs().max()


@settings(max_examples=20)
@given(
    n=st.integers(2, 4),
    width=st.integers(1, 6),
    temperature=st.floats(0.05, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_and_gradients_equal_the_papers_algorithm(n, width, temperature, seed):
    z_i, z_j = two_views(n, width, seed)
    found = with_gradients(nt_xent_loss, z_i, z_j, temperature)
    expected = with_gradients(algorithm_of_the_paper, z_i, z_j, temperature)
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 50])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_equal_similarities_give_the_chance_level(n, temperature):
    same = torch.full((n, 4), 0.3)
    assert nt_xent_loss(same, same, temperature).item() == pytest.approx(math.log(2 * n - 1), rel=1e-6)
    assert chance_level(n) == pytest.approx(math.log(2 * n - 1), rel=1e-15)


def test_orthogonal_images_give_the_closed_form():
    z = torch.eye(4, dtype=torch.float64)  # each anchor: its positive at similarity 1, six negatives at 0
    assert nt_xent_loss(z, z, 0.5).item() == pytest.approx(math.log(1 + 6 * math.exp(-2)), rel=1e-14)


def test_a_cold_perfect_match_costs_nothing_and_a_cold_mismatch_two_over_the_temperature():
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert nt_xent_loss(z, z, 0.01).item() == 0
    assert nt_xent_loss(z, -z, 0.01).item() == pytest.approx(200, rel=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    z_i, z_j = two_views(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent_loss(a, b, 0.2), (z_i, z_j))


def test_lightly_finds_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations
        theirs = pytest.importorskip("lightly.loss.ntx_ent_loss").NTXentLoss
    z_i, z_j = two_views(9, 5)
    for value, reference in zip(
        with_gradients(NTXentLoss(0.1), z_i, z_j), with_gradients(theirs(temperature=0.1), z_i, z_j), strict=True
    ):
        torch.testing.assert_close(value, reference, rtol=1e-10, atol=1e-12)


def test_swapping_the_views_changes_nothing():
    z_i, z_j = two_views(6, 5)
    loss, grad_i, grad_j = with_gradients(nt_xent_loss, z_i, z_j)
    swapped, swapped_j, swapped_i = with_gradients(nt_xent_loss, z_j, z_i)
    torch.testing.assert_close((swapped, swapped_i, swapped_j), (loss, grad_i, grad_j))


def test_permuting_the_images_changes_nothing_but_permuting_one_view_does():
    z_i, z_j = two_views(6, 5)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(nt_xent_loss(z_i[order], z_j[order]), nt_xent_loss(z_i, z_j))
    assert (nt_xent_loss(z_i[order], z_j) - nt_xent_loss(z_i, z_j)).abs() > 1e-3


def test_scaling_projections_changes_nothing():
    z_i, z_j = two_views(6, 5)
    scale = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(nt_xent_loss(z_i * scale, z_j / scale), nt_xent_loss(z_i, z_j))


def test_a_low_temperature_prefers_what_a_high_one_does_not_tell_apart():
    z_i, z_j = two_views(6, 5)
    assert nt_xent_loss(z_i, z_j, 1e6).item() == pytest.approx(chance_level(6), rel=1e-5)
    assert nt_xent_loss(z_i, z_i, 0.05) < nt_xent_loss(z_i, z_i, 0.5) < chance_level(6)


# Numbers at the edge


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_low_precision_is_computed_in_float32(dtype, temperature):
    z_i, z_j = two_views(8, 16, dtype=dtype)
    loss, grad_i, grad_j = with_gradients(nt_xent_loss, z_i, z_j, temperature)
    reference, *_ = with_gradients(nt_xent_loss, z_i.double(), z_j.double(), temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert grad_i.dtype == grad_j.dtype == dtype
    assert grad_i.isfinite().all()
    assert grad_j.isfinite().all()


@pytest.mark.parametrize("autocast", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_does_not_lower_the_precision(autocast):
    z_i, z_j = two_views(8, 16, dtype=torch.float32)

    def under_autocast(z_i, z_j):  # the forward pass alone: PyTorch advises against a backward pass under autocast
        with torch.autocast("cpu", dtype=autocast):
            return nt_xent_loss(z_i, z_j, 0.05)

    found, expected = with_gradients(under_autocast, z_i, z_j), with_gradients(nt_xent_loss, z_i, z_j, 0.05)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


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
        if dtype in (torch.float32, torch.float64) and size < 3e38:  # else the true gradient is below the dtype's range
            error = (gradient.double() * size - reference).abs().max()
            assert error <= 1e-4 * reference.abs().max()


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float16, 0),
        (torch.bfloat16, 0),
        (torch.float32, 0),
        (torch.float32, 1e-45),  # float32's smallest number, too small to have a direction
        (torch.float64, 0),
    ],
    ids=str,
)
def test_a_vector_of_zeros_is_as_similar_to_all_and_has_no_gradient(dtype, temperature, value):
    z_i, z_j = two_views(5, 4, dtype=dtype)
    z_i[2] = z_j[2] = z_j[4] = value
    loss, grad_i, grad_j = with_gradients(nt_xent_loss, z_i, z_j, temperature)
    assert loss.isfinite()
    assert grad_i[2].count_nonzero() == grad_j[2].count_nonzero() == grad_j[4].count_nonzero() == 0
    for gradient in (grad_i, grad_j):
        assert gradient.abs().max() <= 10 / temperature  # also false for NaN


def test_nothing_but_zeros_is_at_chance_level():
    zeros = torch.zeros(3, 4)
    loss, grad_i, grad_j = with_gradients(nt_xent_loss, zeros, zeros)
    assert loss.item() == pytest.approx(chance_level(3), rel=1e-6)
    assert grad_i.count_nonzero() == grad_j.count_nonzero() == 0


def test_a_projection_that_is_not_a_number_is_not_hidden():
    z_i, z_j = two_views(4, 3)
    z_i[1, 1] = math.nan
    assert nt_xent_loss(z_i, z_j).isnan()


# What it refuses


@pytest.mark.parametrize("temperature", [0, -0.5, math.nan, math.inf])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
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
def test_projections_that_do_not_fit_are_refused(z_i, z_j, message):
    with pytest.raises(ValueError, match=message):
        nt_xent_loss(z_i, z_j)


def test_one_image_has_no_chance_level():
    with pytest.raises(ValueError, match="expected at least 2 images, got 1"):
        chance_level(1)


# How it computes


def test_compiled_it_is_one_graph_and_the_same():
    compiled = torch.compile(NTXentLoss(0.1), backend="aot_eager", fullgraph=True)  # .item() would break the graph
    for n in (6, 9):
        z_i, z_j = two_views(n, 5)
        torch.testing.assert_close(
            with_gradients(compiled, z_i, z_j), with_gradients(nt_xent_loss, z_i, z_j, 0.1), rtol=1e-12, atol=1e-12
        )


def test_no_tensor_is_larger_than_the_similarities():
    class LargestTensor(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                self.numel = max(self.numel, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return result

    z_i, z_j = two_views(12, 8)
    with LargestTensor() as largest:
        with_gradients(nt_xent_loss, z_i, z_j)
    assert 0 < largest.numel <= 24 * 24


def test_the_inputs_stay_as_they_were():
    z_i, z_j = two_views(4, 3)
    copies = z_i.clone(), z_j.clone()
    with_gradients(nt_xent_loss, z_i, z_j)
    torch.testing.assert_close((z_i, z_j), copies, rtol=0, atol=0)


def test_the_module_shows_its_temperature_and_has_no_state():
    assert repr(NTXentLoss(0.1)) == "NTXentLoss(temperature=0.1)"
    assert NTXentLoss().temperature == 0.5
    assert NTXentLoss().state_dict() == {}


def test_the_package_imports_only_torch():
    imported = set()
    for file in Path(simclr.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "simclr").split(".")[0])
    assert imported - sys.stdlib_module_names == {"torch", "simclr"}


# Several processes


def losses_and_averaged_gradients(cases):
    """For each case, this process's loss, and its slices of the gradients that DDP's averaging would make."""
    results = []
    for z_i, z_j, temperature, batches in cases:
        own_i, own_j = z_i.split(batches)[dist.get_rank()], z_j.split(batches)[dist.get_rank()]
        loss, grad_i, grad_j = with_gradients(nt_xent_loss, own_i, own_j, temperature)
        results.append((loss, grad_i / dist.get_world_size(), grad_j / dist.get_world_size()))
    return results


def assert_as_one_process(batches, cases, rtol):
    """Compares what every process finds with one process that has the joint batch."""
    cases = [(*case, batches) for case in cases]
    by_rank = run_on_processes(len(batches), losses_and_averaged_gradients, cases)
    for case, found in zip(cases, zip(*by_rank, strict=True), strict=True):
        losses, grads_i, grads_j = zip(*found, strict=True)
        loss, grad_i, grad_j = with_gradients(nt_xent_loss, *case[:3])
        assert [len(grad) for grad in grads_i] == batches
        for own_loss in losses:
            assert own_loss.dtype == loss.dtype
            torch.testing.assert_close(own_loss, loss, rtol=rtol, atol=0)
            assert own_loss == losses[0]
        torch.testing.assert_close(torch.cat(grads_i), grad_i, rtol=rtol, atol=rtol)
        torch.testing.assert_close(torch.cat(grads_j), grad_j, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("batches", BATCHES, ids=str)
def test_several_processes_equal_one(batches):
    n = sum(batches)
    z_i, z_j = two_views(n, 5)
    assert_as_one_process(batches, [(z_i, z_j, 0.5), (z_i, z_j, 0.05), (z_i, z_i.clone(), 0.1)], rtol=1e-11)
    assert_as_one_process(batches, [(z_i.float(), z_j.float(), 0.5)], rtol=2e-6)


@pytest.mark.parametrize("batches", [[5, 7], [12, 0], [3, 4, 5], [6, 1, 0, 5]], ids=str)
def test_several_processes_equal_the_recorded_values(batches):
    z_i, z_j, temperature, (loss, grad_i, grad_j) = golden_case("uneven_ranks")
    by_rank = run_on_processes(len(batches), losses_and_averaged_gradients, [(z_i, z_j, temperature, batches)])
    for own_loss, _, _ in (found for (found,) in by_rank):
        torch.testing.assert_close(own_loss, loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(torch.cat([found[1] for (found,) in by_rank]), grad_i, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.cat([found[2] for (found,) in by_rank]), grad_j, rtol=1e-10, atol=1e-12)


@settings(max_examples=20)
@given(
    batches=st.lists(st.integers(0, 4), min_size=2, max_size=4).filter(lambda batches: sum(batches) >= 2),
    width=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_split_over_processes_equals_one_process(batches, width, seed):
    z_i, z_j = two_views(sum(batches), width, seed)
    assert_as_one_process(batches, [(z_i, z_j, 0.3)], rtol=1e-9)


def weight_gradient_under_ddp(x_i, x_j, batches):
    """The gradient of a linear projection head that DistributedDataParallel has averaged."""
    torch.manual_seed(0)
    head = DistributedDataParallel(torch.nn.Linear(x_i.shape[1], 3).double())
    own_i, own_j = x_i.split(batches)[dist.get_rank()], x_j.split(batches)[dist.get_rank()]
    z_i, z_j = head(torch.cat([own_i, own_j])).chunk(2) if len(own_i) else (head(own_i),) * 2
    nt_xent_loss(z_i, z_j, 0.2).backward()
    return head.module.weight.grad


@pytest.mark.parametrize("batches", [[4, 4], [6, 2], [1, 0, 7], [3, 2, 1, 2]], ids=str)
def test_under_ddp_a_parameters_gradient_is_that_of_the_joint_batch(batches):
    x_i, x_j = two_views(8, 4)
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 3).double()
    nt_xent_loss(head(x_i), head(x_j), 0.2).backward()
    for gradient in run_on_processes(len(batches), weight_gradient_under_ddp, x_i, x_j, batches):
        torch.testing.assert_close(gradient, head.weight.grad, rtol=1e-11, atol=1e-12)


def refusal(batches):
    n = batches[dist.get_rank()]
    try:
        nt_xent_loss(torch.ones(n, 2), torch.ones(n, 2))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("batches", [[1, 0], [0, 1], [0, 0], [0, 0, 1]], ids=str)
def test_fewer_than_two_images_over_all_processes_are_refused_on_each(batches):
    messages = run_on_processes(len(batches), refusal, batches)
    expected = f"expected at least 2 images over all processes, got {sum(batches)}: there are no negatives"
    assert messages == [expected] * len(batches)


def half_precision_with_zeros(z_i, z_j):
    own_i, own_j = z_i.chunk(2)[dist.get_rank()], z_j.chunk(2)[dist.get_rank()]
    return with_gradients(nt_xent_loss, own_i, own_j, 0.01)


def test_half_precision_and_zeros_stay_finite_on_several_processes():
    z_i, z_j = two_views(6, 4, dtype=torch.float16)
    z_i[1] = z_j[1] = z_j[5] = 0
    for loss, grad_i, grad_j in run_on_processes(2, half_precision_with_zeros, z_i, z_j):
        assert loss.item() == pytest.approx(nt_xent_loss(z_i, z_j, 0.01).item(), rel=1e-5)
        assert grad_i.isfinite().all()
        assert grad_j.isfinite().all()
