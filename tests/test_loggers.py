"""The loggers beside a run's folder: every number under its name, pictures, and a failure that ends nothing."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_saver import make_saver

from training.loggers import Loggers, TensorBoardLogger, WandbLogger, grouped_name, run_id
from training.outputs import Outputs

ROW: dict[str, Any] = {"epoch": 3, "train_loss": 1.5, "eval_top1": 50.0, "color": 40.0, "ema_color": None, "lr": 0.1}
PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


class Recorder:
    """A logger that keeps what it gets, and may fail."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def log_row(self, row: Any) -> None:
        if self.fails:
            raise ConnectionError("the network is gone\nmore")
        self.calls.append(("row", row["epoch"]))

    def log_picture(self, name: str, epoch: int, picture: Image.Image) -> None:
        self.calls.append((name, epoch, picture.mode))

    def close(self) -> None:
        self.calls.append(("close",))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        *(("train_loss", "train/loss"), ("eval_top1", "eval/top1"), ("ema_top1", "ema/top1"), ("lr", "run/lr")),
        *(("color", "color/top1"), ("color_macro_f1", "color/macro_f1"), ("ema_color_loss", "ema_color/loss")),
        *(("color_family", "color_family/top1"), ("color_family_loss", "color_family/loss")),
    ],
)
def test_a_column_is_grouped_by_its_phase_or_its_attribute(column: str, expected: str) -> None:
    assert grouped_name(column, ["color", "color_family"]) == expected


def test_tensorboard_has_every_number_and_a_resumed_run_hides_what_it_repeats(tmp_path: Path) -> None:
    for first, epochs in ((0, (0, 1, 2)), (1, (1, 2, 3))):  # resumed after epoch 0
        logger = TensorBoardLogger(tmp_path, first, ["color"])
        for epoch in epochs:
            logger.log_row(ROW | {"epoch": epoch, "eval_top1": first * 10 + epoch})
        logger.log_picture("views", 3, PICTURE)
        logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = {"train/loss", "eval/top1", "color/top1", "run/lr"}
    assert set(events.Tags()["scalars"]) == tags  # no blank one
    assert [(event.step, event.value) for event in events.Scalars("eval/top1")] == [(0, 0), (1, 11), (2, 12), (3, 13)]
    assert (events.Images("views")[0].width, events.Images("views")[0].height) == PICTURE.size


def fake_service(name: str, fails: bool = False) -> Any:
    """Return a module with the calls that W&B and Trackio share; it keeps them."""
    module: Any = ModuleType(name)
    module.calls = []

    def init(**settings: Any) -> None:
        if fails:
            raise ConnectionError("no route to host")
        module.calls.append(settings)

    module.init = init
    module.log = lambda values, step: module.calls.append((step, values))
    module.Image = lambda picture: picture
    module.finish = lambda: module.calls.append("finish")
    return module


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_service_continues_the_run_of_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, service := fake_service(package))
    for _ in range(2):
        logger = WandbLogger(package, None, tmp_path, {"lr": 0.1})
        logger.log_row(ROW)
        logger.log_picture("views", 3, PICTURE)
        logger.close()
    first, row, picture, finish, *again = service.calls
    assert again == [first, row, picture, finish]
    assert (first["name"], first["resume"], first["config"]) == (tmp_path.name, "allow", {"lr": 0.1})
    assert first.get("id") == (run_id(tmp_path) if package == "wandb" else None)
    assert row == (3, {name: value for name, value in ROW.items() if value is not None})
    assert (picture, finish) == ((3, {"views": PICTURE}), "finish")


def test_a_service_that_cannot_be_reached_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", fake_service("wandb", fails=True))
    with pytest.raises(ValueError, match=r"^cannot log to wandb \(no route to host\): set WANDB_MODE=offline"):
        WandbLogger("wandb", "shop", tmp_path, {})


def test_wandb_itself_takes_a_run_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger("wandb", "shop", tmp_path, {"lr": 0.1})
    logger.log_row(ROW)
    logger.log_picture("views", 3, PICTURE)
    logger.close()
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert log.stem == f"run-{run_id(tmp_path)}"
    assert list(log.parent.glob("files/media/images/views_3_*.png"))


def test_a_logger_that_fails_is_dropped_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    sound = Recorder()
    loggers = Loggers({"broken": Recorder(fails=True), "sound": sound})
    for epoch in range(2):
        loggers.log_row(ROW | {"epoch": epoch})
    assert sound.calls == [("row", 0), ("row", 1)]
    assert caplog.messages == ["broken failed (the network is gone): training continues without it"]


def test_loggers_get_each_epochs_first_views_and_the_confusion_matrices(tmp_path: Path) -> None:
    recorder = Recorder()
    outputs = Outputs(
        *(tmp_path, make_saver(tmp_path), "top1", ["color"]),
        loggers=Loggers({"recorder": recorder}),
        draw_views=lambda images, target: PICTURE,
        class_names={"color": ["red", "blue"]},
    )
    images, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1)
    for step in range(3):
        outputs.save_views(0, step, images, target)
    outputs.save_views(1, 0, images[:, 0, 0], target)  # features, with a frozen backbone
    matrices = {"confusion": {"color": np.array([[3, 1], [0, 2], [0, 0]])}}
    outputs.log_confusion(0, matrices)
    outputs.log_confusion(1, matrices)  # too soon: drawing may take 5% of the time
    outputs.log_confusion(2, {})
    assert recorder.calls == [("views", 0, "RGB"), ("confusion/color", 0, "RGBA")]
    assert list(tmp_path.glob("*.png")) == []
