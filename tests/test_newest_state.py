"""--resume auto takes the newest state that can be used, and says which files it passes over and why."""

from pathlib import Path

import pytest
import torch

from timm.models.multi_label_checkpoint import Checkpoint
from training.newest_state import newest_state


def save(folder: Path, name: str, epoch: int, batch: int = 0, value: float = 0.0) -> Path:
    """Write the state with which training continues at an epoch and a step."""
    file = folder / f"{name}.pth.tar"
    torch.save({"state_dict": {"w": torch.full((999,), value)}, "progress": {"epoch": epoch, "batch": batch}}, file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a run that was killed in epoch 2."""
    for epoch in range(2):
        save(tmp_path, f"checkpoint-{epoch}", epoch + 1)
    save(tmp_path, "last", 2)
    save(tmp_path, "model_best", 1)
    for step in (8, 9, 10):
        save(tmp_path, f"recovery-2-{step}", 2, step + 1)
    return tmp_path


def damage(file: Path) -> None:
    """Change one weight, as a bad disk does."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def chosen(folder: Path) -> tuple[str | None, list[str]]:
    state, passed = newest_state(folder, lambda checkpoint: None)
    return state and state.path.name.removesuffix(".pth.tar"), passed


def test_each_damaged_state_is_passed_over_for_the_next_newest(folder: Path) -> None:
    order = ["recovery-2-10", "recovery-2-9", "recovery-2-8", "last", "checkpoint-1", "checkpoint-0", "model_best"]
    for count, name in enumerate(order):
        found, passed = chosen(folder)
        assert found == name
        assert len(passed) == count
        assert all(str(folder) in reason and "damaged" in reason for reason in passed)
        damage(folder / f"{name}.pth.tar")
    assert chosen(folder)[0] is None
    assert len(chosen(folder)[1]) == len(order)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_what_is_no_checkpoint_is_passed_over(folder: Path, content: bytes | None) -> None:
    file = folder / "recovery-2-10.pth.tar"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    found, [reason] = chosen(folder)
    assert found == "recovery-2-9"
    assert str(file) in reason


def test_weights_that_diverged_are_passed_over(folder: Path) -> None:
    save(folder, "recovery-2-10", 2, 11, value=torch.nan)
    found, [reason] = chosen(folder)
    assert found == "recovery-2-9"
    assert "are not finite" in reason


def test_the_end_of_an_epoch_is_newer_than_what_was_written_inside_it(folder: Path) -> None:
    save(folder, "last", 3)
    assert chosen(folder) == ("last", [])


def test_an_attempt_that_was_given_up_is_not_continued(folder: Path) -> None:
    save(folder, "checkpoint-7", 8)
    found, [reason] = chosen(folder)
    assert found == "recovery-2-10"
    assert reason == (
        f"{folder / 'checkpoint-7.pth.tar'} is of a later epoch than last.pth.tar: of an attempt that was given up"
    )


def test_a_state_that_does_not_fit_is_passed_over(folder: Path) -> None:
    def why_not(state: Checkpoint) -> str | None:
        return f"{state.path} is inside an epoch" if state.progress["batch"] else None

    found, passed = newest_state(folder, why_not)
    assert found is not None
    assert found.path.name == "last.pth.tar"
    assert len(passed) == 3


def test_a_folder_without_states_and_no_folder_have_none(tmp_path: Path) -> None:
    assert newest_state(tmp_path, lambda state: None) == (None, [])
    assert newest_state(tmp_path / "none", lambda state: None) == (None, [])
