"""The command fills what the hold-out warrants, keeps all else, and says what a person should look at."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from original_checkpoint import save_as_original
from PIL import Image
from tiny_checkpoint import CLASSES, make_model, save_checkpoint

import fill
from serving import MultiLabel

ROWS, HELD_OUT = 130, 80
Row = dict[str, str]


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with val.csv, on which colors are right and sizes are chance, a table to fill, and a run."""
    data = tmp_path_factory.mktemp("data")
    (data / "images").mkdir()
    random = np.random.default_rng(0)
    for row in range(ROWS):
        low, high = sorted(random.integers(0, 256, 2))
        pixels = random.integers(low, high + 1, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "images" / f"{row:03}.png")
    flags = {"attribute_weights": {}, "data_dir": str(data), "val_split": "val", "train_split": "train"}
    checkpoint = save_checkpoint(data / "run.pth.tar", make_model(), args=flags, temperatures={"color": 3.0})
    found = MultiLabel(checkpoint, device="cpu").predict(data / "images").to_pylist()
    names = [f"images/{row:03}.png" for row in range(ROWS)]
    sizes = [CLASSES["size"][random.integers(6)] for _ in names]
    rows = [
        {"image_path": name, "color": one["color"], "size": size}
        for name, one, size in zip(names, found, sizes, strict=True)
    ]
    write(data / "val.csv", rows[:HELD_OUT])
    blank = rows[HELD_OUT:]
    for index, row in enumerate(blank):
        row |= {
            "price": f"{index}.50",
            "color": "" if index % 2 else "red",
            "size": "" if index % 3 == 0 else row["size"],
        }
    blank[4]["size"] = blank[4]["color"] = ""
    (data / blank[4]["image_path"]).write_text("no picture")
    write(data / "table.csv", blank)
    return data


def run(data: Path, table: Path, output: Path, *words: object) -> None:
    checkpoint = () if "--checkpoint" in words else ("--checkpoint", data / "run.pth.tar")
    common = ("--device", "cpu", "-j", 0, "-b", 16, "--precision", 0.9)
    fill.main([str(word) for word in (table, "-o", output, *checkpoint, *common, *words)])


def refusal(capsys: pytest.CaptureFixture[str], data: Path, table: Path, output: Path, *words: object) -> str:
    with pytest.raises(SystemExit) as end:
        run(data, table, output, *words)
    assert end.value.code == 2
    return next(line for line in capsys.readouterr().err.splitlines() if "error: " in line).partition("error: ")[2]


def test_blank_cells_are_filled_where_warranted_and_all_others_stay(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data, data / "table.csv", tmp_path / "f.csv", "--queue", tmp_path / "q.csv", "--image-root", data)
    before, after = read(data / "table.csv"), read(tmp_path / "f.csv")
    predicted = MultiLabel(data / "run.pth.tar", device="cpu").predict(data / "table.csv").to_pylist()
    assert list(after[0]) == [
        *before[0],
        *("color_source", "color_probability", "size_source", "size_probability", "fill_error"),
    ]
    for old, new, guess in zip(before, after, predicted, strict=True):
        assert (new["image_path"], new["price"]) == (old["image_path"], old["price"])
        if old["color"]:
            assert (new["color"], new["color_source"], new["color_probability"]) == (old["color"], "given", "")
        elif guess["color"] is None:
            assert (new["color"], new["color_source"]) == ("", "blank")
            assert new["fill_error"]
        else:
            assert (new["color"], new["color_source"]) == (guess["color"], "filled")
            assert float(new["color_probability"]) == pytest.approx(guess["color_probability"], rel=1e-5)
        assert new["size"] == old["size"]
        assert new["size_source"] == ("given" if old["size"] else "blank")

    # what is said
    out = capsys.readouterr().out.splitlines()
    count = sum(row["color_source"] == "filled" for row in after)
    assert re.fullmatch(
        rf"color: 96% of {count + 1} blank cells filled, 98\.8% expected right \(95% interval \d\d\.\d to 100\.0\), "
        "1 have no readable image",
        out[0],
    )
    assert out[1] == "  warranted for the attribute as a whole, and not for each class, by 80 labeled cells of val.csv"
    open_sizes = [row for row in after if row["size_source"] == "blank" and not row["fill_error"]]
    assert out[2] == (
        f"size: none of {len(open_sizes) + 1} blank cells filled, 1 have no readable image: 80 labeled cells of "
        "val.csv do not warrant precision 0.9, as the model errs too often on them"
    )
    assert out[-3:] == [
        f"{len(open_sizes)} cells to label: {tmp_path / 'q.csv'}",
        f"Filled: {tmp_path / 'f.csv'}",
        f"Its image paths are relative to {data}, as in the table: use it with --image-root",
    ]

    # the queue
    queue = read(tmp_path / "q.csv")
    guesses = [name for rank in range(1, 6) for name in (f"guess_{rank}", f"probability_{rank}")]
    assert list(queue[0]) == ["rank", "image_path", "attribute", *guesses]
    assert [int(row["rank"]) for row in queue] == list(range(1, len(open_sizes) + 1))
    assert {row["image_path"] for row in queue} == {row["image_path"] for row in open_sizes}
    best = {row["image_path"]: row["size"] for row in predicted}
    assert all(row["guess_1"] == best[row["image_path"]] and row["attribute"] == "size" for row in queue)
    assert all(float(row["probability_1"]) >= float(row["probability_2"]) for row in queue)


