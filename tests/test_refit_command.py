"""refit.py: the heads of a checkpoint solved on a table, against scikit-learn and against the scores of validate.py."""

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import run_script_on_processes
from original_checkpoint import save_as_original
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

import refit
import train
import validate
from catalog.label_space import LabelSpace
from timm.data import create_transform
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.models.multi_label_checkpoint import read_checkpoint

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, 90, "train")
    return make_data(folder, 41, "val")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last.pth.tar", make_model())


def read(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def copied(data: Path, folder: Path, change: Callable[[int, dict[str, str]], dict[str, str]]) -> Path:
    """Write the tables of a folder into another one with changed rows."""
    for split in ("train", "val"):
        rows = absolute(data, split)
        write(folder / f"{split}.csv", [change(number, row) for number, row in enumerate(rows)])
    return folder


def absolute(data: Path, split: str) -> Rows:
    """Return the rows of a table with absolute paths."""
    return [row | {"image_path": f"{data / row['image_path']}"} for row in read(data / f"{split}.csv")]


def run(*argv: object) -> None:
    refit.main([*map(str, argv), "--device", "cpu", "-j", "0", "-b", "16"])


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    with pytest.raises(SystemExit) as end:
        run(*argv)
    assert end.value.code == 2
    return capsys.readouterr().err


def scores(capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path, *flags: str) -> dict[str, Any]:
    capsys.readouterr()
    command = [str(data), "--checkpoint", str(checkpoint), "--device", "cpu", "-j", "0", "-b", "16", "--no-latency"]
    validate.main([*command, *flags])
    found: dict[str, Any] = json.loads(capsys.readouterr().out.partition("--result\n")[2])
    return found


def features(model: MultiLabelModel, data: Path, rows: Rows) -> torch.Tensor:
    """Return the features of the rows' images, by the simplest code."""
    config = model.config["data_config"]
    settings = {name: config[name] for name in ("input_size", "mean", "std", "crop_pct", "interpolation")}
    transform = create_transform(**settings)
    images = torch.stack([transform(Image.open(data / row["image_path"]).convert("RGB")) for row in rows])
    with torch.no_grad():
        return model.forward_features(images)


def strengths(text: str) -> dict[str, float]:
    """Return the strength of each attribute in the log."""
    return {name: float(value) for name, value in re.findall(r"Refit: (\w+): .*strength ([\d.e+-]+)", text)}


def test_heads_are_those_of_scikit_learn_on_the_same_features(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, data, "--val-split", "none", "-o", tmp_path / "new.pth.tar")
    found = strengths(capsys.readouterr().err)
    assert set(found) == set(CLASSES)
    model = MultiLabelModel.from_checkpoint(tmp_path / "new.pth.tar")
    for name, head in zip(CLASSES, model.heads, strict=True):
        rows = [row for row in read(data / "train.csv") if row[name]]
        h = features(model, data, rows).double().numpy()
        scaler = StandardScaler().fit(h)
        oracle = LogisticRegression(C=1 / found[name], tol=1e-8, max_iter=10000)
        oracle.fit(scaler.transform(h), [row[name] for row in rows])
        assert isinstance(head, torch.nn.Linear)
        ours = (torch.from_numpy(h) @ head.weight.double().T + head.bias.double()).detach().numpy()
        theirs = oracle.decision_function(scaler.transform(h))
        centered = (logits - logits.mean(axis=1, keepdims=True) for logits in (ours, theirs))
        np.testing.assert_allclose(*centered, atol=2e-3)


def test_the_backbone_stays_and_validation_scores_no_head_lower(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.pth.tar"
    run(checkpoint, data, "-o", new)
    before, after = (torch.load(path, weights_only=True) for path in (checkpoint, new))
    for name, value in before["state_dict"].items():
        if not name.startswith("heads."):
            torch.testing.assert_close(after["state_dict"][name], value, rtol=0, atol=0)
    old, found = scores(capsys, data, checkpoint), scores(capsys, data, new)
    assert all(found[f"{name}_top1"] >= old[f"{name}_top1"] for name in CLASSES)
    assert found["top1"] > old["top1"]
    assert set(after["temperatures"]) == set(CLASSES)
    assert "optimizer" not in after


def test_the_default_file_is_beside_the_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(save_checkpoint(tmp_path / "model_best.pth.tar", make_model()), data)
    path = tmp_path / "model_best-refitted.pth.tar"
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"Refitted: {path}"
    assert MultiLabelModel.from_checkpoint(path).label_space.classes == CLASSES


def test_averaged_weights_get_heads_of_their_own(data: Path, tmp_path: Path) -> None:
    model, other = make_model(), make_model(seed=1)
    both = save_checkpoint(tmp_path / "both.pth.tar", model, state_dict_ema=other.state_dict())
    single = save_checkpoint(tmp_path / "single.pth.tar", other)
    for path in (both, single):
        run(path, data, "-o", f"{path}.new")
    averaged = torch.load(f"{both}.new", weights_only=True)
    alone = torch.load(f"{single}.new", weights_only=True)
    assert averaged["state_dict_ema"].keys() == alone["state_dict"].keys()
    for name, value in alone["state_dict"].items():
        torch.testing.assert_close(averaged["state_dict_ema"][name], value)
    assert averaged["temperatures_ema"] == pytest.approx(alone["temperatures"])


def test_new_classes_and_attributes_get_heads_and_others_stay(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(number: int, row: dict[str, str]) -> dict[str, str]:
        row["season"], row["price"] = ("summer", "winter")[number % 2], f"{number}"
        return row | {"color": "amber" if number % 5 == 0 else row["color"]}

    tables = copied(data, tmp_path, change)
    new = tmp_path / "new.pth.tar"
    run(checkpoint, tables, "--attributes", "color", "season", "-o", new)
    log = capsys.readouterr().err
    before, model = MultiLabelModel.from_checkpoint(checkpoint), MultiLabelModel.from_checkpoint(new)
    assert model.label_space.classes == {
        "color": ("amber", "blue", "green", "red"),
        "size": CLASSES["size"],
        "season": ("summer", "winter"),
    }
    torch.testing.assert_close(model.heads[1].weight, before.heads[1].weight)
    assert model.heads[2].weight.abs().sum() > 0
    assert "season: a new attribute with 2 classes" in log
    assert "color: new among its classes: 'amber'" in log
    assert "refitted, as its classes are other ones" in log
    assert "blank in every row" not in log
    assert "Refit: size" not in log


def test_columns_that_the_checkpoint_does_not_know_are_ignored(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    tables = copied(data, tmp_path, lambda number, row: row | {"price": f"{number}"})
    run(checkpoint, tables, "-o", tmp_path / "new.pth.tar")
    assert MultiLabelModel.from_checkpoint(tmp_path / "new.pth.tar").label_space.classes == CLASSES


def test_without_a_validation_split_folds_choose_and_old_temperatures_go(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated = save_checkpoint(tmp_path / "a.pth.tar", make_model(), temperatures={"color": 2.0, "size": 3.0})
    run(calibrated, data, "--val-split", "none", "-o", tmp_path / "b.pth.tar")
    log = capsys.readouterr().err
    assert "chosen by cross-validation" in log
    assert torch.load(tmp_path / "b.pth.tar", weights_only=True)["temperatures"] == {}


def test_sets_of_values_get_heads_and_thresholds(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    def change(number: int, row: dict[str, str]) -> dict[str, str]:
        return row | {"tags": "" if number % 7 == 0 else ("|", "new", "new|soft", "soft")[number % 4]}

    tables = copied(data, tmp_path, change)
    run(checkpoint, tables, "--attributes", "tags", "-o", tmp_path / "new.pth.tar")
    model = MultiLabelModel.from_checkpoint(tmp_path / "new.pth.tar")
    assert model.label_space.multi_valued == {"tags"}
    assert model.label_space.classes["tags"] == ("new", "soft")
    assert 0 < model.thresholds["tags"] < 1


def test_a_larger_image_size_is_saved(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, data, "--img-size", 48, "-o", tmp_path / "new.pth.tar")
    saved = torch.load(tmp_path / "new.pth.tar", weights_only=True)["multi_label"]
    assert saved["data_config"]["input_size"] == saved["image_size"] == [3, 48, 48]


def test_a_checkpoint_of_the_original_becomes_one_of_ours(data: Path, tmp_path: Path) -> None:
    save_as_original(make_model(), tmp_path / "original.pth.tar")
    run(tmp_path / "original.pth.tar", data, "-o", tmp_path / "new.pth.tar")
    assert MultiLabelModel.from_checkpoint(tmp_path / "new.pth.tar").label_space.classes == CLASSES


def test_heads_that_were_never_trained_are_not_compared(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_checkpoint(tmp_path / "a.pth.tar", make_model(), args={"classification_loss_weight": 0})
    run(path, data, "-o", tmp_path / "b.pth.tar")
    log = capsys.readouterr().err
    assert "before" not in log
    validate.main(
        [str(data), "--checkpoint", str(tmp_path / "b.pth.tar"), "--device", "cpu", "-j", "0", "--no-latency"]
    )
    assert "learned nothing" not in capsys.readouterr().err


def test_two_processes_solve_the_heads_of_one(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, data, "-o", tmp_path / "one.pth.tar")
    command = [checkpoint, data, "-o", tmp_path / "two.pth.tar", "--device", "cpu", "-j", "0", "-b", "8"]
    ends = run_script_on_processes(2, "refit.py", *command)
    assert ("Refitted" in ends[0][0], ends[1][0]) == (True, "")
    one, two = (torch.load(tmp_path / f"{name}.pth.tar", weights_only=True) for name in ("one", "two"))
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, atol=1e-4, rtol=1e-4)
    assert two["temperatures"] == pytest.approx(one["temperatures"], rel=1e-3)


def test_a_head_stays_if_validation_cannot_compare_it(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = copied(data, tmp_path, lambda number, row: row | {"size": ""})
    write(tables / "train.csv", absolute(data, "train"))
    run(checkpoint, tables, "-o", tmp_path / "new.pth.tar")
    before, after = (MultiLabelModel.from_checkpoint(path) for path in (checkpoint, tmp_path / "new.pth.tar"))
    torch.testing.assert_close(after.heads[1].weight, before.heads[1].weight)
    assert "size: kept as it is" in capsys.readouterr().err


def test_old_classes_without_a_label_are_named(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(number: int, row: dict[str, str]) -> dict[str, str]:
        return row | {"color": "amber" if row["color"] == "red" else row["color"]}

    run(checkpoint, copied(data, tmp_path, change), "-o", tmp_path / "new.pth.tar")
    assert "color: train.csv has no label 'red'" in capsys.readouterr().err


def test_attributes_of_weight_0_stay_unless_they_are_named(data: Path, tmp_path: Path) -> None:
    flags = {"attribute_weights": {"color": 0.0}}
    path = save_checkpoint(tmp_path / "a.pth.tar", make_model(), args=flags)
    tables = copied(data, tmp_path, lambda number, row: row | {"color": "amber" if number % 2 else row["color"]})
    run(path, tables, "-o", tmp_path / "b.pth.tar")
    before, left = (MultiLabelModel.from_checkpoint(file) for file in (path, tmp_path / "b.pth.tar"))
    assert left.label_space == before.label_space
    torch.testing.assert_close(left.heads[0].weight, before.heads[0].weight)
    run(path, tables, "--attributes", "color", "-o", tmp_path / "c.pth.tar")
    assert "amber" in MultiLabelModel.from_checkpoint(tmp_path / "c.pth.tar").label_space.classes["color"]


def test_a_network_pretrained_without_labels_gets_its_first_heads(data: Path, tmp_path: Path) -> None:
    model = create_multi_label_model("test_efficientnet", LabelSpace({}), image_size=(3, 32, 32))
    path = save_checkpoint(tmp_path / "a.pth.tar", model, args={"classification_loss_weight": 0})
    run(path, data, "--attributes", *CLASSES, "-o", tmp_path / "b.pth.tar")
    assert MultiLabelModel.from_checkpoint(tmp_path / "b.pth.tar").label_space.classes == CLASSES


def test_guessing_heads_that_were_not_solved_are_still_warned_of(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_checkpoint(tmp_path / "a.pth.tar", make_model(), args={"classification_loss_weight": 0})
    run(path, data, "--attributes", "color", "-o", tmp_path / "b.pth.tar")
    scores(capsys, data, tmp_path / "b.pth.tar")
    assert read_checkpoint(tmp_path / "b.pth.tar").heads_are_untrained


def test_the_class_weights_of_the_run_apply(data: Path, tmp_path: Path) -> None:
    heads = []
    for kind in ("none", "inverse"):
        path = save_checkpoint(tmp_path / f"{kind}.pth.tar", make_model(), args={"class_weights": kind})
        run(path, data, "--val-split", "none", "-o", tmp_path / "new.pth.tar")
        heads.append(MultiLabelModel.from_checkpoint(tmp_path / "new.pth.tar").heads[0].weight)
    assert (heads[0] - heads[1]).abs().max() > heads[0].abs().max() / 100


def test_the_result_serves_a_new_run_and_is_not_resumed(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, data, "-o", tmp_path / "new.pth.tar")
    flags = "--model test_efficientnet --img-size 32 -b 16 -wls 0 -wlc 1 --epochs 1 --device cpu -j 0 --knn-interval 0"
    with pytest.raises(SystemExit):
        train.main([str(data), *flags.split(), "--resume", str(tmp_path / "new.pth.tar")])
    assert "no state of an optimizer" in capsys.readouterr().err
    train.main(
        [str(data), *flags.split(), "--initial-checkpoint", str(tmp_path / "new.pth.tar"), "--output", str(tmp_path)]
    )


def test_features_that_are_not_finite_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    with torch.no_grad():
        model.backbone.conv_stem.weight.fill_(math.inf)
    path = save_checkpoint(tmp_path / "a.pth.tar", model)
    assert "not finite" in refusal(capsys, path, data)
    assert not (tmp_path / "a-refitted.pth.tar").exists()


def test_mistakes_are_one_sentence(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such data folder" in refusal(capsys, checkpoint, tmp_path / "nowhere")
    assert "CHECKPOINT is missing" in refusal(capsys)
    assert "DATA is missing" in refusal(capsys, checkpoint)
    assert "no checkpoint at" in refusal(capsys, tmp_path / "a.pth.tar", data)
    other = copied(data, tmp_path, lambda number, row: {"image_path": row["image_path"], "price": f"{number}"})
    assert "choose with --attributes the columns of" in refusal(capsys, checkpoint, other)
    blank = copied(data, tmp_path, lambda number, row: row | {"color": "", "size": ""})
    assert "has no label of color, size" in refusal(capsys, checkpoint, blank)
    assert "--val-split none" in refusal(capsys, checkpoint, data, "--val-split", "other")
    write(other / "train.csv", absolute(data, "train"))
    write(other / "val.csv", [{"image_path": row["image_path"], "price": "1"} for row in absolute(data, "val")])
    assert "--val-split none" in refusal(capsys, checkpoint, other)
    sets = copied(data, tmp_path, lambda number, row: row | {"color": "red|blue"})
    assert "several values in a cell, but the model allows only one" in refusal(capsys, checkpoint, sets)
    ids = copied(data, tmp_path, lambda number, row: row | {"color": f"{number}"})
    assert "it is an id" in refusal(capsys, checkpoint, ids)
    assert "--output is the checkpoint" in refusal(capsys, checkpoint, data, "-o", checkpoint)
