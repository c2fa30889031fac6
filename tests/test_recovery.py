"""Recovery checkpoints by time: every process saves after the same step, and few messages pass between them."""

from typing import Any

import pytest

from options.train import parse_train_args
from options.train_kwargs import loop_kwargs
from training import recovery
from training.recovery import SharedClock


class Time:
    """Stands for the time module; a step takes a second."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(recovery, "time", time)
    return time


def due(time: Time, clock: SharedClock, steps: int) -> list[int]:
    """Return the steps after which the time has passed, when a step takes a second."""
    found = []
    for step in range(steps):
        time.now += 1
        if clock.is_due(step):
            found.append(step)
    return found


def test_one_process_saves_whenever_the_time_has_passed(clock: Time) -> None:
    assert due(clock, SharedClock(10, processes=1), 35) == [9, 19, 29]


def test_processes_follow_the_first_ones_clock_and_compare_rarely(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def first(local: Any, processes: int) -> list[Any]:
        compared.append(processes)
        return [local, local + 1000]  # another host's clock

    monkeypatch.setattr(recovery, "gather_objects", first)
    assert due(clock, SharedClock(100, processes=2), 250) == [99, 199]
    assert 2 < len(compared) < 30


@pytest.mark.parametrize(("text", "steps", "seconds"), [("0", 0, 0), ("500", 500, 0), ("10m", 0, 600), ("90s", 0, 90)])
def test_the_interval_is_steps_or_a_time(text: str, steps: int, seconds: float) -> None:
    settings = loop_kwargs(parse_train_args(["data", "--recovery-interval", text]), updates=1)
    assert (settings["recovery_interval"], settings["recovery_seconds"]) == (steps, seconds)


@pytest.mark.parametrize("text", ["-1", "1.5", "ten", "0m", "m", "5d", "²"])
def test_an_interval_that_is_neither_is_refused_with_both_forms(text: str, mistake: Any) -> None:
    sentence = mistake("data", f"--recovery-interval={text}")
    assert sentence == (
        f"--recovery-interval: '{text}' is not a number of steps, such as 500, or a time with its unit, such as 90s, "
        "30m or 2h"
    )
