"""Embeddings of image files by a trained model, and the pairs of images that the model represents almost equally."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from catalog.image_list import ImageList
from catalog.near_duplicates import Pairs
from runtime.errors import UsageError
from runtime.process import set_up_process
from serving.checkpoint_files import run_checkpoint
from serving.embedding import embed_images
from serving.loading import EvaluationModel, load_evaluation_model
from timm.data.image_dataset import ImageDataset
from timm.models.multi_label_checkpoint import read_checkpoint

_BLOCK = 1_024  # images whose similarities to all others are computed at a time; to 100,000 they take 400 MB
_PARTNERS = 100  # an image is paired with at most as many of those after it


def load_embedder(checkpoint: str, device: str | None, use_ema: bool) -> EvaluationModel:
    """Return a checkpoint's model, with the preprocessing of its training.

    Args:
        checkpoint: the file, or the folder of a run.
        device: name of a PyTorch device; None for the GPU if there is one, else the CPU.
        use_ema: take the averaged weights.

    Raises:
        UsageError: the checkpoint or the device cannot be used.
    """
    return load_evaluation_model(
        read_checkpoint(run_checkpoint(checkpoint)),
        set_up_process(device).device,
        use_ema=use_ema,
        preprocessing={},
        precision={"amp": False, "amp_dtype": None, "model_dtype": None},
        channels_last=True,
        needs_heads=False,
    )


def embed_files(
    ready: EvaluationModel,
    files: Sequence[str],
    batch_size: int,
    workers: int,
    after_batch: Callable[[int], object] = lambda images: None,
) -> Tensor:
    """Return the representations h of image files, scaled to length 1, float32 [files, D]; zeros if unreadable.

    Args:
        ready: the model.
        files: absolute paths.
        batch_size: images per step.
        workers: processes that load images; 0 loads in this process.
        after_batch: called after each batch with its number of images.

    Raises:
        UsageError: an embedding is not finite.
    """
    dataset = ImageDataset([ImageList(pa.array(files, pa.large_string()), (Path("/"),))], ready.channels)
    loading = {"batch_size": batch_size, "workers": workers, "pin_memory": False, "prefetcher": False}
    found = embed_images(ready, dataset, projection=False, tta=0, loading=loading, after_batch=after_batch)
    embeddings = torch.from_numpy(found)
    embeddings[dataset.unreadable.bool()] = 0
    if not embeddings.isfinite().all():
        raise UsageError("the model's embeddings are not finite: its weights have diverged; use another checkpoint")
    return F.normalize(embeddings, dim=1)


def similar_pairs(embeddings: Tensor, similarity: float) -> Pairs:
    """Return the pairs of embeddings whose cosine similarity reaches a limit.

    With each embedding at most the 100 most similar ones after it are paired.

    Args:
        embeddings: float32 [N, D], of length 1 each.
        similarity: the limit, above 0.
    """
    found: list[Tensor] = []
    scores: list[Tensor] = []
    for start in range(0, len(embeddings), _BLOCK):
        block = embeddings[start : start + _BLOCK] @ embeddings[start:].T
        block = block.triu(diagonal=1)
        best, others = block.topk(min(_PARTNERS, block.shape[1]), dim=1)
        rows, places = torch.nonzero(best >= similarity, as_tuple=True)
        found.append(torch.stack([rows + start, others[rows, places] + start], dim=1))
        scores.append(best[rows, places])
    ends = torch.cat(found).numpy().astype(np.int64) if found else np.zeros((0, 2), np.int64)
    values = torch.cat(scores).double().numpy() if scores else np.zeros(0)
    return Pairs(ends[:, 0], ends[:, 1], values, np.zeros(len(ends), dtype=bool))
