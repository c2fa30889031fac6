"""The representations of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runtime.errors import UsageError
from serving.labeling import report_unreadable
from serving.loading import EvaluationModel, make_loader
from timm.data.image_dataset import ImageDataset


@torch.inference_mode()
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
    model = ready.model
    if projection and model.projector is None:
        raise UsageError("the model has no projection head (projection_dim 0): leave projection out for h")
    width = model.projection_dim if projection else model.num_features

    def forward(images: Tensor) -> Tensor:
        h = model.forward_features(images)
        return (ready.network.forward_projection(h) if projection else h).float()

    found = np.empty((len(dataset), width), np.float32)
    for images, rows in make_loader(ready, dataset, **loading):
        images = ready.to_device(images)
        with ready.autocast():
            values = forward(images)
            if tta == 2:
                values = (values + forward(images.flip(-1))) / 2
        found[rows.cpu().numpy()] = values.cpu().numpy()
        after_batch(len(rows))
    dataset.check_readable()
    errors = dataset.errors()
    found[list(errors)] = np.nan
    report_unreadable(dataset, errors)
    return found
