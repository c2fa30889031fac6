"""Reading of CSV and TSV tables: quotes, empty lines, line numbers, and refusals of bad files."""

import csv
import gzip
import io
import pickle
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_files import cells, numbered, refusal, write_file

from catalog.build_label_space import build_label_space
from catalog.label_space import UNKNOWN, LabelSpace
from catalog.table import read_table
from catalog.targets import encode_targets
from catalog.text_table import lines_of_rows


def test_empty_lines_are_ignored_but_counted_in_line_numbers(tmp_path):
    content = '\n \nimage_path,color\r\n\r\na.jpg,"red,\n""dark"""\n   \n""\nb.jpg,blue\n\n'
    table = read_table(write_file(tmp_path / "train.csv", content))
    assert cells(table) == [["a.jpg", 'red, "dark"'], ["b.jpg", "blue"]]
    assert [table.line(i) for i in range(2)] == [5, 9]
    assert table.place(1) == "train.csv line 9"


def test_empty_lines_in_a_table_with_one_column_are_ignored(tmp_path):
    path = write_file(tmp_path / "test.csv", 'image_path\n\na.jpg\n  \n""\nb.jpg\n')
    table = read_table(path, require_attributes=False)
    assert cells(table) == [["a.jpg"], ["b.jpg"]]
    assert [table.line(i) for i in range(2)] == [3, 6]
    assert encode_targets(table, LabelSpace({}), strict=True).shape == (2, 0)


TEXT = st.text(
    st.one_of(
        st.sampled_from(",\"'\n\r\t ;aé中😀\u00a0e\u0301\u200b\u200d\ufeff\u2060"),
        st.characters(exclude_categories=["Cs", "Cf"]),
    ),
    max_size=6,
)
CELL = TEXT.filter(lambda text: "\0" not in text)


def tidy(cell):
    """Return a cell without what nobody sees, by the definitions of Python's Unicode database."""
    kept = "".join(c for c in cell if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    return unicodedata.normalize("NFC", " ".join(kept.split()))


NAME = CELL.map(tidy).filter(lambda name: name and name != "image_path")


@given(
    attributes=st.lists(NAME, min_size=1, max_size=3, unique=True),
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    bom=st.booleans(),
    delimiter=st.sampled_from([",", "\t"]),
)
def test_a_text_table_reads_as_the_csv_module_reads_it(
    tmp_path_factory, attributes, data, end, quoting, bom, delimiter
):
    row = st.tuples(CELL.filter(str.strip), *(CELL for _ in attributes))
    rows = [["image_path", *attributes], *data.draw(st.lists(row, min_size=1, max_size=5))]
    if quoting == csv.QUOTE_MINIMAL:  # the csv module then quotes the line terminator's characters only
        rows = [[re.sub("[\r\n]", end, cell) for cell in row] for row in rows]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting, delimiter=delimiter).writerows(rows)
    path = tmp_path_factory.getbasetemp() / ("t.csv" if delimiter == "," else "t.tsv")
    path.write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))

    table = read_table(path)

    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file, delimiter=delimiter)
    assert ["image_path", *table.attributes] == header
    assert cells(table) == [[path.strip(), *(tidy(cell) or None for cell in row)] for path, *row in rows]
    assert pickle.loads(pickle.dumps(table)).columns == table.columns


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_line_numbers_count_every_line_of_a_cell(tmp_path_factory, breaks):
    rows, expected, line = [], [], 2
    for count in breaks:
        rows.append('a.jpg,"x' + "\n" * count + 'y"')
        expected.append(line)
        line += 1 + count
    path = write_file(tmp_path_factory.getbasetemp() / "lines.csv", "\n".join(["image_path,text", *rows]))
    table = read_table(path)
    assert [table.line(i) for i in range(len(table))] == expected


