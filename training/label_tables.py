"""The labels that a run learns: its settings, its training table and its label space. Imports no torch.

train_table, label_space = read_labels(DataSettings(...), None)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.build_label_space import build_label_space, check_multi_valued_names, without_unlearnable_attributes
from catalog.data_error import did_you_mean
from catalog.label_space import SEPARATOR, LabelSpace
from catalog.separated_cells import with_separator
from catalog.splits import find_label_table
from catalog.table import Table, choose_attributes, read_header, read_table
from runtime.errors import UsageError
from runtime.progress import announced
from training.find_tables import find_train_table, find_val_table
from training.flag_names import naming_flags

if TYPE_CHECKING:
    from timm.models.multi_label_checkpoint import Checkpoint

_logger = logging.getLogger("train")

_READ_LABELS = ("supcon",)  # contrastive losses; timm.task.contrastive_loss knows this too, but needs torch


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
        return self.mask_false_negatives or self.contrastive in _READ_LABELS

    @property
    def reads_labels(self) -> bool:
        """Whether any loss reads labels."""
        return self.classify or self.contrast_reads_labels


@naming_flags("separator", "image_root")
def read_training_table(settings: DataSettings, resumed: Checkpoint | None) -> tuple[Table, LabelSpace]:
    """Read the training table and resolve the label space.

    Args:
        settings: the tables and their labels.
        resumed: the checkpoint that the run resumes, whose label space it keeps.

    Raises:
        UsageError: a table is missing or damaged, a column cannot be learned, or a flag names a column that is not
            there.
    """
    path = find_train_table(settings.data_dir, settings.train_split)
    table = read_table(path, settings.attributes, settings.classify, settings.image_root)
    table = with_separator(table, separator_of(settings, resumed), settings.multi_valued)
    own_classes = not settings.attributes and find_label_table(settings.data_dir, path) == path
    if not settings.reads_labels and own_classes:
        table = without_unlearnable_attributes(table)
    with announced(f"Collecting the classes of {len(table.columns):,} columns", _logger.info):
        label_space = resolve_label_space(settings, table, resumed)
    table = with_separator(table, label_space.separator, label_space.multi_valued)
    check_multi_valued(settings, label_space, table, resumed is not None)
    check_attributes(settings, label_space, table, resumed is not None)
    check_attribute_weights(settings, label_space.attributes)
    check_pseudo_skip(settings, label_space.attributes)
    return table, label_space


def check_headers(settings: DataSettings) -> None:
    """Raise for mistakes that the names of the tables' columns show, without reading a row.

    Raises:
        UsageError: as `read_training_table` raises it; or the validation table is missing, or has no images.
    """
    # the training table
    path = find_train_table(settings.data_dir, settings.train_split)
    names = choose_attributes(path, list(read_header(path)), settings.attributes, settings.classify)
    if settings.resume or not names:
        return  # the checkpoint has the label space, or there is none

    # the table that defines the classes
    label_path, known = find_label_table(settings.data_dir, path), names
    if label_path != path:
        known = choose_attributes(label_path, list(read_header(label_path)), settings.attributes, True)
    with naming_flags("multi_valued"):
        check_multi_valued_names(label_path, known, settings.multi_valued or ())
    if settings.classify:  # otherwise reading leaves columns out that hold no names
        check_columns(settings, path, names, known)
    check_attribute_weights(settings, known)
    check_pseudo_skip(settings, known)

    # the validation table
    if settings.reads_labels:
        read_header(find_val_table(settings.data_dir, settings.val_split, path))


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
    if not resumed:
        check_columns(settings, train_table.path, list(train_table.columns), label_space.attributes)


def check_columns(settings: DataSettings, path: Path, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise if the training table has a column that the table of the classes lacks.

    Args:
        settings: the tables.
        path: the training table.
        names: its columns to learn.
        known: the attributes of the table that defines the classes.

    Raises:
        UsageError: the column, and both remedies.
    """
    if extra := [name for name in names if name not in known]:
        lacking = find_label_table(settings.data_dir, path).name
        raise UsageError(
            f"{lacking} has no column {extra[0]!r}, which {path.name} has: add the column to {lacking}, or "
            f"train without it by --attributes {' '.join(known)}"
        )


def check_attribute_weights(settings: DataSettings, attributes: Sequence[str]) -> None:
    """Raise if an attribute weight names no attribute, or all weights are 0.

    Raises:
        UsageError: an attribute is unknown, or no attribute counts.
    """
    _check_names("--attribute-weights", settings.attribute_weights, attributes)
    if attributes and not any(settings.attribute_weights.get(name, 1.0) for name in attributes):
        raise UsageError("--attribute-weights are all 0: raise one of these, or use -wlc 0 to train without labels")


def check_pseudo_skip(settings: DataSettings, attributes: Sequence[str]) -> None:
    """Raise if --pseudo-skip names no attribute, or all of them.

    Raises:
        UsageError: an attribute is unknown, or none is left.
    """
    _check_names("--pseudo-skip", settings.pseudo_skip, attributes)
    if attributes and set(settings.pseudo_skip) == set(attributes):
        raise UsageError(
            "--pseudo-skip names every attribute, so --pseudo has none left: name fewer, or leave --pseudo out"
        )


def _check_names(flag: str, names: Iterable[str], attributes: Sequence[str]) -> None:
    """Raise if a flag names an attribute that does not exist.

    Raises:
        UsageError: the name, and the attributes that exist.
    """
    if unknown := [name for name in names if name not in attributes]:
        near = did_you_mean(unknown[0], attributes)
        raise UsageError(f"{flag}: there is no attribute {unknown[0]!r}, only {', '.join(attributes) or 'none'}{near}")
