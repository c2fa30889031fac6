"""NT-Xent, the normalized temperature-scaled cross entropy of SimCLR.

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

Images of one class are pushed apart as any others are. Where labels are known, such false negatives can be left out:
other images are then no negatives of an anchor where the labels that are known of both all agree, and there is one.
"""

import math

import torch
from torch import Tensor, nn

from simclr.anchor import check_temperature, joint_anchors, mean_over_anchors, positive_exponents
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
        check_temperature(temperature)
        self.temperature = temperature

    def forward(self, z_i: Tensor, z_j: Tensor, labels: Tensor | None = None) -> Tensor:
        """Computes the loss of two views' projections; see `nt_xent_loss`."""
        return nt_xent_loss(z_i, z_j, self.temperature, labels)

    def extra_repr(self) -> str:
        """Returns what is printed between the module's parentheses."""
        return f"temperature={self.temperature}"


def nt_xent_loss(z_i: Tensor, z_j: Tensor, temperature: float = 0.5, labels: Tensor | None = None) -> Tensor:
    """Computes the mean NT-Xent loss over all 2N anchors, those of every process.

    Computed in float64 for float64 projections and in float32 for all others, also under autocast. Projections need
    not be normalized, and may be of any finite size; the gradient at a vector of zeros, which has no direction, is 0.

    Under torch.distributed every process must make the call, and the backward pass, each with as many images as it
    has: 0 is allowed. The value on each of W processes is that of the joint batch, and the gradient is W times this
    process's slice of the joint gradient, so that averaging over processes, as DistributedDataParallel does, gives
    the joint gradient.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], of the same dtype and device.
        temperature: what similarities are divided by, above 0.
        labels: leave false negatives out by these labels of the same images, [n, A], of a signed integer dtype and
            below 0 where unknown. Every process must give them, or none.

    Returns:
        A scalar, float32 or float64. `chance_level(N)` is its value when all similarities are equal; with labels that
        is the mean over the anchors of ln(1 + negatives), at most as much.

    Raises:
        ValueError: if the projections or labels are not as said above, the temperature is not a finite number above 0,
            or all processes together hold fewer than two images: one image has no negatives.
    """
    with torch.autocast(device_type=z_i.device.type, enabled=False):
        anchors, counts, labels = joint_anchors(z_i, z_j, temperature, labels)
        logs = log_sum_exp_of_others(anchors, temperature, counts, labels)  # [2n]
        positives = positive_exponents(anchors, temperature, logs.dtype)  # [n], each of two anchors
        return mean_over_anchors(logs.sum() - 2 * positives.sum(), counts).to(anchors.dtype)


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
    check_temperature(temperature)
    # Of n unit vectors the mean similarity is at least -1 / (n - 1): that of a regular simplex.
    return math.log1p((2 * n - 2) * math.exp(-(1 + 1 / (n - 1)) / temperature))
