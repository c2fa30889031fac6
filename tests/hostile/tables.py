"""Hostile tables: damaged bytes, odd cells, headers, paths, encodings and formats, and things that are no file."""

from __future__ import annotations

import csv
import gzip
import io
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hostile.case import COMMANDS, Case, copy_data, link_checkpoint, link_index, on_data
from hostile.odd import NUMBERS, PATHS, damaged, odd_text

Rows = list[list[str]]


def make(rng: random.Random, place: Path, sound: Path) -> Case:
    """Return a command on a hostile table."""
    data, checkpoint = copy_data(sound, place), link_checkpoint(sound, place)
    link_index(sound, place)
    split = rng.choice(("train", "train", "val", "all"))
    file = data / f"{split}.csv"
    if not file.exists():
        shutil.copy(data / "train.csv", file)
    way = rng.choice((_edit, _edit, _edit, _edit, _damage, _encode, _columnar, _replace))
    about = way(file, rng)
    command = rng.choice(("train.py", *COMMANDS))
    if split == "val" and command in ("inference.py", "choose.py"):
        command = "validate.py"
    words = on_data(command, "in/data", checkpoint)
    if command == "inference.py" and not file.exists():
        words[1] = f"in/data/{next(data.glob('train*'), file).name}"
    if command in ("train.py", "choose.py") and rng.random() < 0.25:
        words += rng.choice((["--multi-valued", "color"], ["--multi-valued"], ["--attributes", "color", odd_text(rng)]))
    return Case(words, f"{split}: {about}", draws=rng.random() < 0.1)


def _edit(file: Path, rng: random.Random) -> str:
    """Edit a table's rows in up to three ways, and write them in a dialect."""
    rows = list(csv.reader(io.StringIO(file.read_text())))
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        edit = rng.choice(EDITS)
        edit(rows, rng)
        done.append(edit.__name__.strip("_"))
    out = io.StringIO()
    dialect = rng.choice(DIALECTS) if rng.random() < 0.3 else {}
    try:
        csv.writer(out, **dialect).writerows(rows)
    except csv.Error:  # this dialect cannot write an odd cell
        csv.writer(out).writerows(rows)
    file.write_bytes(out.getvalue().encode("utf-8", "surrogateescape"))
    return ", ".join(done)


DIALECTS = (
    {"delimiter": ";"},
    {"delimiter": "\t"},
    {"delimiter": "|"},
    {"lineterminator": "\r"},
    {"lineterminator": "\r\n\r\n"},
    {"lineterminator": "\n\r"},
    {"quoting": csv.QUOTE_ALL},
    {"quoting": csv.QUOTE_NONE, "escapechar": "\\"},
    {"quotechar": "'"},
)


def _at(rows: Rows, rng: random.Random) -> list[str]:
    return rng.choice(rows or [[""]]) or [""]


def _cell(rows: Rows, rng: random.Random) -> None:
    row = _at(rows, rng)
    row[rng.randrange(len(row))] = odd_text(rng)


def _cells_of_a_column(rows: Rows, rng: random.Random) -> None:
    column, pool = rng.randrange(4), [odd_text(rng) for _ in range(rng.choice((1, 2, 5)))]
    for row in rows[1:]:
        if column < len(row):
            row[column] = rng.choice(pool)


def _numbers(rows: Rows, rng: random.Random) -> None:
    column = rng.randrange(1, 4)
    for row in rows[1:]:
        if column < len(row):
            row[column] = rng.choice(NUMBERS)


def _header(rows: Rows, rng: random.Random) -> None:
    head = rows[0] if rows and rows[0] else [""]
    head[rng.randrange(len(head))] = odd_text(rng)


def _same_header(rows: Rows, rng: random.Random) -> None:
    head = rows[0] if rows and rows[0] else [""]
    twin = rng.choice((str, str.upper, lambda name: f" {name} ", lambda name: name + "\u200b"))
    head[rng.randrange(len(head))] = twin(rng.choice(head))


def _path(rows: Rows, rng: random.Random) -> None:
    row = _at(rows[1:], rng)
    row[0] = rng.choice(PATHS)


def _all_paths(rows: Rows, rng: random.Random) -> None:
    one = rng.choice((*PATHS, "images/0.png"))
    for row in rows[1:]:
        if row:
            row[0] = one


def _add_column(rows: Rows, rng: random.Random) -> None:
    name, pool = odd_text(rng), [odd_text(rng) for _ in range(3)]
    for number, row in enumerate(rows):
        row.append(rng.choice(pool) if number else name)


def _many_columns(rows: Rows, rng: random.Random) -> None:
    count = rng.choice((50, 300))
    for number, row in enumerate(rows):
        row += [rng.choice("abc") if number else f"c{i}" for i in range(count)]


def _drop_column(rows: Rows, rng: random.Random) -> None:
    column = rng.randrange(4)
    for row in rows:
        del row[column : column + 1]


def _ragged(rows: Rows, rng: random.Random) -> None:
    row = _at(rows, rng)
    row[:] = rng.choice(([], [""], row[:-1], [*row, "x"], row * 100))


def _no_rows(rows: Rows, rng: random.Random) -> None:
    del rows[rng.choice((0, 1, 2)) :]


def _no_header(rows: Rows, rng: random.Random) -> None:
    del rows[:1]


def _blank_rows(rows: Rows, rng: random.Random) -> None:
    at = rng.randrange(len(rows) + 1)
    rows[at:at] = [rng.choice(([], [""], [" "] * 4, [""] * 4, ["#"]))] * rng.choice((1, 1000))


def _blank_labels(rows: Rows, rng: random.Random) -> None:
    for row in rows[1:]:
        row[1:] = [""] * len(row[1:])


