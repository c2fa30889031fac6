"""Calibrated checkpoints: probabilities change, predictions do not, and the original file stays."""

import csv
import json
import math
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from flag_effects import draw_ramps, train_through
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

import inference
import validate
from catalog.label_space import LabelSpace
from serving.calibration import calibrated_threshold, probabilities
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.models.multi_label_checkpoint import read_checkpoint
from timm.task.multi_valued_meter import predicted_values

CPU = ("--device", "cpu", "-j", "0", "-b", "8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), rows=40)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "run" / "last.pth.tar", make_model())


def score(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[dict[str, Any], str]:
    validate.main([*map(str, argv), *CPU, "--no-latency"])
    out, log = capsys.readouterr()
    result: dict[str, Any] = json.loads(out.partition("--result\n")[2])
    return result, log


def predict(data: Path, checkpoint: Path, path: Path, *flags: object) -> list[dict[str, str]]:
    words = [data / "val.csv", "--checkpoint", checkpoint, "-o", path, *flags, *CPU]
    inference.main([str(word) for word in words])
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_calibrating_writes_a_copy_that_predicts_the_same(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, copy = checkpoint.read_bytes(), tmp_path / "calibrated.pth.tar"
    fitted, log = score(capsys, data, "--checkpoint", checkpoint, "--calibrate", copy)
    assert checkpoint.read_bytes() == before
    assert f"color: temperature {fitted['color_temperature']:.3f}, loss {fitted['color_loss']:.4f} -> " in log
    assert log.rstrip().endswith(f" ECE {fitted['ece']:.2f} -> {fitted['calibrated_ece']:.2f}")
    assert fitted["ece"] == pytest.approx(sum(fitted[f"{name}_ece"] for name in CLASSES) / 2)
    # the copy holds the temperatures, and its loss on the same split is the lowest
    temperatures = MultiLabelModel.from_checkpoint(copy).temperatures
    assert temperatures == {name: fitted[f"{name}_temperature"] for name in CLASSES}
    after, _ = score(capsys, data, "--checkpoint", copy)
    for name in CLASSES:
        assert after[f"{name}_calibrated_loss"] < after[f"{name}_loss"]
        assert after[f"{name}_calibrated_loss"] <= fitted[f"{name}_calibrated_loss"] * (1 + 1e-12)  # up to rounding
        assert after[f"{name}_loss"] == fitted[f"{name}_loss"]
        assert after[f"{name}_ece"] == fitted[f"{name}_ece"]
    # the predictions are the same, and the probabilities are the calibrated ones
    plain, calibrated = (predict(data, path, tmp_path / "p.csv") for path in (checkpoint, copy))
    assert [row["color"] for row in plain] == [row["color"] for row in calibrated]
    assert all(row["color_probability"] != new["color_probability"] for row, new in zip(plain, calibrated, strict=True))


def test_a_checkpoint_can_replace_itself_and_keeps_its_other_temperatures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    averaged = {"state_dict_ema": make_model(seed=1).state_dict(), "temperatures": {"color": 3.0}}
    # a Namespace, as timm writes it
    path = save_checkpoint(tmp_path / "a.pth.tar", model, args=Namespace(attribute_weights={}), **averaged)
    result, _ = score(capsys, data, "--checkpoint", path, "--use-ema", "--calibrate", path)
    assert read_checkpoint(path).chosen == {
        "temperatures": {"color": 3.0},
        "temperatures_ema": {name: result[f"{name}_temperature"] for name in CLASSES},
    }
    assert read_checkpoint(path).trained_flags == {"attribute_weights": {}}


def test_a_checkpoint_without_temperatures_has_a_calibration_error_alone(
    data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = score(capsys, data, "--checkpoint", checkpoint)
    assert 0 <= result["color_ece"] <= 100
    assert not {name for name in result if "temperature" in name or "calibrated" in name}


@pytest.mark.parametrize("folder", [True, False])
def test_mistakes_are_refused_before_scoring(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: bool
) -> None:
    source, target = (checkpoint.parent, tmp_path / "c") if folder else (checkpoint, tmp_path)
    with pytest.raises(SystemExit) as end:
        score(capsys, data, "--checkpoint", source, "--calibrate", target)
    assert end.value.code == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert ("--calibrate" in sentence) == folder
    assert ("takes one checkpoint" if folder else "is a folder") in sentence


def test_a_split_without_labels_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path, rows=3)
    rows = (data / "val.csv").read_text().splitlines()
    (data / "val.csv").write_text("\n".join([rows[0], *(row.split(",")[0] + ",," for row in rows[1:])]))
    with pytest.raises(SystemExit):
        score(capsys, data, "--checkpoint", checkpoint, "--calibrate", tmp_path / "c.pth.tar")
    assert "has no label" in capsys.readouterr().err
    assert not (tmp_path / "c.pth.tar").exists()


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.5, 20), st.lists(st.floats(-12, 12), min_size=1))
def test_a_threshold_selects_the_same_values_after_calibration(t: float, temperature: float, z: list[float]) -> None:
    limit = calibrated_threshold(t, temperature)
    logits = torch.tensor(z, dtype=torch.float64)
    clear = ((logits - math.log(t / (1 - t))).abs() > 1e-9).logical_and(logits.abs() < 12)  # no rounding decides
    chosen, calibrated = logits.sigmoid() >= t, (logits / temperature).sigmoid() >= limit
    assert torch.equal(chosen[clear], calibrated[clear])


def test_temperature_1_keeps_thresholds_and_probabilities() -> None:
    logits = torch.randn(9, 4)
    assert calibrated_threshold(0.3, 1.0) == 0.3
    assert calibrated_threshold(1e-30, 0.05) == 0  # no overflow
    assert torch.equal(probabilities(logits, 1.0, False), logits.softmax(dim=1))
    assert torch.equal(probabilities(logits, 1.0, True), logits.sigmoid())


def test_values_are_predicted_by_the_uncalibrated_threshold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path, rows=12)
    model = create_multi_label_model("test_efficientnet", LabelSpace({"tags": ("a", "b")}, ["tags"]))
    with torch.no_grad():
        model.heads[0].bias.copy_(torch.tensor([0.5, -0.5]))
    chosen = {"thresholds": {"tags": 0.45}, "temperatures": {"tags": 4.0}}
    path = save_checkpoint(tmp_path / "a.pth.tar", model.eval(), **chosen)
    rows = predict(data, path, tmp_path / "p.csv")
    limit = calibrated_threshold(0.45, 4.0)
    assert f"tags: values of probability {limit:.4f} and above" in capsys.readouterr().err
    assert limit == pytest.approx(1 / (1 + math.exp(-math.log(0.45 / 0.55) / 4)))
    assert {row["tags"] for row in rows} == {"a"}
    logits = model(torch.zeros(1, 3, 224, 224))["tags"]
    assert predicted_values(logits, 0.45).tolist() == [[True, False]]
    assert all(limit <= float(row["tags_probability"]) < 0.56 for row in rows)  # 0.62 before calibration


def test_each_validation_of_a_run_logs_the_error_before_and_after(tmp_path: Path) -> None:
    folder, log = train_through(draw_ramps(tmp_path / "data"), tmp_path / "runs", "--epochs", 1)
    temperatures = read_checkpoint(folder / "last.pth.tar").chosen["temperatures"]
    (line,) = [line for line in log.splitlines() if "Calibration error: " in line]
    assert temperatures
    for name, temperature in temperatures.items():
        assert re.search(rf"{name}: [\d.]+% -> [\d.]+% \(temperature {temperature:.3f}\)", line)


@pytest.mark.parametrize("name", ["model.onnx", "folder"])
def test_an_exported_model_is_not_calibrated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    (tmp_path / "folder" / "model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit):
        validate.main([str(data), "--checkpoint", str(tmp_path / name), "--calibrate", str(tmp_path / "c.pth"), *CPU])
    assert "is an exported model: give the checkpoint, and export its copy" in capsys.readouterr().err
