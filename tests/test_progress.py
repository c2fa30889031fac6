"""A step that takes long says what it does, and a short one says nothing."""

import threading

from runtime.progress import announced


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
