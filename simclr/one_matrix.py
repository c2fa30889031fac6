"""A contrastive loss and its gradient from one matrix of logits, for small batches.

z [2, N, P] holds the projections of both views. With c = z scaled to length 1 / sqrt(temperature), the logits are
l = c c^T [2N, 2N], and -inf for excluded pairs. With w_ik the weight of pair (i, k) as a positive (see
`simclr.sup_con`), and W_i its sum over k:

    loss     = mean over i of (log sum over k of exp(l_ik) - sum over k of w_ik l_ik / W_i)
    gradient = (G c - 2 Q) / 2N,  G_ik = softmax_ik + softmax_ki,  Q_i = sum over k of w_ik (1 / W_i + 1 / W_k) / 2 c_k

because each row c_i is both an anchor and a column. The sum of c_i . Q_i is also the sum of the positives' mean logits,
so Q serves the loss as well. Labels belong to images, so their matrices are [N, N], not [2N, 2N].
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.label_agreement import LabelAgreement
from simclr.similarity_blocks import LARGEST_LOGIT, sum_dtype


def loss_and_gradient(
    z: Tensor, temperature: float, labels: Tensor | None, decoupled: bool, weigh_positives: bool, need_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss, a scalar, and its gradient for z, [2, N, P], or None.

    Args:
        z: projections of both views of N images, [2, N, P], float32 or float64.
        temperature: divisor of the cosine similarities, above 0.
        labels: class indices of the images, [N, A], negative where unknown; or None.
        decoupled: whether to exclude the other view of the same image.
        weigh_positives: whether labels weigh positives; otherwise they exclude other images whose agreement is 1.
        need_gradient: whether to compute the gradient.
    """
    exact = sum_dtype(z.device)
    agreement = None if labels is None else _agreement(labels, z.dtype)
    columns, divisor, length = _columns(z, temperature)

    # exp(logit), shifted by each row's largest logit where exp could overflow
    rows = columns.flatten(0, 1)  # [2N, P]
    logits = rows @ rows.T
    _exclude(logits, None if weigh_positives else agreement, decoupled)
    bounded = 1 / temperature <= LARGEST_LOGIT[z.dtype]
    largest = None if bounded else logits.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(z.dtype).min)  # [2N, 1]
    exponentials = logits.exp_() if largest is None else logits.sub_(largest).exp_()

    # loss
    sums = exponentials.sum(dim=1).to(exact)  # [2N]
    empty = None  # anchors without negatives have no loss
    if decoupled and agreement is not None:
        empty = sums == 0
        sums = sums.masked_fill_(empty, 1)
        largest = None if largest is None else largest.masked_fill_(empty[:, None], 0)
    logs = sums.log().mean()
    if largest is not None:
        logs += largest.mean(dtype=exact)
    partners = _partners(columns, agreement if weigh_positives else None, empty)  # Q, [2, N, P]
    positives = (columns * partners).sum(dtype=exact)
    loss = logs.sub_(positives, alpha=1 / len(rows)).to(z.dtype)
    if not need_gradient:
        return loss, None

    # gradient of the columns, then of z
    inverses = sums.reciprocal_().to(z.dtype)
    if largest is None:
        exponentials *= inverses[:, None] + inverses  # exp(logit) is symmetric, except in an empty row, which is 0
    else:
        exponentials *= inverses[:, None]
        exponentials = exponentials + exponentials.T
    mean = 1 / len(rows)
    gradient = torch.addmm(partners.flatten(0, 1), exponentials, rows, beta=-2 * mean, alpha=mean).view_as(z)
    inward = (columns * gradient).sum(dim=2, keepdim=True)  # a change of length changes no direction
    gradient.addcmul_(columns, inward, value=-temperature)
    return loss, gradient.div_(length).div_(divisor)


def _columns(z: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return z scaled to length 1 / sqrt(temperature), [2, N, P], and two numbers for each row, [2, N, 1].

    The columns are z / divisor / length. Rows of zeros stay zero and get an infinite divisor, so no gradient.
    """
    # The squares of 1e30 and 1e-30 leave the range of float32, so first divide by the largest entry.
    divisor = torch.linalg.vector_norm(z, math.inf, dim=2, keepdim=True)
    # Some devices flush numbers below the smallest normal one to 0.
    divisor = F.threshold(divisor, torch.finfo(z.dtype).tiny, math.inf, inplace=True)
    columns = z / divisor
    # lengths are 0 or at least 1, so the bound only prevents 0 / 0
    length = torch.linalg.vector_norm(columns, dim=2, keepdim=True).clamp_(min=0.5).mul_(math.sqrt(temperature))
    return columns.div_(length), divisor, length


def _agreement(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the agreement of all pairs of images, [N, N]."""
    images = slice(0, len(labels))
    return LabelAgreement(labels, slice(0, 0), dtype).block(images, images)  # no rows are two views of one image


def _exclude(logits: Tensor, agreement: Tensor | None, decoupled: bool) -> None:
    """Write -inf into logits [2N, 2N] for excluded pairs: each row with itself, and by agreement [N, N]."""
    by_view = logits.view(2, len(logits) // 2, 2, len(logits) // 2)
    if agreement is not None:
        excluded = (agreement == 1).fill_diagonal_(False)  # the same image is no false negative
        by_view.masked_fill_(excluded[:, None], -math.inf)
    if decoupled:
        by_view.diagonal(dim1=1, dim2=3).fill_(-math.inf)
    else:
        logits.fill_diagonal_(-math.inf)


def _partners(columns: Tensor, agreement: Tensor | None, empty: Tensor | None) -> Tensor:
    """Return Q of the module's text, [2, N, P]: each row's positives, with their weights.

    Args:
        columns: the scaled projections, [2, N, P].
        agreement: weights of the positives by image, [N, N]; None if the other view is the only positive.
        empty: which anchors have no loss, [2N]; both views of an image or neither; or None.
    """
    if agreement is not None:
        agreement.fill_diagonal_(1)  # an image without labels agrees with itself too
        halves = (4 * agreement.sum(dim=1) - 2).reciprocal_()  # 1 / 2 W; W counts both views, without the anchor
        weights = agreement.mul_(halves[:, None] + halves)  # [N, N], the same for each pair of views
        return weights @ columns.sum(dim=0) - 2 * halves[:, None] * columns
    partners = columns.flip(0)
    return partners if empty is None else partners.masked_fill_(empty.view(2, -1, 1), 0)
