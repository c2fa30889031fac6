"""The contrastive losses on a GPU, forward and backward: time, and memory beyond the inputs.

Ours always multiplies in float32, because its gradients in TF32 were off by 7e-4 to 1e-3. The peers multiply in TF32
where their name says so, as a training script may allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import nt_xent
import torch
from gpu_timing import Settings, compare, peak_mebibytes
from harness import Result, Work
from label_losses import CLASSES, GROUPS
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # takes two views' projections [N, P] and labels [N, A]


def run(settings: Settings) -> Iterator[Result]:
    """Compare at each size: NT-Xent at all of them first, then the losses that use labels."""
    sizes = [8] if settings.smoke else [256, 1024, 4096, 16384, 65536]
    for n in sizes:
        yield from _compared("NT-Xent", _nt_xent(), n, 1, settings)
    for name, contenders in GROUPS.items():
        losses = {label: (loss, False) for label, (loss, _) in contenders.items()}
        attributes = next(iter(contenders.values()))[1]
        for n in sizes[:4]:
            yield from _compared(name, losses, n, attributes, settings)


def _nt_xent() -> dict[str, tuple[Loss, bool]]:
    """Return the contenders with whether they multiply in TF32."""
    forms = {
        "ours": (nt_xent.ours, False),
        "plain formula": (nt_xent.plain, False),
        "plain formula, TF32": (nt_xent.plain, True),
        "plain formula, TF32, torch.compile": (nt_xent.compiled, True),
        "lightly, TF32": (nt_xent.lightly, True),
    }
    return {label: (partial(_without_labels, make), tf32) for label, (make, tf32) in forms.items()}


_made: dict[Callable[[], nt_xent.Loss], nt_xent.Loss] = {}


def _without_labels(make: Callable[[], nt_xent.Loss], z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
    if make not in _made:  # torch.compile caches by function
        _made[make] = make()
    return _made[make](z_i, z_j)


def _compared(
    name: str, losses: dict[str, tuple[Loss, bool]], n: int, attributes: int, settings: Settings
) -> Iterator[Result]:
    if settings.smoke:
        losses = {label: made for label, made in losses.items() if "compile" not in label}
    makers = {label: partial(_work, *loss, n, attributes, settings.device) for label, loss in losses.items()}
    calls, rounds = (10, 7) if n <= 4096 else (1, 5)
    note = f"D={nt_xent.WIDTH}"
    yield compare(f"{name}, N={n}", makers, settings, calls=calls, rounds=rounds, note=note)
    peaks = {}
    for label, make in makers.items():
        try:
            work = make()
            work()
            peak = peak_mebibytes(work, settings.device)
        except (RuntimeError, ImportError):
            continue  # the comparison's note names it
        if peak is not None:
            peaks[label] = peak
    if "ours" in peaks:
        ratios = {label: (peak / peaks["ours"],) * 3 for label, peak in peaks.items() if label != "ours"}
        yield Result(f"{name}, N={n}, memory", "MiB", peaks, ratios, "rise of the peak over the inputs")


def _work(loss: Loss, tf32: bool, n: int, attributes: int, device: str) -> Work:
    g = torch.Generator().manual_seed(0)
    z_i, z_j = (torch.randn(n, nt_xent.WIDTH, generator=g).to(device).requires_grad_() for _ in range(2))
    labels = torch.stack([torch.randint(count, (n,), generator=g) for count in CLASSES[-attributes:]], dim=1)
    labels = labels.to(device)

    def once() -> None:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        z_i.grad = z_j.grad = None
        loss(z_i, z_j, labels).backward()

    return once
