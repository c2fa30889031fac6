"""The check of an exported model: on real images it has the outputs of the model that it was made from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from catalog.data_error import DataError
from catalog.image_list import list_images
from catalog.splits import find_split
from runtime.errors import UsageError
from serving.loading import EvaluationModel, make_loader
from timm.data.image_dataset import ImageDataset
from timm.models.multi_label_checkpoint import Checkpoint

_logger = logging.getLogger("export")

_IMAGES = 32  # compared at most
_TOLERANCE = 1e-3  # relative to the largest value; reordered float32 sums stay far below

Outputs = dict[str, Tensor]


def example_images(ready: EvaluationModel, checkpoint: Checkpoint, named: Sequence[str] | None) -> Tensor:
    """Return images [B, C, H, W] to compare two models on, as the model takes them.

    Args:
        ready: the model.
        checkpoint: the checkpoint, whose run names a validation table.
        named: images, folders or tables; None takes the run's validation table, or noise if that is gone.

    Raises:
        DataError: the named images cannot be read.
    """
    inputs = list(named or _validation_table(checkpoint))
    if not inputs:
        _logger.warning("The run's validation table is not here: the models are compared on noise; name --images")
        return torch.cat([ready.random_image() for _ in range(_IMAGES)])
    dataset = ImageDataset(list_images(inputs), ready.channels)
    loader = make_loader(ready, dataset, batch_size=_IMAGES, workers=0, pin_memory=False, prefetcher=False)
    images, rows = next(iter(loader))
    readable = dataset.unreadable[rows] == 0
    if not readable.any():
        first = int(rows[0])
        raise DataError(
            f"none of the first {len(rows)} images of {inputs[0]} can be read, the first being {dataset.name(first)} "
            f"({dataset.errors()[first]}): fix the files, or name others with --images"
        )
    return ready.to_device(images[readable])


def _validation_table(checkpoint: Checkpoint) -> list[str]:
    """Return the validation table of a checkpoint's run, if it is still there."""
    flags = checkpoint.trained_flags
    folder, split = flags.get("data_dir") or flags.get("data"), flags.get("val_split") or "val"
    try:
        return [str(find_split(folder, split))] if folder and Path(folder).is_dir() else []
    except DataError:
        return []


@torch.inference_mode()
def check_equal(
    run: Callable[[Tensor], Mapping[str, Tensor]], expected: Mapping[str, Tensor], images: Tensor, name: str
) -> float:
    """Compare an exported model with the one that it was made from; return the largest difference of an output.

    Args:
        run: the exported model: images [B, C, H, W] to outputs by name.
        expected: the outputs of the model, by name, [B, K] or [B, D].
        images: the images.
        name: the format, for the message.

    Raises:
        UsageError: an output differs by more than rounding.
    """
    found, largest = run(images), 0.0
    for output, ours in expected.items():
        theirs = found[output].to(ours)
        difference = (theirs - ours).abs().max().item() if theirs.shape == ours.shape else float("inf")
        if not difference <= _TOLERANCE * max(1.0, ours.abs().max().item()):
            raise UsageError(
                f"the {name} export's {output} differs from the model's by {difference:.3g}, more than rounding, so "
                "nothing was written: choose another format and report this backbone"
            )
        largest = max(largest, difference)
    one = run(images[:1])
    if any(one[output].shape != (1, *ours.shape[1:]) for output, ours in expected.items()):
        raise UsageError(
            f"the {name} export takes only batches of {len(images)} images, so nothing was written: choose another "
            "format"
        )
    return largest
