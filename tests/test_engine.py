"""The engines of a model: onnxruntime predicts and embeds as PyTorch does, and is chosen only where it is worth it."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoint import make_data, make_model, save_checkpoint

import embed
import inference
from runtime.errors import UsageError
from serving import MultiLabel, engine
from serving.engine import OnnxEngine
from serving.loading import EvaluationModel

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint beside the data of its run."""
    folder = tmp_path_factory.mktemp("engine")
    data = make_data(folder / "data")
    return save_checkpoint(folder / "a.pth.tar", make_model(), args={"data_dir": str(data)}, temperatures={"size": 0.5})


@pytest.fixture
def every_job_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make auto measure even the smallest job."""
    monkeypatch.setattr(engine, "_FEW", 0)
    monkeypatch.setattr(engine, "_SHORT", 0.0)


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Let a test say how many seconds a batch takes with each engine."""
    seconds = {"torch": 1.0, "onnx": 1.0}

    def measured(ready: EvaluationModel, batch: Any) -> float:
        assert batch.shape[1:] == tuple(ready.data_config["input_size"])
        return seconds["onnx" if isinstance(ready.run, OnnxEngine) else "torch"]

    monkeypatch.setattr(engine, "_seconds", measured)
    return seconds


class InstantEngine(OnnxEngine):
    """An engine that starts at once, since PyTorch runs it."""

    def __init__(self, ready: EvaluationModel) -> None:
        torch.nn.Module.__init__(self)
        self.forward = ready.network.forward  # type: ignore[method-assign]


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export no model, where a test is about the choice alone."""
    monkeypatch.setattr(engine, "OnnxEngine", InstantEngine)


def runs_onnx(model: MultiLabel) -> bool:
    """Return whether onnxruntime runs a model."""
    return isinstance(model.ready.run, OnnxEngine)


def test_onnxruntime_labels_embeds_and_scores_as_pytorch_does(checkpoint: Path) -> None:
    table, data = checkpoint.parent / "data" / "val.csv", checkpoint.parent / "data"
    ours, other = (MultiLabel(checkpoint, batch_size=3, tta=2, engine=name) for name in ("torch", "onnx"))
    expected, found = (model.predict(table).to_pydict() for model in (ours, other))
    assert runs_onnx(other)
    assert not runs_onnx(ours)
    for column, values in expected.items():
        if column.endswith("_probability"):
            np.testing.assert_allclose(found[column], values, rtol=1e-4)
        else:
            assert found[column] == values
    for projection in (False, True):
        h, same = (model.embed(table, projection=projection) for model in (ours, other))
        np.testing.assert_allclose(same, h, rtol=1e-3, atol=1e-5)
    assert other.evaluate(data) == pytest.approx(ours.evaluate(data), rel=1e-4)
    assert other.ready.network is other.ready.model  # the weights stay within reach


def test_the_commands_give_equal_files_with_both_engines(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(checkpoint.parent / "data" / "val.csv")
    words = [table, "--checkpoint", str(checkpoint), "-j", "0", "-b", "2"]
    for name in ("torch", "onnx"):
        labels = ["--engine", name, "-o", str(tmp_path / f"{name}.csv"), "--topk", "2"]
        inference.main([*words, *labels])
        embed.main([*words, "--engine", name, "-o", str(tmp_path / name)])
        assert capsys.readouterr().err.count("onnxruntime is ready") == (2 if name == "onnx" else 0)
    ours, other = (
        [line.split(",") for line in (tmp_path / f"{name}.csv").read_text().splitlines()] for name in ("torch", "onnx")
    )
    assert [row[:2] for row in ours] == [row[:2] for row in other]
    first, second = (np.load(tmp_path / name / "embeddings.npy") for name in ("torch", "onnx"))
    np.testing.assert_allclose(second, first, atol=2e-3)  # float16


@pytest.mark.usefixtures("every_job_is_long", "instant")
@pytest.mark.parametrize(("seconds", "faster"), [(0.5, True), (0.95, False), (2.0, False)])
def test_auto_takes_onnxruntime_only_if_a_batch_is_clearly_faster_with_it(
    checkpoint: Path, speeds: dict[str, float], caplog: pytest.LogCaptureFixture, seconds: float, faster: bool
) -> None:
    caplog.set_level(logging.INFO, "engine")
    speeds["onnx"] = seconds
    model = MultiLabel(checkpoint)
    model.predict(checkpoint.parent / "data" / "val.csv")
    assert runs_onnx(model) is faster
    assert f"onnxruntime has {1 / seconds:.1f} times the speed of PyTorch" in caplog.text


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(("images", "slow", "faster"), [(499, 1e9, False), (1600, 0.3, False), (1600, 0.5, True)])
def test_auto_keeps_pytorch_for_short_jobs(
    checkpoint: Path, speeds: dict[str, float], images: int, slow: float, faster: bool
) -> None:
    speeds |= {"torch": slow, "onnx": slow / 2}  # for a batch of 16 images
    model = MultiLabel(checkpoint)
    model.choose_engine(images)
    assert runs_onnx(model) is faster


@pytest.mark.usefixtures("every_job_is_long", "speeds")
def test_auto_keeps_pytorch_where_onnxruntime_is_missing_or_fails(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine")

    def fail(*_: Any) -> None:
        raise UsageError("this backbone cannot be exported to ONNX (no such operator): choose another format")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_onnx", fail)
        model = MultiLabel(checkpoint)
        model.choose_engine(1)
        assert not runs_onnx(model)
        assert "PyTorch computes, since onnxruntime cannot" in caplog.text
        with pytest.raises(
            UsageError, match=r"engine onnx cannot run this model \(this backbone cannot .*leave engine"
        ):
            MultiLabel(checkpoint, engine="onnx").choose_engine(1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model.choose_engine(1)
    assert not runs_onnx(model)
    with pytest.raises(UsageError, match="onnxruntime is not installed: pip install -r requirements-export"):
        MultiLabel(checkpoint, engine="onnx").choose_engine(1)


@pytest.mark.usefixtures("every_job_is_long", "instant")
@pytest.mark.parametrize("settings", [{"compiler": "eager"}, {"number_format": {"amp": True}}])
def test_auto_keeps_pytorch_where_it_was_asked_to_compute_otherwise(
    checkpoint: Path, speeds: dict[str, float], settings: dict[str, Any]
) -> None:
    speeds["onnx"] = 0.1
    model = MultiLabel(checkpoint, **settings)
    model.choose_engine(10**9)
    assert not runs_onnx(model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "tensorrt"}, "engine 'tensorrt': give one of auto, torch, onnx"),
        ({"engine": "onnx", "compiler": "eager"}, "torchcompile has no effect with engine onnx: leave out one"),
        ({"engine": "onnx", "number_format": {"amp": True}}, "amp has no effect with engine onnx: leave out one"),
        ({"engine": "onnx", "device": "meta"}, "engine onnx runs on the CPU and not on meta: leave engine out"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(checkpoint: Path, settings: dict[str, Any], words: str) -> None:
    device = torch.device(settings.pop("device")) if "device" in settings else None
    with pytest.raises(UsageError) as error:
        MultiLabel(checkpoint, device=device, **settings)
    assert str(error.value).startswith(words)


def test_the_script_names_its_flags_where_an_engine_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(checkpoint.parent / "data" / "val.csv")
    with pytest.raises(SystemExit):
        inference.main(
            [table, "--checkpoint", str(checkpoint), "--engine", "onnx", "--amp", "-o", str(tmp_path / "a.csv")]
        )
    assert "--amp has no effect with --engine onnx" in capsys.readouterr().err


def test_an_onnx_file_is_not_run_by_pytorch(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    MultiLabel(checkpoint, device="cpu").export("onnx", file)
    photographs = checkpoint.parent / "data" / "images"
    assert len(MultiLabel(file).predict(photographs))
    with pytest.raises(UsageError, match="engine torch cannot run an ONNX file: leave engine out, or give the checkp"):
        MultiLabel(file, engine="torch").predict(photographs)
