"""What the contrastive losses share: a small joint batch takes one matrix, a large one takes blocks.

Blocks save memory, and on a CPU they stay in a core's cache. Both cost operations, which take most of the time of a
small batch. So up to `most_anchors`, the loss and its gradient come from `simclr.one_matrix`, in one pass.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from simclr.collectives import gather_rows, rank, sum_over_processes
from simclr.joint_batch import joint_batch
from simclr.log_sum_exp import full_precision
from simclr.one_matrix import loss_and_gradient
from simclr.similarity_blocks import block_size

# Largest side of the one matrix, in blocks: 1,024 anchors on a CPU, where blocks take as long, and 4,096 on a GPU,
# whose matrix takes 64 MiB.
BLOCKS_IN_ONE_MATRIX = {"cpu": 4, "other": 1}

# A loss in blocks takes (z_i, z_j, temperature, images, labels), the results of `joint_batch`.
InBlocks = Callable[[Tensor, Tensor, float, list[int], Tensor | None], Tensor]


def contrastive_loss(
    z_i: Tensor,
    z_j: Tensor,
    temperature: float,
    labels: Tensor | None,
    in_blocks: InBlocks,
    decoupled: bool = False,
    weigh_positives: bool = False,
) -> Tensor:
    """Check the inputs and return the loss, from one matrix or in blocks.

    Every process counts the images of all processes, so all make the same choice.

    Args:
        z_i: projections of view 0 of this process's images, [n, P], any floating dtype.
        z_j: projections of view 1 of the same images in the same order, [n, P], same dtype and device as `z_i`.
        temperature: divisor of the cosine similarities, finite and above 0.
        labels: class indices of the same images, [n, A], a signed integer dtype, negative where unknown; or None.
        in_blocks: the same loss for any number of images, in blocks. It also serves the second derivative.
        decoupled: whether the denominator excludes the other view of the same image.
        weigh_positives: whether labels weigh positives; otherwise they exclude false negatives.

    Returns:
        A scalar, float64 for float64 projections and float32 for all others.

    Raises:
        ValueError: the same cases as for `joint_batch`.
    """
    with torch.autocast(device_type=z_i.device.type, enabled=False):
        z_i, z_j, images = joint_batch(z_i, z_j, temperature, labels)
        if 2 * sum(images) > most_anchors(z_i.device):
            return in_blocks(z_i, z_j, temperature, images, labels)
        settings = temperature, images, labels, in_blocks, decoupled, weigh_positives
        return cast(Tensor, _LossOfOneMatrix.apply(z_i, z_j, *settings))


def most_anchors(device: torch.device) -> int:
    """Return the largest number of anchors, 2N, whose loss comes from one matrix."""
    return block_size(device) * BLOCKS_IN_ONE_MATRIX.get(device.type, BLOCKS_IN_ONE_MATRIX["other"])


class _LossOfOneMatrix(torch.autograd.Function):
    """The map from [n, P] and [n, P] to the loss of the joint batch; the forward pass also computes the gradient.

    With several processes each computes the whole matrix from the gathered projections, so no process waits for
    another's results. The backward pass exchanges one number.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z_i: Tensor,
        z_j: Tensor,
        temperature: float,
        images: list[int],
        labels: Tensor | None,
        in_blocks: InBlocks,
        decoupled: bool,
        weigh_positives: bool,
    ) -> Tensor:
        z, joint_labels = torch.stack([z_i, z_j]), labels
        if len(images) > 1:
            z = torch.stack(gather_rows(torch.cat([z_i, z_j], dim=1), images).chunk(2, dim=1))  # [2, N, P]
            joint_labels = None if labels is None else gather_rows(labels, images)
        need_gradient = any(ctx.needs_input_grad)
        with full_precision(z.device):
            loss, gradient = loss_and_gradient(z, temperature, joint_labels, decoupled, weigh_positives, need_gradient)
        first = sum(images[: rank()])
        local = None if gradient is None else gradient[:, first : first + len(z_i)]  # [2, n, P]
        ctx.save_for_backward(z_i, z_j, labels, local)
        ctx.settings = temperature, images, in_blocks
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z_i, z_j, labels, gradient = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph=True
            with torch.autocast(grad.device.type, enabled=False):
                grads = _differentiable_gradients(z_i, z_j, labels, grad, *ctx.settings)
        else:
            grads = (gradient * sum_over_processes(grad)).unbind()
        return *grads, *[None] * 6


def _differentiable_gradients(
    z_i: Tensor,
    z_j: Tensor,
    labels: Tensor | None,
    grad: Tensor,
    temperature: float,
    images: list[int],
    in_blocks: InBlocks,
) -> tuple[Tensor | None, ...]:
    """Return the gradients [n, P] of both views with a graph of their own, from the loss in blocks."""
    views = [z.view_as(z) for z in (z_i, z_j)]  # two nodes, also if both views are one tensor
    needed = [z for z in views if z.requires_grad]
    loss = in_blocks(views[0], views[1], temperature, images, labels)
    found = iter(torch.autograd.grad(loss, needed, grad, create_graph=True))
    return tuple(next(found) if z.requires_grad else None for z in views)
