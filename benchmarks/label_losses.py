"""Compare DCL, SupCon and masked NT-Xent with other implementations, forward and backward: time and memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from harness import Comparison, Result, Work, compare_memory
from nt_xent import TEMPERATURE, WIDTH
from torch import Tensor

from simclr import dcl_loss, nt_xent_loss, sup_con_loss

CLASSES = (5, 20, 47)  # three attributes with a catalog's numbers of classes
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # takes two views' projections [N, P] and labels [N, A]


def run(small: bool) -> list[Result]:
    """Compare at several batch sizes, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = []
    for name, contenders in GROUPS.items():
        for n in [64, 256] if small else [64, 256, 512, 1024, 4096]:
            makers = {peer: partial(work, name, peer, n) for peer in contenders}
            rounds = 3 if small else max(5, min(31, 15 * 1024 // n))
            note = f"D={WIDTH}, float32, one thread"
            results.append(Comparison(f"{name}, N={n}", makers, rounds=rounds, note=note).run())
        if not small:
            memory: dict[str, tuple[Callable[..., Work], tuple[Any, ...]]] = {
                peer: (work, (name, peer, 4096)) for peer in contenders
            }
            results.append(compare_memory(f"{name}, N=4096, memory", memory, "rise of the peak over the inputs"))
    torch.set_num_threads(threads)
    return results


def work(name: str, peer: str, n: int) -> Work:
    """Return a function that computes one loss of N pairs and its gradients."""
    torch.set_num_threads(1)
    loss, attributes = GROUPS[name][peer]
    g = torch.Generator().manual_seed(0)
    z_i, z_j = torch.randn(2, n, WIDTH, generator=g)
    labels = torch.stack([torch.randint(count, (n,), generator=g) for count in CLASSES[-attributes:]], dim=1)
    labels[::10] = -1  # a tenth of the images have no label
    if attributes == 1:
        labels = labels.masked_fill(
            labels < 0, CLASSES[-1]
        )  # the peers know no blank labels, so blanks become one more class
    z_i.requires_grad_()
    z_j.requires_grad_()
    loss(z_i[:8], z_j[:8], labels[:8]).backward()  # load libraries

    def once() -> None:
        z_i.grad = z_j.grad = None
        loss(z_i, z_j, labels).backward()

    return once


def lightly_dcl(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return lightly's DCL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import DCLLoss
    loss: Tensor = DCLLoss(temperature=TEMPERATURE)(z_i, z_j)
    return loss


def metric_learning_sup_con(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return pytorch-metric-learning's SupCon for one attribute."""
    from pytorch_metric_learning.losses import SupConLoss

    loss: Tensor = SupConLoss(temperature=TEMPERATURE)(torch.cat([z_i, z_j]), labels.squeeze(1).repeat(2))
    return loss


def plain_dcl(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return DCL by the straightforward formula: all similarities at once."""
    exponents = _exponents(z_i, z_j)
    partners = exponents.diagonal(len(z_i))
    same_image = torch.eye(len(z_i), dtype=torch.bool, device=z_i.device).repeat(2, 2)
    return exponents.masked_fill(same_image, float("-inf")).logsumexp(dim=1).mean() - partners.mean()


def plain_masked_nt_xent(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return NT-Xent without false negatives by the straightforward formula: all similarities at once."""
    exponents, images = _exponents(z_i, z_j), torch.eye(len(z_i), dtype=torch.bool, device=z_i.device)
    left_out = ((_agreement(labels) == 1) & ~images).repeat(2, 2)
    left_out.fill_diagonal_(True)
    return exponents.masked_fill(left_out, float("-inf")).logsumexp(dim=1).mean() - exponents.diagonal(len(z_i)).mean()


def plain_sup_con(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return SupCon over attributes by the straightforward formula: all similarities and weights at once."""
    exponents = _exponents(z_i, z_j)
    weights = _agreement(labels).fill_diagonal_(1).repeat(2, 2).fill_diagonal_(0)
    others = exponents.masked_fill(
        torch.eye(len(exponents), dtype=torch.bool, device=z_i.device), float("-inf")
    ).logsumexp(dim=1)
    return (others - (weights * exponents).sum(dim=1) / weights.sum(dim=1)).mean()


def _exponents(z_i: Tensor, z_j: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z_i, z_j]))
    return z @ z.T / TEMPERATURE


def _agreement(labels: Tensor) -> Tensor:
    """Return the share of equal labels among the attributes known in both images, [N, N]."""
    known = (labels >= 0).float()
    equal = (labels[:, None] == labels) & (labels[:, None] >= 0)
    return equal.sum(dim=2) / (known @ known.T).clamp(min=1)


def ours_dcl(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return this project's DCL."""
    return dcl_loss(z_i, z_j, TEMPERATURE)


def ours_masked_nt_xent(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return this project's NT-Xent without false negatives."""
    return nt_xent_loss(z_i, z_j, TEMPERATURE, labels)


def ours_sup_con(z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    """Return this project's SupCon."""
    return sup_con_loss(z_i, z_j, labels, TEMPERATURE)


GROUPS: dict[str, dict[str, tuple[Loss, int]]] = {  # each contender with its number of attributes
    "DCL": {"ours": (ours_dcl, 1), "lightly": (lightly_dcl, 1), "plain formula": (plain_dcl, 1)},
    "SupCon": {
        "ours": (ours_sup_con, 1),
        "pytorch-metric-learning": (metric_learning_sup_con, 1),
        "plain formula": (plain_sup_con, 1),
    },
    "SupCon, three attributes": {"ours": (ours_sup_con, 3), "plain formula": (plain_sup_con, 3)},
    "NT-Xent without false negatives, three attributes": {
        "ours": (ours_masked_nt_xent, 3),
        "plain formula": (plain_masked_nt_xent, 3),
    },
}