def _blank_column(rows: Rows, rng: random.Random) -> None:
    column = rng.randrange(4)
    for row in rows[1:]:
        row[column : column + 1] = [""]


def _same_rows(rows: Rows, rng: random.Random) -> None:
    row = list(_at(rows, rng))
    rows += [list(row) for _ in range(rng.choice((1, 50)))]


def _only_row(rows: Rows, rng: random.Random) -> None:
    del rows[2:]


def _classes(rows: Rows, rng: random.Random) -> None:
    for number, row in enumerate(rows[1:]):
        if len(row) > 1:
            row[1] = rng.choice(
                ("a", "A", " a", "a ", "\u0430", "a|", "|a", f"a{number}", "|".join(f"v{i}" for i in range(70)))
            )


EDITS: tuple[Callable[[Rows, random.Random], None], ...] = (
    _cell, _cell, _cell, _cells_of_a_column, _numbers, _header, _same_header, _path, _path, _all_paths, _add_column,
    _many_columns, _drop_column, _ragged, _ragged, _no_rows, _no_header, _blank_rows, _blank_labels, _blank_column,
    _same_rows, _only_row, _classes,
)  # fmt: skip


def _damage(file: Path, rng: random.Random) -> str:
    file.write_bytes(damaged(file.read_bytes(), rng))
    return "damaged bytes"


def _encode(file: Path, rng: random.Random) -> str:
    """Write a table in another encoding."""
    text = file.read_text().replace("blue", rng.choice(("blau", "b\u00e9", "\u9752", "\u20ac")))
    name = rng.choice(
        ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "gb18030", "shift-jis", "utf-7", "cp037")
    )
    mark = rng.choice((b"", b"", b"\xff\xfe", b"\xef\xbb\xbf\xef\xbb\xbf"))
    file.write_bytes(mark + text.encode(name, "replace"))
    return f"encoded in {name}"


def _columnar(file: Path, rng: random.Random) -> str:
    """Write a table as Parquet with odd types, or in a format that its name does not say."""
    rows = list(csv.reader(io.StringIO(file.read_text())))
    columns: dict[str, pa.Array] = dict(zip(rows[0], (pa.array(c) for c in zip(*rows[1:], strict=True)), strict=True))
    name = rng.choice(("image_path", "color", "shape", "tags", "more"))
    kind = rng.choice(list(COLUMNS))
    columns[name] = COLUMNS[kind](len(rows) - 1)
    target = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), target, row_group_size=rng.choice((1, 1000)))
    content, ending = (
        target.getvalue().to_pybytes(),
        rng.choice(("parquet", "parquet", "parquet", "csv", "tsv", "csv.gz")),
    )
    if rng.random() < 0.2:
        content = damaged(content, rng)
    file.unlink()
    if rng.random() < 0.15:
        content, ending = gzip.compress(file.with_name("val.csv").read_bytes() if file.stem != "val" else b""), "csv.gz"
        content = rng.choice((content, content[:-9], content * 2, damaged(content, rng)))
    file.with_suffix(f".{ending}").write_bytes(content)
    return f"Parquet called {ending}, {name} is {kind}"


COLUMNS: dict[str, Callable[[int], pa.Array]] = {
    "null": pa.nulls,
    "int64": lambda n: pa.array([2**62 + i for i in range(n)]),
    "float": lambda n: pa.array([float("nan"), float("inf"), -0.0, 1e300][: n or 1] * n)[:n],
    "bool": lambda n: pa.array([i % 2 == 0 for i in range(n)]),
    "bytes": lambda n: pa.array([b"\xff\x00"] * n),
    "date": lambda n: pa.array(range(n), pa.date32()),
    "time": lambda n: pa.array([2**62] * n, pa.timestamp("ns")),
    "decimal": lambda n: pa.array(range(n), pa.decimal128(38, 10)),
    "list": lambda n: pa.array([["a", None, "b|c"]] * n),
    "empty list": lambda n: pa.array([[]] * n, pa.list_(pa.string())),
    "list of lists": lambda n: pa.array([[["a"]]] * n),
    "struct": lambda n: pa.array([{"bytes": b"x", "path": "images/0.png"}] * n),
    "map": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    "dictionary": lambda n: pa.array(["images/0.png"] * n).dictionary_encode(),
    "large text": lambda n: pa.array(["x" * 100_000] * n, pa.large_string()),
    "text view": lambda n: pa.array(["images/0.png"] * n, pa.string_view()),
    "half": lambda n: pa.array([1.5] * n).cast(pa.float16()),
}


def _replace(file: Path, rng: random.Random) -> str:
    """Put something else where the table was."""
    kept = file.with_name("kept")
    file.rename(kept)
    kind = rng.choice(list(THINGS))
    THINGS[kind](file)
    return kind


def _socket(file: Path) -> None:
    here = Path.cwd()
    os.chdir(file.parent)  # a socket's path may have 107 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(file.name)
    os.chdir(here)


THINGS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a folder of files": lambda file: shutil.copytree(file.parent / "images", file),
    "a loop of links": lambda file: file.symlink_to(file.name),
    "a dangling link": lambda file: file.symlink_to("nowhere"),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to memory": lambda file: file.symlink_to("/proc/self/mem"),
    "a socket": _socket,
    "nothing": lambda file: None,
    "an empty file": Path.touch,
    "a picture": lambda file: shutil.copy(file.parent / "images" / "0.png", file),
    "an archive": lambda file: file.write_bytes(b"PK\x03\x04" + bytes(200)),
    "a sparse file of 3 GB": lambda file: (file.touch(), os.truncate(file, 3 << 30)),
    "two tables": lambda file: (shutil.copy(file.parent / "kept", file), shutil.copy(file, file.with_suffix(".tsv"))),
}
