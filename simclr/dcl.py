"""DCL, decoupled contrastive learning: NT-Xent without the positive in the denominator.

- Decoupled Contrastive Learning, Yeh et al., 2021, https://arxiv.org/abs/2110.06848 (equation 6, without weights)

With s_ik = cosine similarity / temperature, p the other view of anchor i's image, and k over both views of all other
images (2N - 2 negatives):

    loss_i = -s_ip + log sum over k of exp(s_ik)

NT-Xent has the positive in that sum too. An anchor whose positive is already close then gets a small gradient, and
fewer negatives make it smaller. DCL avoids this, so it suffers less from small batches. The loss is the mean over all
2N anchors, and may be negative.

Processes share their projections, and labels can exclude false negatives, as in `simclr.nt_xent`.
"""

import math

from torch import Tensor

from simclr.contrastive_loss import contrastive_loss
from simclr.joint_batch import check_images, check_temperature, joint_anchors, mean_over_anchors, positive_logits
from simclr.log_sum_exp import log_sum_exp_of_others
from simclr.temperature_loss import TemperatureLoss


class DCLLoss(TemperatureLoss):
    """`dcl_loss` as a module with a fixed temperature.

    Args:
        temperature: divisor of the cosine similarities, finite and above 0.

    Raises:
        ValueError: the temperature is not a finite number above 0.

    Example:
        >>> import torch
        >>> from simclr import DCLLoss
        >>> z = torch.eye(4)
        >>> DCLLoss(temperature=0.5)(z, z)
        tensor(-0.2082)
    """

    def forward(self, z_i: Tensor, z_j: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return `dcl_loss` at this temperature, a scalar."""
        return dcl_loss(z_i, z_j, self.temperature, labels)


def dcl_loss(z_i: Tensor, z_j: Tensor, temperature: float = 0.5, labels: Tensor | None = None) -> Tensor:
    """Return the decoupled contrastive loss, the mean over the 2N anchors of all processes.

    Precision and several processes are as in `nt_xent_loss`.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], same dtype and device as `z_i`.
        temperature: divisor of the cosine similarities, finite and above 0.
        labels: class indices of the same images, [n, A], a signed integer dtype, negative where unknown, at most 255
            attributes. They exclude false negatives. Either every process passes labels, or none does. An anchor that
            is left without negatives has loss 0 and no gradient, and still counts in the mean.

    Returns:
        A scalar, float64 for float64 projections and float32 for all others. It is `dcl_chance_level(N)` when all
        similarities are equal. With labels it is then the mean over the anchors of ln(number of negatives).

    Raises:
        ValueError: the same cases as for `nt_xent_loss`.

    Example:
        >>> import torch
        >>> from simclr import dcl_loss
        >>> z = torch.eye(4)  # each anchor: its positive at similarity 1, six negatives at 0
        >>> dcl_loss(z, z, temperature=0.5)  # -2 + ln(6)
        tensor(-0.2082)
    """
    return contrastive_loss(z_i, z_j, temperature, labels, _in_blocks, decoupled=True)


def _in_blocks(z_i: Tensor, z_j: Tensor, temperature: float, images: list[int], labels: Tensor | None) -> Tensor:
    anchors, counts, labels = joint_anchors(z_i, z_j, images, labels)
    logs = log_sum_exp_of_others(anchors, temperature, counts, labels, decoupled=True)  # [2n]
    losses = logs - positive_logits(anchors, temperature, logs.dtype).repeat(2)
    losses = losses.masked_fill(logs == -math.inf, 0)
    return mean_over_anchors(losses.sum(), counts).to(anchors.dtype)


def dcl_chance_level(n: int) -> float:
    """Return ln(2n - 2), the DCL loss of a model whose similarities are all equal, untrained or collapsed.

    Args:
        n: number of images in the joint batch, over all processes, at least 2.

    Raises:
        ValueError: there are fewer than two images.
    """
    check_images(n)
    return math.log(2 * n - 2)


def dcl_best_level(n: int, temperature: float) -> float:
    """Return the lowest possible DCL loss: both views of an image coincide, and the images are equally far apart.

    Args:
        n: number of images in the joint batch, over all processes, at least 2.
        temperature: divisor of the cosine similarities, finite and above 0.

    Raises:
        ValueError: there are fewer than two images, or the temperature is not a finite number above 0.
    """
    check_images(n)
    check_temperature(temperature)
    # The mean similarity of n unit vectors is at least -1 / (n - 1), which a regular simplex attains.
    return dcl_chance_level(n) - (1 + 1 / (n - 1)) / temperature
