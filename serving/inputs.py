"""What a caller of the Python interface gives: images of any kind, as rows in the order given; tables; and models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from catalog.data_error import DataError
from catalog.image_list import ImageList, list_images
from catalog.pictures import Picture, Pictures, is_picture
from catalog.splits import find_split
from catalog.table import IMAGE_PATH


class ArrowTable(Protocol):
    """A table in memory: of pyarrow, pandas, polars and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the table's data."""
        ...


Source = str | os.PathLike[str] | Picture | ArrowTable
Images = Source | Iterable[Source]


def image_rows(images: Images) -> list[ImageList | Pictures]:
    """Return the images as rows: one for each file, each image in memory, each row of a table, each file of a folder.

    Args:
        images: one or several of: an image file, a folder, a table's file, a table in memory with a column image_path,
            a Pillow image, an array uint8 [H, W] or [H, W, C]. An array [N, H, W, C] holds N images.

    Raises:
        DataError: there are no images, or one of them is none.
    """
    rows: list[ImageList | Pictures] = []
    first = 0
    for kind, group in groupby(sources(images), key=_kind):
        if kind == "path":
            found: list[ImageList] | list[Pictures] = list_images([_text(path) for path in group], repeats=True)
        elif kind == "picture":
            found = [Pictures(list(group), first)]
        else:
            found = [_rows_of_table(table) for table in group]
        rows += found
        first += sum(len(part.paths) for part in found)
    if not first:
        raise DataError("there are no images: give files, folders, tables, Pillow images or arrays")
    return rows


def sources(images: Images) -> Iterator[Any]:
    """Yield the parts of what a caller gave: paths, images in memory and tables.

    Raises:
        DataError: one of them is none of these.
    """
    several: Any = images
    if isinstance(images, pa.Array | pa.ChunkedArray):
        several = images.to_pylist()
    elif (_kind(images) and getattr(images, "ndim", 3) != 4) or not isinstance(images, Iterable):
        several = [images]
    for index, image in enumerate(several):
        if not _kind(image):
            kind = type(image).__name__
            raise DataError(f"image {index} is of type {kind}: give a path, a table, a Pillow image or an array")
        yield image


def find_table(data: str | os.PathLike[str], split: str) -> Path:
    """Return a table's file.

    Args:
        data: the file itself, or a data folder.
        split: the split of a data folder: "validation", "test", ...

    Raises:
        DataError: there is no such table.
    """
    path = Path(data)
    return path if path.is_file() else find_split(path, split)


def _kind(source: Any) -> str:
    """Return "path", "picture", "table", or "" for anything else."""
    if isinstance(source, str | os.PathLike):
        return "path"
    if is_picture(source):
        return "picture"
    return "table" if hasattr(source, "__arrow_c_stream__") and hasattr(source, "columns") else ""


def _text(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if isinstance(text, str) else os.fsdecode(text)


def _rows_of_table(table: Any) -> ImageList:
    """Return the images of a table in memory, whose paths are absolute or relative to the working directory."""
    columns = [str(name) for name in getattr(table, "column_names", table.columns)]
    if IMAGE_PATH not in columns:
        raise DataError(f"the table has no column {IMAGE_PATH}: its columns are {', '.join(columns)}")
    try:
        paths = pa.table(table[[IMAGE_PATH]] if not isinstance(table, pa.Table) else table.select([IMAGE_PATH]))
        paths = paths[IMAGE_PATH].combine_chunks().cast(pa.large_string())
    except (pa.ArrowException, TypeError) as error:
        raise DataError(f"the table's column {IMAGE_PATH} holds no texts: write paths into it") from error
    if paths.null_count:
        row = paths.is_null().index(True).as_py()
        raise DataError(f"the table's row {row} has no {IMAGE_PATH}: fill it in, or drop the row")
    return ImageList(paths, (Path.cwd(),))
