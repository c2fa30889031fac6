"""Gathered rows and sums over processes: values, gradients and errors; and the pool of test processes."""

import re
import time
from contextlib import suppress

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes

from simclr.collectives import gather_rows, rank, row_counts, sum_over_processes, world_size

COUNTS = [[2, 2], [3, 1], [0, 2], [1, 2, 0], [0, 0, 3], [2, 1, 0, 4]]


def gather_and_weigh(counts):
    """Gather rows numbered over all processes; process r weighs row k by (r + 1) * 10**k in its loss."""
    rows = torch.arange(2.0 * sum(counts), dtype=torch.float64).view(-1, 2)
    local = rows.split(counts)[rank()].clone().requires_grad_()
    gathered = gather_rows(local)
    weights = (rank() + 1) * 10.0 ** torch.arange(sum(counts), dtype=torch.float64)
    (gathered.sum(dim=1) * weights).sum().backward()
    return gathered.detach(), local.grad


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_every_process_gets_all_rows_by_rank_and_the_sum_of_all_gradients(counts):
    rows = torch.arange(2.0 * sum(counts), dtype=torch.float64).view(-1, 2)
    ranks = sum(r + 1 for r in range(len(counts)))
    gradients = (ranks * 10.0 ** torch.arange(sum(counts), dtype=torch.float64))[:, None].expand(-1, 2).split(counts)
    for (gathered, gradient), expected in zip(
        run_on_processes(len(counts), gather_and_weigh, counts), gradients, strict=True
    ):
        torch.testing.assert_close(gathered, rows, rtol=0, atol=0)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


def sum_and_weigh():
    x = torch.tensor([1.0, 10.0]) * (rank() + 1)
    x.requires_grad_()
    total = sum_over_processes(x)
    (total * (rank() + 1)).sum().backward()
    return total.detach(), x.detach(), x.grad


def test_the_sum_over_processes_and_its_gradient_count_every_process():
    for r, (total, summand, gradient) in enumerate(run_on_processes(3, sum_and_weigh)):
        assert total.tolist() == [6, 60]
        assert summand.tolist() == [r + 1, 10 * (r + 1)], "the summand must not be modified"
        assert gradient.tolist() == [6, 6]


def gather_several_dtypes():
    results = []
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.full((3, 1 + rank()), rank() + 1.0, dtype=dtype).T  # not contiguous
        results.append(gather_rows(x))
    with torch.no_grad():
        results.append(gather_rows(torch.zeros(rank(), 3)))
    return results, gather_rows(torch.zeros(0, 3)), row_counts(torch.zeros(5 - rank(), 3))


def test_gathering_keeps_dtypes_and_works_without_gradients_and_without_rows():
    for results, empty, counts in run_on_processes(2, gather_several_dtypes):
        for gathered in results[:4]:
            assert gathered[:, 0].tolist() == [1, 2, 2]
        assert [gathered.dtype for gathered in results[:4]] == [
            torch.float16,
            torch.bfloat16,
            torch.float32,
            torch.float64,
        ]
        assert results[4].shape == (1, 3)
        assert empty.shape == (0, 3)
        assert counts == [5, 4]


def gather_mismatched_rows(shapes_and_dtypes):
    shape, dtype = shapes_and_dtypes[rank()]
    try:
        gather_rows(torch.zeros(shape, dtype=dtype))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (((2, 4), torch.float32), "widths [3, 4] and [4, 4] bytes"),
        (((0, 4), torch.float32), "widths [3, 4] and [4, 4] bytes"),
        (((2, 3), torch.float64), "widths [3, 3] and [4, 8] bytes"),
    ],
)
def test_rows_that_differ_between_processes_raise_on_every_process(second, expected):
    messages = run_on_processes(2, gather_mismatched_rows, [((2, 3), torch.float32), second])
    assert [expected in message for message in messages] == [True, True]


def test_one_process_gathers_nothing_and_needs_no_process_group():
    x = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(x) is x
    assert sum_over_processes(x) is x
    assert (row_counts(x), rank(), world_size()) == ([3], 0, 1)


def test_a_torch_without_distributed_is_one_process(monkeypatch):
    monkeypatch.setattr(dist, "is_available", lambda: False)
    for name in ("is_initialized", "get_rank", "get_world_size", "all_gather", "all_reduce"):
        monkeypatch.delattr(dist, name)
    x = torch.randn(3, 2)
    assert gather_rows(x) is x
    assert (rank(), world_size()) == (0, 1)


def gather_in_a_group_of_one():
    x = torch.randn(3, 2)
    return gather_rows(x) is x, rank(), world_size()


def test_a_process_group_of_one_gathers_nothing():
    assert run_on_processes(1, gather_in_a_group_of_one) == [(True, 0, 1)]


def fail_on_rank_one():
    if rank() == 1:
        raise LookupError("the message of rank one")
    with suppress(RuntimeError):  # rank 1 has ended
        dist.barrier()
    return rank()


def wait_forever():
    if rank() == 0:
        time.sleep(60)


def test_the_process_pool_reports_a_process_that_fails_or_hangs_and_recovers():
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 failed:(.|\n)*in fail_on_rank_one(.|\n)*message of rank one"):
        run_on_processes(2, fail_on_rank_one)
    with pytest.raises(RuntimeError, match=re.escape("ranks [0] of 1 processes did not finish in time")):
        run_on_processes(1, wait_forever, timeout=0.1)
    assert run_on_processes(1, world_size) == [1]
