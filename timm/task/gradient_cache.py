"""Contrastive batches larger than memory holds, by gradient caching.

- GradCache, Gao et al., 2021, https://arxiv.org/abs/2101.06983 (section 3.2)

The contrastive loss needs the projections of all images. It reaches the weights only through them, so its gradients
need the activations of one chunk at a time:

    1. each chunk goes through the model without a graph, which leaves its projections
    2. the loss of all projections gives the gradient of each
    3. each chunk goes through the model again, with the same random numbers; the backward pass starts from the
       gradients of step 2 and from the chunk's share of the classification loss

The sum of the chunks' gradients is the gradient of the joint batch, up to rounding, if the model treats images
independently. Batch norm does not: it uses the statistics of a chunk, in both passes. If its statistics are frozen
(`MultiLabelModel.keep_statistics`), the gradients are exact for batch norm too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from runtime.precision import Autocast
from runtime.random_state import get_torch_random_state, replayed_random_state
from timm.task.pseudo_loss import SoftTargets
from timm.task.simclr_classification import Chunk, SimCLRClassificationTask

Result = dict[str, Any]
Views = tuple[Tensor, Tensor]  # a chunk's two contrasted views [B, P]: the projections, or their gradients


def chunks_per_step(batch_size: int, contrastive_batch_size: int | None) -> int:
    """Return how many batches of the loader a step contrasts together.

    Args:
        batch_size: images per batch, on each process.
        contrastive_batch_size: images that are contrasted together, on each process; None for a batch.
    """
    return (contrastive_batch_size or batch_size) // batch_size


def steps_per_epoch(batches: int, chunks: int) -> int:
    """Return the number of steps in an epoch; the last step may have fewer chunks than the others.

    Args:
        batches: batches per epoch, on each process.
        chunks: batches per step, as `chunks_per_step` returns them.
    """
    return math.ceil(batches / chunks)


def grouped(batches: Iterable[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Yield lists of `size` batches, and at the end the remaining batches.

    No batch is read ahead, so the random numbers of an epoch fall between the same batches for any size.
    """
    chunks: list[Chunk] = []
    for batch in batches:
        chunks.append(batch)
        if len(chunks) == size:
            yield chunks
            chunks = []
    if chunks:
        yield chunks


def chunk_forwards(
    task: SimCLRClassificationTask, chunks: Sequence[Chunk], autocast: Autocast
) -> list[Callable[[], Result]]:
    """Contrast chunks as one batch; return the second forward pass of each chunk.

    A single chunk is the whole batch and needs one pass. Every rank must call this, with the same number of chunks.

    Args:
        task: the task, in training mode; several chunks need its contrastive loss.
        chunks: batches on the task's device; with mixup their classified views are changed in place.
        autocast: returns the context of the first pass; the caller enters the same one for each second pass.

    Returns:
        Functions to call in the chunks' order, each before its backward pass. Each returns the result of `task`, with
        the chunk's summands of the joint batch's losses; `joint_result` adds them up.
    """
    if len(chunks) == 1:
        return [partial(task, *chunks[0])]
    # targets and counts of the joint batch
    with autocast():
        soft: Sequence[SoftTargets | None] = task.soft_targets(chunks)
    soft_counts = task.pseudo_loss.joint_counts([part for part in soft if part is not None]) if soft else None
    targets = [task.prepare_targets(images, target) for images, target in chunks]
    counts = task.criterion.joint_counts(targets)

    # gradients of the contrastive loss
    batches = [task.forwarded_views(images) for images, _ in chunks]
    states, views = _project(task, batches, autocast)
    labels = torch.cat([task.contrasted_labels(target) for _, target in chunks])
    loss, gradients = _contrast(task, views, labels)
    surrogates = [partial(_surrogate, loss / len(chunks), gradient) for gradient in gradients]
    losses = partial(task.losses, counts=counts, part=1 / len(chunks), soft_counts=soft_counts)
    return [
        partial(_forward_again, task, images, state, partial(losses, targets=prepared, contrast=surrogate, soft=part))
        for images, prepared, state, surrogate, part in zip(
            batches, targets, states, surrogates, soft or [None] * len(chunks), strict=True
        )
    ]


def joint_result(results: Sequence[Result]) -> Result:
    """Return the result of a batch: the losses of its chunks added up, their outputs joined in order."""
    if len(results) == 1:
        return dict(results[0])
    joint: Result = {name: sum(result[name] for result in results) for name in results[0] if name.endswith("loss")}
    if "projections" in results[0]:
        joint["projections"] = torch.cat([result["projections"] for result in results], dim=1)
    outputs = [result["output"] for result in results]
    return joint | {"output": {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}}


def detached(result: Result) -> Result:
    """Return a copy of a result without its graph; a compiled model may overwrite the memory of its outputs."""
    copied = {name: value.detach().clone() for name, value in result.items() if isinstance(value, Tensor)}
    return copied | {"output": {name: logits.detach().clone() for name, logits in result["output"].items()}}


def _project(
    task: SimCLRClassificationTask, batches: Sequence[Tensor], autocast: Autocast
) -> tuple[list[list[Tensor]], list[Views]]:
    """Make the first pass; return each chunk's random state before it, and its projections."""
    module: Any = task.trainable_module
    module = module.module if isinstance(module, DistributedDataParallel) else module
    # Without gradients a compiled model is another program, which may draw other random numbers. So it runs with
    # gradients, and the chunk's graph is dropped.
    compiled = hasattr(module, "_orig_mod")
    states, views = [], []
    with _buffers_restored(module), torch.set_grad_enabled(compiled):
        for images in batches:
            states.append(get_torch_random_state(task.device))
            with autocast():
                _, projections = module(images)
            z_i, z_j = task.contrasted_views(projections.detach().clone())
            views.append((z_i, z_j))
    return states, views


def _contrast(task: SimCLRClassificationTask, views: Sequence[Views], labels: Tensor) -> tuple[Tensor, list[Views]]:
    """Return the contrastive loss of all chunks, and its gradients at each chunk's projections."""
    dtype = torch.float64 if views[0][0].dtype == torch.float64 else torch.float32  # the loss's dtype
    z_i, z_j = (torch.cat(view).to(dtype).requires_grad_() for view in zip(*views, strict=True))
    loss = task.contrastive(z_i, z_j, labels)
    # Not scaled for float16: the surrogate multiplies in float32, and its backward pass is scaled.
    grad_i, grad_j = torch.autograd.grad(loss, (z_i, z_j))
    rows = [len(view) for view, _ in views]
    return loss.detach(), list(zip(grad_i.split(rows), grad_j.split(rows), strict=True))


def _forward_again(
    task: SimCLRClassificationTask,
    images: Tensor,
    state: list[Tensor],
    losses: Callable[[Any], Result],
) -> Result:
    """Make a chunk's second pass, with the random numbers of the first."""
    with replayed_random_state(state, task.device):
        outputs = task.trainable_module(images)
    return losses(outputs)


def _surrogate(value: Tensor, gradients: Views, z_i: Tensor, z_j: Tensor) -> Tensor:
    """Return a scalar with this value, a chunk's share of the joint loss, and these gradients at its projections."""
    z, gradient = torch.cat([z_i, z_j]), torch.cat(gradients)
    product = (z.to(gradient.dtype) * gradient).sum()
    return value + (product - product.detach())


@contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[None]:
    """Undo what forward passes write into buffers, so that running statistics count each chunk once."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
