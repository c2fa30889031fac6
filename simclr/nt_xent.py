"""NT-Xent, the normalised temperature-scaled cross entropy of SimCLR.

- SimCLR, Chen et al., 2020, https://arxiv.org/abs/2002.05709 (equation 1 and algorithm 1)

Two views of each of N images are 2N projections. Each of them is an anchor that must pick the other view of its image,
its positive, out of the 2N - 1 other projections, by softmax over cosine similarity / temperature. The loss is the
mean of the anchors' cross entropies over all 2N anchors, as in the paper; an anchor is never compared with itself.

With several processes the N images are those of all of them, and process r holds n_r of each view:

                  process 0   |   process 1
                 z_i     z_j  |  z_i     z_j      2N columns: the projections of every process, gathered
               +-------+------+-------+------+
    this   z_i |                -     +      |    - oneself, left out
    one, 1 z_j |                +     -      |    + the positive
               +-------+------+-------+------+    2 n_1 rows: this process's anchors, no others'
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.gather import row_counts, sum_over_processes
from simclr.log_sum_exp import log_sum_exp_of_others


class NTXentLoss(nn.Module):
    """`nt_xent_loss` with a fixed temperature.

    Args:
        temperature: what similarities are divided by, above 0; the lower, the more the hardest negatives count. The
            paper uses 0.1 for ImageNet and 0.5 for CIFAR-10.

    Raises:
        ValueError: if the temperature is not a finite number above 0.

    Example:
        >>> z = torch.eye(4)
        >>> NTXentLoss(temperature=0.5)(z, z)
        tensor(0.5944)
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        _check_temperature(temperature)
        self.temperature = temperature

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Computes the loss of two views' projections; see `nt_xent_loss`."""
        return nt_xent_loss(z_i, z_j, self.temperature)

    def extra_repr(self) -> str:
        """Returns what is printed between the module's parentheses."""
        return f"temperature={self.temperature}"


def nt_xent_loss(z_i: Tensor, z_j: Tensor, temperature: float = 0.5) -> Tensor:
    """Computes the mean NT-Xent loss over all 2N anchors, those of every process.

    Computed in float64 for float64 projections and in float32 for all others, also under autocast. Projections need
    not be normalised, and may be of any finite size; the gradient at a vector of zeros, which has no direction, is 0.

    Under torch.distributed every process must make the call, and the backward pass, each with as many images as it
    has: 0 is allowed. The value on each of W processes is that of the joint batch, and the gradient is W times this
    process's slice of the joint gradient, so that averaging over processes, as DistributedDataParallel does, gives
    the joint gradient.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], of the same dtype and device.
        temperature: what similarities are divided by, above 0.

    Returns:
        A scalar, float32 or float64. `chance_level(N)` is its value when all similarities are equal.

    Raises:
        ValueError: if the projections are not as said above, the temperature is not a finite number above 0, or all
            processes together hold fewer than two images: one image has no negatives.
    """
    _check_temperature(temperature)
    _check_projections(z_i, z_j)
    dtype = torch.float64 if z_i.dtype == torch.float64 else torch.float32
    with torch.autocast(device_type=z_i.device.type, enabled=False):
        anchors = _unit_rows(torch.cat([z_i.to(dtype), z_j.to(dtype)]))  # [2n, P], this process's
        counts = row_counts(anchors)
        total = sum(counts)  # 2N
        if total < 4:
            raise ValueError(f"expected at least 2 images over all processes, got {total // 2}: there are no negatives")
        logs = log_sum_exp_of_others(anchors, temperature, counts)  # [2n]
        n = len(z_i)
        positives = (anchors[:n].to(logs.dtype) * anchors[n:]).sum(dim=1) / temperature  # [n], each of two anchors
        return (sum_over_processes(logs.sum() - 2 * positives.sum()) / total).to(dtype)


def chance_level(n: int) -> float:
    """Returns ln(2n - 1), the loss when all similarities are equal: what an untrained or collapsed model scores.

    Args:
        n: images in the joint batch, that is over all processes, at least 2.

    Raises:
        ValueError: if there are fewer than two images.
    """
    if n < 2:
        raise ValueError(f"expected at least 2 images, got {n}: there are no negatives")
    return math.log(2 * n - 1)


def best_level(n: int, temperature: float) -> float:
    """Returns the lowest loss there can be: positives are alike, and all images as far from each other as they can be.

    Args:
        n: images in the joint batch, at least 2.
        temperature: above 0.

    Raises:
        ValueError: if there are fewer than two images, or the temperature is not a finite number above 0.
    """
    chance_level(n)
    _check_temperature(temperature)
    # Of n unit vectors the mean similarity is at least -1 / (n - 1): that of a regular simplex.
    return math.log1p((2 * n - 2) * math.exp(-(1 + 1 / (n - 1)) / temperature))


def _unit_rows(z: Tensor) -> Tensor:
    """Scales each row of [n, P] to length 1; leaves rows of zeros, without a gradient."""
    # Squares of 1e30 or 1e-30 leave float32's range, so the largest entry is first brought to 1. A row's direction
    # does not depend on that factor, so the gradient is exact without the factor's own.
    largest = z.detach().abs().amax(dim=1, keepdim=True)  # [n, 1]
    empty = largest < torch.finfo(z.dtype).tiny  # devices may flush what is smaller to 0
    scaled = z.masked_fill(empty, 0) / largest.masked_fill(empty, 1)
    return F.normalize(scaled, dim=1, eps=0.5)  # lengths are 0 or at least 1: eps only guards the division by 0


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a finite temperature above 0, got {temperature}")


def _check_projections(z_i: Tensor, z_j: Tensor) -> None:
    if z_i.ndim != 2 or z_i.shape != z_j.shape or z_i.shape[1] == 0:
        raise ValueError(
            f"expected projections of two views of one shape [n, P], got {list(z_i.shape)} and {list(z_j.shape)}"
        )
    if z_i.dtype != z_j.dtype or not z_i.is_floating_point():
        raise ValueError(f"expected projections of one floating dtype, got {z_i.dtype} and {z_j.dtype}")
    if z_i.device != z_j.device:
        raise ValueError(f"expected projections on one device, got {z_i.device} and {z_j.device}")
