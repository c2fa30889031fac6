"""The model from Python gives what the commands write, for images of every kind, in the order given."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from original_checkpoint import save_as_original
from PIL import Image
from tiny_checkpoint import CLASSES, ROWS, make_data, make_model, save_checkpoint

import inference
import validate
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from serving import MultiLabel
from timm.data import create_transform
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.models.multi_label_checkpoint import CheckpointError

CPU = ("--device", "cpu", "-j", "0", "-b", "8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    path = tmp_path_factory.mktemp("runs") / "mine" / "last.pth.tar"
    flags = {"attribute_weights": {}, "data_dir": str(data), "val_split": "validation"}
    return save_checkpoint(path, make_model(), args=flags, temperatures={"color": 1.7})


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MultiLabel:
    return MultiLabel(checkpoint, device="cpu", batch_size=8)


def paths_of(data: Path) -> list[Path]:
    with (data / "val.csv").open(newline="", encoding="utf-8") as file:
        return [data / row["image_path"] for row in csv.DictReader(file)]


def rows_of(table: pa.Table) -> list[Any]:
    """Return the rows without their paths; probabilities are equal up to the rounding of another batch size."""
    return [
        {name: pytest.approx(cell, rel=1e-5) if isinstance(cell, float) else cell for name, cell in row.items()}
        for row in plain_rows(table)
    ]


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.drop_columns("image_path").to_pylist()
    return rows


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("topk", [1, 3])
def test_predict_returns_the_table_that_inference_writes(
    data: Path, checkpoint: Path, tmp_path: Path, several: bool, topk: int
) -> None:
    sources = [checkpoint]
    if several:
        sources.append(save_checkpoint(tmp_path / "b.pth.tar", make_model("test_resnet", size=48, seed=1)))
    models = [word for source in sources for word in ("--checkpoint", str(source))]
    inputs = [str(data / "images"), str(data / "val.csv")]
    inference.main([*inputs, *models, "-o", str(tmp_path / "p.parquet"), "--topk", str(topk), "--tta", "2", *CPU])
    found = MultiLabel(sources, device="cpu", batch_size=8, tta=2).predict(inputs, topk=topk)
    assert found.equals(pq.read_table(tmp_path / "p.parquet").cast(found.schema))


def test_evaluate_returns_the_figures_of_validate(
    data: Path, checkpoint: Path, model: MultiLabel, capsys: pytest.CaptureFixture[str]
) -> None:
    validate.main([str(data), "--checkpoint", str(checkpoint), "--no-latency", *CPU])
    expected = json.loads(capsys.readouterr().out.partition("--result\n")[2])
    for found in (model.evaluate(data), model.evaluate(data / "val.csv", split="ignored")):
        assert {"top1", "loss", "color_ece", "color_calibrated_ece", "size_top1"} <= found.keys()
        assert {name: value for name, value in found.items() if value == value} == {
            name: expected[name] for name in found if expected[name] is not None
        }


def test_images_of_every_kind_give_the_same_rows_in_order(data: Path, model: MultiLabel, tmp_path: Path) -> None:
    paths = paths_of(data)
    expected = rows_of(model.predict(data / "val.csv"))
    pictures = [Image.open(path) for path in paths]
    arrays = [np.asarray(picture) for picture in pictures]
    for images in (
        paths,
        [str(path) for path in paths],
        (str(path) for path in paths),
        np.array([str(path) for path in paths]),
        pd.Series([str(path) for path in paths]),
        pd.DataFrame({"image_path": [str(path) for path in paths], "price": 3}),
        pa.table({"image_path": [str(path) for path in paths]}),
        pa.array([str(path) for path in paths]),
        pictures,
        arrays,
        np.stack(arrays),
        [
            *paths[:3],
            *arrays[3:5],
            pd.DataFrame({"image_path": list(map(str, paths[5:7]))}),
            *pictures[7:],
        ],
    ):
        assert plain_rows(model.predict(images)) == expected
    assert model.predict(paths)["image_path"].to_pylist() == list(map(str, paths))
    assert model.predict(arrays)["image_path"].to_pylist() == [None] * ROWS
    for single in (paths[4], str(paths[4]), pictures[4], arrays[4]):
        assert plain_rows(model.predict(single)) == expected[4:5]


def test_repeated_files_keep_their_rows(data: Path, model: MultiLabel) -> None:
    path = paths_of(data)[0]
    assert model.predict([path, path, data / "images"]).num_rows == 2 + ROWS
    assert len(model.embed([path, path])) == 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_a_picture_in_memory_equals_its_file(model: MultiLabel, tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    picture = Image.fromarray(noise).convert("L").convert("I").convert("I;16") if mode == "I;16" else None
    picture = picture or Image.fromarray(noise).convert("RGB" if mode == "CMYK" else "RGBA").convert(mode)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(file)
    expected = rows_of(model.predict(file))
    assert plain_rows(model.predict(picture)) == expected
    if mode in ("L", "RGBA"):
        array = np.asarray(picture)
        assert plain_rows(model.predict(array)) == expected
        assert plain_rows(model.predict(np.asfortranarray(array))) == expected
    if mode == "L":
        assert plain_rows(model.predict(np.asarray(picture)[:, :, None])) == expected


def test_a_gray_model_reads_arrays_as_it_reads_files(tmp_path: Path) -> None:
    gray = create_multi_label_model("test_efficientnet", LabelSpace(CLASSES), image_size=(1, 32, 32), projection_dim=8)
    model = MultiLabel(save_checkpoint(tmp_path / "g.pth.tar", gray.eval()), device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert plain_rows(model.predict(noise)) == rows_of(model.predict(tmp_path / "a.png"))
    assert model.predict(noise[:, :, 0]).num_rows == 1


@pytest.mark.parametrize("projection", [False, True])
def test_embeddings_are_the_models(data: Path, checkpoint: Path, model: MultiLabel, projection: bool) -> None:
    plain = MultiLabelModel.from_checkpoint(checkpoint)
    config = plain.config["data_config"]
    keys = ("input_size", "mean", "std", "crop_pct", "interpolation")
    transform = create_transform(**{key: config[key] for key in keys})
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths_of(data)])
    with torch.no_grad():
        expected = plain.forward_features(images)
        expected = (plain.forward_projection(expected) if projection else expected).numpy()
    found = model.embed(data / "val.csv", projection=projection)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    unit = model.embed(data / "val.csv", projection=projection, normalize=True)
    np.testing.assert_allclose(unit, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)


def test_mirrored_embeddings_are_averaged(data: Path, checkpoint: Path, model: MultiLabel) -> None:
    path = paths_of(data)[0]
    picture = Image.open(path)
    both = model.embed([picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    found = MultiLabel(checkpoint, device="cpu", tta=2).embed(path)
    np.testing.assert_allclose(found, both.mean(axis=0, keepdims=True), rtol=1e-4, atol=1e-4)


def test_unreadable_images_keep_their_rows(
    data: Path, model: MultiLabel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = paths_of(data)[0]
    torn = tmp_path / "torn.png"
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    Image.fromarray(noise).save(torn)
    torn.write_bytes(torn.read_bytes()[:9000])
    with Image.open(torn) as picture:
        table = model.predict([tmp_path / "broken.png", good, picture])
    assert [row["color"] is None for row in table.to_pylist()] == [True, False, True]
    assert [row["error"] is None for row in table.to_pylist()] == [False, True, False]
    assert "Unreadable image: image 2 (" in caplog.text
    embedded = model.embed([tmp_path / "broken.png", good])
    assert np.isnan(embedded).all(axis=1).tolist() == [True, False]
    for call in (model.predict, model.embed):
        with pytest.raises(UsageError, match="none of the 1 images could be read"):
            call(tmp_path / "broken.png")


def test_a_run_folder_gives_its_best_or_last_checkpoint(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_checkpoint(run / "last.pth.tar", make_model(seed=1))
    assert MultiLabel(run, device="cpu").checkpoints[0].path == run / "last.pth.tar"
    save_checkpoint(run / "model_best.pth.tar", make_model(seed=2))
    best = MultiLabel(str(run), device="cpu")
    assert best.checkpoints[0].path == run / "model_best.pth.tar"
    assert plain_rows(best.predict(data / "val.csv")) == rows_of(
        MultiLabel(run / "model_best.pth.tar", device="cpu").predict(data / "val.csv")
    )
    with pytest.raises(
        CheckpointError, match=r"neither model_best\.pth\.tar nor .*: its folders that have one are run"
    ):
        MultiLabel(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="name the folder of a run, or a file"):
        MultiLabel(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        MultiLabel(tmp_path / "none")
    with pytest.raises(UsageError, match="there is no checkpoint"):
        MultiLabel([])


def test_weights_are_not_kept_twice(model: MultiLabel) -> None:
    assert model.checkpoints[0].state_dict == {}
    assert model.checkpoints[0].optimizer is None


def test_a_checkpoint_of_the_original_loads(data: Path, tmp_path: Path) -> None:
    plain = make_model()
    save_as_original(plain, tmp_path / "o.pth.tar")
    (data / "train.csv").write_text("image_path,color,size\n" + "".join(
        f"x.png,{CLASSES['color'][i % 3]},{CLASSES['size'][i]}\n" for i in range(6)))  # fmt: skip
    named = MultiLabel(tmp_path / "o.pth.tar", device="cpu", data=str(data))
    assert set(named.predict(data / "val.csv")["color"].to_pylist()) <= set(CLASSES["color"])
    assert named.evaluate(data)["color_labels"] > 0
    numbered = MultiLabel(tmp_path / "o.pth.tar", device="cpu")
    assert set(numbered.predict(data / "val.csv")["color"].to_pylist()) <= {"0", "1", "2"}
    for call in (lambda: numbered.evaluate(data), lambda: numbered.select(0.9, data)):
        with pytest.raises(UsageError, match="holds no class names: give data=DATA, a data folder"):
            call()


def test_a_model_without_attributes_embeds_and_predicts_nothing(data: Path, tmp_path: Path) -> None:
    bare = create_multi_label_model("test_efficientnet", LabelSpace({}), image_size=(3, 32, 32), projection_dim=8)
    model = MultiLabel(save_checkpoint(tmp_path / "a.pth.tar", bare.eval()), device="cpu")
    assert model.embed(data / "images", projection=True).shape == (ROWS, 8)
    for call in (lambda: model.predict(data / "images"), lambda: model.evaluate(data), lambda: model.select(0.9)):
        with pytest.raises(CheckpointError, match="was trained without attributes"):
            call()


def test_several_models_are_not_embedded_or_scored(checkpoint: Path, data: Path) -> None:
    model = MultiLabel([checkpoint, checkpoint], device="cpu")
    for call in (lambda: model.embed(data / "images"), lambda: model.evaluate(data)):
        with pytest.raises(UsageError, match=r"this needs a single model, but .* are loaded together"):
            call()


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "there are no images"),
        (None, "image 0 is of type NoneType: give a path, a table, a Pillow image or an array"),
        ([3], "image 0 is of type int"),
        (torch.zeros(2, 3), "image 0 is of type Tensor"),
        (np.zeros((4, 4, 3)), r"image 0 is an array of float64: give uint8 \[H, W, 3\] \(multiply by 255 and round\)"),
        (np.zeros((4, 4), np.uint16), r"array of uint16: .*\(scale to 0-255\)"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \[3, 8, 8\]: .*; transpose\(1, 2, 0\) moves the channels last"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 0), np.uint8)], r"image 1 is an array of shape \[4, 0\]"),
        (np.zeros(5, np.uint8), r"image 0 is an array of shape \[5\]"),
        ("missing.png", r"no such image, folder or table: missing\.png"),
        (pd.DataFrame({"path": ["a"]}), "the given table has no column image_path, only path"),
        (pd.DataFrame({"image_path": ["a", None]}), "row 1 of the given table has no image_path"),
        (pd.DataFrame({"image_path": [[1], [2]]}), "column image_path of the given table is not text"),
    ],
)  # fmt: skip
def test_what_is_no_image_gets_one_sentence(model: MultiLabel, images: Any, sentence: str) -> None:
    for call in (model.predict, model.embed):
        with pytest.raises(UsageError, match=sentence):
            call(images)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"workers": -1}, "workers -1"),
        ({"tta": 1}, "tta 1: give 2 to add the mirror image"),
        ({"device": "gpu"}, "device gpu: PyTorch cannot use it here"),
        ({"use_ema": True}, "has no averaged weights"),
    ],
)
def test_settings_out_of_range_get_one_sentence(checkpoint: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        MultiLabel(checkpoint, **settings)


def test_topk_must_be_positive(model: MultiLabel, data: Path) -> None:
    with pytest.raises(UsageError, match="topk 0"):
        model.predict(data / "images", topk=0)


def test_workers_load_the_same(data: Path, checkpoint: Path, model: MultiLabel) -> None:
    several = MultiLabel(checkpoint, device="cpu", batch_size=8, workers=2)
    assert several.predict(data / "val.csv").equals(model.predict(data / "val.csv"))


@pytest.mark.parametrize("temperature", [0.05, 0.4, 1.0, 20.0])
def test_a_temperature_never_changes_which_class_wins(data: Path, tmp_path: Path, temperature: float) -> None:
    plain = MultiLabel(save_checkpoint(tmp_path / "a.pth.tar", make_model()), device="cpu").predict(data, topk=3)
    scaled = {"temperatures": dict.fromkeys(CLASSES, temperature)}
    found = MultiLabel(save_checkpoint(tmp_path / "b.pth.tar", make_model(), **scaled), device="cpu").predict(
        data, topk=3
    )
    for name in (f"{attribute}_{rank}" for attribute in CLASSES for rank in (1, 2, 3)):
        assert found[name].to_pylist() == plain[name].to_pylist()
        if temperature == 1:  # as in a checkpoint without temperatures
            assert found[f"{name}_probability"].equals(plain[f"{name}_probability"])


def test_representation_names_backbone_and_attributes(model: MultiLabel) -> None:
    assert repr(model) == "MultiLabel(test_efficientnet: color (3), size (6))"
    assert model.temperatures == [{"color": 1.7, "size": 1.0}]
    assert not math.isnan(model.evaluate(model._validation(None))["color_calibrated_ece"])
