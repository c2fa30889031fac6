"""The results of validate.py: a row for each checkpoint, as CSV or JSON, and lines of its log."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catalog.spreadsheet_text import escaped_row
from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError

Result = dict[str, Any]

_WITHIN_ATTRIBUTE = ("top1", "top5", "loss", "balanced_accuracy", "macro_f1")
_MULTI_VALUED = ("map", "micro_f1", "threshold")  # only multi-valued attributes have them
_CALIBRATION = ("ece", "temperature", "calibrated_loss", "calibrated_ece")  # the last three only with a temperature


def check_results_path(text: str) -> Path | None:
    """Return the path of the results file, or None for none; this is called before there are any results.

    Raises:
        UsageError: the ending is neither .csv nor .json, or the file cannot be written.
    """
    if not text:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"results_file {text} does not end in .csv or .json: choose one of these formats")
    check_writable(path)
    return path


def attribute_columns(attributes: dict[str, dict[str, float]]) -> Result:
    """Return the metrics of each attribute as columns, such as `<attribute>_top1`; `_labels` is the number of labels.

    Every name ends in a metric, so that an attribute called `model` or `loss` clashes with no other column.
    """
    columns: Result = {}
    for name, values in attributes.items():
        metrics = (*_WITHIN_ATTRIBUTE, *(metric for metric in (*_MULTI_VALUED, *_CALIBRATION) if metric in values))
        columns |= {f"{name}_{metric}": values[metric] for metric in metrics}
        columns[f"{name}_labels"] = int(values["count"])
    return columns


def score_columns(metrics: Mapping[str, Any]) -> Result:
    """Return the scores of a checkpoint as columns: the means over the attributes, then each attribute's.

    Args:
        metrics: the evaluator's result; `attributes` holds a mapping for each attribute.
    """
    means = ("exact_match", "balanced_accuracy", "macro_f1", "map", "ece", "calibrated_ece")
    return {
        "top1": metrics["top1"],
        "top1_err": 100 - metrics["top1"],
        "top5": metrics["top5"],
        "top5_err": 100 - metrics["top5"],
        "loss": metrics["loss"],
        **{name: metrics[name] for name in means if name in metrics},
        **attribute_columns(metrics["attributes"]),
    }


def score_lines(metrics: Mapping[str, Any], images_per_second: float | None = None) -> list[str]:
    """Return the scores of a checkpoint as lines of a log: a table with a row for each attribute, and the means."""
    width = max(9, *(len(name) for name in metrics["attributes"]))
    multi_valued = f"  {'mAP':>7}" if "map" in metrics else ""
    lines = [f"{'attribute':<{width}}   labels     loss    Acc@1    Acc@5  balanced       F1{multi_valued}"]
    for name, values in {**metrics["attributes"], "mean": metrics}.items():
        lines.append(
            f"{name:<{width}}  {values.get('count', ''):>7}  {values['loss']:>7.4f}  {values['top1']:>7.3f}  "
            f"{values['top5']:>7.3f}  {values['balanced_accuracy']:>8.3f}  {values['macro_f1']:>7.3f}"
            + (f"  {values['map']:>7.3f}" if "map" in values else "")
        )
    lines += calibration_lines(metrics["attributes"])
    exact, top1, top5 = metrics["exact_match"], metrics["top1"], metrics["top5"]
    rate = "" if images_per_second is None else f"  ({images_per_second:.1f} images/s)"
    lines.append(f"Every label of an image right (exact match): {exact:.3f}{rate}")
    errors = [f"{metrics[key]:.2f}" for key in ("ece", "calibrated_ece") if key in metrics]
    calibration = f" ECE {' -> '.join(errors)}" if errors else ""
    lines.append(f" * Acc@1 {top1:.3f} ({100 - top1:.3f}) Acc@5 {top5:.3f} ({100 - top5:.3f}){calibration}")
    return lines


def calibration_lines(attributes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for each attribute with a temperature: its loss and calibration error without and with it."""
    return [
        f"{name}: temperature {values['temperature']:.3f}, loss {values['loss']:.4f} -> "
        f"{values['calibrated_loss']:.4f}, calibration error {values['ece']:.2f}% -> {values['calibrated_ece']:.2f}%"
        for name, values in attributes.items()
        if "temperature" in values
    ]


def best_first(results: Sequence[Result]) -> list[Result]:
    """Return the results sorted by top-1, the highest first; results without one come last."""
    return sorted(results, key=lambda result: -math.inf if _blank(result["top1"]) else result["top1"], reverse=True)


def without_nan(value: Any) -> Any:
    """Return a value with NaN and infinity replaced by None, at any depth of lists and dicts, as JSON needs."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def result_text(value: Any) -> str:
    """Return results as JSON for stdout, where NaN is null; with escapes if stdout's encoding may lack a character."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    return json.dumps(without_nan(value), indent=4, ensure_ascii=not utf8)


def write_results(path: Path, results: Result | Sequence[Result], spreadsheet_safe: bool = False) -> None:
    """Write the results; an existing file is replaced in one step.

    Args:
        path: a .csv or .json file. Unknown values are blank in CSV and null in JSON.
        results: one result, which JSON keeps as a single object, or the results of several checkpoints, which may have
            different attributes.
        spreadsheet_safe: whether texts of CSV are written so that a spreadsheet runs none of them.
    """
    rows = [results] if isinstance(results, dict) else list(results)
    with atomic_file(path) as unfinished:
        if path.suffix.lower() == ".json":
            plain = without_nan(results if isinstance(results, dict) else rows)
            unfinished.write_text(json.dumps(plain, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
            return
        rows = [escaped_row(row) for row in rows] if spreadsheet_safe else rows
        header = list(dict.fromkeys(name for row in rows for name in row))
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows({name: "" if _blank(value) else value for name, value in row.items()} for row in rows)


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