def test_a_table_larger_than_arrows_blocks_is_read_correctly(tmp_path):
    rows = [f"class {i % 300}" if i % 7 else "" for i in range(100_000)]
    path = write_file(tmp_path / "train.csv", numbered("color", rows))
    assert path.stat().st_size > 2**20, "Arrow reads a text table in blocks of this size"
    table = read_table(path)
    assert table.columns["color"].to_pylist() == [row or None for row in rows]
    assert table.image_path(99_999) == "99999.jpg"
    assert table.line(99_999) == 100_001
    targets = encode_targets(table, build_label_space(table), strict=True)
    assert (targets[:, 0] == UNKNOWN).sum() == sum(not row for row in rows)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "train.csv is empty: its first line must be a header with image_path"),
        ("\n \n", "train.csv is empty"),
        ("image_path,color", "train.csv has a header and no rows"),
        ("image_path,color\n\n", "train.csv has a header and no rows"),
        (
            "color,size\nred,3\n",
            "train.csv line 1 has no column image_path: add one, with each image's path (found 'color', 'size')",
        ),
        (
            "\nfilename,color\na,b\n",
            "train.csv line 2 has no column image_path: rename 'filename' to it (found 'filename', 'color')",
        ),
        ("Image_Path,color\na,b\n", "rename 'Image_Path' to it"),
        ("color,img\na,b\n", "rename 'img' to it"),
        ("image_file,color\na,b\n", "rename 'image_file' to it"),
        ("image_pth,color\na,b\n", "rename 'image_pth' to it"),
        ("image_path;color\na;b\n", "its cells seem to be separated by ';'"),
        (
            "image_path\tcolor\na\tb\n",
            "its cells seem to be separated by tabs: separate .csv with commas and .tsv with",
        ),
        ("image_path\na.jpg\n", "train.csv has no attribute to learn, only image_path: add a column of labels"),
        ("image_path,a,b,a\nx,1,2,3\n", "train.csv line 1: column 'a' is there twice: rename or delete one"),
        ("image_path,a, \nx,1,2\n", "train.csv line 1: column 3 has no name"),
        (
            ",image_path,a\n0,x,1\n",
            "train.csv line 1: column 1 has no name: name this column or delete it (with pandas",
        ),
        (
            'image_path,a,b,c\nx,"1\n2\n3",2,3\n\ny,1,2\n',
            "train.csv line 6 has 3 cells, the header has 4: write the delimiter of blank cells too",
        ),
        ("image_path,a\nx,1\ny,red, dark\n", "train.csv line 3 has 3 cells, the header has 2: quote cells that have"),
        ("image_path,a\nx,1\ny\n", "train.csv line 3 has 1 cell, the header has 2"),
        ('image_path,a\nx,1\ny,"2\nz,3\nw,4\n', "train.csv line 3: a quote in this row is never closed: close it"),
        ('image_path,a\nx,1\ny,"2\nz,"3"\nw,4\n', "train.csv line 3: a quote in this row is never closed"),
        ('image_path,a\nx,1\n"y,2\nz,3\n', "train.csv line 3: a quote in this row is never closed"),
        ('image_path,"a\nx,1\n', "train.csv line 1: a quote in this row is never closed"),
        ('image_path,a\nx,"1\n', "train.csv line 2: a quote in this row is never closed"),
        ('image_path,a\nx,"1\n' + "y,2\n" * 500_000, "train.csv line 2: a quote in this row is never closed"),
        ("image_path,a\nx,1\ny,é\n".encode("latin-1"), "train.csv line 3 is not UTF-8: save it as UTF-8"),
        ("image_path,é\nx,1\n".encode("latin-1"), "train.csv line 1 is not UTF-8: save it as UTF-8"),
        ("image_path,a\nx,1\n".encode("utf-16"), "train.csv is UTF-16: save it as UTF-8"),
        ("image_path,a\nx,1\n,2\n", "train.csv line 3: image_path is blank: fill it in or delete the row"),
        ('image_path,a\nx,"1\n2"\n  ,2\n', "train.csv line 4: image_path is blank"),
        (b"PK\x03\x04\x14\0\x06\0", "train.csv is not a text table, it has NUL bytes"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "train.csv is not a text table"),
        (b"image_path,a\n" + b"x,1\n" * 50_000 + b"\0\n", "train.csv is not a text table"),
    ],
)
def test_a_bad_text_table_is_refused_in_one_sentence(tmp_path, content, expected):
    assert expected in refusal(read_table, write_file(tmp_path / "train.csv", content))


