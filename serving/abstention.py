"""The cells that models should leave blank to keep a promised precision, by `serving.selective`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.data_error import DataError
from catalog.label_space import UNKNOWN
from catalog.splits import find_split
from catalog.table import Table
from runtime.errors import UsageError
from runtime.progress import progress_bar
from serving.ensemble import Ensemble
from serving.scoring import scored_dataset, settle_unreadable
from serving.selective import Floats, Selection
from timm.data.target_codes import by_attribute, value_sets
from timm.models.multi_label_checkpoint import Checkpoint

_logger = logging.getLogger("serving")

Cells = tuple[Floats, npt.NDArray[np.bool_]]  # the confidence [N] of labeled cells, and whether each is right [N]


def labeled_cells(ensemble: Ensemble, table: Table, tta: int, loading: Mapping[str, Any]) -> dict[str, Cells]:
    """Return the confidence of each attribute's labeled cells, and whether the prediction is right.

    A class that the models do not know counts as wrong. A set is right if all of its values are.

    Args:
        ensemble: the models.
        table: the labels.
        tta: 2 averages the logits of an image and its mirror image.
        loading: arguments of `serving.loading.make_loader` besides the model and the dataset.
    """
    space = ensemble.label_space
    dataset = scored_dataset(table, ensemble.members[0], max_unreadable=0.01)
    parts: dict[str, list[Cells]] = {name: [] for name in space.attributes}
    with progress_bar(len(dataset), f"Held-out cells of {table.path.name}", "image") as bar:
        for images, target in ensemble.batches(dataset, **loading):
            batch = ensemble.label(images, 1, tta)
            for name, truth in zip(space.attributes, by_attribute(target.cpu(), space), strict=True):
                labels = batch[name]
                if labels.ranked is None:
                    assert labels.predicted is not None
                    sets = value_sets(truth, space.num_classes[name])
                    known, right = sets.known, (labels.predicted.cpu() == sets.values).all(dim=1) & ~sets.unseen
                else:
                    known, right = truth != UNKNOWN, labels.ranked[:, 0].cpu() == truth
                parts[name].append((labels.confidence()[known.numpy()], right[known].numpy()))
            bar.update(len(target))
    settle_unreadable(dataset, ensemble.members[0])
    return {
        name: (np.concatenate([scores for scores, _ in found]), np.concatenate([right for _, right in found]))
        for name, found in parts.items()
    }


def named_validation(checkpoints: Sequence[Checkpoint]) -> Path:
    """Return the validation table of the runs that wrote some checkpoints.

    Raises:
        UsageError: they name no table, or several, or it is not here.
    """
    found: dict[Path, Path] = {}
    for checkpoint in checkpoints:
        folder, split = (checkpoint.trained_flags.get(name) for name in ("data_dir", "val_split"))
        if not folder or not split:
            raise UsageError(f"{checkpoint.path} names no validation split: give one with validation=TABLE")
        try:
            path = find_split(folder, split)
        except DataError as error:
            raise UsageError(
                f"{checkpoint.path} was validated on {split} of {folder}, which is not here ({error}): give the data "
                "folder with validation=DATA"
            ) from error
        found.setdefault(path.resolve(), path)
    if len(found) > 1:
        names = " and ".join(map(str, found.values()))
        raise UsageError(f"the checkpoints were validated on {names}: give one of these tables with validation=TABLE")
    return next(iter(found.values()))


def warn_of_blank_attributes(selections: Mapping[str, Selection], precision: float, table: str) -> None:
    """Log each attribute that is never predicted, and why."""
    for name, chosen in selections.items():
        if chosen.threshold < math.inf:
            continue
        few = chosen.cells < chosen.fewest
        reason = f"at least {chosen.fewest} are needed" if few else "the model errs too often on them"
        _logger.warning(
            f"{name} is left blank: {chosen.cells} labeled cells of {table} do not warrant precision {precision:g}, as "
            f"{reason}"
        )
