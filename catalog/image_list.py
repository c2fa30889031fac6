"""The images in the given files, folders and tables, as Arrow arrays of paths."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from catalog.data_error import DataError
from catalog.decode import Pixels, load_pixels
from catalog.embedded_images import is_image_file, parquet_and_row
from catalog.find_images import with_found_images
from catalog.image_formats import hint_for, image_extensions
from catalog.splits import is_table
from catalog.table import read_table
from runtime.regular_file import irregular_file

_logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

# names for what is left out of a folder, beside extensions
_HIDDEN, _WITHOUT, _CLOSED = "hidden", "without extension", "folders that cannot be opened"
_NAMED = 10  # extensions of files that are left out


@dataclass(frozen=True)
class ImageList:
    """The images of one input.

    Attributes:
        paths: the image paths, Arrow strings, each of an existing file as far as possible.
        roots: the folders that the paths are relative to, tried in order.
        spelled: the paths as the input spells them; None if these are the same.
        shown: the names of images inside a Parquet table; None without such images.
        labels: the table's attributes, each a dictionary-encoded Arrow array; empty where they were not asked for.
    """

    paths: pa.LargeStringArray
    roots: tuple[Path, ...]
    spelled: pa.LargeStringArray | None = None
    shown: pa.LargeStringArray | None = None
    labels: Mapping[str, pa.DictionaryArray] = field(default_factory=dict)

    @property
    def keys(self) -> pa.LargeStringArray:
        """The image paths as the input spells them, by which soft labels are found again."""
        return self.paths if self.spelled is None else self.spelled

    @property
    def names(self) -> pa.LargeStringArray:
        """What predictions and messages call the images."""
        return self.keys if self.shown is None else self.shown

    def load(self, position: int, channels: int) -> Pixels:
        """Decode an image, uint8 [H, W, C].

        Raises:
            OSError: the file is missing, or is no image.
        """
        path = self.paths[position].as_py()
        for root in self.roots[:-1]:
            try:
                return load_pixels(root / path, channels)
            except FileNotFoundError:
                continue
        return load_pixels(self.roots[-1] / path, channels)

    def files(self) -> pa.LargeStringArray:
        """Return the absolute path of each image's file, below the first folder that has it, or else the first one."""
        tried = [os.path.abspath(root) for root in self.roots]  # noqa: PTH100 - a million
        found = []
        for path in self.paths.to_pylist():
            candidates = [os.path.normpath(os.path.join(root, path)) for root in tried]  # noqa: PTH118
            several = len(candidates) > 1
            found.append(next((file for file in candidates if several and is_image_file(file)), candidates[0]))
        return pa.array(found, pa.large_string())


def list_images(
    inputs: Sequence[str], image_root: str | None = None, repeats: bool = False, labels: bool = False
) -> list[ImageList]:
    """Return the images of each input, in order.

    Args:
        inputs: image files, folders, and tables. A folder gives every file below it with an image's extension, except
            hidden ones; the log counts what is left out. A table gives the image_path of every row. Files and folders
            that contain the same image give it once.
        image_root: the folder that the paths in tables are relative to; None for each table's own.
        repeats: whether they give it as often as it is named instead, which a caller needs who counts on the order.
        labels: whether to read the tables' other columns too, as attributes.

    Raises:
        DataError: if an input is missing, is a pipe or a device, or is a folder or table without images.
    """
    lists: list[ImageList] = []
    files: list[str] = []
    for text in inputs:
        path = Path(text)
        if not (path.exists() or is_image_file(path)):
            raise DataError(f"no such image, folder or table: {text}")
        if fault := irregular_file(path, folders=True):
            raise DataError(fault)
        if (path.is_file() and not is_table(path)) or parquet_and_row(path):
            files.append(text)
            continue
        _append_files(lists, files, repeats)
        if path.is_dir() and not is_table(path):
            _append(lists, _below(text), repeats)
        else:
            table = read_table(path, None if labels else [], require_attributes=False, image_root=image_root)
            found, roots = with_found_images(table)
            lists.append(ImageList(found.image_paths, roots, table.image_paths, table.names, table.columns))
    _append_files(lists, files, repeats)
    return [images for images in lists if len(images.paths)]


def _below(folder: str) -> pa.LargeStringArray:
    """Return the images in a folder and all folders below it, sorted within each."""
    ends, left_out = image_extensions(), Counter[str]()
    parts = [
        pa.array([_utf8(os.path.join(place, name)) for name in names], pa.large_string())  # noqa: PTH118 - a million
        for place, names in _walk(folder, ends, left_out)
    ]
    counts = f"left out: {_counts(left_out)}" if left_out else ""
    if not parts:
        seen = f"; {counts}" if counts else ""
        raise DataError(
            f"{folder} has no images: none of its files ends in .jpg, .png, .webp or another image extension{seen}"
        )
    if counts:
        _logger.info(f"{folder}: {counts}")
    return pa.concat_arrays(parts)


def _walk(folder: str, ends: frozenset[str], left_out: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder that has images, and their names; follow links, but visit no folder twice.

    Args:
        folder: where to begin.
        ends: the extensions of images.
        left_out: receives the number of files that are left out, by their extension.
    """
    seen = set()
    for place, folders, files in os.walk(folder, onerror=lambda _: left_out.update([_CLOSED]), followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        left_out.update(_HIDDEN for name in (*folders, *files) if name.startswith("."))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = []
        for name in files:
            if name.startswith("."):
                continue
            end = Path(name).suffix.lower()
            if end in ends:
                names.append(name)
            else:
                left_out[end or _WITHOUT] += 1
        if names:
            yield place, sorted(names)


def _counts(left_out: Counter[str]) -> str:
    """Return the numbers of files by extension, as in "12 .heic, 3 .svg", the largest first."""
    words = [f"{count:,} {end}" for end, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0]))]
    if words[_NAMED:]:
        words[_NAMED:] = [f"{sum(left_out.values()) - sum(sorted(left_out.values())[-_NAMED:]):,} of other extensions"]
    hint = hint_for(left_out)
    return f"{', '.join(words)}{f' ({hint})' if hint else ''}"


def _append_files(lists: list[ImageList], files: list[str], repeats: bool) -> None:
    if files:
        _append(lists, pa.array(map(_utf8, files if repeats else dict.fromkeys(files)), pa.large_string()), repeats)
        files.clear()


def _append(lists: list[ImageList], paths: pa.LargeStringArray, repeats: bool) -> None:
    """Append paths relative to the working directory; without `repeats`, only those that are new."""
    here = (Path.cwd(),)
    for images in lists:
        if images.roots == here and not repeats:
            known = pc.is_in(_plain(paths), value_set=_plain(images.paths))
            paths = paths.filter(pc.invert(known))
    if len(paths):
        lists.append(ImageList(paths, here))


def _plain(paths: pa.LargeStringArray) -> pa.LargeStringArray:
    """Return paths without ./ and //, so that two spellings of one file are equal."""
    short = pc.replace_substring_regex(paths, r"/(\.?/)+", "/") if os.sep == "/" else paths
    return pc.replace_substring_regex(short, r"^\./", "")


def _utf8(name: str) -> str:
    """Return a file's name as UTF-8, as tables need it; U+FFFD replaces bytes that are not text."""
    return os.fsencode(name).decode(errors="replace")