def test_an_unclosed_quote_in_an_ignored_column_is_refused(tmp_path):
    path = write_file(tmp_path / "train.csv", 'image_path,a,b\nx,1,"2\ny,3,4\nz,5,6"\n"w",7,8\n')
    assert len(read_table(path, attributes=["a"])) == 2  # quotes match: this is a cell of three lines
    path = write_file(tmp_path / "train.csv", 'image_path,a,b\nx,1,"2\ny,3,4\nz,5,"6"\n')
    assert "train.csv line 2: a quote in this row is never closed" in refusal(read_table, path, attributes=["a"])


def test_a_quote_inside_an_unquoted_cell_is_allowed(tmp_path):
    path = write_file(tmp_path / "train.csv", 'image_path,size\na.jpg,5" heel\nb.jpg,6" heel\n\nc.jpg,7" heel\n')
    assert read_table(path).columns["size"].to_pylist() == ['5" heel', '6" heel', '7" heel']


def test_a_bad_tsv_is_refused_with_its_line(tmp_path):
    assert "t.tsv line 3 has 1 cell, the header has 2" in refusal(
        read_table, write_file(tmp_path / "t.tsv", "image_path\ta\nx\t1\ny,1\n")
    )
    assert "its cells seem to be separated by ','" in refusal(
        read_table, write_file(tmp_path / "t.tsv", "image_path,a\nx,1\n")
    )


@given(
    lines=st.lists(
        st.sampled_from(["a,1", " ", "", ",", "\u00a0", " b,2", "\u00e9,3", "\t", "\x1c", ",,"]), max_size=9
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoted=st.booleans(),
    bom=st.booleans(),
)
def test_lines_of_rows_equal_the_csv_modules(tmp_path_factory, lines, end, quoted, bom):
    path = tmp_path_factory.getbasetemp() / "lines.csv"
    text = end.join(["image_path,size", *lines, 'z,"9"' if quoted else "z,9"])
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    with path.open(encoding="utf-8-sig", newline="") as file:
        starts, start, reader = [], 1, csv.reader(file)
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                starts.append(start)
            start = reader.line_num + 1
    rows = range(len(starts) - 1)
    assert lines_of_rows(path, rows) == dict(zip(rows, starts[1:], strict=True))


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_the_separator_of_excels_first_line_counts_and_its_line_too(tmp_path, separator):
    text = "sep=,\r\nimage_path,color\r\na.jpg,red\r\nb.jpg,blue\r\n".replace(",", separator)
    for content in (text, text.replace("red", '"red"'), "\ufeff" + text):
        table = read_table(write_file(tmp_path / "train.csv", content))
        assert cells(table) == [["a.jpg", "red"], ["b.jpg", "blue"]]
        assert [table.line(row) for row in range(2)] == [3, 4]


def test_compressed_tables_are_read_and_keep_their_lines(tmp_path):
    text = 'image_path,color\na.jpg,"red"\n\nb.jpg,blue\n'
    for ending, content in ((".csv.gz", text), (".tsv.gz", text.replace(",", "\t"))):
        table = read_table(write_file(tmp_path / f"train{ending}", gzip.compress(content.encode())))
        assert cells(table) == [["a.jpg", "red"], ["b.jpg", "blue"]]
        assert table.place(1) == f"train{ending} line 4"
    for damaged in (b"no gzip", gzip.compress(text.encode() * 999)[:40]):
        path = write_file(tmp_path / "damaged.csv.gz", damaged)
        assert refusal(read_table, path).startswith("damaged.csv.gz is damaged (")


def test_text_in_another_encoding_is_refused_with_the_line_and_the_conversion(tmp_path):
    path = write_file(tmp_path / "train.csv", "image_path,color\na.jpg,red\nb.jpg,türkis\n".encode("cp1252"))
    assert refusal(read_table, path) == (
        'train.csv line 3 is not UTF-8: save it as UTF-8 (in Excel, "CSV UTF-8"), or convert it with iconv -f '
        "WINDOWS-1252 -t UTF-8"
    )
