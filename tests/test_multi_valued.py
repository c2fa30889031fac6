"""A column of tags from the table to the predictions: trained, scored and written down by one threshold."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from flag_effects import prepare, train_through
from table_files import draw_catalog, read_rows, write_table

import inference
import refit
import validate
from catalog.table import read_table
from runtime.errors import UsageError
from timm.models.multi_label import MultiLabelModel

FLAGS = ["--epochs", 2, "--model-ema", "--knn-interval", 1, "--save-images", "--log-interval", 1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_tags(draw_catalog(tmp_path_factory.mktemp("catalog")))


def add_tags(folder: Path) -> Path:
    """Give each row of the tables tags that its picture shows, and one that it does not; some are unknown."""
    for split in ("train", "val"):
        rows = read_rows(folder / f"{split}.csv")
        for index, row in enumerate(rows):
            true = [tag for tag, value in (("round", "disc"), ("warm", "red")) if value in row.values()]
            row["tags"] = "" if index % 9 == 2 else "|".join([*true, *(["odd"] if index % 2 else [])]) or "|"
        write_table(folder / f"{split}.csv", rows)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return train_through(data, tmp_path_factory.mktemp("runs"), *FLAGS)


def score(capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, *flags: object) -> dict[str, float]:
    words = [data, "--checkpoint", checkpoint, "--device", "cpu", "-j", 0, "-b", 4, "--no-latency", *flags]
    validate.main([str(word) for word in words])
    result: dict[str, float] = json.loads(capsys.readouterr().out.partition("--result\n")[2])
    return result


def predict(data: Path, checkpoint: Path, output: Path, *flags: object) -> Path:
    words = [data / "val.csv", "--checkpoint", checkpoint, "-o", output, "--device", "cpu", "-j", 0, *flags]
    inference.main([str(word) for word in words])
    return output


def test_a_run_logs_what_its_tags_reach(trained: tuple[Path, str]) -> None:
    folder, text = trained
    assert "classes: color (3), shape (2), tags (3, several an image)" in text
    row = read_rows(folder / "summary.csv")[-1]
    assert {"tags", "tags_map", "tags_micro_f1", "tags_knn20", "eval_map", "ema_tags_map", "ema_map"} <= set(row)
    assert row["tags_top5"] == ""
    assert float(row["eval_map"]) == float(row["tags_map"]) > 0
    assert "color_map" not in row
    assert f"tags: {float(row['tags']):.3f} (mAP {float(row['tags_map']):.3f}, F1 " in text


@pytest.mark.parametrize("ema", [False, True])
def test_a_checkpoint_scores_and_labels_by_the_threshold_it_was_saved_with(
    trained: tuple[Path, str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ema: bool
) -> None:
    checkpoint, flags = trained[0] / "last.pth.tar", ["--use-ema"] if ema else []
    result = score(capsys, data, checkpoint, *flags, "--calibrate", tmp_path / "calibrated.pth.tar")
    row = read_rows(trained[0] / "summary.csv")[-1]
    prefix = "ema_" if ema else ""
    for name in ("tags_map", "tags_micro_f1", "tags_macro_f1", "tags_balanced_accuracy"):
        assert result[name] == pytest.approx(float(row[f"{prefix}{name}"]))
    assert result["exact_match"] == pytest.approx(float(row["ema_exact_match" if ema else "eval_exact_match"]))
    model = MultiLabelModel.from_checkpoint(checkpoint, use_ema=ema)
    assert result["tags_threshold"] == model.thresholds["tags"]
    assert {name: result[f"{name}_temperature"] for name in ("color", "shape", "tags")} == pytest.approx(
        model.temperatures
    )
    assert MultiLabelModel.from_checkpoint(tmp_path / "calibrated.pth.tar", use_ema=ema).temperatures == pytest.approx(
        model.temperatures
    )
    guesses = read_rows(predict(data, checkpoint, tmp_path / "p.csv", *flags))
    pairs = [(row["tags"], guess["tags"]) for row, guess in zip(read_rows(data / "val.csv"), guesses, strict=True)]
    sets = [[set(cell.split("|")) - {""} for cell in pair] for pair in pairs if pair[0]]
    assert result["tags_labels"] == len(sets)
    assert result["tags_top1"] == pytest.approx(100 * sum(one == other for one, other in sets) / len(sets))
    hits, both = sum(len(a & b) for a, b in sets), sum(len(a) + len(b) for a, b in sets)
    assert result["tags_micro_f1"] == pytest.approx(200 * hits / both)


def test_the_formats_list_the_same_values_most_probable_first(
    trained: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "low.pth.tar"
    low = torch.load(trained[0] / "last.pth.tar", weights_only=True) | {"thresholds": {"tags": 1e-6}}
    torch.save(low, checkpoint)
    rows = read_rows(predict(data, checkpoint, tmp_path / "p.csv", "--topk", 2))
    objects = json.loads(predict(data, checkpoint, tmp_path / "p.json", "--topk", 2).read_text())
    columns = pq.read_table(predict(data, checkpoint, tmp_path / "p.parquet", "--topk", 2)).to_pydict()
    assert list(columns) == list(rows[0])
    for number, (row, entry) in enumerate(zip(rows, objects, strict=True)):
        assert row["tags"].split("|") == [pair["class"] for pair in entry["tags"]]
        assert sorted(row["tags"].split("|")) == ["odd", "round", "warm"]
        probabilities = [float(text) for text in row["tags_probability"].split("|")]
        assert probabilities == [pair["probability"] for pair in entry["tags"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert (columns["tags"][number], row["color_2"]) == (row["tags"], columns["color_2"][number])


def test_predictions_are_a_table_that_training_reads(trained: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    """No value predicted is a lone separator; an image that cannot be read is blank."""
    high = torch.load(trained[0] / "last.pth.tar", weights_only=True) | {"thresholds": {"tags": 1 - 1e-6}}
    torch.save(high, tmp_path / "high.pth.tar")
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.png").write_bytes(b"no picture")
    (images / "good.png").write_bytes((data / "images" / "val-0.png").read_bytes())
    words = [images, "--checkpoint", tmp_path / "high.pth.tar", "-o", tmp_path / "p.csv", "--device", "cpu", "-j", 0]
    inference.main([str(word) for word in words])
    rows = {Path(row["image_path"]).name: row for row in read_rows(tmp_path / "p.csv")}
    assert (rows["good.png"]["tags"], rows["broken.png"]["tags"]) == ("|", "")
    column = read_table(tmp_path / "p.csv", ["tags"]).columns["tags"].to_pylist()
    assert sorted(column, key=str) == [None, "|"]


def test_values_have_a_table_of_their_own_and_no_confusions(
    trained: tuple[Path, str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = score(capsys, data, trained[0] / "last.pth.tar", "--per-class", tmp_path / "classes")
    assert sorted(path.name for path in (tmp_path / "classes").glob("tags*")) == ["tags.csv"]
    with (tmp_path / "classes" / "tags.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = [row["tags"].split("|") for row in read_rows(data / "val.csv") if row["tags"]]
    assert [row["class"] for row in rows] == ["odd", "round", "warm"]
    assert [int(row["support"]) for row in rows] == [
        sum(name in own for own in truth) for name in ("odd", "round", "warm")
    ]
    f1 = [float(row["f1"]) for row in rows if row["f1"]]
    assert np.mean(f1) == pytest.approx(result["tags_macro_f1"], abs=1e-3)


def test_a_resumed_run_keeps_the_thresholds_until_it_validates(
    trained: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    first = torch.load(trained[0] / "last.pth.tar", weights_only=True)
    assert set(first["thresholds"]) == set(first["thresholds_ema"]) == {"tags"}
    flags = ["--resume", trained[0] / "last.pth.tar", "--val-interval", 9, "--experiment", "again"]
    words = [*FLAGS, *flags, "--epochs", 4, "--checkpoint-hist", 9]
    folder, _ = train_through(data, tmp_path, *words)
    middle = torch.load(folder / "checkpoint-2.pth.tar", weights_only=True)
    assert middle["thresholds"] == first["thresholds"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--mixup", 0.5, "--cutmix", 0.5, "--multi-valued-loss", "asl", "--smoothing", 0.1],
        ["--contrastive", "supcon", "--class-weights", "inverse", "--logit-adjustment", 1],
        ["--mask-false-negatives", "--balance", "uncertainty", "--contrastive-batch-size", 8, "--batch-size", 4],
        ["-wls", 0, "--attributes", "tags", "--eval-metric", "tags_map"],
    ],
)
def test_tags_go_with_the_other_ways_of_training(data: Path, tmp_path: Path, flags: list[object]) -> None:
    folder, _ = train_through(data, tmp_path, "--epochs", 1, *flags)
    assert float(read_rows(folder / "summary.csv")[0]["tags_map"]) > 0


def test_what_tags_cannot_do_is_refused(data: Path, tmp_path: Path) -> None:
    for flags, sentence in [
        (
            ["--aug-splits", 2, "--jsd", "-wls", 0],
            r"--jsd does not work with multi-valued attributes \(tags\)",
        ),
        (
            ["--multi-valued", "--multi-valued-loss", "asl"],
            "--multi-valued-loss asl: no attribute is multi-valued, so leave --multi-valued-loss out",
        ),
    ]:
        with pytest.raises(UsageError, match=sentence):
            prepare(data, tmp_path, *flags)


def test_a_model_of_tags_alone_has_no_second_best(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = train_through(data, tmp_path, "--epochs", 1, "--attributes", "tags")
    with pytest.raises(SystemExit):
        predict(data, folder / "last.pth.tar", tmp_path / "p.csv", "--topk", 2)
    assert "predicts every value above a threshold: leave --topk out" in capsys.readouterr().err


def test_a_run_of_tags_alone_is_led_by_their_map(data: Path, tmp_path: Path) -> None:
    _, text = train_through(data, tmp_path, "--epochs", 1, "--attributes", "tags")
    assert "*** Best map" in text


def test_multi_valued_that_contradicts_a_checkpoint_or_a_table_is_refused(
    trained: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    last = trained[0] / "last.pth.tar"
    with pytest.raises(UsageError, match=r"--multi-valued color: .*last.pth.tar has tags: leave --multi-valued out"):
        prepare(data, tmp_path, "--resume", last, "--multi-valued", "color")
    prepare(data, tmp_path, "--resume", last, "--multi-valued", "tags")
    write_table(tmp_path / "train.csv", [{"image_path": row["image_path"]} for row in read_rows(data / "train.csv")])
    with pytest.raises(UsageError, match=r"--multi-valued tags: train.csv has no attribute: leave --multi-valued out"):
        prepare(tmp_path, tmp_path / "out", "-wlc", 0, "--multi-valued", "tags")


def test_a_table_that_needs_another_flag_is_refused_with_its_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train.csv has no attribute 'brand', which --multi-valued names"):
        prepare(data, tmp_path, "--multi-valued", "brand")
    with pytest.raises(UsageError, match=r"^--unlabeled \*\.webp: nothing matches the pattern"):
        prepare(data, tmp_path, "--unlabeled", "*.webp", "--unlabeled-ratio", 1)
    rows = read_rows(data / "train.csv")
    write_table(data / "ids.csv", [row | {"id": f"{number}"} for number, row in enumerate(rows)])
    with pytest.raises(UsageError, match=r"an id and not an attribute: leave it out and choose --attributes "):
        prepare(data, tmp_path, "--train-split", "ids")


def test_another_separator_is_saved_with_the_run_and_used_by_every_command(
    data: Path, trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = draw_catalog(tmp_path / "other")
    for split in ("train", "val"):
        text = (data / f"{split}.csv").read_text()
        (other / f"{split}.csv").write_text(text.replace("|", ";"))
    folder, text = train_through(other, tmp_path / "runs", *FLAGS, "--separator", ";")
    assert "tags (3, several an image)" in text
    assert "separator: ;" in (folder / "args.yaml").read_text()
    checkpoint = folder / "last.pth.tar"
    expected = score(capsys, data, trained[0] / "last.pth.tar")
    assert score(capsys, other, checkpoint)["tags_map"] == expected["tags_map"]
    assert score(capsys, data, checkpoint, "--separator", "|")["tags_map"] == expected["tags_map"]
    rows = read_rows(predict(other, checkpoint, tmp_path / "p.csv"))
    with_bars = read_rows(predict(data, trained[0] / "last.pth.tar", tmp_path / "bars.csv"))
    assert [row["tags"].replace(";", "|") for row in rows] == [row["tags"] for row in with_bars]
    assert any(";" in row["tags"] for row in rows)
    refit.main([str(word) for word in (checkpoint, other, "-o", tmp_path / "r.pth.tar", "--device", "cpu", "-j", 0)])
    assert MultiLabelModel.from_checkpoint(tmp_path / "r.pth.tar").label_space.separator == ";"
    with pytest.raises(SystemExit):
        train_through(other, tmp_path / "more", *FLAGS, "--separator", "|", "--resume", checkpoint)
