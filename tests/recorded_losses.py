"""Contrastive losses of other libraries, and a file with their recorded results for when they are not installed.

    python tests/recorded_losses.py     record tests/data/contrastive.npz again

lightly has DCL. pytorch-metric-learning has SupCon for one attribute, and NT-Xent for a given list of pairs, which can
omit false negatives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from contrastive_oracle import Batch, draw_labels, two_views, with_gradients
from torch import Tensor

FILE = Path(__file__).parent / "data" / "contrastive.npz"
CASES = {  # images, length of a projection, temperature
    "small": (3, 2, 0.5),
    "cold": (7, 5, 0.05),
    "many": (24, 8, 0.1),
}


def case(name: str) -> tuple[Tensor, Tensor, float, Tensor]:
    """Return projections, temperature, and the labels of one attribute, all known."""
    n, width, temperature = CASES[name]
    z_i, z_j = two_views(n, width, seed=n)
    return z_i, z_j, temperature, draw_labels(n, (3,), blank=0, seed=n)


def lightly_dcl(z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor) -> Tensor:
    """Return lightly's DCL, which reads no labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings of its dependencies
        loss: Tensor = import_module("lightly.loss").DCLLoss(temperature=temperature)(z_i, z_j)
    return loss


def metric_learning_sup_con(z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor) -> Tensor:
    """Return the SupCon loss of pytorch-metric-learning."""
    loss = _metric_learning().SupConLoss(temperature=temperature)
    found: Tensor = loss(torch.cat([z_i, z_j]), labels.squeeze(1).repeat(2))
    return found


def metric_learning_masked_nt_xent(z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor) -> Tensor:
    """Return the NT-Xent loss of pytorch-metric-learning, for pairs without false negatives."""
    batch = Batch(z_i, z_j, temperature, labels)  # rows 2k and 2k + 1 are the views of image k
    anchors = range(len(batch.rows))
    pairs = [(i, k) for i in anchors for k in batch.negatives(i)]
    positives = torch.tensor([(i, i ^ 1) for i in anchors]).T
    negatives = torch.tensor(pairs).T
    loss = _metric_learning().NTXentLoss(temperature=temperature)
    found: Tensor = loss(torch.stack([z_i, z_j], dim=1).flatten(0, 1), indices_tuple=(*positives, *negatives))
    return found


def _metric_learning():
    return import_module("pytorch_metric_learning.losses")


PEERS: dict[str, tuple[str, Callable[..., Tensor]]] = {  # by our loss: the package, its loss
    "dcl": ("lightly", lightly_dcl),
    "supcon": ("pytorch_metric_learning", metric_learning_sup_con),
    "ntxent, masked": ("pytorch_metric_learning", metric_learning_masked_nt_xent),
}


def record() -> None:
    """Write the file."""
    found = {
        f"{loss}.{name}.{part}": value.numpy()
        for loss, (_, peer) in PEERS.items()
        for name in CASES
        for part, value in zip(("loss", "grad_i", "grad_j"), with_gradients(peer, *case(name)), strict=True)
    }
    inputs = {
        f"{name}.{part}": value.numpy()
        for name in CASES
        for part, value in zip(("z_i", "z_j", "labels"), (*case(name)[:2], case(name)[3]), strict=True)
    }
    np.savez_compressed(FILE, **found, **inputs)


if __name__ == "__main__":
    record()
