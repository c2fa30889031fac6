"""The log lines of an epoch: which steps have one, and which steps its numbers are about."""

import logging
import math
import re

import pytest
import torch

from simclr import PROJECTION_METRICS
from training import epoch_log
from training.epoch_log import (
    EpochLog,
    attribute_line,
    calibration_line,
    metrics_line,
    neighbors_lines,
    projections_line,
    weights_line,
)
from training.loss_meter import LossMeter
from training.summary import named_accuracies

ATTRIBUTES = ("color", "shape")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that the log reads, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(epoch_log.time, "perf_counter", lambda: now[0])
    return now


def run(
    clock: list[float], caplog: pytest.LogCaptureFixture, batches: int, interval: int, processes: int = 1
) -> list[str]:
    """Log an epoch whose batches of 4 rows wait 1 s for data and take 2 s together, the last one 6 s."""
    caplog.set_level(logging.INFO)
    meter = LossMeter()
    log = EpochLog(logging.getLogger("test"), 7, batches, interval, processes)
    for batch in range(batches):
        clock[0] += 1
        log.data_ready()
        clock[0] += 5 if batch + 1 == batches else 1
        losses = {"loss": torch.tensor(float(batch)), "simclr_loss": torch.tensor(3.0), "color_loss": torch.tensor(1.0)}
        meter.update(losses, 4)
        log.step(batch, 4, meter.averages, 0.05, meter)
    log.close()
    return [record.getMessage() for record in caplog.records]


def test_the_first_and_last_step_and_each_interval_get_a_line(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    lines = run(clock, caplog, batches=12, interval=5)
    assert [re.search(r"\[ *(\d+)/12", line)[1] for line in lines] == ["1", "6", "11", "12"]
    assert all(line.startswith("Train: 7 [") for line in lines)


def test_a_line_tells_the_speed_of_the_steps_since_the_last_and_of_all(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    first, second, last = run(clock, caplog, batches=7, interval=5)
    assert "Time: 2.000s,    2.00/s  (2.000s,    2.00/s)" in first  # rows, not views, a second
    assert "Time: 2.000s,    2.00/s  (2.000s,    2.00/s)" in second
    assert "Time: 6.000s,    0.67/s  (2.571s,    1.56/s)" in last  # one step of 6 s; 18 s for 7 steps and 28 rows
    assert "Data: 1.000 (1.000)" in last
    assert "LR: 5.000e-02" in last


def test_speeds_are_of_all_processes(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    first, _ = run(clock, caplog, batches=2, interval=5, processes=2)
    assert "Time: 2.000s,    4.00/s" in first


def test_a_line_shows_the_losses_of_its_step_and_their_averages(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    last = run(clock, caplog, batches=3, interval=5)[-1]
    assert "Loss: 2.00 (1.00)" in last
    assert "SimCLR: 3.00 (3.00)" in last
    assert "color" not in last


def test_other_processes_log_nothing_but_take_part_in_averaging(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    meter, asked = LossMeter(), []
    meter.update({"loss": torch.tensor(1.0)}, 4)
    log = EpochLog(logging.getLogger("test"), 0, 1, 5, 2, enabled=False)
    log.data_ready()
    log.step(0, 4, lambda: asked.append(True) or meter.averages(), 0.1, meter)
    log.close()
    assert asked == [True]
    assert not caplog.records


def test_the_lines_after_an_epoch_name_every_metric_and_attribute() -> None:
    values = {"loss": 1.0, "top1": 50.0, "top5": 90.0, "balanced_accuracy": 40.0, "macro_f1": 30.0, "exact_match": 20.0}
    line = metrics_line(values)
    assert line.startswith("Loss: 1.0000  Acc@1: 50.000  Acc@5: 90.000")
    assert "Balanced: 40.000  F1: 30.000  Exact match: 20.000" in line
    assert attribute_line({"attributes": {"color": {"top1": 1.0}, "a b": {"top1": 2.5}}}) == "color: 1.000  a b: 2.500"


def test_the_lines_name_every_number() -> None:
    line = projections_line({name: place + 0.5 for place, name in enumerate(PROJECTION_METRICS)})
    unknown = dict.fromkeys(PROJECTION_METRICS, 1.0) | {"false_negatives": math.nan}
    assert projections_line(unknown).endswith("Effective rank: 1.00")
    assert line == (
        "Contrastive Acc@1: 4.500  Alignment: 0.5000  Uniformity: 1.5000  Effective rank: 2.50  False negatives: 5.50%"
    )
    named = named_accuracies({20: [50.0, 70.0], 200: [40.0, 60.0]}, ATTRIBUTES, [1.0, 1.0])
    assert neighbors_lines(named, ATTRIBUTES) == [
        "k = 20: 60.000  color: 50.000  shape: 70.000",
        "k = 200: 50.000  color: 40.000  shape: 60.000",
    ]
    assert neighbors_lines({}, ()) == []
    assert weights_line({"simclr_weight": 0.1, "color_weight": 1.25}) == "simclr: 0.100  color: 1.250"


def test_the_calibration_line_has_the_errors_before_and_after() -> None:
    color = {"ece": 5.0, "calibrated_ece": 2.0, "temperature": 1.5}
    metrics = {"ece": 4.0, "calibrated_ece": 2.5, "attributes": {"color": color, "size": {"ece": 3.0}}}
    expected = "Calibration error: 4.00% -> 2.50%  color: 5.00% -> 2.00% (temperature 1.500)"
    assert calibration_line(metrics) == expected
