"""What the contrastive losses have in common: two views' projections become the anchors of a joint batch.

anchors, counts, labels = joint_anchors(z_i, z_j, temperature, labels)
losses = ...                                     a loss for each of this process's 2n anchors
mean_over_anchors(losses.sum(), counts)          the mean over all 2N, those of every process
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.gather import gather_rows, row_counts, sum_over_processes
from simclr.shared_label import MOST_ATTRIBUTES


def joint_anchors(
    z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor | None = None
) -> tuple[Tensor, list[int], Tensor | None]:
    """Checks what a contrastive loss is given, and returns this process's anchors.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], of the same dtype and device.
        temperature: what similarities will be divided by, above 0.
        labels: of the same images, [n, A], a signed integer dtype, below 0 where unknown; or None.

    Returns:
        This process's projections [2n, P], view 0 first, of length 1 or 0, in float64 where they were and else in
        float32; how many each process has; and with labels those of every process's anchors, [2N, A].

    Raises:
        ValueError: if the projections or labels are not as said above, the temperature is not a finite number above 0,
            or all processes together hold fewer than two images: one image has no negatives.
    """
    check_temperature(temperature)
    _check_projections(z_i, z_j)
    if labels is not None:
        _check_labels(labels, z_i)
    anchors = _unit_rows(torch.cat([z_i, z_j]).to(torch.float64 if z_i.dtype == torch.float64 else torch.float32))
    counts = row_counts(anchors, labels)
    if sum(counts) < 4:
        raise ValueError(
            f"expected at least 2 images over all processes, got {sum(counts) // 2}: there are no negatives"
        )
    if labels is not None:
        images = [count // 2 for count in counts]
        shares = gather_rows(labels, images).split(images)
        labels = torch.cat([share for share in shares for _ in range(2)])  # a process's view 0, and its view 1
    return anchors, counts, labels


def positive_exponents(anchors: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Returns for each image of this process its two views' similarity / temperature, [n].

    Args:
        anchors: as of `joint_anchors`, [2n, P].
        temperature: above 0.
        dtype: to compute in.
    """
    z_i, z_j = anchors.chunk(2) if len(anchors) else (anchors, anchors)
    return (z_i.to(dtype) * z_j).sum(dim=1) / temperature


def mean_over_anchors(total: Tensor, counts: list[int]) -> Tensor:
    """Returns the mean over the 2N anchors of every process, a scalar, of the sum over this process's."""
    return sum_over_processes(total) / sum(counts)


def check_temperature(temperature: float) -> None:
    """Raises ValueError if the temperature is not a finite number above 0."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a finite temperature above 0, got {temperature}")


def _unit_rows(z: Tensor) -> Tensor:
    """Scales each row of [n, P] to length 1; leaves rows of zeros, without a gradient."""
    # Squares of 1e30 or 1e-30 leave float32's range, so the largest entry is first brought to 1. A row's direction
    # does not depend on that factor, so the gradient is exact without the factor's own.
    largest = z.detach().abs().amax(dim=1, keepdim=True)  # [n, 1]
    empty = largest < torch.finfo(z.dtype).tiny  # devices may flush what is smaller to 0
    scaled = z.masked_fill(empty, 0) / largest.masked_fill(empty, 1)
    return F.normalize(scaled, dim=1, eps=0.5)  # lengths are 0 or at least 1: eps only guards the division by 0


def _check_projections(z_i: Tensor, z_j: Tensor) -> None:
    if z_i.ndim != 2 or z_i.shape != z_j.shape or z_i.shape[1] == 0:
        raise ValueError(
            f"expected projections of two views of one shape [n, P], got {list(z_i.shape)} and {list(z_j.shape)}"
        )
    if z_i.dtype != z_j.dtype or not z_i.is_floating_point():
        raise ValueError(f"expected projections of one floating dtype, got {z_i.dtype} and {z_j.dtype}")
    if z_i.device != z_j.device:
        raise ValueError(f"expected projections on one device, got {z_i.device} and {z_j.device}")


def _check_labels(labels: Tensor, z: Tensor) -> None:
    if labels.ndim != 2 or len(labels) != len(z):
        raise ValueError(f"expected labels of shape [n, A] for n = {len(z)} images, got {list(labels.shape)}")
    if labels.shape[1] > MOST_ATTRIBUTES:
        raise ValueError(f"expected labels of at most {MOST_ATTRIBUTES} attributes, got {labels.shape[1]}")
    if labels.is_floating_point() or not labels.dtype.is_signed:
        raise ValueError(f"expected labels of a signed integer dtype, got {labels.dtype}")
    if labels.device != z.device:
        raise ValueError(f"expected labels on the projections' device, got {labels.device} and {z.device}")
