"""Images to label: files, folders of them, and tables that list them, as one long list in Arrow's buffers."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from timm.data.data_error import DataError
from timm.data.pixels import as_image, load_pixels
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.table import FORMATS, image_roots, read_table

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

# Pillow lists them as images, but opens them with programs that are rarely there, or not at all.
_NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@dataclass(frozen=True)
class ImageList:
    """The images of one input.

    Attributes:
        paths: Arrow strings, as they are written to the predictions.
        roots: folders that the paths are relative to, tried in order.
    """

    paths: pa.LargeStringArray
    roots: tuple[Path, ...]


def list_images(inputs: Sequence[str]) -> list[ImageList]:
    """Return the images of each input, in order.

    Args:
        inputs: image files; folders, of which every file below with an image's extension counts, hidden ones left
            out; and tables, whose image_path column is read and whose rows all stay. A file that several files and
            folders name is taken once.

    Raises:
        DataError: an input is missing, or has no images.
    """
    lists: list[ImageList] = []
    files: list[str] = []
    for text in inputs:
        path = Path(text)
        if not path.exists():
            raise DataError(f"no such image, folder or table: {text}")
        if path.is_file() and path.suffix.lower() not in FORMATS:
            files.append(text)
            continue
        _append_files(lists, files)
        if path.is_dir():
            _append(lists, _below(text))
        else:
            table = read_table(path, attributes=[], require_attributes=False)
            lists.append(ImageList(table.image_paths, image_roots(table)))
    _append_files(lists, files)
    return [images for images in lists if len(images.paths)]


def image_extensions() -> frozenset[str]:
    """Return the extensions, in lower case with their dots, that timm or Pillow takes for images."""
    registered = Image.registered_extensions()
    openable = {end for end, kind in registered.items() if kind in Image.OPEN and kind not in _NOT_PICTURES}
    return frozenset(openable | set(get_img_extensions()))


class ImageFiles(Dataset[tuple[Any, Tensor]]):
    """Each image with its row number; one that cannot be read is an empty picture, and marked.

    Args:
        lists: of `list_images`.
        channels: 3 for colour, 1 for grey.
    """

    def __init__(self, lists: Sequence[ImageList], channels: int = 3) -> None:
        self.lists = list(lists)
        self.channels = channels
        self.ends = np.cumsum([len(images.paths) for images in self.lists]).tolist()
        self.unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()  # workers mark in the same memory
        self.transform: Callable[[Image.Image], Any] | None = None  # timm's loader sets it

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> tuple[Any, Tensor]:
        try:
            image = self.load(row)
        except OSError:
            self.unreadable[row] = 1
            image = Image.new("RGB" if self.channels == 3 else "L", (32, 32))
        return (self.transform(image) if self.transform else image), torch.tensor(row)

    @property
    def paths(self) -> pa.ChunkedArray:
        """Every row's path, as it is written to the predictions."""
        return pa.chunked_array([images.paths for images in self.lists], pa.large_string())

    def load(self, row: int) -> Image.Image:
        """Decode the image of a row.

        Raises:
            OSError: it is missing or no image.
        """
        index = bisect_right(self.ends, row)
        images = self.lists[index]
        path = images.paths[row - self.ends[index] + len(images.paths)].as_py()
        for root in images.roots[:-1]:
            try:
                return as_image(load_pixels(root / path, self.channels))
            except FileNotFoundError:
                continue
        return as_image(load_pixels(images.roots[-1] / path, self.channels))

    def errors(self) -> dict[int, str]:
        """Return why each image that turned out unreadable is, by row."""
        return {row: self._reason(row) for row in self.unreadable.nonzero().flatten().tolist()}

    def _reason(self, row: int) -> str:
        try:
            self.load(row)
        except OSError as error:
            return (error.strerror or str(error)) if isinstance(error, FileNotFoundError) else str(error)
        return "could not be read, but can be now"


def _below(folder: str) -> pa.LargeStringArray:
    """Return the images below a folder, sorted folder by folder."""
    ends = image_extensions()
    parts = [
        pa.array([_utf8(os.path.join(place, name)) for name in names], pa.large_string())  # noqa: PTH118 - a million
        for place, names in _walk(folder, ends)
    ]
    if not parts:
        raise DataError(
            f"{folder} has no images: none of its files ends in .jpg, .png, .webp or another image's ending"
        )
    return pa.concat_arrays(parts)


def _walk(folder: str, ends: frozenset[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder that has images, with their names; links are followed, each folder is visited once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in files if not name.startswith(".") and Path(name).suffix.lower() in ends]
        if names:
            yield place, sorted(names)


def _append_files(lists: list[ImageList], files: list[str]) -> None:
    if files:
        _append(lists, pa.array(map(_utf8, dict.fromkeys(files)), pa.large_string()))
        files.clear()


def _append(lists: list[ImageList], paths: pa.LargeStringArray) -> None:
    """Append paths relative to the working directory, without those that an earlier file or folder has given."""
    here = (Path.cwd(),)
    for images in lists:
        if images.roots == here:
            known = pc.is_in(_plain(paths), value_set=_plain(images.paths))
            paths = paths.filter(pc.invert(known))
    if len(paths):
        lists.append(ImageList(paths, here))


def _plain(paths: pa.LargeStringArray) -> pa.LargeStringArray:
    """Return paths that are equal where they differ in ./ or // only."""
    short = pc.replace_substring_regex(paths, r"/(\.?/)+", "/") if os.sep == "/" else paths
    return pc.replace_substring_regex(short, r"^\./", "")


def _utf8(name: str) -> str:
    """Return a file's name; bytes in it that are no text, which no table could hold, become question marks."""
    return os.fsencode(name).decode(errors="replace")
