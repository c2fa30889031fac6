"""Small batches take one matrix, large ones blocks: both agree in value and gradients, on one and several processes."""

import math

import pytest
import torch
import torch.distributed as dist
from contrastive_losses import LOSSES, assert_all_close, blocks_of, every_loss, one_matrix_of
from contrastive_oracle import UNKNOWN, draw_labels, two_views, with_gradients
from distributed import run_on_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from simclr import contrastive_loss, dcl_loss, nt_xent_loss

MANY = 10**6  # blocks on a side: every batch takes one matrix
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}
BOTH = list(TOLERANCE)


def both_ways(name, z_i, z_j, temperature, labels):
    """Return the loss and gradients from one matrix, then in blocks of three rows."""
    found = []
    for blocks in (MANY, 0):
        with blocks_of(3), one_matrix_of(blocks):
            found.append(with_gradients(LOSSES[name][0], z_i, z_j, temperature, labels))
    return found


def assert_both_agree(name, z_i, z_j, temperature, labels):
    one, in_blocks = both_ways(name, z_i, z_j, temperature, labels)
    assert [value.dtype for value in one] == [value.dtype for value in in_blocks]
    assert_all_close(one, in_blocks, TOLERANCE[z_i.dtype] / min(temperature, 1))


@every_loss
@pytest.mark.parametrize("temperature", [2.0, 0.5, 0.05, 0.02, 0.002])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_one_matrix_and_blocks_agree(name, dtype, temperature):
    assert_both_agree(name, *two_views(20, 8, dtype=dtype), temperature, draw_labels(20))


@every_loss
@settings(max_examples=25)
@given(
    n=st.integers(2, 9),
    width=st.integers(1, 4),
    temperature=st.floats(0.002, 5),
    classes=st.lists(st.integers(1, 3), max_size=3).map(tuple).filter(bool),
    blank=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_batch_and_labels_agree(name, n, width, temperature, classes, blank, seed):
    assert_both_agree(name, *two_views(n, width, seed), temperature, draw_labels(n, classes, blank, seed))


@every_loss
@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_at_the_boundary_the_way_changes_and_the_loss_does_not(name, dtype, monkeypatch):
    taken = []
    one_matrix = contrastive_loss.loss_and_gradient
    monkeypatch.setattr(contrastive_loss, "loss_and_gradient", lambda *args: taken.append(1) or one_matrix(*args))
    for n, expected in ((15, 1), (16, 1), (17, 0)):
        args = *two_views(n, 6, dtype=dtype), 0.1, draw_labels(n)
        with blocks_of(8), one_matrix_of(4):  # up to 32 anchors
            taken.clear()
            found = with_gradients(LOSSES[name][0], *args)
            assert sum(taken) == expected
        with blocks_of(8), one_matrix_of(0 if expected else MANY):
            assert_all_close(found, with_gradients(LOSSES[name][0], *args), 10 * TOLERANCE[dtype])


@pytest.mark.parametrize(("device", "anchors", "mebibytes"), [("cpu", 1024, 4), ("cuda", 4096, 64)])
def test_the_largest_matrix_is_small(device, anchors, mebibytes):
    assert contrastive_loss.most_anchors(torch.device(device)) == anchors
    assert anchors**2 * 4 == mebibytes * 2**20


@pytest.mark.parametrize("temperature", [0.5, 0.002])
@pytest.mark.parametrize("loss", ["dcl, masked", "ntxent, masked"])
def test_anchors_without_negatives_agree(loss, temperature):
    for labels in ([[0, UNKNOWN], [0, 1], [0, 2]], [[0, 0]] * 3):
        assert_both_agree(loss, *two_views(3), temperature, torch.tensor(labels))


@every_loss
def test_a_view_without_gradient_leaves_the_others_gradient_as_it_is(name):
    z_i, z_j = two_views(5)
    labels = draw_labels(5)
    _, grad_i, grad_j = with_gradients(LOSSES[name][0], z_i, z_j, 0.2, labels)
    for first, second, expected in ((True, False, grad_i), (False, True, grad_j)):
        views = z_i.clone().requires_grad_(first), z_j.clone().requires_grad_(second)
        for create_graph in (False, True):
            wanted = views[0] if first else views[1]
            (found,) = torch.autograd.grad(LOSSES[name][0](*views, 0.2, labels), wanted, create_graph=create_graph)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
def test_one_tensor_as_both_views_gets_the_gradients_of_both(create_graph):
    z = two_views(6)[0]
    _, grad_i, grad_j = with_gradients(nt_xent_loss, z, z, 0.2)
    both = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(nt_xent_loss(both, both, 0.2), both, create_graph=create_graph)
    torch.testing.assert_close(found, grad_i + grad_j, rtol=1e-10, atol=1e-12)


@every_loss
def test_without_gradients_none_is_computed_and_the_value_is_the_same(name, monkeypatch):
    needed = []
    one_matrix = contrastive_loss.loss_and_gradient
    monkeypatch.setattr(
        contrastive_loss, "loss_and_gradient", lambda *args: needed.append(args[-1]) or one_matrix(*args)
    )
    z_i, z_j = two_views(6)
    value = LOSSES[name][0](z_i, z_j, 0.2, draw_labels(6))
    assert value == with_gradients(LOSSES[name][0], z_i, z_j, 0.2, draw_labels(6))[0]
    assert needed == [False, True]


def test_an_upstream_gradient_scales_the_gradient_and_backward_can_be_run_twice():
    z_i, z_j = two_views(6).requires_grad_()
    loss = dcl_loss(z_i, z_j, 0.2)
    (once,) = torch.autograd.grad(loss, z_i, retain_graph=True)
    (scaled,) = torch.autograd.grad(-3 * loss, z_i, retain_graph=True)
    (again,) = torch.autograd.grad(loss, z_i)
    torch.testing.assert_close(scaled, -3 * once)
    assert torch.equal(once, again)


class Operations(TorchDispatchMode):
    """Count the operations that compute or write; views take no kernel."""

    FREE = ("view", "t", "slice", "select", "expand", "detach", "transpose", "unsqueeze", "diagonal", "unbind", "alias")
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.__name__.partition(".")[0] not in (*self.FREE, "_unsafe_view", "empty_like", "empty")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "most"), [("ntxent", 34), ("dcl", 34), ("dcl, masked", 60), ("supcon", 68)])
def test_a_small_batch_takes_few_operations_since_each_is_a_kernel_launch(name, most):
    z_i, z_j = two_views(8, dtype=torch.float32).requires_grad_()
    labels = draw_labels(8)
    with Operations() as operations:
        loss = LOSSES[name][0](z_i, z_j, 0.5, labels)
        torch.autograd.grad(loss, (z_i, z_j))
    assert 20 < operations.count <= most


