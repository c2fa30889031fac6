"""Tables are written as they are read again, in every format, and only where none is lost."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_files import refusal

from catalog.splits import FORMATS
from catalog.table import read_table
from catalog.write_parts import check_places, write_parts

ODD = ["a", 'say "x"', "one, two", "semi;tab\tend", "line\nbreak", "", "ÄÖ"]


@pytest.mark.parametrize("ending", FORMATS)
@given(st.lists(st.sampled_from(ODD), min_size=1, max_size=5))
def test_cells_are_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, ending: str, cells: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    paths = [f"{index}.jpg" for index in range(len(cells))]
    written = pa.table({"image_path": paths, "a, b": cells, "c": ["1"] * len(cells)})
    write_parts(folder, {"train": written}, ending, None)
    table = read_table(folder / f"train{ending}")
    assert table.image_paths.to_pylist() == paths
    assert [cell or "" for cell in table.columns["a, b"].to_pylist()] == [" ".join(cell.split()) for cell in cells]
    assert [file.name for file in folder.iterdir()] == [f"train{ending}"]


def test_plain_cells_are_written_without_quotes(tmp_path: Path) -> None:
    write_parts(tmp_path, {"val": pa.table({"image_path": ["0.jpg"], "color": ["red"]})}, ".csv", None)
    assert (tmp_path / "val.csv").read_text() == "image_path,color\n0.jpg,red\n"


def test_a_table_of_another_format_or_spelling_is_not_shadowed(tmp_path: Path) -> None:
    (tmp_path / "validation.parquet").write_bytes(b"x")
    check_places(tmp_path, ("train",), ".csv", None, overwrite=False)
    assert "validation.parquet would be a second table val" in refusal(
        check_places, tmp_path, ("train", "val"), ".csv", None, True
    )
