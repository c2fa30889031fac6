"""Cells are left blank where labeled images do not warrant a precision, by the models' own validation split."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import CLASSES, make_model, save_checkpoint

from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from serving import MultiLabel
from serving.selective import choose_threshold
from timm.models.multi_label import MultiLabelModel, create_multi_label_model

ROWS = 160


def make_pictures(folder: Path) -> list[Path]:
    """Write pictures of noise in a range of brightness."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{row:03}.png" for row in range(ROWS)]
    for path in paths:
        low, high = sorted(rng.integers(0, 256, 2))
        Image.fromarray(rng.integers(low, high + 1, (32, 32, 3), dtype=np.uint8)).save(path)
    return paths


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint whose colors are right where it is confident, and whose sizes are chance."""
    data = tmp_path_factory.mktemp("data")
    paths = make_pictures(data / "images")
    flags = {"attribute_weights": {}, "data_dir": str(data), "val_split": "val"}
    checkpoint = save_checkpoint(data / "run" / "last.pth.tar", make_model(), args=flags, temperatures={"color": 3.0})
    table = MultiLabel(checkpoint, device="cpu").predict(paths).to_pylist()
    unsure = sorted(row["color_probability"] for row in table)[ROWS // 4]
    random = np.random.default_rng(1)
    rows = []
    for number, row in enumerate(table):
        wrong = CLASSES["color"][(CLASSES["color"].index(row["color"]) + 1) % 3]
        color = row["color"] if row["color_probability"] > unsure else wrong
        size = CLASSES["size"][random.integers(6)]
        name = f"images/{number:03}.png"
        rows.append({"image_path": name, "color": "" if number % 9 == 0 else color, "size": size})
    rows[1]["color"] = "teal"  # a class that the model does not know
    write_table(data / "val.csv", rows)
    return checkpoint


def cells_by_loops(checkpoint: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness of the labeled cells by the table that predict returns."""
    data = checkpoint.parent.parent
    with (data / "val.csv").open(newline="", encoding="utf-8") as file:
        labels = [row[name] for row in csv.DictReader(file)]
    table = MultiLabel(checkpoint, device="cpu").predict(data / "val.csv").to_pylist()
    known = [(row, label) for row, label in zip(table, labels, strict=True) if label]
    confidence = np.array([row[f"{name}_probability"] for row, _ in known])
    return confidence, np.array([row[name] == label for row, label in known])


@pytest.mark.parametrize("precision", [0.6, 0.9])
def test_the_threshold_is_chosen_on_the_split_that_the_checkpoint_names(run: Path, precision: float) -> None:
    found = MultiLabel(run, device="cpu").select(precision)
    for name in CLASSES:
        assert found[name] == choose_threshold(*cells_by_loops(run, name), precision)
    assert found["color"].coverage == 1 if precision == 0.6 else 0.5 < found["color"].coverage < 0.85
    assert found["size"].threshold == math.inf


