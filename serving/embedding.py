"""The representations of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runtime.errors import UsageError
from serving.labeling import report_unreadable
from serving.loading import EvaluationModel, make_loader
from timm.data.image_dataset import ImageDataset
from timm.models.multi_label import MultiLabelModel
from timm.task.evaluate import Logits


class Embedded(NamedTuple):
    """A batch of embedded images.

    Attributes:
        rows: the images' rows, int64 [B].
        values: h [B, D] or z [B, P], float32.
        logits: logits [B, K] by attribute.
    """

    rows: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    logits: Logits


def embed_images(
    ready: EvaluationModel,
    dataset: ImageDataset,
    *,
    projection: bool,
    tta: int,
    loading: Mapping[str, Any],
    after_batch: Callable[[int], object] = lambda images: None,
) -> npt.NDArray[np.float32]:
    """Return the representation h [N, D] or the projection z [N, P] of each image, NaN where it could not be read.

    Args:
        ready: the model.
        dataset: the images.
        projection: return z instead of h.
        tta: 2 averages an image and its mirror image.
        loading: arguments of `make_loader` besides the model and the dataset.
        after_batch: called after each batch with its number of images.

    Raises:
        UsageError: the model has no projection head, or no image could be read.
    """
    found = np.empty((len(dataset), embedding_width(ready, projection)), np.float32)
    for rows, values, _ in embed_batches(ready, make_loader(ready, dataset, **loading), projection=projection, tta=tta):
        found[rows] = values
        after_batch(len(rows))
    dataset.check_readable()
    errors = dataset.errors()
    found[list(errors)] = np.nan
    report_unreadable(dataset, errors)
    return found


def embedding_width(ready: EvaluationModel, projection: bool) -> int:
    """Return the length of the representation h, or of the projection z.

    Raises:
        UsageError: the model has no projection head.
    """
    model = ready.model
    if projection and isinstance(model, MultiLabelModel) and model.projector is None:
        raise UsageError("the model has no head that makes z (projection_dim 0): leave projection out to get h")
    return model.projection_dim if projection else model.num_features


@torch.inference_mode()
def embed_batches(
    ready: EvaluationModel, batches: Iterable[tuple[Tensor, Tensor]], *, projection: bool, tta: int
) -> Iterator[Embedded]:
    """Yield the embeddings and the logits of each batch, from one pass through the model.

    Args:
        ready: the model.
        batches: images [B, C, H, W] and their rows [B].
        projection: return z instead of h.
        tta: 2 averages an image and its mirror image.
    """
    forward = partial(cast(Any, ready.run).forward_embedding, projection=projection)
    for images, rows in batches:
        images = ready.to_device(images)
        with ready.autocast():
            values, logits = forward(images)
            if tta == 2:
                mirrored, others = forward(images.flip(-1))
                values = (values + mirrored) / 2
                logits = {name: (one + others[name]) / 2 for name, one in logits.items()}
        yield Embedded(rows.cpu().numpy(), values.cpu().numpy(), logits)