def test_a_missing_attribute_is_filled_as_a_whole_and_parquet_stays_parquet(data: Path, tmp_path: Path) -> None:
    table = pa_csv.read_csv(data / "val.csv").select(["size", "image_path"])
    pq.write_table(table, data / "bare.parquet")
    run(data, data / "bare.parquet", tmp_path / "f.parquet", "--attributes", "color", "--promise", "attribute")
    out = pq.read_table(tmp_path / "f.parquet")
    assert out.column_names == ["size", "image_path", "color", "color_source", "color_probability"]
    assert out.select(["size", "image_path"]).equals(table)
    assert out["color"].to_pylist() == [row["color"] for row in read(data / "val.csv")]
    assert set(out["color_source"].to_pylist()) == {"filled"}


def test_suspects_are_written_with_their_lines(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(data / "val.csv")
    rows[7]["color"] = next(name for name in CLASSES["color"] if name != rows[7]["color"])
    rows[9]["color"] = ""
    table = write(data / "labeled.csv", rows)
    words = ("--suspects", tmp_path / "s.csv", "--attributes", "color")
    run(data, table, tmp_path / "f.csv", *words, "--image-root", data)
    suspects = read(tmp_path / "s.csv")
    assert list(suspects[0])[:6] == ["rank", "image_path", "row", "attribute", "given", "likely"]
    assert [int(row["rank"]) for row in suspects] == list(range(1, len(suspects) + 1))
    for one in suspects:
        assert one["image_path"] == rows[int(one["row"]) - 2]["image_path"]
        assert one["given"] == rows[int(one["row"]) - 2]["color"] != one["likely"]
    captured = capsys.readouterr()
    assert "given labels are doubted, the most suspect first" in captured.out
    assert "val.csv: 79 of its 80 images are also in labeled.csv (val.csv line 2 is labeled.csv line 2;" in captured.err


def test_labels_are_judged_without_a_hold_out_where_no_cell_is_blank(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_checkpoint(tmp_path / "bare.pth.tar", make_model())
    table = write(tmp_path / "t.csv", read(data / "val.csv")[:20])
    words = ("--checkpoint", checkpoint, "--suspects", tmp_path / "s.csv", "--attributes", "color")
    run(data, table, tmp_path / "f.csv", *words, "--image-root", data)
    assert capsys.readouterr().out.startswith("color: no cell is blank\n")


def test_images_that_the_model_was_trained_on_are_named_and_a_damaged_one_stays_blank(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(data / "images" / "000.png", data / "images" / "copy.png")
    write(data / "train.csv", [{"image_path": "images/copy.png", "color": "red"}])
    damaged = write(tmp_path / "t.csv", [{"image_path": str(data / "images" / f"{HELD_OUT + 4:03}.png"), "color": ""}])
    run(data, damaged, tmp_path / "f.csv", "--attributes", "color")
    (data / "train.csv").unlink()
    (row,) = read(tmp_path / "f.csv")
    assert row["color_source"] == "blank"
    assert row["fill_error"]
    err = capsys.readouterr().err
    assert "val.csv: 1 of its 80 images are also in train.csv (val.csv line 2 is train.csv line 2): the model" in err


def test_nothing_is_left_half_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.csv").write_text("before")

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fill, "write_queue", interrupted)
    with pytest.raises(SystemExit) as end:
        run(data, data / "table.csv", tmp_path / "f.csv", "--queue", tmp_path / "q.csv")
    assert end.value.code == 130
    assert (tmp_path / "f.csv").read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["f.csv"]


def test_a_checkpoint_of_the_original_fills_with_the_names_of_its_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_as_original(make_model(), tmp_path / "old.pth.tar")
    words = ("--checkpoint", tmp_path / "old.pth.tar", "--attributes", "color")
    message = refusal(capsys, data, data / "table.csv", tmp_path / "f.csv", *words)
    assert message.endswith("old.pth.tar holds no class names: give --data DATA, a data folder that names the classes")
    names = tmp_path / "names"
    names.mkdir()
    sizes = CLASSES["size"] * 3
    write(
        names / "train.csv",
        [{"image_path": f"{i}.png", "color": CLASSES["color"][i % 3], "size": size} for i, size in enumerate(sizes)],
    )
    run(data, data / "table.csv", tmp_path / "f.csv", *words, "--data", names, "--holdout", data)
    assert {row["color"] for row in read(tmp_path / "f.csv")} - {""} <= set(CLASSES["color"])


def test_sets_are_filled_as_a_whole(data: Path, tmp_path: Path) -> None:
    from catalog.label_space import LabelSpace
    from timm.models.multi_label import create_multi_label_model

    plain = make_model()
    space = LabelSpace({"tags": CLASSES["color"]}, ["tags"], ";")
    tags = create_multi_label_model("test_efficientnet", space, image_size=(3, 32, 32), projection_dim=8)
    tags.load_state_dict({name: one for name, one in plain.state_dict().items() if not name.startswith("heads.1.")})
    tags.config["data_config"] = plain.config["data_config"]
    checkpoint = save_checkpoint(tmp_path / "tags.pth.tar", tags.eval(), thresholds={"tags": 0.4})
    found = MultiLabel(checkpoint, device="cpu").predict(data / "val.csv").to_pylist()
    names = [row["image_path"] for row in read(data / "val.csv")]
    held_out = [{"image_path": name, "tags": one["tags"]} for name, one in zip(names, found, strict=True)]
    write(tmp_path / "held.csv", held_out)
    table = write(tmp_path / "t.csv", [row | {"tags": "" if i % 2 else ";"} for i, row in enumerate(held_out)])
    words = ("--checkpoint", checkpoint, "--holdout", tmp_path / "held.csv", "--image-root", data)
    run(data, table, tmp_path / "f.csv", *words, "--suspects", tmp_path / "s.csv", "--queue", tmp_path / "q.csv")
    filled = [row for row in read(tmp_path / "f.csv") if row["tags_source"] == "filled"]
    assert len(filled) == len(held_out) // 2
    truth = {row["image_path"]: row for row in found}
    for row in filled:
        assert row["tags"] == truth[row["image_path"]]["tags"]
        assert row["tags_probability"] == truth[row["image_path"]]["tags_probability"]
    assert all(one["given"] == "|" for one in read(tmp_path / "s.csv"))


def test_mistakes_are_one_sentence(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.csv"
    full = write(tmp_path / "full.csv", [{"image_path": "x.png", "color": "red"}])
    words = ("--attributes", "color")
    assert refusal(capsys, data, full, out, *words) == (
        "full.csv has no blank cell of color, so there is nothing to fill: to judge its labels, add --suspects FILE"
    )
    assert refusal(capsys, data, Path(), out).startswith("TABLE . has no name for the filled one: give /")
    assert "no such table" in refusal(capsys, data, tmp_path / "gone.csv", out)
    assert refusal(capsys, data, data / "table.csv", tmp_path / "f.parquet").startswith(
        "--output f.parquet is another format than table.csv"
    )
    torch.save({}, tmp_path / "bare.pth.tar")
    save_checkpoint(tmp_path / "bare.pth.tar", make_model())
    words = ("--checkpoint", tmp_path / "bare.pth.tar")
    assert refusal(capsys, data, data / "table.csv", out, *words).endswith(
        "names no validation split: give one with --holdout TABLE"
    )
    held_out = write(tmp_path / "other.csv", [{"image_path": str(data / "images/000.png"), "shape": "x"}])
    assert "other.csv has no column 'color', 'size'" in (
        refusal(capsys, data, data / "table.csv", out, "--holdout", held_out)
    )
    same = refusal(capsys, data, data / "table.csv", out, "--queue", out)
    assert same == f"--queue {out} is --output, which it would replace: name another file"
    assert refusal(capsys, data, data / "table.csv", data / "table.csv").endswith(
        "is TABLE, which it would replace: name another file"
    )
    assert "97 is not a share above 0 and below 1, such as 0.97; for 97% write 0.97" in (
        refusal(capsys, data, data / "table.csv", out, "--precision", 97)
    )


def test_the_root_of_the_images_to_fill_may_differ_from_that_of_the_holdout(data: Path, tmp_path: Path) -> None:
    rows = read(data / "table.csv")
    for row in rows:
        shutil.copy(data / row["image_path"], tmp_path / Path(row["image_path"]).name)
    moved = [row | {"image_path": Path(row["image_path"]).name} for row in rows]
    (tmp_path / "tables").mkdir()
    table = write(tmp_path / "tables" / "t.csv", moved)
    out = tmp_path / "filled.csv"
    run(data, table, out, "--image-root", tmp_path, "--holdout", data, "--attributes", "color")
    assert [row["image_path"] for row in read(out)] == [row["image_path"] for row in moved]
