"""What can be known of a command's tables, and of the flags that name their columns, without torch.

The commands make the same checks later, so that a mistake has one sentence. Tables of a few megabytes are read in full,
which takes a tenth of a second. Only the header of a larger table is read.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from catalog.fillable_table import check_output, default_output
from catalog.find_images import with_found_images
from catalog.parquet_table import parquet_parts
from catalog.splits import find_label_table, find_split, is_table
from catalog.table import Table, choose_attributes, read_header, read_table
from options.train_kwargs import data_kwargs
from runtime.atomic_file import check_writable
from runtime.errors import UsageError
from training.choice_data import check_group
from training.find_tables import find_train_table, find_val_table
from training.flag_names import naming_flags
from training.label_tables import DataSettings, check_headers, read_training_table

SMALL = 1 << 22  # bytes of the tables that are read in full


def check_train_tables(args: Namespace) -> None:
    """Raise if the tables of train.py, or flags that name their columns, are wrong.

    Raises:
        UsageError: what is wrong.
    """
    settings = DataSettings(**data_kwargs(args))
    check_headers(settings)
    path = find_train_table(settings.data_dir, settings.train_split)
    if settings.resume or not _are_small(path, find_label_table(settings.data_dir, path)):
        return  # a checkpoint's label space is read with torch
    table, label_space = read_training_table(settings, None)
    if not settings.unlabeled:  # these images may be the only ones
        with naming_flags("image_root"):
            _check_images(table)
    if len(label_space):
        _check_table(find_val_table(settings.data_dir, settings.val_split, path), args)


def check_choose_table(args: Namespace) -> None:
    """Raise if the table of choose.py cannot be read, or lacks a column of --attributes or --group.

    Raises:
        UsageError: what is wrong.
    """
    path = find_train_table(args.data_dir, args.train_split)
    named = args.attributes and [*args.attributes, *([args.group] if args.group else [])]
    check_group(path, args.group, _check_table(path, args, named))


def check_refit_tables(args: Namespace) -> None:
    """Raise if a table of refit.py cannot be read, or has no column of --attributes.

    Raises:
        UsageError: what is wrong.
    """
    path = find_train_table(args.data, args.train_split)
    _check_table(path, args, args.attributes)
    if args.val_split != "none":
        _check_table(find_refit_validation(args, path), args)


def find_refit_validation(args: Namespace, train: Path) -> Path:
    """Return the path of the validation table of refit.py.

    Raises:
        UsageError: it is missing; with the flag that does without.
    """
    try:
        return find_val_table(args.data, args.val_split, train)
    except UsageError as error:
        raise UsageError(f"{error}; or choose by cross-validation with --val-split none") from error


def check_scored_table(args: Namespace) -> None:
    """Raise if the table of validate.py cannot be read.

    Raises:
        UsageError: what is wrong.
    """
    _check_table(find_split(args.data, args.split), args)


def check_input_tables(args: Namespace) -> None:
    """Raise if a table among the inputs of inference.py or embed.py cannot be read.

    Raises:
        UsageError: what is wrong.
    """
    for path in map(Path, args.input):
        if is_table(path):
            _check_table(path, args, [])


def check_filled_table(args: Namespace) -> None:
    """Raise if the table of fill.py cannot be read, or its files cannot be written.

    Raises:
        UsageError: what is wrong.
    """
    check_fill_places(args)
    _check_table(Path(args.table), args, [])


def check_fill_places(args: Namespace) -> Path:
    """Return the place of the filled table, after checking that all files can be written, before hours of predicting.

    Raises:
        UsageError: the table is none, a file cannot be written, or its name is another format's.
    """
    source = Path(args.table)
    read_header(source)
    target = Path(args.output) if args.output else default_output(source)
    with naming_flags("output"):
        check_output(source, target)
    others = {"--queue": args.queue, "--suspects": args.suspects}
    check_kept(target, "the filled table", others)
    for place in (target, *(Path(name) for name in others.values() if name)):
        check_writable(place)
    return target


def check_kept(path: Path, what: str, written: Mapping[str, str]) -> None:
    """Raise a UsageError if a file to write would replace another one.

    Args:
        path: the file to keep.
        what: its role, for the sentence.
        written: the files to write, by their flag; "" for none.
    """
    for name, text in written.items():
        if text and Path(text).resolve() == path.resolve():
            raise UsageError(f"{name} {text} is {what}, which it would replace: name another file")


def _check_table(path: Path, args: Namespace, attributes: Sequence[str] | None = None) -> list[str]:
    """Raise unless a table has images and these columns, and return the columns; a small table is read in full.

    An empty list of columns reads the images alone.
    """
    names = choose_attributes(path, list(read_header(path)), attributes, False)
    if _are_small(path):
        with naming_flags("image_root"):
            _check_images(read_table(path, attributes, False, args.image_root or None))
    return names


def _check_images(table: Table) -> None:
    """Raise if none of the files exists that a table names."""
    if table.names is None:  # others are in the table
        with_found_images(table)


def _are_small(*paths: Path) -> bool:
    """Return whether tables can be read in an instant."""
    parts = [part for path in {*paths} for part in parquet_parts(path) or [path]]
    return sum(part.stat().st_size for part in parts if part.is_file()) <= SMALL


CHECKS: dict[str, Callable[[Namespace], object]] = {
    "train.py": check_train_tables,
    "validate.py": check_scored_table,
    "inference.py": check_input_tables,
    "embed.py": check_input_tables,
    "fill.py": check_filled_table,
    "refit.py": check_refit_tables,
    "choose.py": check_choose_table,
}
