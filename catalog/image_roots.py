"""The folders that a table's image paths are relative to."""

import os
from pathlib import Path

import numpy as np

from catalog.data_error import DataError
from catalog.embedded_images import is_image_file
from catalog.table import Table
from runtime.regular_file import irregular_file


def image_roots(table: Table, limit: int = 100) -> tuple[Path, ...]:
    """Return the folders to search for a table's images: its image root, or its own and the working directory.

    The folder with more images comes first. Absolute paths work with either, since joining a folder with an absolute
    path gives that path.

    Args:
        table: the table.
        limit: number of rows to try, evenly spaced. If none of them has an image, all rows are tried until one has.

    Raises:
        DataError: if no row's image exists.
    """
    roots = table.folders
    sample = dict.fromkeys(np.linspace(0, len(table) - 1, min(limit, len(table)), dtype=np.int64).tolist())
    found = [sum(_is_file(root, table.image_path(row)) for row in sample) for root in roots]
    if not any(found):
        found = next(filter(any, ([_is_file(r, table.image_path(i)) for r in roots] for i in range(len(table)))), [])
    if not found:
        tried = f"in {roots[0]}" if len(roots) == 1 else f"in {roots[0]} nor in {roots[1]}"
        if fault := next(filter(None, (irregular_file(root / table.image_path(0)) for root in roots)), ""):
            raise DataError(f"{table.path.name}: no readable image at all: {fault}")
        remedy = (
            "write paths relative to the table's folder, or name the folder that they are relative to with image_root"
            if table.image_root is None
            else "image_root must be the folder that the paths are relative to"
        )
        raise DataError(
            f"{table.path.name}: no readable image at all: first path {table.image_path(0)!r} is "
            f"{'not' if len(roots) == 1 else 'neither'} {tried}; {remedy}"
        )
    return tuple(root for _, root in sorted(zip(found, roots, strict=True), key=lambda pair: -pair[0]))


def _is_file(root: Path, image_path: str) -> bool:
    return is_image_file(os.path.join(root, image_path))  # noqa: PTH118 - the path is joined as text elsewhere too
