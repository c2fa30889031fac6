"""A step that takes long says what it does, and a short one says nothing."""

import threading

import pytest

from runtime.progress import announced, reported_progress


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


def test_without_a_terminal_progress_is_lines_and_on_one_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with reported_progress(2000, "Table", "image", said.append, seconds=0) as step:
        step(1500)
        step(500)
    assert said == ["Table: 1,500 of 2,000 images", "Table: 2,000 of 2,000 images"]
    said.clear()
    with reported_progress(3, "Table", "image", said.append, seconds=3600) as step:
        step(1)
        step(2)
    assert said == ["Table: 3 of 3 images"]
    said.clear()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with reported_progress(2, "Table", "image", said.append, seconds=0) as step:
        step(2)
    assert said == []
