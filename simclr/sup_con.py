"""SupCon, supervised contrastive learning, with positives by how many labels two images share.

- Supervised Contrastive Learning, Khosla et al., 2020, https://arxiv.org/abs/2004.11362 (equation 2, L_out)

An anchor must pick each of its positives out of the 2N - 1 other projections, by softmax over cosine similarity /
temperature. Its loss is the weighted mean of the cross entropies of its positives, averaged outside the logarithm:

    loss_i = sum over p != i of w_ip * (log sum over k != i of exp(s_ik) - s_ip) / sum over p != i of w_ip

    w_ip = 1                                                      for the other view of the anchor's own image
    w_ip = labels known in both and equal / labels known in both  for both views of another image; 0 if none is known

The loss is the mean over all 2N anchors. Images of several attributes are positives by degrees: two that agree in all
that is known of both weigh as much as the anchor's own image, two that agree in one of three attributes a third of it.
A blank is evidence neither for nor against. With one attribute and no blanks this is L_out of the paper, and an image
without any label has NT-Xent's own positive alone. As in the paper, a positive also stands in the sum below.

Processes share their projections as in `nt_xent`, and beside them their labels.
"""

import torch
from torch import Tensor, nn

from simclr.anchor import check_temperature, joint_anchors, mean_over_anchors
from simclr.log_sum_exp import log_sum_exp_less_positives


class SupConLoss(nn.Module):
    """`sup_con_loss` with a fixed temperature.

    Args:
        temperature: what similarities are divided by, above 0. The paper uses 0.1.

    Raises:
        ValueError: if the temperature is not a finite number above 0.

    Example:
        >>> z = torch.eye(4)
        >>> SupConLoss(temperature=0.5)(z, z, torch.tensor([[0], [0], [1], [1]]))
        tensor(1.9278)
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(self, z_i: Tensor, z_j: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of two views' projections; see `sup_con_loss`."""
        return sup_con_loss(z_i, z_j, labels, self.temperature)

    def extra_repr(self) -> str:
        """Returns what is printed between the module's parentheses."""
        return f"temperature={self.temperature}"


def sup_con_loss(z_i: Tensor, z_j: Tensor, labels: Tensor, temperature: float = 0.5) -> Tensor:
    """Computes the mean supervised contrastive loss over all 2N anchors, those of every process.

    Precision, scale and several processes are as in `nt_xent_loss`.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], of the same dtype and device.
        labels: of the same images, [n, A], of a signed integer dtype and below 0 where unknown.
        temperature: what similarities are divided by, above 0.

    Returns:
        A scalar, float32 or float64. When all similarities are equal it is `chance_level(N)`, whatever the labels.

    Raises:
        ValueError: as `nt_xent_loss` does.
    """
    with torch.autocast(device_type=z_i.device.type, enabled=False):
        anchors, counts, everyones = joint_anchors(z_i, z_j, temperature, labels)
        assert everyones is not None
        losses = log_sum_exp_less_positives(anchors, temperature, counts, everyones)  # [2n]
        return mean_over_anchors(losses.sum(), counts).to(anchors.dtype)
