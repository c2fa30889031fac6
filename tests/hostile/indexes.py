"""Hostile indexes of search.py: damaged files, odd entries, arrays and tables that do not fit, and no files at all."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hostile.case import Case, copy_data, link_checkpoint, on_data
from hostile.images import CONTENTS
from hostile.odd import NUMBERS, PATHS, TEXTS, damaged, odd_text
from hostile.tables import THINGS

EMBEDDINGS, ROWS, INFO = "embeddings.npy", "rows.parquet", "index.json"


def make(rng: random.Random, place: Path, sound: Path) -> Case:
    """Return a search in a hostile index, or a command that continues it."""
    copy_data(sound, place)
    checkpoint = link_checkpoint(sound, place)
    index = place / "in" / "index"
    shutil.copytree(sound / "out" / "index", index)
    way = rng.choice((_damage, _damage, _entry, _entry, _entry, _array, _array, _columns, _thing))
    about = way(index, rng)
    if rng.random() < 0.25:
        words = [*on_data("embed.py", "in/data", checkpoint)[:-1], "in/index"]
        return Case(words + rng.choice(([], ["--overwrite"])), about, inside=("out", "in/index"))
    query = rng.choice(("in/data/images/0.png", "images/0.png"))  # a file, or a row of the index
    named = rng.choice(([], ["--checkpoint", checkpoint]))  # index.json names one too
    filters = rng.choice(([], ["--where", rng.choice(FILTERS)]))
    answers = rng.choice(("out/hits.csv", "out/hits.json", "out/hits.html", "out/hits.png"))
    words = ["search.py", query, "--index", "in/index", *named, *filters, "--device", "cpu", "-o", answers]
    return Case(words, about)


FILTERS = (
    "color=red",
    "shape!=disc",
    "color:probability>=0.2",
    "tags=new",
    "color=",
    "nothing=1",
    "color:predicted=red",
)


def _damage(index: Path, rng: random.Random) -> str:
    file = index / rng.choice((EMBEDDINGS, ROWS, INFO))
    file.write_bytes(damaged(file.read_bytes(), rng))
    return f"damaged {file.name}"


def _entry(index: Path, rng: random.Random) -> str:
    """Change an entry of index.json."""
    content = json.loads((index / INFO).read_text())
    key = rng.choice(sorted(content))
    value = content[key]
    others: tuple[object, ...] = (
        *(None, True, [], {}, -1, 0, 10**30, 1.5, 1e400, "", [[[]]]),
        *(rng.choice(TEXTS), rng.choice(PATHS), rng.choice(NUMBERS)),
        *copy.deepcopy(([value], {"x": value}, [value, value])),
    )
    if isinstance(value, dict) and value and rng.random() < 0.7:
        key_inside = rng.choice(sorted(value))
        value[key_inside] = rng.choice(others)
        key = f"{key}.{key_inside}"
    elif rng.random() < 0.2:
        del content[key]
    else:
        content[key] = rng.choice(others)
    (index / INFO).write_text(json.dumps(content))
    return f"index.json: {key}"


def _array(index: Path, rng: random.Random) -> str:
    """Replace the embeddings by another array, or by a header that claims one."""
    array = np.load(index / EMBEDDINGS)
    kind = rng.choice(list(ARRAYS))
    (index / EMBEDDINGS).write_bytes(ARRAYS[kind](array))
    return f"embeddings: {kind}"


def _saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _claim(shape: str, kind: str = "<f2") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)


ARRAYS: dict[str, Callable[[np.ndarray], bytes]] = {
    "float32": lambda array: _saved(array.astype(np.float32)),
    "integers": lambda array: _saved(array.astype(np.int8)),
    "a row less": lambda array: _saved(array[1:]),
    "a column less": lambda array: _saved(array[:, 1:]),
    "no rows": lambda array: _saved(array[:0]),
    "one dimension": lambda array: _saved(array.reshape(-1)),
    "columns first": lambda array: _saved(np.asfortranarray(array)),
    "not finite": lambda array: _saved(np.full_like(array, np.nan)),
    "infinite": lambda array: _saved(np.full_like(array, np.inf)),
    "zeros": lambda array: _saved(np.zeros_like(array)),
    "not normalized": lambda array: _saved(array * 1000),
    "2^40 rows": lambda array: _claim(f"({2**40}, {array.shape[1]})"),
    "2^62 columns": lambda array: _claim(f"({len(array)}, {2**62})"),
    "negative rows": lambda array: _claim(f"(-1, {array.shape[1]})"),
    "objects": lambda array: _claim(f"({len(array)},)", "|O") + pickle.dumps([1]),
    "code": lambda array: CONTENTS["NumPy's"](),
    "a shape that is no tuple": lambda array: _claim("__import__('os').system('touch canary-npy')"),
}


def _columns(index: Path, rng: random.Random) -> str:
    """Replace the rows by a table that does not fit."""
    table = pq.read_table(index / ROWS)
    name = rng.choice(table.column_names)
    kind = rng.choice(list(TABLES))
    pq.write_table(TABLES[kind](table, name, rng), index / ROWS)
    return f"rows: {kind}, {name}"


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


TABLES: dict[str, Callable[[pa.Table, str, random.Random], pa.Table]] = {
    "a row less": lambda table, name, rng: table.slice(1),
    "twice the rows": lambda table, name, rng: pa.concat_tables([table, table]),
    "a column less": lambda table, name, rng: table.drop_columns([name]),
    "a column named oddly": lambda table, name, rng: table.rename_columns(
        {name: odd_text(rng).encode(errors="replace").decode()}
    ),
    "a column twice": lambda table, name, rng: table.append_column(name, table[name]),
    "a column of integers": lambda table, name, rng: _with(table, name, pa.array(range(len(table)))),
    "a column of nulls": lambda table, name, rng: _with(table, name, pa.nulls(len(table))),
    "a column of lists": lambda table, name, rng: _with(table, name, pa.array([["a"]] * len(table))),
    "a column of odd texts": lambda table, name, rng: _with(
        table, name, pa.array([odd_text(rng).encode(errors="replace").decode() for _ in range(len(table))])
    ),
    "a column of bytes": lambda table, name, rng: _with(table, name, pa.array([b"\xff"] * len(table))),
}


def _thing(index: Path, rng: random.Random) -> str:
    file = index / rng.choice((EMBEDDINGS, ROWS, INFO))
    kind = rng.choice([kind for kind in THINGS if kind not in ("two tables", "a folder of files", "a picture")])
    file.unlink()
    THINGS[kind](file)
    return f"{file.name} is {kind}"
