"""The results of validate.py as a file: a row a checkpoint, as CSV or JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError

Result = dict[str, Any]

_WITHIN_ATTRIBUTE = ("top1", "top5", "loss", "balanced_accuracy", "macro_f1")
_OF_SETS = ("map", "micro_f1", "threshold")  # only multi-valued attributes have them


def check_results_path(text: str) -> Path | None:
    """Return where the results go, None for nowhere; called before there are any.

    Raises:
        UsageError: the ending is neither .csv nor .json, or the file cannot be written.
    """
    if not text:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"--results-file {text} does not end in .csv or .json, which say how to write it")
    check_writable(path)
    return path


def attribute_columns(attributes: dict[str, dict[str, float]]) -> Result:
    """Return the metrics of each attribute as columns, `<attribute>_top1` and so on; `_labels` is their number.

    Every name ends in a metric's, so that an attribute may be called `model` or `loss` without taking another column.
    """
    columns: Result = {}
    for name, values in attributes.items():
        metrics = (*_WITHIN_ATTRIBUTE, *(metric for metric in _OF_SETS if metric in values))
        columns |= {f"{name}_{metric}": values[metric] for metric in metrics}
        columns[f"{name}_labels"] = int(values["count"])
    return columns


def best_first(results: Sequence[Result]) -> list[Result]:
    """Return the results by falling top-1, those without one last."""
    return sorted(results, key=lambda result: -math.inf if _blank(result["top1"]) else result["top1"], reverse=True)


def without_nan(value: Any) -> Any:
    """Return a value that JSON can hold: None for NaN and infinity, anywhere in lists and dicts."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_results(path: Path, results: Result | Sequence[Result]) -> None:
    """Write the results, replacing what was there at once.

    Args:
        path: its ending, .csv or .json, says how. In CSV what is unknown is blank, in JSON null.
        results: one, which JSON keeps as a single object, or those of several checkpoints, which may have different
            attributes.
    """
    rows = [results] if isinstance(results, dict) else list(results)
    with atomic_file(path) as unfinished:
        if path.suffix.lower() == ".json":
            plain = without_nan(results if isinstance(results, dict) else rows)
            unfinished.write_text(json.dumps(plain, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
            return
        header = list(dict.fromkeys(name for row in rows for name in row))
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows({name: "" if _blank(value) else value for name, value in row.items()} for row in rows)


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