def test_cells_below_the_threshold_are_blank_and_all_others_unchanged(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = MultiLabel(run, device="cpu")
    images = run.parent.parent / "images"
    plain = model.predict(images).to_pylist()
    chosen = model.predict(images, precision=0.9).to_pylist()
    limit = model.select(0.9)["color"].threshold
    assert 0 < sum(row["color"] is None for row in chosen) < ROWS / 2
    for row, before in zip(chosen, plain, strict=True):
        sure = before["color_probability"] > limit
        assert row["color"] == (before["color"] if sure else None)
        assert row["color_probability"] == (before["color_probability"] if sure else None)
        assert row["size"] is row["size_probability"] is None
        assert row["image_path"] == before["image_path"]
    sentence = (
        "size is left blank: 160 labeled cells of val.csv do not warrant precision 0.9, as the model errs too often"
    )
    assert sentence in caplog.text
    assert "color is left blank" not in caplog.text


def test_every_rank_of_a_blank_cell_is_blank(run: Path) -> None:
    table = MultiLabel(run, device="cpu").predict(run.parent.parent / "images", precision=0.9, topk=2).to_pylist()
    for row in table:
        assert len({row["color_1"] is None, row["color_2"] is None, row["color_2_probability"] is None}) == 1


def test_too_few_labels_are_named(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = run.parent.parent / "images"
    write_table(tmp_path / "few.csv", [{"image_path": str(images / "000.png"), "color": "red", "size": "L"}])
    table = MultiLabel(run, device="cpu").predict(images, precision=0.9, validation=tmp_path / "few.csv")
    assert table["color"].null_count == ROWS
    assert "1 labeled cells of few.csv do not warrant precision 0.9, as at least 29 are needed" in caplog.text


def test_several_models_abstain_by_their_mean(run: Path) -> None:
    model = MultiLabel([run, run], device="cpu")
    one = MultiLabel(run, device="cpu").select(0.9)["color"]
    assert model.select(0.9)["color"].coverage == pytest.approx(one.coverage, abs=0.02)


def test_the_validation_split_is_scored_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MultiLabel(run, device="cpu")
    model.select(0.9)
    monkeypatch.setattr("serving.multi_label.labeled_cells", lambda *_: pytest.fail("scored again"))
    assert model.select(0.6)["color"].coverage >= model.select(0.9)["color"].coverage


def test_sets_are_whole_or_blank(run: Path, tmp_path: Path) -> None:
    data = run.parent.parent
    space = LabelSpace({"tags": ("a", "b", "c")}, ["tags"])
    tags = create_multi_label_model("test_efficientnet", space, image_size=(3, 32, 32), projection_dim=8)
    weights = MultiLabelModel.from_checkpoint(run).state_dict()
    head = [name for name in weights if name.startswith("heads.0.")]
    tags.load_state_dict(
        {**{k: v for k, v in weights.items() if not k.startswith("heads.")}, **{k: weights[k] for k in head}}
    )
    tags.config["data_config"] = MultiLabelModel.from_checkpoint(run).config["data_config"]
    path = save_checkpoint(tmp_path / "t.pth.tar", tags.eval(), thresholds={"tags": 0.4}, temperatures={"tags": 2.0})
    model = MultiLabel(path, device="cpu")
    plain = model.predict(data / "images").to_pylist()
    # labels: right, except in the least confident third
    images = sorted((data / "images").iterdir())
    logits = [model.ensemble.label([batch], 1, 0)["tags"] for batch in _batches(model, data / "images")]
    confidence = np.concatenate([labels.confidence() for labels in logits])
    unsure = np.sort(confidence)[ROWS // 3]
    rows = [
        {
            "image_path": str(image),
            "tags": row["tags"] if sure > unsure else ("a|b|c" if row["tags"] != "a|b|c" else "|"),
        }
        for image, row, sure in zip(images, plain, confidence, strict=True)
    ]
    write_table(
        tmp_path / "val.csv",
        [row | {"tags": "|".join(sorted(filter(None, row["tags"].split("|")))) or "|"} for row in rows],
    )
    chosen = model.select(0.9, tmp_path / "val.csv")["tags"]
    assert 0.5 < chosen.coverage <= 2 / 3
    found = model.predict(data / "images", precision=0.9, validation=tmp_path / "val.csv").to_pylist()
    for row, before, sure in zip(found, plain, confidence, strict=True):
        assert row["tags"] == (before["tags"] if sure > chosen.threshold else None)
        assert row["tags_probability"] == (before["tags_probability"] if sure > chosen.threshold else None)
    assert None in {row["tags"] for row in found}


def _batches(model: MultiLabel, folder: Path) -> list[torch.Tensor]:
    from serving.inputs import image_rows
    from timm.data.image_dataset import ImageDataset

    return [
        images[0].clone() for images, _ in model.ensemble.batches(ImageDataset(image_rows(folder)), **model.loading)
    ]


def test_a_validation_split_that_is_gone_is_named(run: Path, tmp_path: Path) -> None:
    images = run.parent.parent / "images"
    gone = save_checkpoint(tmp_path / "a.pth.tar", make_model(), args={"data_dir": "gone", "val_split": "validation"})
    with pytest.raises(
        UsageError, match=r"was validated on validation of gone, which is not here \(no such data folder"
    ):
        MultiLabel(gone, device="cpu").predict(images, precision=0.9)
    unnamed = save_checkpoint(tmp_path / "b.pth.tar", make_model())
    with pytest.raises(UsageError, match="names no validation split: give one with validation=TABLE"):
        MultiLabel(unnamed, device="cpu").predict(images, precision=0.9)
    other = tmp_path / "other"
    other.mkdir()
    write_table(other / "val.csv", [{"image_path": str(images / "000.png"), "color": "red", "size": "L"}])
    flags = {"data_dir": str(other), "val_split": "val"}
    second = save_checkpoint(tmp_path / "c.pth.tar", make_model(), args=flags)
    with pytest.raises(
        UsageError, match=r"the checkpoints were validated on .* and .*: give one of these tables with validation=TABLE"
    ):
        MultiLabel([run, second], device="cpu").select(0.9)
    with pytest.raises(UsageError, match="precision 97: give a share between 0 and 1"):
        MultiLabel(gone, device="cpu").predict(images, precision=97)


def test_the_validation_images_are_found_in_the_folder_that_training_named(run: Path, tmp_path: Path) -> None:
    expected = MultiLabel(run, device="cpu").select(0.9)
    data = tmp_path / "tables"
    data.mkdir()
    (data / "val.csv").write_bytes((run.parents[1] / "val.csv").read_bytes())
    flags = {"data_dir": str(data), "val_split": "val", "image_root": str(run.parents[1])}
    elsewhere = save_checkpoint(tmp_path / "last.pth.tar", make_model(), args=flags, temperatures={"color": 3.0})
    assert MultiLabel(elsewhere, device="cpu").select(0.9) == expected
