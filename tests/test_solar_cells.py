"""The second dataset of the label-efficiency study: its unpacking and its split, on a small package."""

import io
import sys
import zipfile
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import solar_cells


def test_blocks_of_neighboring_cells_stay_together() -> None:
    kinds = ["mono"] * 130 + ["poly"] * 180
    rows = [{"image_path": f"{i}.png", "defect": "none", "type": kind} for i, kind in enumerate(kinds)]
    tables = solar_cells.split(rows)
    # blocks: mono 0-59, 60-119, 120-129, then poly 130-189, which is the fourth
    assert [row["image_path"] for row in tables["val"]] == [f"{i}.png" for i in range(130, 190)]
    assert sorted(row["image_path"] for table in tables.values() for row in table) == sorted(
        row["image_path"] for row in rows
    )


def test_a_package_becomes_photographs_and_rows(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("L", (4, 4), 128).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as package:
        package.writestr(f"{solar_cells.INSIDE}images/cell1.png", picture.getvalue())
        package.writestr(f"{solar_cells.INSIDE}labels.csv", "images/cell1.png  0.3333333333333333  mono\n")
    rows = solar_cells.unpack(tmp_path / "package.whl", tmp_path / "data")
    assert rows == [{"image_path": "images/cell1.png", "defect": "possible", "type": "mono"}]
    assert (tmp_path / "data" / "images" / "cell1.png").read_bytes() == picture.getvalue()
