"""The tables of a run: its label space, its training images and its validation images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from catalog.build_label_space import build_label_space, without_unlearnable_attributes
from catalog.label_space import SEPARATOR, UNKNOWN, LabelSpace
from catalog.repeated_images import warn_of_repeated_images
from catalog.separated_cells import with_separator
from catalog.splits import find_label_table
from catalog.table import Table, read_table
from catalog.targets import encode_targets
from catalog.unlabeled import shared_images, with_unlabeled
from runtime.errors import UsageError
from runtime.progress import announced
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import ViewPlan
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.contrastive_loss import reads_labels
from timm.task.pseudo_loss import blank_cells
from training.find_tables import find_train_table, find_val_table
from training.flag_names import naming_flags

_logger = logging.getLogger("train")


@dataclass(frozen=True)
class DataSettings:
    """Which tables a run reads, and which of their labels.

    Attributes:
        data_dir: folder of the tables.
        train_split: name of the training table.
        val_split: name of the validation table.
        attributes: columns to learn; None for all that the table offers.
        multi_valued: attributes that have several values; None for those with the separator in a cell.
        separator: text between the values of a cell; None for the resumed checkpoint's, else `|`.
        image_root: folder that image paths are relative to; None for each table's or the working directory.
        attribute_weights: weight in the classification loss, by attribute; 1 where it has none.
        unlabeled: folders, tables and files of unlabeled training images.
        pseudo: whether blank cells get soft targets, so that images without labels are trained on too.
        pseudo_skip: attributes that get no soft targets.
        channels: 3 for color, 1 for gray.
        max_unreadable: share of a table's images that may be unreadable, 0-1.
        classify: whether there is a classification loss.
        contrastive: name of the contrastive loss.
        mask_false_negatives: whether the contrastive loss masks negatives that share labels.
        resume: path of the resumed checkpoint, for messages.
    """

    data_dir: str
    train_split: str
    val_split: str
    attributes: Sequence[str] | None
    multi_valued: Sequence[str] | None
    separator: str | None
    image_root: str | None
    attribute_weights: Mapping[str, float]
    unlabeled: Sequence[str]
    pseudo: bool
    pseudo_skip: Sequence[str]
    channels: int
    max_unreadable: float
    classify: bool
    contrastive: str
    mask_false_negatives: bool
    resume: str | None

    @property
    def contrast_reads_labels(self) -> bool:
        """Whether the contrastive loss reads labels."""
        return reads_labels(self.contrastive, self.mask_false_negatives)

    @property
    def reads_labels(self) -> bool:
        """Whether any loss reads labels."""
        return self.classify or self.contrast_reads_labels


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
    train_path = find_train_table(settings.data_dir, settings.train_split)
    root = settings.image_root
    train_table = read_table(train_path, settings.attributes, settings.classify, root)
    train_table = with_separator(train_table, separator_of(settings, resumed), settings.multi_valued)
    own_classes = not settings.attributes and find_label_table(settings.data_dir, train_path) == train_path
    if not settings.reads_labels and own_classes:
        train_table = without_unlearnable_attributes(train_table)
    with announced(f"Collecting the classes of {len(train_table.columns):,} columns", _logger.info):
        label_space = resolve_label_space(settings, train_table, resumed)
    train_table = with_separator(train_table, label_space.separator, label_space.multi_valued)
    check_multi_valued(settings, label_space, train_table, resumed is not None)
    check_attributes(settings, label_space, train_table, resumed is not None)
    check_attribute_weights(settings, label_space)
    check_pseudo_skip(settings, label_space)
    with announced(f"Making the targets of {len(train_table):,} rows, and finding the images", _logger.info):
        train_set = make_train_set(settings, plan, train_table, label_space)
    check_blank_cells(settings, train_set, label_space)
    if not len(label_space):
        warn_of_repeated_images(train_set.table, ())
        return label_space, train_set, None

    # the validation table
    val_path = find_val_table(settings.data_dir, settings.val_split, train_path)
    eval_table = read_table(val_path, None, False, root)
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


def resolve_label_space(settings: DataSettings, train_table: Table, resumed: Checkpoint | None) -> LabelSpace:
    """Return the label space: the resumed checkpoint's, else all.csv's, else the training table's."""
    if resumed and resumed.label_space is not None:
        return resumed.label_space
    if not train_table.attributes:
        return LabelSpace({})
    path = find_label_table(settings.data_dir, train_table.path)
    table = train_table
    if path != train_table.path:
        table = with_separator(read_table(path, settings.attributes), train_table.separator, settings.multi_valued)
    with naming_flags("attributes", "multi_valued", "separator"):
        label_space = build_label_space(table, settings.multi_valued)
    if settings.separator not in (None, SEPARATOR) and not label_space.multi_valued:
        _logger.warning(f"--separator {settings.separator}: no cell of {path} has it, so no attribute is multi-valued")
    return label_space


