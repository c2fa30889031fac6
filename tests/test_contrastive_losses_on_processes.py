"""Several processes compute the value and the gradients of one process, for every contrastive loss."""

import pytest
import torch
import torch.distributed as dist
from contrastive_losses import LOSSES, assert_all_close, blocks_of, every_loss
from contrastive_oracle import draw_labels, two_views, with_gradients
from distributed import run_on_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from simclr import nt_xent_loss

SHARES = [[3, 3], [5, 2], [0, 4], [1, 1], [1, 4, 2], [0, 3, 0], [2, 2, 2, 2], [1, 0, 5, 2]]  # images of each process


def losses_and_averaged_gradients(cases, block):
    """Return for each case this process's loss, and its slices of the gradients that DDP would average."""
    results = []
    with blocks_of(block):
        for name, z_i, z_j, temperature, labels, shares in cases:
            local_i, local_j, local_labels = (rows.split(shares)[dist.get_rank()] for rows in (z_i, z_j, labels))
            loss, *gradients = with_gradients(LOSSES[name][0], local_i, local_j, temperature, local_labels)
            results.append((loss, *(gradient / dist.get_world_size() for gradient in gradients)))
    return results


def assert_as_one_process(shares, cases, tolerance, block=3):
    """Compare the result of every process with one process that has the joint batch."""
    cases = [(*case, shares) for case in cases]
    by_rank = run_on_processes(len(shares), losses_and_averaged_gradients, cases, block)
    for case, found in zip(cases, zip(*by_rank, strict=True), strict=True):
        losses, grads_i, grads_j = zip(*found, strict=True)
        expected = with_gradients(LOSSES[case[0]][0], *case[1:5])
        assert [len(grad) for grad in grads_i] == shares
        for loss in losses:
            assert loss == losses[0]
            assert loss.dtype == expected[0].dtype
        assert_all_close((losses[0], torch.cat(grads_i), torch.cat(grads_j)), expected, tolerance)


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_several_processes_equal_one(shares):
    n = sum(shares)
    z_i, z_j = two_views(n)
    cases = [(name, z_i, z_j, t, draw_labels(n)) for name in LOSSES for t in (0.5, 0.05, 0.002)]
    assert_as_one_process(shares, cases, 1e-10)
    cases = [(name, z_i.float(), z_j.float(), 0.5, draw_labels(n).int()) for name in LOSSES]
    assert_as_one_process(shares, cases, 5e-6)


@settings(max_examples=20)
@given(
    shares=st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(lambda shares: sum(shares) >= 2),
    classes=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    block=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_split_over_processes_equals_one_process(shares, classes, block, seed):
    n = sum(shares)
    z_i, z_j = two_views(n, 3, seed)
    labels = draw_labels(n, classes, 0.3, seed)
    assert_as_one_process(shares, [(name, z_i, z_j, 0.3, labels) for name in LOSSES], 1e-9, block)


def gradient_with_graph(name, z_i, z_j, labels, shares):
    local_i, local_j, local_labels = (rows.split(shares)[dist.get_rank()].clone() for rows in (z_i, z_j, labels))
    local_i.requires_grad_()
    loss = LOSSES[name][0](local_i, local_j, 0.2, local_labels)
    (gradient,) = torch.autograd.grad(loss, local_i, create_graph=True)
    return gradient.detach() / dist.get_world_size()


@every_loss
@pytest.mark.parametrize("shares", [[4, 3], [0, 5], [2, 0, 3]], ids=str)
def test_with_create_graph_several_processes_equal_one(name, shares):
    z_i, z_j = two_views(sum(shares))
    labels = draw_labels(sum(shares))
    by_rank = run_on_processes(len(shares), gradient_with_graph, name, z_i, z_j, labels, shares)
    _, expected, _ = with_gradients(LOSSES[name][0], z_i, z_j, 0.2, labels)
    torch.testing.assert_close(torch.cat(by_rank), expected)


def weight_gradient_under_ddp(name, x_i, x_j, labels, shares):
    """Return the gradient of a linear projection head, averaged by DistributedDataParallel."""
    torch.manual_seed(0)
    head = DistributedDataParallel(torch.nn.Linear(x_i.shape[1], 3).double())
    local_i, local_j, local_labels = (rows.split(shares)[dist.get_rank()] for rows in (x_i, x_j, labels))
    z_i, z_j = head(torch.cat([local_i, local_j])).chunk(2) if len(local_i) else (head(local_i),) * 2
    LOSSES[name][0](z_i, z_j, 0.2, local_labels).backward()
    return head.module.weight.grad


@every_loss
@pytest.mark.parametrize("shares", [[6, 2], [1, 0, 7]], ids=str)
def test_under_ddp_a_parameters_gradient_is_that_of_the_joint_batch(name, shares):
    x_i, x_j = two_views(8, 4)
    labels = draw_labels(8)
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 3).double()
    LOSSES[name][0](head(x_i), head(x_j), 0.2, labels).backward()
    for gradient in run_on_processes(len(shares), weight_gradient_under_ddp, name, x_i, x_j, labels, shares):
        torch.testing.assert_close(gradient, head.weight.grad, rtol=1e-11, atol=1e-12)


def error_message(labels):
    labels = labels[dist.get_rank()]
    try:
        nt_xent_loss(torch.ones(2, 2), torch.ones(2, 2), 0.5, labels)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("second", "kinds"),
    [
        (None, "widths [2, 0] and [8, 0] bytes"),
        (torch.zeros(2, 3, dtype=torch.int64), "widths [2, 3] and [8, 8] bytes"),
        (torch.zeros(2, 2, dtype=torch.int32), "widths [2, 2] and [8, 4] bytes"),
    ],
    ids=["none", "width", "dtype"],
)
def test_labels_that_differ_between_processes_raise_on_every_process(second, kinds):
    messages = run_on_processes(2, error_message, [torch.zeros(2, 2, dtype=torch.int64), second])
    for message in messages:
        assert message.startswith("expected labels of one width and dtype on every process, got, by rank, ")
        assert kinds in message
