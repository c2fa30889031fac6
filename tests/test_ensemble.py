"""Several checkpoints label together: the mean of calibrated probabilities, with other backbones, sizes and mirrors."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

import inference
from catalog.label_space import LabelSpace
from timm.data import create_transform
from timm.models.multi_label import MultiLabelModel, create_multi_label_model

FLAGS = ("--device", "cpu", "-j", "0", "-b", "5")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), rows=12)


def run(*words: object) -> None:
    inference.main([*map(str, words), *FLAGS])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(data: Path, checkpoint: Path, temperature: float, mirror: bool) -> torch.Tensor:
    """Return a checkpoint's probabilities of the colors [N, K], by the simplest code."""
    model = MultiLabelModel.from_checkpoint(checkpoint)
    config = model.config["data_config"]
    transform = create_transform(
        **{key: config[key] for key in ("input_size", "mean", "std", "crop_pct", "interpolation")}
    )
    paths = [data / row["image_path"] for row in read(data / "val.csv")]
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    with torch.no_grad():
        logits = model(images)["color"]
        if mirror:
            logits = (logits + model(images.flip(-1))["color"]) / 2
    return (logits / temperature).softmax(dim=1)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_file_has_the_mean_of_the_calibrated_probabilities(data: Path, tmp_path: Path, mirror: bool) -> None:
    one = save_checkpoint(tmp_path / "a.pth.tar", make_model(), temperatures={"color": 2.0})
    other = save_checkpoint(tmp_path / "b.pth.tar", make_model("test_resnet", size=48, seed=1))
    models = ("--checkpoint", one, "--checkpoint", other, *(("--tta", 2) if mirror else ()))
    run(data / "val.csv", *models, "--probabilities", tmp_path / "soft.parquet", "-o", tmp_path / "p.csv")
    table = pq.read_table(tmp_path / "soft.parquet")
    assert LabelSpace.from_dict(json.loads(table.schema.metadata[b"label_space"])).classes == CLASSES
    found = np.array(table["color"].to_pylist())
    mean = (expected(data, one, 2.0, mirror) + expected(data, other, 1.0, mirror)).numpy() / 2
    np.testing.assert_allclose(found, mean, atol=1e-5)
    rows = read(tmp_path / "p.csv")
    assert [row["color"] for row in rows] == [CLASSES["color"][i] for i in mean.argmax(axis=1)]
    assert [float(row["color_probability"]) for row in rows] == pytest.approx(mean.max(axis=1).tolist(), abs=1e-5)
    assert table["image_path"].to_pylist() == [row["image_path"] for row in rows]


def test_a_checkpoint_twice_gives_what_it_gives_once(data: Path, tmp_path: Path) -> None:
    one = save_checkpoint(tmp_path / "a.pth.tar", make_model(), temperatures={"color": 2.0})
    run(data / "val.csv", "--checkpoint", one, "-o", tmp_path / "once.csv")
    run(data / "val.csv", "--checkpoint", one, "--checkpoint", one, "-o", tmp_path / "twice.csv")
    assert (tmp_path / "once.csv").read_text() == (tmp_path / "twice.csv").read_text()


def test_sets_are_predicted_from_the_mean_threshold(data: Path, tmp_path: Path) -> None:
    paths, limits = [], []
    for number, (bias, threshold) in enumerate(((1.0, 0.6), (-2.0, 0.2))):
        model = create_multi_label_model("test_efficientnet", LabelSpace({"tags": ("a", "b")}, ["tags"]))
        with torch.no_grad():
            model.heads[0].weight.zero_()
            model.heads[0].bias.copy_(torch.tensor([bias, -3.0]))
        chosen = {"thresholds": {"tags": threshold}}
        paths += ["--checkpoint", save_checkpoint(tmp_path / f"{number}.pth.tar", model.eval(), **chosen)]
        limits.append(threshold)
    run(data / "val.csv", *paths, "-o", tmp_path / "p.csv", "--probabilities", tmp_path / "soft.parquet")
    mean = torch.tensor([[1.0, -3.0], [-2.0, -3.0]]).sigmoid().mean(dim=0)
    assert mean[0] > sum(limits) / 2 > mean[1]
    assert {row["tags"] for row in read(tmp_path / "p.csv")} == {"a"}
    found = np.array(pq.read_table(tmp_path / "soft.parquet")["tags"].to_pylist())
    np.testing.assert_allclose(found, np.tile(mean.numpy(), (12, 1)), atol=1e-6)


def test_an_unreadable_image_is_null(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "good.png").write_bytes((data / "images" / "val-0.png").read_bytes())
    one = save_checkpoint(tmp_path / "a.pth.tar", make_model())
    run(folder, "--checkpoint", one, "--probabilities", tmp_path / "soft.parquet", "-o", tmp_path / "p.csv")
    rows = pq.read_table(tmp_path / "soft.parquet").to_pylist()
    assert {Path(row["image_path"]).name: row["color"] is None for row in rows} == {
        "broken.png": True,
        "good.png": False,
    }


def test_mistakes_get_one_sentence(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = save_checkpoint(tmp_path / "a.pth.tar", make_model())
    model = create_multi_label_model("test_efficientnet", LabelSpace({"color": ("blue", "green", "teal")}))
    other = save_checkpoint(tmp_path / "b.pth.tar", model)
    for words, sentence in (
        (("--checkpoint", one, "--checkpoint", other), "average only checkpoints of the same attributes and classes"),
        (("--checkpoint", one, "--checkpoint", tmp_path / "none"), "no checkpoint at"),
        (("--checkpoint", one, "--probabilities", "soft.csv"), "does not end in .parquet"),
        (("--checkpoint", one, "--probabilities", "p.parquet", "-o", "p.parquet"), "name one file"),
    ):
        with pytest.raises(SystemExit) as end:
            run(data / "val.csv", "-o", tmp_path / "p.csv", *words)
        assert end.value.code == 2
        assert sentence in capsys.readouterr().err
