"""SupCon, supervised contrastive learning, generalized to images with several attributes.

- Supervised Contrastive Learning, Khosla et al., 2020, https://arxiv.org/abs/2004.11362 (equation 2, L_out)

An anchor has several positives: the other view of its image, and both views of images that share labels with it. Its
loss is the weighted mean of their cross-entropies, averaged outside the logarithm. With s_ik = cosine similarity /
temperature, and p and k over the other 2N - 1 projections:

    loss_i = sum over p != i of w_ip * (log sum over k != i of exp(s_ik) - s_ip) / sum over p != i of w_ip

    w_ip = 1                                                        if p is the other view of the anchor's image
    w_ip = labels known and equal in both / labels known in both    if p is a view of another image; 0 for 0 / 0

The loss is the mean over all 2N anchors. Positives are graded: an image that agrees in all known labels weighs as much
as the anchor's own image, and one that agrees in one of three weighs a third. A blank cell is evidence neither for nor
against. With one attribute and no blanks this is L_out of the paper. An image without labels has one positive, its
other view, as in NT-Xent. As in the paper, the denominator includes the positives.

Processes share their projections, as in `simclr.nt_xent`, and their labels.
"""

from torch import Tensor

from simclr.contrastive_loss import contrastive_loss
from simclr.joint_batch import joint_anchors, mean_over_anchors
from simclr.log_sum_exp import cross_entropy_of_positives
from simclr.temperature_loss import TemperatureLoss


class SupConLoss(TemperatureLoss):
    """`sup_con_loss` as a module with a fixed temperature; the paper uses 0.1.

    Args:
        temperature: divisor of the cosine similarities, finite and above 0.

    Raises:
        ValueError: the temperature is not a finite number above 0.

    Example:
        >>> import torch
        >>> from simclr import SupConLoss
        >>> z = torch.eye(4)
        >>> SupConLoss(temperature=0.5)(z, z, labels=torch.tensor([[0], [0], [1], [1]]))
        tensor(1.9278)
    """

    def forward(self, z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
        """Return `sup_con_loss` at this temperature, a scalar."""
        return sup_con_loss(z_i, z_j, labels, self.temperature)


def sup_con_loss(z_i: Tensor, z_j: Tensor, labels: Tensor, temperature: float = 0.5) -> Tensor:
    """Return the supervised contrastive loss, the mean over the 2N anchors of all processes.

    Precision and several processes are as in `nt_xent_loss`.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], same dtype and device as `z_i`.
        labels: class indices of the same images, [n, A], a signed integer dtype, negative where unknown, at most 255
            attributes.
        temperature: divisor of the cosine similarities, finite and above 0.

    Returns:
        A scalar, float64 for float64 projections and float32 for all others. It is `chance_level(N)` when all
        similarities are equal, for any labels.

    Raises:
        ValueError: the same cases as for `nt_xent_loss`.

    Example:
        >>> import torch
        >>> from simclr import sup_con_loss
        >>> z = torch.eye(4)
        >>> unknown = torch.full((4, 1), -100)
        >>> sup_con_loss(z, z, unknown, temperature=0.5)  # without known labels it equals nt_xent_loss
        tensor(0.5944)
    """
    return contrastive_loss(z_i, z_j, temperature, labels, _in_blocks, weigh_positives=True)


def _in_blocks(z_i: Tensor, z_j: Tensor, temperature: float, images: list[int], labels: Tensor | None) -> Tensor:
    anchors, counts, labels = joint_anchors(z_i, z_j, images, labels)
    assert labels is not None
    losses = cross_entropy_of_positives(anchors, temperature, counts, labels)  # [2n]
    return mean_over_anchors(losses.sum(), counts).to(anchors.dtype)
