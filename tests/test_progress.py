"""A step that takes long says what it does, and a short one says nothing."""

import logging
import threading

import pytest

from runtime.progress import ProgressLines, announced, progress_bar


def test_a_long_step_says_what_it_does_while_it_runs() -> None:
    said, spoken = [], threading.Event()

    def say(text: str) -> None:
        said.append(text)
        spoken.set()

    with announced("Reading train.csv", say, seconds=0):
        assert spoken.wait(60)
        assert said == ["Reading train.csv"]


def test_a_short_step_says_nothing_and_leaves_no_thread() -> None:
    said: list[str] = []
    before = threading.active_count()
    with announced("Reading train.csv", said.append, seconds=3600):
        pass
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    assert said == []
    assert threading.active_count() <= before


def test_without_a_terminal_progress_is_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "progress")
    with ProgressLines(2000, "Table", "image", seconds=0) as bar:
        bar.update(1500)
        bar.update(500)
    assert caplog.messages == ["Table: 1,500 of 2,000 images", "Table: 2,000 of 2,000 images"]
    caplog.clear()
    with progress_bar(3, "Table") as bar:  # shorter than the time between two lines
        bar.update()
        bar.update(2)
    assert caplog.messages == []
    with ProgressLines(3, "Table", "batch", seconds=0) as bar:
        bar.update()
    assert caplog.messages == ["Table: 1 of 3 batches"]


@pytest.mark.parametrize("settings", [{"enabled": False}, {"lines": False}])
def test_another_rank_and_a_caller_with_its_own_lines_log_none(settings: dict[str, bool]) -> None:
    bar = progress_bar(3, "Table", **settings)
    assert bar.disable
    assert not isinstance(bar, ProgressLines)


def test_on_a_terminal_progress_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "progress")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress_bar(2, "Table", "image") as bar:
        bar.update(2)
    assert caplog.messages == []
    assert "Table" in capsys.readouterr().err
