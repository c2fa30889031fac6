"""The meter of a split's calibration: one process against several, halves, blank cells, and thinning."""

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from timm.task.calibration_meter import CalibrationMeter
from timm.task.temperature import calibration_error, fit_temperature, negative_log_likelihood

SPACE = LabelSpace({"size": ("L", "M", "S"), "tags": tuple("abcde")}, ["tags"])


def draw(rows: int = 61) -> tuple[dict[str, Tensor], Tensor]:
    """Return logits and targets; some cells are blank, and some classes unseen."""
    random = torch.Generator().manual_seed(0)
    logits = {name: 3 * torch.randn(rows, k, generator=random) for name, k in SPACE.num_classes.items()}
    size = torch.multinomial((logits["size"] / 2).softmax(dim=1), 1, generator=random)[:, 0]
    tags = (torch.rand(rows, 5, generator=random) < (logits["tags"] / 2).sigmoid()).long() << torch.arange(5)
    target = torch.stack([size, tags.sum(dim=1)], dim=1)
    target[::7, 0], target[::5, 1], target[3, 0] = UNKNOWN, UNKNOWN, -1
    return logits, target


def fill(logits: dict[str, Tensor], target: Tensor, batch: int = 8) -> CalibrationMeter:
    meter = CalibrationMeter(SPACE)
    for first in range(0, len(target), batch):
        rows = slice(first, first + batch)
        meter.update({name: values[rows] for name, values in logits.items()}, target[rows])
    return meter


def known(logits: dict[str, Tensor], target: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the labeled rows of each attribute and their truth, by the simplest code."""
    rows = target[:, 0] >= 0, target[:, 1] >= 0
    sets = ((target[:, 1, None] >> torch.arange(5)) & 1).bool()
    return {"size": (logits["size"][rows[0]], target[rows[0], 0]), "tags": (logits["tags"][rows[1]], sets[rows[1]])}


def test_temperatures_come_from_the_known_labels() -> None:
    expected = {name: fit_temperature(*pair) for name, pair in known(*draw()).items()}
    assert fill(*draw()).temperatures() == expected


def test_the_saved_temperature_is_measured() -> None:
    for name, (logits, truth) in known(*draw()).items():
        measures = fill(*draw()).measure({"size": 1.7, "tags": 0.6})[name]
        saved = {"size": 1.7, "tags": 0.6}[name]
        assert measures["ece"] == calibration_error(logits, truth)
        assert measures["temperature"] == saved
        assert measures["calibrated_loss"] == pytest.approx(negative_log_likelihood(logits, truth, saved))
        assert measures["calibrated_ece"] == pytest.approx(calibration_error(logits, truth, saved))
    assert set(fill(*draw()).measure({"size": 2.0})["tags"]) == {"ece"}


def test_a_refitted_temperature_is_measured_on_the_other_half() -> None:
    for name, (logits, truth) in known(*draw()).items():
        measures = fill(*draw()).measure({}, refit=True)[name]
        scaled = logits.double().clone()
        for first in (0, 1):
            scaled[1 - first :: 2] /= fit_temperature(logits[first::2], truth[first::2])
        assert measures["temperature"] == fit_temperature(logits, truth)
        assert measures["calibrated_loss"] == pytest.approx(negative_log_likelihood(scaled, truth))
        assert measures["calibrated_loss"] > negative_log_likelihood(logits, truth, measures["temperature"])


def test_an_attribute_without_labels_has_no_temperature() -> None:
    logits, target = draw()
    target[:, 1] = UNKNOWN
    assert set(fill(logits, target).temperatures()) == {"size"}
    assert set(fill(logits, target).measure({}, refit=True)["tags"]) == {"ece"}


def measure_share() -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    logits, target = draw()
    rows = slice(dist.get_rank(), None, dist.get_world_size())
    meter = fill({name: values[rows] for name, values in logits.items()}, target[rows])
    return meter.temperatures(distributed=True), meter.measure({}, refit=True, distributed=True)


def test_several_processes_measure_what_one_does() -> None:
    one = fill(*draw())
    for temperatures, measures in run_on_processes(3, measure_share):
        assert temperatures == one.temperatures()
        assert measures == one.measure({}, refit=True)


def test_a_large_split_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.task.calibration_meter._MOST_LOGITS", 8 * 20)  # 20 rows
    logits, target = draw()
    meter = fill(logits, target, batch=7)
    assert meter.stride == 4
    thinned = fill({name: values[::4] for name, values in logits.items()}, target[::4])
    assert meter.temperatures() == thinned.temperatures()
