"""The answers of a search as lines for a terminal, as CSV, and as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.label_space import SEPARATOR, LabelSpace
from catalog.spreadsheet_text import escaped_row
from runtime.atomic_file import atomic_file

_HIDDEN = ("query_file", "image_file")  # where the images are on this machine


@dataclass(frozen=True, eq=False)
class Hits:
    """The answers of a search.

    Attributes:
        table: `query`, `query_file`, `rank`, `similarity`, `image_path`, `image_file`, and for each attribute its
            label, `:predicted` class and `:probability`, as far as there are. The answers to a query follow each other.
        label_space: the model's attributes and classes.
        labels: attributes that have labels.
        filters: the filters, as they were typed.
    """

    table: pa.Table
    label_space: LabelSpace
    labels: tuple[str, ...]
    filters: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """All attributes, those with labels first."""
        return tuple(dict.fromkeys([*self.labels, *self.label_space.attributes]))


def hit_lines(hits: Hits) -> Iterator[str]:
    """Yield a line for each answer: its rank, similarity, path and labels."""
    rows = hits.table.to_pylist()
    width = max(len(row["image_path"]) for row in rows)
    for row in rows:
        if row["rank"] == 1:
            yield f"Similar to {row['query'] or 'the image'}:"
        words = "  ".join(text for _, text in label_texts(hits, row))
        yield f"{row['rank']:>4}  {row['similarity']:.4f}  {row['image_path']:<{width}}  {words}".rstrip()


def label_texts(hits: Hits, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each attribute of an answer and what is known: "color: Red", or predicted "color: Red (0.93)"."""
    for name in hits.attributes:
        given = row[name] if name in hits.labels else None
        if given is not None:
            yield name, f"{name}: {given}"
        elif (predicted := row.get(f"{name}:predicted")) is not None:
            yield name, f"{name}: {predicted} ({_shown(hits, row[f'{name}:probability'])})"


def write_hits_csv(path: Path, hits: Hits, spreadsheet_safe: bool = False) -> None:
    """Write the answers as CSV, a row each; the file changes completely or not at all.

    Args:
        path: the file.
        hits: the answers.
        spreadsheet_safe: whether texts are written so that a spreadsheet runs none of them.
    """
    columns = [name for name in hits.table.column_names if name not in _HIDDEN]
    form: Callable[[Mapping[str, Any]], dict[str, Any]] = escaped_row if spreadsheet_safe else dict
    with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(form(dict.fromkeys(columns)))
        for row in hits.table.select(columns).to_pylist():
            writer.writerow(form({name: _number(value) for name, value in row.items()}).values())


def write_hits_json(path: Path, hits: Hits) -> None:
    """Write the answers as a JSON list of objects; the file changes completely or not at all.

    Labels and predictions are nested by attribute, and a multi-valued attribute has lists.
    """
    with atomic_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        json.dump([_entry(hits, row) for row in hits.table.to_pylist()], file, ensure_ascii=False, indent=1)
        file.write("\n")


def _entry(hits: Hits, row: Mapping[str, Any]) -> dict[str, Any]:
    space = hits.label_space

    labels = {
        name: _parts(row[name].replace(SEPARATOR, space.separator), space) if name in space.multi_valued else row[name]
        for name in hits.labels
        if row[name] is not None
    }
    predictions = {}
    for name in space.attributes:
        found, probability = row[f"{name}:predicted"], row[f"{name}:probability"]
        if name in space.multi_valued:
            pairs = zip(_parts(found, space), map(float, _parts(probability, space)), strict=True)
            predictions[name] = [{"class": value, "probability": p} for value, p in pairs]
        else:
            predictions[name] = [{"class": found, "probability": _number(probability)}]
    head = {name: row[name] for name in ("query", "rank", "image_path")}
    return head | {"similarity": _number(row["similarity"]), "labels": labels, "predictions": predictions}


def _number(value: Any) -> Any:
    """Return a value with floats of at most seven digits, which is what float32 has."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _shown(hits: Hits, probability: Any) -> str:
    """Return a probability, or the probabilities of several values, with two digits."""
    texts = _parts(probability, hits.label_space) if isinstance(probability, str) else [probability]
    return " ".join(f"{float(text):.2f}" for text in texts) or "no value"


def _parts(text: str, space: LabelSpace) -> list[str]:
    """Return the values, or probabilities, that a separator joins; a lone separator joins none."""
    return [part for part in map(str.strip, text.split(space.separator)) if part]
