"""NT-Xent, the normalized temperature-scaled cross-entropy loss of SimCLR.

- SimCLR, Chen et al., 2020, https://arxiv.org/abs/2002.05709 (equation 1 and algorithm 1)

N images with two views each give 2N projections, and each projection is an anchor. Its positive is the other view of
the same image; its negatives are the 2N - 2 views of other images. With s_ik = cosine similarity / temperature:

    loss_i = -s_ip + log sum over k != i of exp(s_ik)        p: the positive of anchor i

This is the cross-entropy of a softmax over the other 2N - 1 projections. As in the paper, the loss is the mean over all
2N anchors.

With several processes, N counts the images of all of them, and process r holds n_r images:

                   process 0   |   process 1
                  z_i     z_j  |  z_i     z_j      2N columns: the projections of every process, gathered
                +-------+------+-------+------+
    process z_i |                -     +      |    - the anchor itself, excluded
       1    z_j |                +     -      |    + the positive
                +-------+------+-------+------+    2 n_1 rows: the anchors of process 1

NT-Xent also pushes images of the same class apart. Labels can exclude these false negatives: another image is excluded
if all labels known in both images are equal, and at least one is known in both.
"""

import math

from torch import Tensor

from simclr.contrastive_loss import contrastive_loss
from simclr.joint_batch import check_images, check_temperature, joint_anchors, mean_over_anchors, positive_logits
from simclr.log_sum_exp import log_sum_exp_of_others
from simclr.temperature_loss import TemperatureLoss


class NTXentLoss(TemperatureLoss):
    """`nt_xent_loss` as a module with a fixed temperature; the paper uses 0.1 for ImageNet and 0.5 for CIFAR-10.

    Args:
        temperature: divisor of the cosine similarities, finite and above 0.

    Raises:
        ValueError: the temperature is not a finite number above 0.

    Example:
        >>> import torch
        >>> from simclr import NTXentLoss
        >>> z = torch.eye(4)
        >>> NTXentLoss(temperature=0.5)(z, z)
        tensor(0.5944)
    """

    def forward(self, z_i: Tensor, z_j: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return `nt_xent_loss` at this temperature, a scalar."""
        return nt_xent_loss(z_i, z_j, self.temperature, labels)


def nt_xent_loss(z_i: Tensor, z_j: Tensor, temperature: float = 0.5, labels: Tensor | None = None) -> Tensor:
    """Return the NT-Xent loss, the mean over the 2N anchors of all processes.

    Precision: float64 projections are computed in float64 and all others in float32, also under autocast. Projections
    need no normalization and may have any finite length. A vector of zeros has no direction; its gradient is 0.

    Several processes: under torch.distributed every process must make this call and run the backward pass. Each passes
    its own images, possibly none, and gets the loss of the joint batch. Its gradient is W times its slice of the joint
    gradient, so DistributedDataParallel's average over W processes is the joint gradient.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], same dtype and device as `z_i`.
        temperature: divisor of the cosine similarities, finite and above 0.
        labels: class indices of the same images, [n, A], a signed integer dtype, negative where unknown, at most 255
            attributes. They exclude false negatives. Either every process passes labels, or none does.

    Returns:
        A scalar, float64 for float64 projections and float32 for all others. It is `chance_level(N)` when all
        similarities are equal. With labels it is then the mean over the anchors of ln(1 + number of negatives).

    Raises:
        ValueError: shapes, dtypes or devices are not as described above; the temperature is not a finite number above
            0; or all processes together hold fewer than two images, so that there are no negatives.

    Example:
        >>> import torch
        >>> from simclr import nt_xent_loss
        >>> z = torch.eye(4)  # each anchor: its positive at similarity 1, six negatives at 0
        >>> nt_xent_loss(z, z, temperature=0.5)  # ln(1 + 6 exp(-2))
        tensor(0.5944)
        >>> nt_xent_loss(z, z, temperature=0.5, labels=torch.tensor([[0], [0], [1], [1]]))  # ln(1 + 4 exp(-2))
        tensor(0.4327)
    """
    return contrastive_loss(z_i, z_j, temperature, labels, _in_blocks)


def _in_blocks(z_i: Tensor, z_j: Tensor, temperature: float, images: list[int], labels: Tensor | None) -> Tensor:
    anchors, counts, labels = joint_anchors(z_i, z_j, images, labels)
    logs = log_sum_exp_of_others(anchors, temperature, counts, labels)  # [2n]
    positives = positive_logits(anchors, temperature, logs.dtype)  # [n], each shared by two anchors
    return mean_over_anchors(logs.sum() - 2 * positives.sum(), counts).to(anchors.dtype)


def chance_level(n: int) -> float:
    """Return ln(2n - 1), the NT-Xent loss of a model whose similarities are all equal, untrained or collapsed.

    Args:
        n: number of images in the joint batch, over all processes, at least 2.

    Raises:
        ValueError: there are fewer than two images.
    """
    check_images(n)
    return math.log(2 * n - 1)


def best_level(n: int, temperature: float) -> float:
    """Return the lowest possible NT-Xent loss: both views of an image coincide, and the images are equally far apart.

    Args:
        n: number of images in the joint batch, over all processes, at least 2.
        temperature: divisor of the cosine similarities, finite and above 0.

    Raises:
        ValueError: there are fewer than two images, or the temperature is not a finite number above 0.
    """
    check_images(n)
    check_temperature(temperature)
    # The mean similarity of n unit vectors is at least -1 / (n - 1), which a regular simplex attains.
    return math.log1p((2 * n - 2) * math.exp(-(1 + 1 / (n - 1)) / temperature))
