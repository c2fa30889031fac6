"""A checkpoint of the original has no class names: each command takes them from the table of --data."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from original_checkpoint import save_as_original
from page_reader import read_page
from table_files import read_rows, write_table
from test_report_page import OTHERS
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

import app
import embed
import export
import fill
import inference
import report
from serving import MultiLabel

COMMON = ("--device", "cpu", "-j", 0)


def labeled(data: Path, checkpoint: Path, out: Path) -> list[object]:
    return [data / "val.csv", "--checkpoint", checkpoint, "-o", out / "labels.csv", *COMMON]


def embedded(data: Path, checkpoint: Path, out: Path) -> list[object]:
    return [data / "val.csv", "--checkpoint", checkpoint, "-o", out / "index", *COMMON]


def exported(data: Path, checkpoint: Path, out: Path) -> list[object]:
    return [checkpoint, "--format", "onnx", "-o", out / "model.onnx", "--images", data / "val.csv"]


def filled(data: Path, checkpoint: Path, out: Path) -> list[object]:
    words = ["--attributes", "color", "--precision", 0.01, "--holdout", data / "val.csv"]
    return [data / "blank.csv", "--checkpoint", checkpoint, "-o", out / "filled.csv", *words, *COMMON]


def served(data: Path, checkpoint: Path, out: Path) -> list[object]:
    return ["--checkpoint", checkpoint, "--device", "cpu", "--port", 0]


def colors_of_index(out: Path) -> set[str]:
    return set(pq.read_table(out / "index" / "rows.parquet")["color:predicted"].to_pylist())


# each command, its words, and the names of color that it wrote
COMMANDS = {
    "inference.py": (inference, labeled, lambda out: {row["color"] for row in read_rows(out / "labels.csv")}),
    "embed.py": (embed, embedded, colors_of_index),
    "export.py": (export, exported, lambda out: set(MultiLabel(out / "model.onnx").label_space.classes["color"])),
    "fill.py": (fill, filled, lambda out: {row["color"] for row in read_rows(out / "filled.csv")} - {""}),
}

ALL = COMMANDS | {"app.py": (app, served, None)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose val.csv the model predicts without error, with checkpoints of the original and of ours."""
    data = make_data(tmp_path_factory.mktemp("data"), 40)
    save_as_original(make_model(), data / "original.pth.tar")
    ours = save_checkpoint(data / "ours.pth.tar", make_model())
    colors = MultiLabel(ours, device="cpu").predict(data / "val.csv")["color"].to_pylist()
    rows = [
        {"image_path": row["image_path"], "color": color, "size": CLASSES["size"][number % len(CLASSES["size"])]}
        for number, (row, color) in enumerate(zip(read_rows(data / "val.csv"), colors, strict=True))
    ]
    write_table(data / "val.csv", rows)
    write_table(data / "train.csv", rows + [rows[0] | {"color": color} for color in CLASSES["color"]])
    write_table(data / "blank.csv", [row | {"color": ""} for row in rows])
    return data


def run(command: str, data: Path, checkpoint: Path, out: Path, *more: object) -> None:
    module, words, _ = ALL[command]
    module.main([str(word) for word in (*words(data, checkpoint, out), *more)])


@pytest.mark.parametrize("command", COMMANDS)
def test_classes_of_the_original_have_the_names_of_the_table(command: str, data: Path, tmp_path: Path) -> None:
    run(command, data, data / "original.pth.tar", tmp_path, "--data", data)
    found = COMMANDS[command][2](tmp_path)
    assert found
    assert found <= set(CLASSES["color"])


def test_a_report_of_the_original_has_the_names_of_the_table(data: Path, tmp_path: Path) -> None:
    checkpoint, page = data / "original.pth.tar", tmp_path / "report.html"
    words = (checkpoint, "--data-dir", data, "--split", "train", "-o", page, *COMMON)
    report.main([str(word) for word in words])
    scores = MultiLabel(checkpoint, device="cpu", data=str(data)).evaluate(data, "train")
    assert scores["color_top1"] > 0
    shown = "".join(read_page(page.read_text(encoding="utf-8"), scripts=2, others=OTHERS).texts)
    assert f"color: {scores['color_top1']:.1f}% right" in shown


@pytest.mark.parametrize("command", ["inference.py", "embed.py", "export.py"])
def test_without_a_table_classes_are_numbers(command: str, data: Path, tmp_path: Path) -> None:
    run(command, data, data / "original.pth.tar", tmp_path)
    found = COMMANDS[command][2](tmp_path)
    assert found
    assert found <= set("012")


@pytest.mark.parametrize("command", ALL)
def test_data_is_refused_where_the_checkpoint_has_its_names(
    command: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = data / "ours.pth.tar"
    with pytest.raises(SystemExit) as end:
        run(command, data, checkpoint, tmp_path, "--data", data)
    assert end.value.code == 2
    message = f"--data DATA has no effect, since {checkpoint} holds the names of its classes: leave it out"
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
