"""Image paths that stay valid in a table of another folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from catalog.data_error import DataError
from catalog.find_images import with_found_images
from catalog.image_list import ImageList
from catalog.table import Table
from catalog.unlabeled import absolute_paths

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see


def located_paths(table: Table) -> pa.LargeStringArray | None:
    """Return each image's absolute path; None if no image of the table exists."""
    try:
        found, roots = with_found_images(table)
    except DataError:
        return None
    return absolute_paths(ImageList(found.image_paths, roots))


def paths_from(folder: Path, table: Table, located: pa.LargeStringArray | None) -> pa.LargeStringArray:
    """Return a table's image paths for a table in another folder; absolute ones, and those in one folder, are kept.

    Args:
        folder: folder of the other table.
        table: the table.
        located: absolute paths of its images; None where they do not exist, so that they lie relative to the table.
    """
    here = folder.resolve()
    home = table.path.parent.resolve()
    if here == home:
        return table.image_paths
    if located is None:
        located = absolute_paths(ImageList(table.image_paths, (home,)))
    below = str(home).rstrip("/") + "/"
    nothing = pa.scalar("", pa.large_string())
    prefix = pa.scalar(os.path.relpath(home, here) + "/", pa.large_string())
    inside = pc.starts_with(located, below)
    short = pc.binary_join_element_wise(prefix, pc.utf8_slice_codeunits(located, len(below)), nothing)
    written = pc.if_else(inside, short, located)
    outside = [os.path.relpath(path, here) for path in located.filter(pc.invert(inside)).to_pylist()]
    if outside:
        written = pc.replace_with_mask(written, pc.invert(inside), pa.array(outside, pa.large_string()))
    return pc.if_else(pc.starts_with(table.image_paths, "/"), table.image_paths, written)
