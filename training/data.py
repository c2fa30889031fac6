"""The tables of a run: its label space, its training images and its validation images."""

from __future__ import annotations

import logging

import numpy as np

from catalog.label_space import UNKNOWN, LabelSpace
from catalog.repeated_images import warn_of_repeated_images
from catalog.separated_cells import with_separator
from catalog.table import Table, read_table
from catalog.targets import encode_targets
from catalog.unlabeled import shared_images, with_unlabeled
from runtime.errors import UsageError
from runtime.progress import announced
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import ViewPlan
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.pseudo_loss import blank_cells
from training.find_tables import find_val_table
from training.flag_names import naming_flags
from training.label_tables import DataSettings, read_training_table

_logger = logging.getLogger("train")


@naming_flags("separator", "image_root")
def read_data(
    settings: DataSettings, plan: ViewPlan, resumed: Checkpoint | None
) -> tuple[LabelSpace, TwoViewDataset, TwoViewDataset | None]:
    """Read the tables and resolve the label space.

    Args:
        settings: the tables and their labels.
        plan: the views of a training image.
        resumed: the checkpoint that the run resumes, whose label space it keeps.

    Returns:
        The label space, the training images, and the validation images; None without an attribute to score.
    """
    # the training table and the label space
    train_table, label_space = read_training_table(settings, resumed)
    with announced(f"Making the targets of {len(train_table):,} rows, and finding the images", _logger.info):
        train_set = make_train_set(settings, plan, train_table, label_space)
    check_blank_cells(settings, train_set, label_space)
    if not len(label_space):
        warn_of_repeated_images(train_set.table, ())
        return label_space, train_set, None

    # the validation table
    val_path = find_val_table(settings.data_dir, settings.val_split, train_table.path)
    eval_table = read_table(val_path, None, False, settings.image_root)
    eval_table = with_separator(eval_table, label_space.separator, label_space.multi_valued)
    targets = encode_targets(eval_table, label_space, strict=False)
    if (targets == UNKNOWN).all():
        _logger.warning(
            f"{eval_table.path}: no row has a label, so no epoch can be scored, and model_best.pth.tar is the last "
            "one: label some of its rows"
        )
    if shared := shared_images(train_set.table, eval_table):
        _logger.warning(
            f"--unlabeled: {shared} of the images are also in {eval_table.path.name}. They train the model "
            "without their labels: to score images that were never seen, name others"
        )
    eval_set = TwoViewDataset(eval_table, targets, None, settings.channels, max_unreadable=settings.max_unreadable)
    with announced("Comparing the images of the tables", _logger.info):
        warn_of_repeated_images(train_set.table, label_space.attributes, eval_set.table)
    return label_space, train_set, eval_set


def check_blank_cells(settings: DataSettings, train_set: TwoViewDataset, label_space: LabelSpace) -> None:
    """Raise if soft targets are asked for and no cell is blank.

    Raises:
        UsageError: every cell of the taught attributes has a label.
    """
    blank = blank_cells(train_set.targets, label_space)
    taught = [name not in settings.pseudo_skip for name in label_space.attributes]
    if settings.pseudo and not any(mask.any() for mask, used in zip(blank, taught, strict=True) if used):
        raise UsageError(
            f"--pseudo: {train_set.table.path} has no blank cell to fill: add images without labels by --unlabeled, or "
            "leave --pseudo out"
        )


@naming_flags("multi_valued", "unlabeled", "separator", "image_root")
def make_train_set(settings: DataSettings, plan: ViewPlan, table: Table, label_space: LabelSpace) -> TwoViewDataset:
    """Return the training images; if nothing learns from images without labels, only the labeled ones.

    Raises:
        UsageError: a loss reads labels and there are none.
    """
    path = table.path
    if settings.unlabeled:
        table = with_unlabeled(table, settings.unlabeled, settings.image_root)
    targets = encode_targets(table, label_space, strict=True)
    labeled = (targets >= 0).any(axis=1)
    if settings.contrast_reads_labels and not labeled.any():
        flag = "--mask-false-negatives" if settings.mask_false_negatives else f"--contrastive {settings.contrastive}"
        raise UsageError(f"{path} has no labels for {flag} to read: label some of its rows, or leave {flag} out")
    if plan.contrast is None and not labeled.any():
        raise UsageError(
            f"{path} has no label, and -wls 0 learns only from labels: label some of its rows, or leave -wls 0 out"
        )
    if plan.contrast is None and not settings.pseudo and not labeled.all():
        _logger.info(f"{path}: {(~labeled).sum()} rows without a label are left out, as -wls 0 needs labels")
        table, targets = table.take(np.flatnonzero(labeled)), targets[labeled]
    return TwoViewDataset(table, targets, plan, settings.channels, max_unreadable=settings.max_unreadable)
