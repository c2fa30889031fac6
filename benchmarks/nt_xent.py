"""Compare NT-Xent with other implementations, forward and backward: time, and memory beyond the inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from harness import Comparison, Result, Work, compare_memory
from original_way import broadcast_nt_xent
from torch import Tensor

from simclr import nt_xent_loss

WIDTH = 128
TEMPERATURE = 0.5

Loss = Callable[[Tensor, Tensor], Tensor]


def run(small: bool) -> list[Result]:
    """Compare at several batch sizes, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = [64, 256, 1024] if small else [64, 128, 256, 512, 1024, 4096]
    results = []
    for n in sizes:
        contenders = {name: _maker(name, n) for name in LOSSES if n <= LARGEST.get(name, n)}
        rounds = 3 if small else max(5, min(31, 15 * 1024 // n))
        results.append(
            Comparison(f"NT-Xent, N={n}", contenders, rounds=rounds, note="D=128, float32, one thread").run()
        )
    if not small:
        results.append(Comparison("NT-Xent, N=32768", {"ours": _maker("ours", 32768)}, rounds=1).run())
        makers: dict[str, tuple[Callable[..., Work], tuple[Any, ...]]] = {
            name: (work, (name, 4096)) for name in LOSSES if LARGEST.get(name, 4096) >= 4096
        }
        results.append(compare_memory("NT-Xent, N=4096, memory", makers, "rise of the peak over the inputs, one call"))
        results.append(compare_memory("NT-Xent, N=32768, memory", {"ours": (work, ("ours", 32768))}, "as above"))
    torch.set_num_threads(threads)
    return results


def _maker(name: str, n: int) -> Callable[[], Work]:
    return lambda: work(name, n)


def work(name: str, n: int) -> Work:
    """Return a function that computes one loss of N pairs and its gradients."""
    torch.set_num_threads(1)
    loss = LOSSES[name]()
    z_i, z_j = torch.randn(2, n, WIDTH, generator=torch.Generator().manual_seed(0))
    z_i.requires_grad_()
    z_j.requires_grad_()
    loss(z_i[:8], z_j[:8]).backward()  # load libraries

    def once() -> None:
        z_i.grad = z_j.grad = None
        loss(z_i, z_j).backward()

    return once


def ours() -> Loss:
    """Return this project's loss."""
    return lambda z_i, z_j: nt_xent_loss(z_i, z_j, TEMPERATURE)


def lightly() -> Loss:
    """Return lightly's loss."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NTXentLoss
    loss: Loss = NTXentLoss(temperature=TEMPERATURE)
    return loss


def metric_learning() -> Loss:
    """Return pytorch-metric-learning's loss for two views, as its documentation shows."""
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    loss: Loss = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))
    return loss


def plain() -> Loss:
    """Return the straightforward formula: all similarities at once, and cross entropy."""
    return _plain


def compiled() -> Loss:
    """Return the plain formula under torch.compile."""
    loss: Loss = torch.compile(_plain)
    return loss


def _plain(z_i: Tensor, z_j: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z_i, z_j]))
    logits = z @ z.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z_i)))


def broadcast() -> Loss:
    """Return the original repository's loss."""
    return lambda z_i, z_j: broadcast_nt_xent(z_i, z_j, TEMPERATURE)


LOSSES: dict[str, Callable[[], Loss]] = {
    "ours": ours,
    "lightly": lightly,
    "pytorch-metric-learning": metric_learning,
    "plain formula": plain,
    "plain formula, torch.compile": compiled,
    "the original's way": broadcast,
}
LARGEST = {"pytorch-metric-learning": 256, "the original's way": 256}  # pairs; 1,024 pairs take 34 and 4 gigabytes
