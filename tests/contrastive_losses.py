"""Our contrastive losses beside their oracles, and helpers, for the tests that run every loss."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from contrastive_oracle import dcl_loop, nt_xent_loop, sup_con_loop
from torch.utils._python_dispatch import TorchDispatchMode

from simclr import (
    DCLLoss,
    NTXentLoss,
    SupConLoss,
    contrastive_loss,
    dcl_loss,
    nt_xent_loss,
    similarity_blocks,
    sup_con_loss,
)


def sup_con(z_i, z_j, temperature, labels):
    """SupCon with the argument order of the other losses."""
    return sup_con_loss(z_i, z_j, labels, temperature)


def unlabeled(loss, z_i, z_j, temperature, labels):
    """Call a loss without its labels."""
    return loss(z_i, z_j, temperature)


LOSSES = {  # our loss, its oracle
    "ntxent": (partial(unlabeled, nt_xent_loss), partial(unlabeled, nt_xent_loop)),
    "ntxent, masked": (nt_xent_loss, nt_xent_loop),
    "dcl": (partial(unlabeled, dcl_loss), partial(unlabeled, dcl_loop)),
    "dcl, masked": (dcl_loss, dcl_loop),
    "supcon": (sup_con, sup_con_loop),
}
MODULES = {"ntxent": NTXentLoss, "dcl": DCLLoss, "supcon": SupConLoss}
every_loss = pytest.mark.parametrize("name", LOSSES)


@contextmanager
def blocks_of(rows):
    """Set the number of rows in a block, also in a worker process that serves later tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(similarity_blocks.BLOCK_SIZE, "cpu", rows)
        yield


@contextmanager
def one_matrix_of(blocks):
    """Set the number of blocks on a side up to which a loss comes from one matrix; 0 computes every loss in blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contrastive_loss.BLOCKS_IN_ONE_MATRIX, "cpu", blocks)
        yield


def assert_all_close(found, expected, tolerance):
    """Compare losses and gradients with a tolerance relative to the largest entry of each."""
    for value, reference in zip(found, expected, strict=True):
        bound = tolerance * max(1.0, reference.abs().max().item())
        torch.testing.assert_close(value.double(), reference.double(), rtol=0, atol=bound)


class LargestTensor(TorchDispatchMode):
    """Record the size of the largest tensor, in elements."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            self.numel = max(self.numel, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return result
