"""DCL, decoupled contrastive learning: NT-Xent whose positive does not stand among what it is told from.

- Decoupled Contrastive Learning, Yeh et al., 2021, https://arxiv.org/abs/2110.06848 (equation 6, without weights)

An anchor's loss is -s_ip + log sum over k of exp(s_ik), where s are cosine similarities / temperature, p is the other
view of its image, and k runs over both views of all other images: 2N - 2 negatives. In NT-Xent the positive is in that
sum too, so that an anchor which finds its positive easily gets a small gradient, the smaller the fewer negatives there
are; here it does not. The loss is the mean over all 2N anchors, and may be negative.

Processes share their projections, and false negatives can be left out, as in `nt_xent`.
"""

import math

import torch
from torch import Tensor, nn

from simclr.anchor import check_temperature, joint_anchors, mean_over_anchors, positive_exponents
from simclr.log_sum_exp import log_sum_exp_of_others


class DCLLoss(nn.Module):
    """`dcl_loss` with a fixed temperature.

    Args:
        temperature: what similarities are divided by, above 0.

    Raises:
        ValueError: if the temperature is not a finite number above 0.

    Example:
        >>> z = torch.eye(4)
        >>> DCLLoss(temperature=0.5)(z, z)
        tensor(-0.2082)
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(self, z_i: Tensor, z_j: Tensor, labels: Tensor | None = None) -> Tensor:
        """Computes the loss of two views' projections; see `dcl_loss`."""
        return dcl_loss(z_i, z_j, self.temperature, labels)

    def extra_repr(self) -> str:
        """Returns what is printed between the module's parentheses."""
        return f"temperature={self.temperature}"


def dcl_loss(z_i: Tensor, z_j: Tensor, temperature: float = 0.5, labels: Tensor | None = None) -> Tensor:
    """Computes the mean decoupled loss over all 2N anchors, those of every process.

    Precision, scale and several processes are as in `nt_xent_loss`.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], of the same dtype and device.
        temperature: what similarities are divided by, above 0.
        labels: leave false negatives out by these labels of the same images, [n, A], of a signed integer dtype and
            below 0 where unknown. Every process must give them, or none. An anchor that is left without negatives has
            nothing to be told from: like NT-Xent's it counts as 0, without a gradient.

    Returns:
        A scalar, float32 or float64. `dcl_chance_level(N)` is its value when all similarities are equal; with labels
        that is the mean over the anchors of ln(negatives), at most as much.

    Raises:
        ValueError: as `nt_xent_loss` does.
    """
    with torch.autocast(device_type=z_i.device.type, enabled=False):
        anchors, counts, labels = joint_anchors(z_i, z_j, temperature, labels)
        logs = log_sum_exp_of_others(anchors, temperature, counts, labels, decoupled=True)  # [2n]
        losses = logs - positive_exponents(anchors, temperature, logs.dtype).repeat(2)
        losses = losses.masked_fill(logs == -math.inf, 0)
        return mean_over_anchors(losses.sum(), counts).to(anchors.dtype)


def dcl_chance_level(n: int) -> float:
    """Returns ln(2n - 2), the loss when all similarities are equal: what an untrained or collapsed model scores.

    Args:
        n: images in the joint batch, that is over all processes, at least 2.

    Raises:
        ValueError: if there are fewer than two images.
    """
    if n < 2:
        raise ValueError(f"expected at least 2 images, got {n}: there are no negatives")
    return math.log(2 * n - 2)


def dcl_best_level(n: int, temperature: float) -> float:
    """Returns the lowest loss there can be: positives are alike, and all images as far from each other as they can be.

    Args:
        n: images in the joint batch, at least 2.
        temperature: above 0.

    Raises:
        ValueError: if there are fewer than two images, or the temperature is not a finite number above 0.
    """
    check_temperature(temperature)
    # The mean similarity of n unit vectors is at least -1 / (n - 1): that of a regular simplex.
    return dcl_chance_level(n) - (1 + 1 / (n - 1)) / temperature