def separator_of(settings: DataSettings, resumed: Checkpoint | None) -> str:
    """Return the text between the values of a cell.

    Raises:
        UsageError: the resumed checkpoint has another one.
    """
    if resumed is None or resumed.label_space is None:
        return settings.separator or SEPARATOR
    known = resumed.label_space.separator
    if settings.separator not in (None, known) and resumed.label_space.multi_valued:
        raise UsageError(
            f"{settings.resume} separates values by {known!r}, not by --separator {settings.separator!r}: leave "
            "--separator out, or start a new run with --initial-checkpoint"
        )
    return known


def check_multi_valued(settings: DataSettings, label_space: LabelSpace, train_table: Table, resumed: bool) -> None:
    """Raise if the label space has other multi-valued attributes than the settings.

    Raises:
        UsageError: the resumed checkpoint has others, or the table has no attribute.
    """
    if settings.multi_valued is None or label_space.multi_valued == set(settings.multi_valued):
        return
    reason = f"{train_table.path.name} has no attribute: leave --multi-valued out"
    if resumed:
        several = ", ".join(sorted(label_space.multi_valued)) or "no attribute"
        reason = (
            f"{settings.resume} has {several}: leave --multi-valued out, or start a new run with --initial-checkpoint"
        )
    raise UsageError(f"--multi-valued {' '.join(settings.multi_valued)}: {reason}")


def check_attributes(settings: DataSettings, label_space: LabelSpace, train_table: Table, resumed: bool) -> None:
    """Raise if the training table and the label space have different attributes.

    Raises:
        UsageError: the table has an additional attribute, or lacks one of the resumed checkpoint.
    """
    extra = [name for name in train_table.columns if name not in label_space.classes]
    missing = [name for name in label_space.attributes if name not in train_table.columns]
    if resumed and (extra or missing):
        trained = ", ".join(label_space.attributes) or "no attribute"
        raise UsageError(
            f"{settings.resume} was trained on {trained}, but {train_table.path.name} has "
            f"{', '.join(train_table.attributes) or 'none'}: choose the same columns with --attributes, or start with "
            "other columns by --initial-checkpoint instead of --resume"
        )
    if extra:
        lacking = find_label_table(settings.data_dir, train_table.path).name
        raise UsageError(
            f"{lacking} has no column {extra[0]!r}, which {train_table.path.name} has: add the column to {lacking}, or "
            f"train without it by --attributes {' '.join(label_space.attributes)}"
        )


def check_attribute_weights(settings: DataSettings, label_space: LabelSpace) -> None:
    """Raise if an attribute weight names no attribute, or all weights are 0.

    Raises:
        UsageError: an attribute is unknown, or no attribute counts.
    """
    _check_names("--attribute-weights", settings.attribute_weights, label_space)
    if len(label_space) and not any(settings.attribute_weights.get(name, 1.0) for name in label_space.attributes):
        raise UsageError("--attribute-weights are all 0: raise one of these, or use -wlc 0 to train without labels")


def check_pseudo_skip(settings: DataSettings, label_space: LabelSpace) -> None:
    """Raise if --pseudo-skip names no attribute, or all of them.

    Raises:
        UsageError: an attribute is unknown, or none is left.
    """
    _check_names("--pseudo-skip", settings.pseudo_skip, label_space)
    if len(label_space) and set(settings.pseudo_skip) == set(label_space.attributes):
        raise UsageError(
            "--pseudo-skip names every attribute, so --pseudo has none left: name fewer, or leave --pseudo out"
        )


def _check_names(flag: str, names: Iterable[str], label_space: LabelSpace) -> None:
    """Raise if a flag names an attribute that does not exist.

    Raises:
        UsageError: the name, and the attributes that exist.
    """
    if unknown := [name for name in names if name not in label_space.classes]:
        raise UsageError(f"{flag}: there is no attribute {unknown[0]!r}, only {', '.join(label_space.attributes)}")


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
