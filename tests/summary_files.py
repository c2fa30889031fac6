"""A summary.csv for tests, with the columns of a run."""

from pathlib import Path

ENDINGS = ("loss", "top5", "balanced_accuracy", "macro_f1")


def write_summary(path: Path, rows: int = 3, attributes: tuple[str, ...] = ("color", "kind"), **cells: str) -> Path:
    """Write a summary; `cells` replaces a column's cell in every row but the first, or with "drop" the column."""
    columns = ["epoch", "train_loss", "eval_loss", "eval_top1", "simclr_loss", "classification_loss", *attributes]
    columns += ["eval_balanced_accuracy", *(f"{name}_{ending}" for name in attributes for ending in ENDINGS)]
    columns = [column for column in [*columns, "ema_loss", "ema_top1"] if cells.get(column) != "drop"]
    lines = [",".join(columns)]
    for row in range(rows):
        values = {"epoch": str(row)} | (cells if row else {})
        lines.append(",".join(values.get(column, str(row + 0.5)) for column in columns))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
