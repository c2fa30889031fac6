"""Texts of others in what the commands write and print: formulas, and characters that a console lacks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flag_effects import train_through
from table_files import draw_catalog, read_rows, write_table

import inference
import validate
from options.inference import parse_inference_args
from options.train import parse_train_args
from options.validate import parse_validate_args

ROOT = Path(__file__).resolve().parent.parent


def test_spreadsheet_safe_names_are_written_with_an_apostrophe(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data")
    for split in ("train", "val"):
        rows = read_rows(data / f"{split}.csv")
        write_table(data / f"{split}.csv", [row | {"color": row["color"] and f"={row['color']}"} for row in rows])
    folder, _ = train_through(data, tmp_path / "run")
    words = [data / "val.csv", "--checkpoint", folder / "last.pth.tar", "--device", "cpu", "-j", 0]
    for flags, start in (((), "="), (("--spreadsheet-safe",), "'=")):
        output = tmp_path / f"{len(flags)}.csv"
        inference.main([str(word) for word in (*words, "-o", output, *flags)])
        assert all(row["color"].startswith(start) for row in read_rows(output))
        scored = [data, "--checkpoint", folder / "last.pth.tar", "--device", "cpu", "-j", 0, "--no-latency", *flags]
        validate.main([str(word) for word in (*scored, "--per-class", tmp_path / f"classes-{len(flags)}")])
        assert read_rows(tmp_path / f"classes-{len(flags)}" / "color.csv")[0]["class"] == f"{start}blue"


def test_spreadsheet_safe_needs_a_csv_file(mistake: Callable[..., str]) -> None:
    words = ("a.jpg", "--checkpoint", "a.pth", "-o", "p.json", "--spreadsheet-safe")
    assert mistake(*words, parse=parse_inference_args).startswith("--spreadsheet-safe is about CSV")
    words = ("data", "--checkpoint", "a.pth", "--results-file", "r.json", "--spreadsheet-safe")
    assert mistake(*words, parse=parse_validate_args).startswith("--spreadsheet-safe is about CSV files")


def test_a_console_that_is_not_utf_8_shows_escapes(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data\u8272")
    for split in ("train", "val"):
        rows = read_rows(data / f"{split}.csv")
        write_table(
            data / f"{split}.csv", [row | {"gr\u00f6\u00dfe": "\u8272" if n % 2 else "b"} for n, row in enumerate(rows)]
        )
    folder, _ = train_through(data, tmp_path / "run")
    words = ["--checkpoint", folder / "last.pth.tar", "--device", "cpu", "-j", 0]
    env = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}

    def output_of(*command: object) -> str:
        done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, env=env, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("ascii")

    scored = output_of("validate.py", data, *words, "--no-latency")
    assert "gr\u00f6\u00dfe_top1" in json.loads(scored.partition("--result\n")[2])
    output = tmp_path / "\u8272.csv"
    assert "\\u8272.csv" in output_of("inference.py", data / "images", *words, "-o", output)
    assert len(read_rows(output)) == 34


def test_a_data_folder_that_is_not_utf_8_is_refused(tmp_path: Path, mistake: Callable[..., str]) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(folder)  # noqa: PTH102
    sentence = mistake(folder, parse=lambda words: parse_train_args(words, check_paths=True))
    assert sentence.endswith("\\udcff is not UTF-8: rename the folder")
