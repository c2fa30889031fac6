"""An index of images, searched: the rows whose embeddings are most similar to an image's, filtered by their labels.

    index = Index("index")
    hits = index.search("photo.jpg", where=["color=Red", "article!=Tshirts"], top=12)

The embeddings stay in a mapped file. The model is loaded when the first image is embedded; an image that is a row of
the index needs none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import torch

from catalog.data_error import did_you_mean
from catalog.embedded_images import containing_file, is_image_file
from catalog.image_list import ImageList, as_utf8
from catalog.label_space import LabelSpace
from options.serving_kwargs import PREPROCESSING
from runtime.errors import UsageError
from serving.checkpoint_files import is_exported_folder, run_checkpoint
from serving.exact_search import Floats, Rows, nearest
from serving.faiss_search import BEYOND, FaissSearch, is_built, is_installed, open_faiss
from serving.index_filters import filter_columns, rows_that_fit
from serving.index_folder import ERROR, IMAGE_FILE, IMAGE_PATH, INFO, damaged_index, model_sha256, open_index
from serving.inputs import Images, image_rows, sources
from serving.multi_label import MultiLabel
from timm.models.checkpoint_claims import is_data_config

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see
_logger = logging.getLogger("search")

ENGINES = ("auto", "exact", "faiss")
_COMPARED = 2_000  # paths among which a similar one is looked for


@dataclass(frozen=True, eq=False)
class Query:
    """An image to search with.

    Attributes:
        name: what answers call it; None for an image in memory.
        file: absolute path of its file; "" without one.
        vector: its embedding, float32 [D], of length 1.
    """

    name: str | None
    file: str
    vector: npt.NDArray[np.float32]


class Index:
    """An index that embed.py made, opened once and searched many times.

    Args:
        folder: the folder of the index.
        checkpoint: the checkpoint that made it, if that was moved; None for the path that the index names.
        device: the PyTorch device of the model; None for the GPU if there is one, else the CPU.

    Attributes:
        info: what made the index.
        label_space: the attributes that are predicted, and their classes.
        rows: the rows, as `serving.index_folder` describes them.
        embeddings: float16 [N, D], mapped from the file.
        readable: which rows have an embedding, bool [N].

    Raises:
        UsageError: the folder is no index, or an unfinished or damaged one.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.info, self.embeddings, self.rows = open_index(self.folder)
        self.label_space = LabelSpace.from_dict(self.info.label_space)
        self.readable = self.rows[ERROR].is_null().to_numpy()
        self._columns = filter_columns(self.info, self.label_space, self.rows)
        self._checkpoint = Path(checkpoint or self.info.checkpoint)
        if checkpoint and not is_exported_folder(self._checkpoint):
            self._checkpoint = run_checkpoint(self._checkpoint)
        self._device = device

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        """Return the folder, the number of rows and the model."""
        return f"Index({self.folder}: {len(self):,} images, {self.info.representation} of {self.info.arch})"

    def search(
        self,
        images: Images,
        *,
        where: Sequence[str] = (),
        top: int = 12,
        keep_query: bool = False,
        engine: str = "auto",
    ) -> pa.Table:
        """Return the most similar rows to each image, the most similar first.

        Args:
            images: as in `MultiLabel.predict`; or the image_path of a row.
            where: filters that all returned rows fit; see `catalog.row_filter`.
            top: number of rows for each image.
            keep_query: also return the rows of the image's own file.
            engine: "exact"; "faiss"; or "auto", which is faiss if it is installed, its groups were made, and more than
                a million rows fit.

        Returns:
            `query`, null for an image in memory; `query_file`; `rank` from 1; `similarity`, the cosine; and the row:
            image_path, image_file, labels and predictions.

        Raises:
            UsageError: an image cannot be read, a filter is wrong, no row fits, or the checkpoint is another one.
        """
        if top < 1:
            raise UsageError(f"top {top}: give the number of images to return, at least 1")
        fits = self.fitting(where)
        found = []
        for query in self.queries(images):
            rows, similarity = self.nearest(query, top, fits, keep_query, engine)
            if not len(rows):
                raise UsageError(f"no image of {self.folder} but {query.name} itself fits: leave a filter out")
            found.append(self._hits(query, rows, similarity))
        if (fewest := min(map(len, found))) < top:
            _logger.warning(f"Only {fewest:,} images fit, and {top:,} were asked for")
        return pa.concat_tables(found)

    def fitting(self, where: Sequence[str] = ()) -> npt.NDArray[np.bool_]:
        """Return which rows are readable and fit all filters, bool [N]; log how many fit each.

        Raises:
            UsageError: a filter is wrong, or no row fits.
        """
        fits = rows_that_fit(where, self._columns, self.readable)
        if not fits.any():
            raise UsageError(f"no image of {self.folder} fits {' and '.join(where)}: leave a filter out")
        return fits

    def nearest(
        self,
        query: Query,
        top: int,
        fits: npt.NDArray[np.bool_],
        keep_query: bool = False,
        engine: str = "auto",
    ) -> tuple[Rows, Floats]:
        """Return the rows most similar to a query among those that fit, and their similarities.

        Args:
            query: the query.
            top: number of rows.
            fits: which rows may be returned, bool [N].
            keep_query: also return the rows of the query's own file.
            engine: as in `search`.
        """
        if engine not in ENGINES:
            raise UsageError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")
        if query.file and not keep_query:
            fits = fits & ~pc.equal(self.rows[IMAGE_FILE], query.file).to_numpy()
        rows = np.flatnonzero(fits)
        large = len(rows) > BEYOND and is_installed() and is_built(self.folder)
        if engine == "faiss" or (engine == "auto" and large):
            return self.groups.nearest(self.embeddings, query.vector, top, rows)
        return nearest(self.embeddings, query.vector, top, rows)

    def queries(self, images: Images) -> Iterator[Query]:
        """Yield the images to search with; a folder and a table give theirs one by one.

        Raises:
            UsageError: an image cannot be read, or is not there.
        """
        found = ((self._row_of(part), part) for part in sources(images))
        for is_row, group in groupby(found, lambda pair: pair[0] >= 0):
            if is_row:
                yield from (self._stored(row, part) for row, part in group)
            else:
                yield from self._embedded([part for _, part in group])

    @cached_property
    def model(self) -> MultiLabel:
        """The model that made the index.

        Raises:
            UsageError: its checkpoint is not there, or is another one.
        """
        path, info = self._checkpoint, self.info
        if not (path.is_file() or is_exported_folder(path)):
            raise UsageError(f"{path}, which made the index {self.folder}, is not there: name its place as checkpoint")
        if model_sha256(path) != info.checkpoint_sha256:
            raise UsageError(
                f"{path} did not make the index {self.folder}, or was changed since: name the file that did as "
                "checkpoint, or embed the images again"
            )
        if not is_data_config(info.preprocessing):
            raise damaged_index(self.folder / INFO, "no image can be prepared as its preprocessing says")
        preprocessing = {name: value for name, value in info.preprocessing.items() if name in PREPROCESSING}
        return MultiLabel(path, device=self._device, use_ema=info.use_ema, tta=info.tta, preprocessing=preprocessing)

    @cached_property
    def groups(self) -> FaissSearch:
        """The groups of faiss, made and saved when they are first used.

        Raises:
            UsageError: faiss is not installed, or the files are damaged.
        """
        return open_faiss(self.folder, self.info, self.embeddings, self.readable)

    def _row_of(self, part: Any) -> int:
        """Return the row whose stored embedding stands for an image; -1 if the image must be embedded."""
        if not isinstance(part, str | os.PathLike):
            return -1
        text = os.fspath(part)
        if not is_image_file(text):
            return int(pc.index(self.rows[IMAGE_PATH], as_utf8(text)).as_py())
        file = as_utf8(os.path.abspath(text))  # noqa: PTH100 - keeps links
        row = int(pc.index(self.rows[IMAGE_FILE], file).as_py())
        made = (self.folder / INFO).stat().st_mtime
        changed = Path(containing_file(text)).stat().st_mtime > made
        return -1 if changed else row

    def _stored(self, row: int, part: str | os.PathLike[str]) -> Query:
        """Return the query of a row."""
        if not self.readable[row]:
            reason = self.rows[ERROR][row]
            raise UsageError(f"{part} could not be read when it was embedded ({reason}): name another image")
        return Query(
            as_utf8(os.fspath(part)), self.rows[IMAGE_FILE][row].as_py(), self.embeddings[row].astype(np.float32)
        )

    def _embedded(self, parts: Sequence[Any]) -> Iterator[Query]:
        """Yield the queries of images that the model embeds."""
        for part in parts:
            self._check_there(part)
        pairs = [
            pair
            for part in image_rows(parts)
            for pair in zip(
                part.names.to_pylist(),
                part.files().to_pylist() if isinstance(part, ImageList) else [""] * len(part.paths),
                strict=True,
            )
        ]
        vectors = self.model.embed(parts, projection=self.info.representation == "z", normalize=True)
        for (name, file), vector in zip(pairs, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise UsageError(f"{name or 'an image in memory'} cannot be read: name another image")
            yield Query(name, file, vector)

    def _check_there(self, part: Any) -> None:
        """Raise for a path that is neither a file nor a row."""
        if isinstance(part, str | os.PathLike) and not is_image_file(part) and not Path(part).is_dir():
            text = os.fspath(part)
            similar = did_you_mean(text, self.rows[IMAGE_PATH][:_COMPARED].to_pylist())
            raise UsageError(f"no such image: {text}, and {self.folder} has no row of that path{similar}")

    def _hits(self, query: Query, rows: Rows, similarity: Floats) -> pa.Table:
        """Return the answer to a query as a table."""
        found = self.rows.take(pa.array(rows)).drop_columns([ERROR])
        heads = {
            "query": pa.array([query.name] * len(rows), pa.string()),
            "query_file": pa.array([query.file] * len(rows), pa.string()),
            "rank": pa.array(range(1, len(rows) + 1), pa.int64()),
            "similarity": pa.array(similarity.clip(-1, 1), pa.float64()),
        }
        return pa.table(heads | {name: found[name] for name in found.column_names})
