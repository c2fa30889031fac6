#!/usr/bin/env python3
"""Time the search of an index against others, and measure the recall of faiss's groups.

    python benchmarks/run.py search-index                       100,000 images: times against peers
    python benchmarks/search_index.py --rows 1000000            one million: exact search, and faiss's groups

Embeddings are drawn from a mixture with 64 dimensions of variation, as float16 in a mapped file like embed.py's. Every
contender returns the twelve most similar rows to one query after the other; new queries are not rows of the index.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import torch
from command import command_parser, run_command
from harness import Comparison, Result

from serving.exact_search import Rows, nearest
from serving.faiss_search import FaissSearch, group_rows, is_installed, measure_recall

WIDTH, TOP, QUERIES = 1280, 12, 8
_BLOCK = 50_000
Half = npt.NDArray[np.float16]
Single = npt.NDArray[np.float32]
Find = Callable[[Single], npt.NDArray[Any]]


def run(small: bool) -> list[Result]:
    """Compare at 100,000 images, without a filter and with one that a tenth of them fits."""
    count = 5_000 if small else 100_000
    with tempfile.TemporaryDirectory() as folder:
        embeddings, queries = drawn(Path(folder) / "embeddings.npy", count)
        everything = np.arange(count)
        tenth = np.flatnonzero(np.random.default_rng(2).random(count) < 0.1)
        note = f"{count:,} rows of {WIDTH}, {TOP} answers, one query, {torch.get_num_threads()} threads"
        return [
            compared(f"search{name}", embeddings, queries, rows, note if not name else "", 3 if small else 15)
            for name, rows in (("", everything), (", a tenth fits", tenth))
        ]


def compared(name: str, embeddings: Half, queries: Single, rows: Rows, note: str, rounds: int) -> Result:
    """Time all contenders; check that the exact ones agree."""
    finders: dict[str, Find] = {
        "ours": lambda query: nearest(embeddings, query, TOP, rows)[0],
        "NumPy, float32 in memory": numpy_finder(embeddings, rows),
    }
    if is_installed():
        finders |= faiss_finders(embeddings, rows)
    for query in queries:
        right = {*finders["ours"](query).tolist()}
        for label, find in finders.items():
            same = len(right & {*find(query).tolist()})
            assert same == len(right) or "groups" in label or same >= len(right) - 1, label  # ties within rounding
    turns = dict.fromkeys(finders, 0)

    def work(label: str) -> Callable[[], Any]:
        def one() -> None:
            turns[label] += 1
            finders[label](queries[turns[label] % len(queries)])

        return one

    contenders = {label: (lambda label=label: work(label)) for label in finders}
    return Comparison(name, contenders, rounds=rounds, note=note).run()


def numpy_finder(embeddings: Half, rows: Rows) -> Find:
    """Return a search by one product in float32, of rows that are in memory."""
    table = embeddings[rows].astype(np.float32)

    def find(query: Single) -> npt.NDArray[Any]:
        products = table @ query
        best = np.argpartition(products, len(products) - TOP)[len(products) - TOP :]
        found: npt.NDArray[Any] = rows[best]
        return found

    return find


def faiss_finders(embeddings: Half, rows: Rows) -> dict[str, Find]:
    """Return faiss's exact searches in float32 and float16, which are in memory, with a selector for the filter."""
    import faiss

    settings = {}
    if len(rows) < len(embeddings):
        fits = np.zeros(len(embeddings), bool)
        fits[rows] = True
        settings["sel"] = cast(Any, faiss).IDSelectorBitmap(np.packbits(fits, bitorder="little"))
    flat = faiss.IndexFlatIP(WIDTH)
    half = faiss.IndexScalarQuantizer(WIDTH, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, len(embeddings), _BLOCK):
        block = embeddings[start : start + _BLOCK].astype(np.float32)
        for index in (flat, half):
            if not index.is_trained:
                index.train(block)
            index.add(block)

    def finder(index: Any) -> Find:
        parameters = faiss.SearchParameters(**settings)
        return lambda query: index.search(query[None], TOP, params=parameters)[1][0]

    return {"faiss, float32": finder(flat), "faiss, float16": finder(half)}


def drawn(file: Path, count: int) -> tuple[Half, Single]:
    """Write embeddings to a file; return them mapped, and queries of the same kind."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(64, WIDTH)).astype(np.float32) * np.linspace(1, 0.2, 64, dtype=np.float32)[:, None]
    centers = 1.5 * rng.normal(size=(500, 64)).astype(np.float32)

    def some(number: int) -> Single:
        values = (centers[rng.integers(500, size=number)] + rng.normal(size=(number, 64)).astype(np.float32)) @ spread
        found: Single = values / np.linalg.norm(values, axis=1, keepdims=True)
        return found

    array = np.lib.format.open_memmap(file, "w+", np.float16, (count, WIDTH))
    for start in range(0, count, _BLOCK):
        array[start : start + _BLOCK] = some(min(_BLOCK, count - start))
    array.flush()
    mapped: Half = np.load(file, mmap_mode="c")
    return mapped, some(QUERIES)


def main() -> None:
    """Measure exact search and, if faiss is installed, its groups."""
    parser = command_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of images (default: %(default)s)")
    parser.add_argument("--folder", help="where the file of embeddings is written (default: the system's)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        embeddings, queries = drawn(Path(folder) / "embeddings.npy", args.rows)
        everything = np.arange(args.rows)
        groups = grouped(embeddings) if is_installed() else None
        for share in (1.0, 0.1, 0.01):
            rows = everything[np.random.default_rng(3).random(args.rows) < share]
            exact = timed(f"exact, {share:.0%} fit", partial(found_by, nearest, embeddings, rows), queries)
            if groups is not None:
                near = timed(f"faiss, {share:.0%} fit", partial(found_by, groups.nearest, embeddings, rows), queries)
                found = [len({*a.tolist()} & {*b.tolist()}) / len(b) for a, b in zip(near, exact, strict=True)]
                print(f"    recall@10 {np.mean(found):.3f}")


def found_by(search: Callable[..., Any], embeddings: Half, rows: Rows, query: Single) -> Rows:
    """Return the ten rows that a search finds."""
    found: Rows = search(embeddings, query, 10, rows)[0]
    return found


def grouped(embeddings: Half) -> FaissSearch:
    """Return faiss's groups, and print what they cost and reach."""
    start = time.perf_counter()
    rows = np.arange(len(embeddings))
    groups = group_rows(embeddings, rows)
    info = measure_recall(groups, [], embeddings, rows)
    print(
        f"faiss: {info.groups} groups in {time.perf_counter() - start:.0f} s; reads {info.read}, "
        f"recall@10 {info.recall:.3f} on {info.queries} rows"
    )
    return FaissSearch(groups, info)


def timed(name: str, find: Find, queries: Single) -> list[npt.NDArray[Any]]:
    """Return what is found for each query, and print the time and the processor's time of one."""
    found, wall, cpu = [find(queries[0])], [], []
    for query in queries:
        clock, processor = time.perf_counter(), time.process_time()
        found.append(find(query))
        cpu.append(time.process_time() - processor)
        wall.append(time.perf_counter() - clock)
    print(f"{name:20} {1000 * median(wall):8.1f} ms a query ({1000 * median(cpu):.1f} ms of the CPUs)")
    return found[1:]


if __name__ == "__main__":
    run_command(main)
