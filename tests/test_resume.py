"""A resumed run restores everything from one reading of its checkpoint."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from flag_effects import command, draw_ramps, silence, train_through

import train
from runtime.errors import UsageError
from timm.models.multi_label_checkpoint import Checkpoint
from training.resume import restore_random_state, restore_saver, resume_ema
from training.saver import RunSaver

WORDS = ["--model-ema", "--lr", 0.1, "--checkpoint-hist", 2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a data folder and the folder of a run on it."""
    data = draw_ramps(tmp_path_factory.mktemp("ramps") / "data")
    return data, train_through(data, tmp_path_factory.mktemp("runs"), *WORDS)[0]


def test_the_checkpoint_is_read_once(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = trained
    read: list[Path] = []
    load = torch.load

    def count(file: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(Path(file))
        return load(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", count)
    with silence() as text:
        train.main(command(data, folder.parent, *WORDS, "--epochs", 2, "--resume", folder / "last.pth.tar"))
    assert read == [folder / "last.pth.tar"]
    # task, averaged weights and saver were restored from it
    assert f"Loaded state_dict_ema from checkpoint '{folder / 'last.pth.tar'}'" in text.getvalue()
    assert "Restored checkpoint history (1 files)" in text.getvalue()
    kept = sorted(path.name for path in folder.glob("checkpoint-*.pth.tar"))
    assert kept == ["checkpoint-0.pth.tar", "checkpoint-1.pth.tar"]


class Recorder:
    """Stands for a task or a saver, and records what it is given."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def load_checkpoint_state(self, state: Any, ema: bool = False) -> None:
        self.given.append((state, ema))

    def load_state_dict(self, state: Any) -> None:
        self.given.append(state)


def test_a_run_that_had_no_average_starts_it_from_its_weights() -> None:
    weights, averaged = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
    for checkpoint, expected in (
        (Checkpoint(Path("a"), weights), weights),
        (Checkpoint(Path("a"), weights, averaged), averaged),
    ):
        task: Any = Recorder()
        resume_ema(task, checkpoint)
        assert task.given == [(expected, True)]


def test_a_checkpoint_without_history_starts_the_saver_fresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    saver: Any = Recorder()
    restore_saver(saver, Checkpoint(Path("a"), {}))
    assert saver.given == []
    assert caplog.messages == ["No checkpoint history in 'a', ranked checkpoints start fresh."]
    real: Any = RunSaver(None, None, checkpoint_dir=str(tmp_path))
    restore_saver(real, Checkpoint(Path("a"), {}, saver={"best_metric": 1.0}))
    assert real.best_metric == 1.0


@pytest.mark.parametrize("states", [[], [None], [[], []], [[{"python": 3}]] * 2, [[{}]] * 2, [["x"]] * 2])
def test_damaged_random_states_are_one_sentence(states: list[Any]) -> None:
    with pytest.raises(UsageError, match="the checkpoint's random states cannot be restored"):
        restore_random_state({"random": states}, 2, 0)
