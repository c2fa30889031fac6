"""Scoring and labeling work without a command line."""

import logging
from pathlib import Path

import pytest
import torch
from tiny_checkpoint import CLASSES, ROWS, make_data, make_model, save_checkpoint

from catalog.label_space import LabelSpace
from catalog.table import read_table
from serving.cost import cost_line, measure_cost
from serving.loading import EvaluationModel, load_evaluation_model, make_loader
from serving.scoring import attribute_weights, score_model, scored_dataset
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint

SPACE = LabelSpace(CLASSES)
LOADER = {"batch_size": 8, "workers": 0, "pin_memory": False, "prefetcher": False}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> EvaluationModel:
    path = save_checkpoint(tmp_path_factory.mktemp("run") / "last.pth.tar", make_model())
    precision = {"amp": False, "amp_dtype": None, "model_dtype": None}
    return load_evaluation_model(
        read_checkpoint(path),
        torch.device("cpu"),
        use_ema=False,
        preprocessing={},
        precision=precision,
        channels_last=False,
    )


def test_a_model_is_scored_on_a_table(ready: EvaluationModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "validate")
    table = read_table(make_data(tmp_path) / "val.csv", None, require_attributes=False)
    dataset = scored_dataset(table, ready, 0.01)
    loader = make_loader(ready, dataset, **LOADER)
    scores = score_model(ready, dataset, loader, [1.0, 1.0], tta=0, log_interval=2, confusion=True)
    assert {name: matrix.shape for name, matrix in scores.confusion.items()} == {"color": (4, 3), "size": (7, 6)}
    labels = int((dataset.targets[:, 0] >= 0).sum())
    assert 0 < labels < ROWS
    assert scores.metrics["attributes"]["color"]["count"] == scores.confusion["color"].sum() == labels
    assert scores.images_per_second > 0
    assert len([line for line in caplog.messages if line.startswith("Test: [")]) == 2  # batches 0 and 2 of 3


def test_fewer_workers_than_asked_for_are_logged(
    ready: EvaluationModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dataset = scored_dataset(read_table(make_data(tmp_path) / "val.csv"), ready, 0.01)
    for asked in (1, 100_000):
        most = make_loader(ready, dataset, **LOADER | {"workers": asked}).num_workers
    assert caplog.messages == [f"--workers 100000: {most} CPUs for each process here, so {most} workers"]


def test_a_confusion_matrix_is_counted_only_on_request(ready: EvaluationModel, tmp_path: Path) -> None:
    dataset = scored_dataset(read_table(make_data(tmp_path, 5) / "val.csv", None, require_attributes=False), ready, 0)
    scores = score_model(ready, dataset, make_loader(ready, dataset, **LOADER), [1.0, 1.0], tta=0, log_interval=9)
    assert scores.confusion == {}


def test_attributes_are_weighted_as_in_training(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "validate")
    weighted = Checkpoint(Path("a"), {}, trained_flags={"attribute_weights": {"size": 3}})
    assert attribute_weights(weighted, SPACE) == [1.0, 3.0]
    assert caplog.messages == ["Means are weighted as in training: color 1, size 3"]
    for flags in ({}, {"attribute_weights": None}):
        assert attribute_weights(Checkpoint(Path("a"), {}, trained_flags=flags), SPACE) == [1.0, 1.0]
    assert len(caplog.messages) == 1


def test_the_cost_names_the_projection_head_and_a_latency_that_was_measured(ready: EvaluationModel) -> None:
    cost = measure_cost(ready, latency=False)
    assert cost["latency_ms"] is None
    line = cost_line(ready, cost)
    assert "the projection head, which predicts nothing" in line
    assert "ms for one image" not in line
    timed = cost | {"latency_ms": 1.5, "latency_p95_ms": 2.0, "latency_runs": 30}
    assert cost_line(ready, timed).endswith("1.50 ms for one image on cpu (median of 30 runs, 95% within 2.00 ms)")
