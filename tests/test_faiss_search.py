"""Search with faiss's groups: its recall against exact search, with and without a filter."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from runtime.errors import UsageError
from serving import faiss_search
from serving.exact_search import nearest
from serving.faiss_search import is_built, is_installed, open_faiss
from serving.index_folder import IndexInfo

needs_faiss = pytest.mark.skipif(not is_installed(), reason="requirements-search.txt is optional")


def drawn(rows: int, width: int = 24) -> npt.NDArray[np.float16]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, width))[rng.integers(40, size=rows)] + 0.4 * rng.normal(size=(rows, width))
    half: npt.NDArray[np.float16] = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    return half


def info(rows: int, sha256: str = "a") -> IndexInfo:
    return IndexInfo("", sha256, "", "h", False, 0, {}, {}, {}, [], [], "b", rows, 24)


@needs_faiss
def test_the_groups_find_nearly_all_of_the_most_similar_rows(tmp_path: Path) -> None:
    table, readable = drawn(2500), np.random.default_rng(1).random(2500) < 0.95
    search = open_faiss(tmp_path, info(2500), table, readable)
    assert search.info.recall >= 0.99
    assert 1 <= search.info.read < search.info.groups == 48
    again = open_faiss(tmp_path, info(2500), table, readable)  # read from the files
    assert again.info == search.info
    for share in (1, 0.3, 0.01):
        rows = np.flatnonzero(readable & (np.random.default_rng(2).random(2500) < share))
        found = 0
        for query in drawn(2530)[-30:].astype(np.float32):
            expected = nearest(table, query, 10, rows)[0]
            near, similar = again.nearest(table, query, 10, rows)
            assert len(near) == len(expected)
            assert {*near.tolist()} <= {*rows.tolist()}
            assert np.array_equal(similar, np.sort(similar)[::-1])
            found += len(np.intersect1d(near, expected))
        assert found / 300 >= 0.97, share  # 0.99 is of the queries that were measured
    assert len(again.nearest(table, table[0].astype(np.float32), 5, rows[:0])[0]) == 0


@needs_faiss
def test_groups_of_another_index_are_made_again(tmp_path: Path) -> None:
    open_faiss(tmp_path, info(60), drawn(60), np.ones(60, bool))
    before = (tmp_path / "faiss.json").read_text()
    open_faiss(tmp_path, info(60, "other"), drawn(60), np.ones(60, bool))
    assert (tmp_path / "faiss.json").read_text() != before
    (tmp_path / "faiss.index").write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"faiss.index is damaged \("):
        open_faiss(tmp_path, info(60, "other"), drawn(60), np.ones(60, bool))


def test_without_the_package_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_search, "is_installed", lambda: False)
    with pytest.raises(UsageError, match="needs the package faiss-cpu: pip install -r requirements-search"):
        open_faiss(tmp_path, info(60), drawn(60), np.ones(60, bool))
    assert not is_built(tmp_path)