# Several processes


def losses_and_gradients(cases, blocks):
    """Return for each case this process's loss and its gradients."""
    found = []
    with blocks_of(3), one_matrix_of(blocks):
        for name, z_i, z_j, temperature, labels, shares, scales in cases:
            local = [rows.split(shares)[dist.get_rank()] for rows in (z_i, z_j, labels)]
            scale = scales[dist.get_rank()]
            found.append(
                with_gradients(
                    lambda *args, s=scale, n=name: s * LOSSES[n][0](*args), *local[:2], temperature, local[2]
                )
            )
    return found


@pytest.mark.parametrize("shares", [[3, 5], [0, 4], [2, 0, 3], [1, 4, 1, 2]], ids=str)
@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_on_several_processes_one_matrix_and_blocks_agree(shares, dtype):
    """Each process may scale its loss: the gradient is that of the sum of all processes' losses."""
    n, scales = sum(shares), [1.0, 2.0, -1.0, 0.5]
    z_i, z_j = two_views(n, dtype=dtype)
    cases = [(name, z_i, z_j, t, draw_labels(n), shares, scales) for name in LOSSES for t in (0.5, 0.01)]
    one, in_blocks = (run_on_processes(len(shares), losses_and_gradients, cases, blocks) for blocks in (MANY, 0))
    for index, (_, _, _, temperature, *_) in enumerate(cases):
        losses, *gradients = zip(*(found[index] for found in one), strict=True)
        assert len({loss.item() / scale for loss, scale in zip(losses, scales, strict=False)}) == 1
        references, *expected = zip(*(found[index] for found in in_blocks), strict=True)
        tolerance = 10 * TOLERANCE[dtype] / min(temperature, 1)
        assert_all_close(losses, references, tolerance)
        assert_all_close(map(torch.cat, gradients), map(torch.cat, expected), tolerance)


def test_a_nan_stays_a_nan():
    z_i, z_j = two_views(4, 3)
    z_i[1, 1] = math.nan
    for temperature in (0.5, 0.002):
        loss, gradient, _ = with_gradients(nt_xent_loss, z_i, z_j, temperature)
        assert loss.isnan()
        assert gradient.isnan().any()
