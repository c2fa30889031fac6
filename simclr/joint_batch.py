"""The joint batch of all processes: the first and last steps of every contrastive loss.

    z_i, z_j, images = joint_batch(z_i, z_j, temperature, labels)    # check, and count the images of each process
    anchors, counts, labels = joint_anchors(z_i, z_j, images, labels)    # normalize
    losses = ...                                                     # one for each local anchor, [2n]
    loss = mean_over_anchors(losses.sum(), counts)                   # mean over the 2N anchors of all processes

n is the number of images on this process, N the number on all of them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.collectives import gather_rows, row_counts, sum_over_processes
from simclr.label_agreement import MAX_ATTRIBUTES


def joint_batch(
    z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor | None = None
) -> tuple[Tensor, Tensor, list[int]]:
    """Check the inputs of a contrastive loss, and count the images of all processes.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], same dtype and device as `z_i`.
        temperature: divisor of the cosine similarities, finite and above 0.
        labels: class indices of the same images, [n, A], a signed integer dtype, negative where unknown; or None.

    Returns:
        The projections of both views, [n, P] each, in float64 for float64 projections and in float32 for all others.
        Then the number of images on each process, by rank.

    Raises:
        ValueError: shapes, dtypes or devices are not as described above; the temperature is not a finite number above
            0; or all processes together hold fewer than two images, so that there are no negatives.
    """
    check_temperature(temperature)
    _check_projections(z_i, z_j)
    if labels is not None:
        _check_labels(labels, z_i)
    dtype = torch.float64 if z_i.dtype == torch.float64 else torch.float32
    z_i, z_j = z_i.to(dtype), z_j.to(dtype)
    images = row_counts(z_i, labels)
    if sum(images) < 2:
        raise ValueError(f"expected at least 2 images over all processes, got {sum(images)}: there are no negatives")
    return z_i, z_j, images


def joint_anchors(
    z_i: Tensor, z_j: Tensor, images: list[int], labels: Tensor | None = None
) -> tuple[Tensor, list[int], Tensor | None]:
    """Return this process's anchors.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], float32 or float64.
        z_j: projections of view 1 of the same images, [n, P].
        images: number of images on each process, by rank.
        labels: class indices of the same images, [n, A]; or None.

    Returns:
        The anchors: this process's projections [2n, P], view 0 first, scaled to length 1; rows of zeros stay zero. Then
        the number of anchors on each process, by rank. Then the labels of the anchors of all processes, [2N, A], or
        None.
    """
    anchors = _unit_rows(torch.cat([z_i, z_j]))
    if labels is not None:
        by_rank = gather_rows(labels, images).split(images)
        labels = torch.cat([part for part in by_rank for _ in range(2)])  # [2N, A]: each process's view 0, then view 1
    return anchors, [2 * count for count in images], labels


def positive_logits(anchors: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Return the similarity of each local image's two views / temperature, [n].

    Args:
        anchors: the anchors that `joint_anchors` returns, [2n, P].
        temperature: divisor of the similarities, above 0.
        dtype: dtype of the computation and the result.
    """
    z_i, z_j = anchors.chunk(2) if len(anchors) else (anchors, anchors)
    return (z_i.to(dtype) * z_j).sum(dim=1) / temperature


def mean_over_anchors(local_sum: Tensor, counts: list[int]) -> Tensor:
    """Return the mean over the 2N anchors of all processes, a scalar.

    Args:
        local_sum: sum over this process's anchors, a scalar.
        counts: number of anchors on each process, by rank.
    """
    return sum_over_processes(local_sum) / sum(counts)


def check_temperature(temperature: float) -> None:
    """Raise ValueError if the temperature is not a finite number above 0."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a finite temperature above 0, got {temperature}")


def check_images(n: int) -> None:
    """Raise ValueError if a joint batch of n images has no negatives: if n is below 2."""
    if n < 2:
        raise ValueError(f"expected at least 2 images, got {n}: there are no negatives")


def _unit_rows(z: Tensor) -> Tensor:
    """Scale each row of [n, P] to length 1; rows of zeros stay zero and have no gradient."""
    # The squares of 1e30 and 1e-30 leave the range of float32, so first divide by the largest entry. The direction of a
    # row does not depend on that divisor, so the gradient is exact although the divisor is detached.
    largest = z.detach().abs().amax(dim=1, keepdim=True)  # [n, 1]
    empty = largest < torch.finfo(z.dtype).tiny  # [n, 1]; some devices flush smaller numbers to 0
    scaled = z.masked_fill(empty, 0) / largest.masked_fill(empty, 1)
    return F.normalize(scaled, dim=1, eps=0.5)  # lengths are 0 or at least 1, so eps only prevents 0 / 0


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
    if labels.shape[1] > MAX_ATTRIBUTES:
        raise ValueError(f"expected labels of at most {MAX_ATTRIBUTES} attributes, got {labels.shape[1]}")
    if labels.is_floating_point() or not labels.dtype.is_signed:
        raise ValueError(f"expected labels of a signed integer dtype, got {labels.dtype}")
    if labels.device != z.device:
        raise ValueError(f"expected labels on the projections' device, got {labels.device} and {z.device}")
