import csv
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_checkpoint import CLASSES, ROWS, make_data, make_model, save_checkpoint

import inference
import validate

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last.pth.tar", make_model())


def run(*argv: object) -> None:
    inference.main([*map(str, argv), "--device", "cpu", "-j", "0", "-b", "8"])


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run the script on something wrong; return its one sentence."""
    with pytest.raises(SystemExit) as end:
        run(*argv)
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return next(line for line in lines if "error: " in line)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("flags", [[], ["--tta", 2], ["--amp"], ["--crop-pct", 0.6, "--img-size", 48]])
def test_predictions_agree_with_the_scores_of_validate(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path, flags: list[object]
) -> None:
    common = [str(flag) for flag in ("--checkpoint", checkpoint, "--device", "cpu", "-j", 0, "-b", 8, *flags)]
    validate.main([str(data), "--no-latency", *common])
    result = json.loads(capsys.readouterr().out.partition("--result\n")[2])
    inference.main([str(data / "val.csv"), "-o", str(tmp_path / "p.csv"), *common])
    tables = list(zip(read(data / "val.csv"), read(tmp_path / "p.csv"), strict=True))
    accuracies = []
    for name in CLASSES:
        right = [row[name] == guess[name] for row, guess in tables if row[name]]
        assert result[f"{name}_top1"] == 100 * sum(right) / len(right)
        accuracies.append(result[f"{name}_top1"])
    assert result["top1"] == sum(accuracies) / len(accuracies)
    assert all(row["image_path"] == guess["image_path"] for row, guess in tables)


def test_the_formats_have_the_same_content(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    for ending in ("csv", "json", "parquet"):
        run(data / "val.csv", "--checkpoint", checkpoint, "-o", tmp_path / "new" / f"p.{ending}", "--topk", 4)
    rows = read(tmp_path / "new" / "p.csv")
    objects = json.loads((tmp_path / "new" / "p.json").read_text())
    columns = pq.read_table(tmp_path / "new" / "p.parquet").to_pydict()
    assert len(rows) == len(objects) == ROWS
    assert list(columns) == list(rows[0])
    for number, (row, entry) in enumerate(zip(rows, objects, strict=True)):
        for name, classes in CLASSES.items():
            kept = entry[name]
            assert len(kept) == min(4, len(classes))
            for rank, pair in enumerate(kept, 1):
                assert pair["class"] == row[f"{name}_{rank}"] == columns[f"{name}_{rank}"][number]
                assert pair["probability"] == float(row[f"{name}_{rank}_probability"])
                assert pair["probability"] == pytest.approx(columns[f"{name}_{rank}_probability"][number], rel=1e-6)
            probabilities = [pair["probability"] for pair in kept]
            assert probabilities == sorted(probabilities, reverse=True)
        assert sum(pair["probability"] for pair in entry["color"]) == pytest.approx(1, abs=1e-5)


def test_a_folder_and_its_files_have_equal_labels(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    run("images", "--checkpoint", checkpoint, "-o", tmp_path / "folder.csv")
    assert f"{ROWS} images, " in capsys.readouterr().out
    run("val.csv", "--checkpoint", checkpoint, "-o", tmp_path / "table.csv")
    run("images/val-3.png", "images/val-1.png", "--checkpoint", checkpoint, "-o", tmp_path / "files.csv")
    folder = {row["image_path"]: row for row in read(tmp_path / "folder.csv")}
    table = read(tmp_path / "table.csv")
    assert sorted(folder) == sorted(row["image_path"] for row in table)
    for row in table:  # the batches differ, so the last digits of a probability may differ too
        assert [row[name] for name in CLASSES] == [folder[row["image_path"]][name] for name in CLASSES]
    files = read(tmp_path / "files.csv")
    assert [row["image_path"] for row in files] == ["images/val-3.png", "images/val-1.png"]
    assert [row["color"] for row in files] == [folder[row["image_path"]]["color"] for row in files]


def test_unreadable_images_keep_their_rows(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    make_data(tmp_path, rows=5)
    (tmp_path / "images" / "val-2.png").write_text("no picture")
    (tmp_path / "images" / "val-4.png").unlink()
    run(tmp_path / "val.csv", "--checkpoint", checkpoint, "-o", tmp_path / "p.csv")
    rows = read(tmp_path / "p.csv")
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, True]
    assert [bool(row["color"]) for row in rows] == [True, True, False, True, False]
    assert rows[4]["error"] == "No such file or directory"
    captured = capsys.readouterr()
    assert "2 of 5 images unreadable" in captured.err
    assert "Unreadable image: images/val-4.png" in captured.err
    assert "5 images, " in captured.out


def test_a_folder_without_any_readable_image_is_an_error_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    os.mkfifo(tmp_path / "photos" / "b.jpg")
    soft = tmp_path / "soft.parquet"
    words = (tmp_path / "photos", "--checkpoint", checkpoint, "-o", tmp_path / "p.csv", "--probabilities", soft)
    sentence = refusal(capsys, *words)
    assert "none of the 2 images could be read, the first being" in sentence
    assert "it is EPS, a format that is not read: save it as JPEG or PNG" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    "flags",
    ["--no-prefetcher", "--no-channels-last", "--torchcompile eager", "-j 1", "-b 1"],
)
def test_execution_settings_change_no_label(data: Path, checkpoint: Path, tmp_path: Path, flags: str) -> None:
    run(data / "val.csv", "--checkpoint", checkpoint, "-o", tmp_path / "a.csv")
    command = [str(data / "val.csv"), "--checkpoint", str(checkpoint), "-o", str(tmp_path / "b.csv")]
    inference.main([*command, "--device", "cpu", "-j", "0", "-b", "8", *flags.split()])
    for one, other in zip(read(tmp_path / "a.csv"), read(tmp_path / "b.csv"), strict=True):
        assert one["color"] == other["color"]
        assert float(one["color_probability"]) == pytest.approx(float(other["color_probability"]), abs=1e-4)


def test_several_processes_are_refused(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "start a single process, without torchrun" in refusal(capsys, data, "--checkpoint", checkpoint)


def test_mistakes_are_one_sentence(
    capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pth.tar").write_text("no checkpoint")
    output = ("-o", tmp_path / "p.csv")
    cases = [
        ([tmp_path / "nothing", "--checkpoint", checkpoint, *output], "no such image, folder or table"),
        ([tmp_path / "empty", "--checkpoint", checkpoint, *output], "has no images"),
        ([data, "--checkpoint", tmp_path / "nothing.pth.tar", *output], "no checkpoint at"),
        ([data, "--checkpoint", tmp_path / "bad.pth.tar", *output], "cannot be read as a checkpoint"),
        ([data, "--checkpoint", checkpoint, "-o", tmp_path / "p.xlsx"], "does not end in .csv, .json or .parquet"),
    ]
    for argv, words in cases:
        sentence = refusal(capsys, *argv)
        assert sentence.startswith("inference.py: error: ")
        assert words in sentence
    assert not (tmp_path / "p.csv").exists()
