"""A file that cannot be written ends a run in one sentence, or the run continues without it."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from file_limit import file_limit
from test_saver import make_saver

from runtime.errors import UsageError
from training.outputs import Outputs

ROW: dict[str, Any] = {"epoch": 0, "train_loss": 1.0, "eval_top1": 50.0}


def make_outputs(folder: Path, continues: bool = False) -> Outputs:
    return Outputs(folder, make_saver(folder), "top1", ["color"], continues=continues)


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def torn(content: Any, path: str) -> None:
    """Write half a file, and fail as torch does."""
    Path(path).write_bytes(b"half")
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")


@pytest.mark.parametrize("failing", [torn, full_disk])
def test_a_full_disk_is_one_sentence_with_what_is_whole_and_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Any
) -> None:
    outputs = make_outputs(tmp_path)
    outputs.save_epoch(0, ROW, 50.0, last=False)
    monkeypatch.setattr(torch, "save", failing)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 5 * 10**6))
    with pytest.raises(UsageError) as caught:
        outputs.save_epoch(1, ROW | {"epoch": 1}, 60.0, last=False)
    sentence = str(caught.value)
    assert sentence.startswith(f"cannot write into {tmp_path}: No space left on device")
    assert "5 MB are free" in sentence
    assert f"{tmp_path / 'last.pth.tar'} is whole" in sentence
    assert f"train.py -c {tmp_path / 'args.yaml'} --resume {tmp_path / 'last.pth.tar'}" in sentence
    assert not (tmp_path / "tmp.pth.tar").exists()
    assert torch.load(tmp_path / "last.pth.tar", weights_only=True)["epoch"] == 0


def test_the_first_checkpoint_that_fails_leaves_nothing_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(UsageError, match="No checkpoint is complete: make room"):
        make_outputs(tmp_path).save_epoch(0, ROW, 50.0, last=False)


def test_a_folder_that_vanished_is_one_sentence(tmp_path: Path) -> None:
    outputs = make_outputs(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(UsageError, match=r"No such file or directory\. The folder was removed, .*: start again"):
        outputs.save_recovery(0, 3)


def test_a_run_that_continues_saves_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    outputs = make_outputs(tmp_path, continues=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torn)
        outputs.save_epoch(0, ROW, 50.0, last=False)
        outputs.save_recovery(1, 3)
    assert [message.endswith("Training continues without this file") for message in caplog.messages] == [True, True]
    outputs.save_epoch(1, ROW | {"epoch": 1}, 60.0, last=False)
    assert torch.load(tmp_path / "last.pth.tar", weights_only=True)["epoch"] == 1


def test_an_error_of_the_program_is_not_taken_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        make_outputs(tmp_path).save_epoch(0, ROW, 50.0, last=False)


@pytest.fixture
def small_files() -> Iterator[None]:
    with file_limit(1000):
        yield


def test_a_limit_of_file_sizes_is_named(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(UsageError, match=r"File too large\. No checkpoint is complete: allow larger files \(ulimit -f"):
        make_outputs(tmp_path).save_epoch(0, ROW, 50.0, last=False)
    assert not (tmp_path / "tmp.pth.tar").exists()
