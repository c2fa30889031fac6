"""A kill at any step of saving leaves whole files, and the next resume does what is left."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training.saver import RunSaver

METRICS = [60.0, 70.0, 65.0, 80.0, 75.0]


class Killed(BaseException):
    """What a kill is here: nothing catches it."""


def make_saver(folder: Path) -> RunSaver:
    folder.mkdir(exist_ok=True)
    model = nn.Linear(2, 2)
    places = {"checkpoint_dir": str(folder), "recovery_dir": str(folder)}
    return RunSaver(model, torch.optim.SGD(model.parameters(), 0.1), **places, max_history=2)


def save(saver: RunSaver, epoch: int) -> None:
    with torch.no_grad():
        saver.model.weight.fill_(epoch)
    saver.save_checkpoint(epoch, METRICS[epoch])


def contents(folder: Path) -> dict[str, Any]:
    """Return the weight in each file, which is the epoch."""
    return {
        file.name: float(torch.load(file, weights_only=True)["state_dict"]["weight"][0, 0])
        for file in sorted(folder.iterdir())
    }


def unbroken(folder: Path, epochs: int) -> dict[str, Any]:
    saver = make_saver(folder)
    for epoch in range(epochs):
        save(saver, epoch)
    return contents(folder)


@pytest.fixture(params=["hard links", "copies"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "copies":

        def refuse(self: Path, target: Path) -> None:
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    return str(request.param)


def changes(monkeypatch: pytest.MonkeyPatch, kill_at: int) -> Iterator[int]:
    """Count the changes of a folder, and kill before one of them; yield the count so far."""
    count = 0

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == kill_at:
                raise Killed
            return change(*args, **kwargs)

        return wrapped

    for owner, name in ((os, "replace"), (os, "remove"), (Path, "replace"), (Path, "hardlink_to"), (torch, "save")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    monkeypatch.setattr(shutil, "copy2", counted(shutil.copy2))
    while True:
        yield count


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_a_run_killed_at_any_change_of_its_folder_ends_like_the_unbroken_one(
    tmp_path: Path, links: str, epochs: int
) -> None:
    expected = unbroken(tmp_path / "whole", len(METRICS))
    kill_at, total = 1, 100
    while kill_at <= total:
        folder = tmp_path / f"{kill_at}"
        saver = make_saver(folder)
        for epoch in range(epochs - 1):
            save(saver, epoch)
        with pytest.MonkeyPatch.context() as patch:
            counter = changes(patch, kill_at)
            next(counter)
            try:
                save(saver, epochs - 1)
                total = next(counter)  # this save has no further change
            except Killed:
                pass
        assert set(contents_of_names(folder)) >= ({"last.pth.tar", "model_best.pth.tar"} if epochs > 1 else set())
        resume(folder)
        assert contents(folder) == expected, f"killed before change {kill_at}"
        kill_at += 1
    assert total >= 4


def contents_of_names(folder: Path) -> dict[str, Any]:
    """Return the files under their final names; each must be whole."""
    names = [file for file in folder.iterdir() if not file.name.startswith((".", "tmp"))]
    return {file.name: torch.load(file, weights_only=True)["epoch"] for file in names}


def resume(folder: Path) -> None:
    """Continue a run from its last checkpoint to the end."""
    saver, last, begin = make_saver(folder), folder / "last.pth.tar", 0
    if last.exists():
        state = torch.load(last, weights_only=True)
        saver.complete(state["saver"], last, finished=True)
        begin = state["epoch"] + 1
    for epoch in range(begin, len(METRICS)):
        save(saver, epoch)


def test_a_recovery_file_completes_no_epoch(tmp_path: Path) -> None:
    saver = make_saver(tmp_path)
    save(saver, 0)
    saver.save_recovery(1, 3)
    state = torch.load(tmp_path / "recovery-1-3.pth.tar", weights_only=True)
    again = make_saver(tmp_path)
    again.complete(state["saver"], tmp_path / "recovery-1-3.pth.tar", finished=False)
    assert not (tmp_path / "checkpoint-1.pth.tar").exists()
    assert again.best_epoch == 0


def test_what_a_kill_left_unfinished_is_removed(tmp_path: Path) -> None:
    save(make_saver(tmp_path), 0)
    for name in ("tmp.pth.tar", ".model_best.pth.tar.17", ".summary.csv.17", ".run.json.17", ".report.html.17"):
        (tmp_path / name).write_text("torn")
    state = torch.load(tmp_path / "last.pth.tar", weights_only=True)
    make_saver(tmp_path).complete(state["saver"], tmp_path / "last.pth.tar", finished=True)
    assert set(contents(tmp_path)) == {"checkpoint-0.pth.tar", "last.pth.tar", "model_best.pth.tar"}


def recoveries(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("recovery*"))


def test_the_newest_two_recovery_files_are_kept_whatever_earlier_attempts_left(tmp_path: Path) -> None:
    for attempt in range(3):  # each is killed, and the next one begins with the newest file
        saver = make_saver(tmp_path)
        for step in range(attempt, attempt + 3):
            saver.save_recovery(0, step)
            assert f"recovery-0-{step}.pth.tar" in recoveries(tmp_path)
            assert len(recoveries(tmp_path)) <= 2
    assert recoveries(tmp_path) == ["recovery-0-3.pth.tar", "recovery-0-4.pth.tar"]
    make_saver(tmp_path).save_recovery(0, 10)  # 10 comes after 4, which is no order of the alphabet
    assert recoveries(tmp_path) == ["recovery-0-10.pth.tar", "recovery-0-4.pth.tar"]


def test_recovery_files_of_an_attempt_that_was_given_up_are_deleted_by_the_next_state(tmp_path: Path) -> None:
    saver = make_saver(tmp_path)
    for epoch, step in (0, 7), (2, 1), (2, 3):
        saver.save_recovery(epoch, step)
    (tmp_path / "recovery-mine.pth.tar").write_text("of the user")
    again = make_saver(tmp_path)  # as after --resume checkpoint-0.pth.tar
    again.save_recovery(1, 1)
    assert recoveries(tmp_path) == ["recovery-1-1.pth.tar", "recovery-mine.pth.tar"]
    again.save_recovery(1, 3)
    save(make_saver(tmp_path), 0)
    assert recoveries(tmp_path) == ["recovery-mine.pth.tar"]


def test_a_recovery_file_does_not_rank_the_epoch_of_an_attempt_that_was_given_up(tmp_path: Path) -> None:
    saver = make_saver(tmp_path)
    save(saver, 0)
    saver.save_recovery(1, 3)
    state = torch.load(tmp_path / "recovery-1-3.pth.tar", weights_only=True)["saver"]
    save(saver, 1)
    again = make_saver(tmp_path)
    again.complete(state, tmp_path / "recovery-1-3.pth.tar", finished=False)
    assert [Path(file).name for file, _ in again.checkpoint_files] == ["checkpoint-0.pth.tar"]
