"""The state of a choice survives a stop, refuses other settings, and plans whole splits of all candidates."""

import json
from pathlib import Path
from typing import Any

import pytest

from reports.choice_report import FinishedRun
from runtime.errors import UsageError
from training.choice_state import ChoiceState, Job, next_job, plan_jobs

RUN = FinishedRun("a", 0, False, {"color": 50.0, "größe": 75.5}, 3.0, 64)
SETTINGS = {"model": "resnet18", "steps": None, "unlabeled": ["x"]}


def test_a_saved_state_comes_back(tmp_path: Path) -> None:
    state = ChoiceState.load(tmp_path / "new" / "state.json", SETTINGS)
    state.add(RUN, 4.0)
    state.add(FinishedRun("a", 0, True, {"color": 1 / 3, "größe": 0.0}, 1.0, 32), 2.5)
    again = ChoiceState.load(tmp_path / "new" / "state.json", dict(SETTINGS))
    assert (again.runs, again.seconds) == (state.runs, 6.5)
    assert again.done == {Job("a", 0, False), Job("a", 0, True)}
    assert again.by_split("a") == {0: RUN}


@pytest.mark.parametrize(
    ("other", "named"),
    [({"model": "vit"}, "model"), ({"steps": 3, "model": "vit"}, "model, steps"), ({"group": "shop"}, "group")],
)
def test_other_settings_are_named(tmp_path: Path, other: dict[str, Any], named: str) -> None:
    ChoiceState.load(tmp_path / "state.json", SETTINGS).add(RUN, 1.0)
    with pytest.raises(UsageError, match=rf"with other settings \({named}\): name another output folder"):
        ChoiceState.load(tmp_path / "state.json", SETTINGS | other)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": {}, "seconds": 1, "runs": [{"x": 1}]}', "\x00"])
def test_a_damaged_state_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(UsageError, match=r"state.json is damaged, or was not written by choose.py"):
        ChoiceState.load(tmp_path / "state.json", {})


def test_a_stop_while_saving_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = ChoiceState.load(tmp_path / "state.json", SETTINGS)
    state.add(RUN, 1.0)

    def stop(*arguments: Any, **options: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", stop)
    with pytest.raises(KeyboardInterrupt):
        state.add(RUN, 1.0)
    monkeypatch.undo()
    assert len(ChoiceState.load(tmp_path / "state.json", SETTINGS).runs) == 1


def test_the_order_of_jobs_leaves_whole_splits_and_ends_with_everything() -> None:
    jobs = plan_jobs(["a", "b"], 4)
    assert [(job.split, job.half) for job in jobs[::2]] == [
        *((split, False) for split in range(3)),
        *((split, True) for split in range(3)),
        *((3, False), (3, True)),
    ]
    assert [job.candidate for job in jobs] == ["a", "b"] * 8
    assert len(set(jobs)) == 2 * 4 * 2
    assert plan_jobs(["a"], 1) == [Job("a", 0, False), Job("a", 0, True)]


def test_a_job_that_would_not_end_in_time_is_passed_over() -> None:
    jobs, seconds = plan_jobs(["slow", "fast"], 1), {"slow": 10.0, "fast": 2.0}
    done: set[Job] = set()

    def pick(left: float) -> Job | None:
        return next_job(jobs, done, left, lambda job: seconds[job.candidate])

    assert pick(11) == Job("slow", 0, False)
    assert pick(9) == Job("fast", 0, False)
    done.add(Job("fast", 0, False))
    assert pick(9) == Job("fast", 0, True)
    assert pick(1) is None


def test_the_time_of_a_job_is_that_of_its_kind_or_of_the_other_kind_or_predicted(tmp_path: Path) -> None:
    state = ChoiceState(tmp_path / "state.json", {})
    assert state.mean_seconds(Job("a", 0, False), 7.0) == 7.0
    state.runs = [FinishedRun("a", split, False, {}, seconds, 1) for split, seconds in enumerate([2.0, 4.0])]
    assert state.mean_seconds(Job("a", 2, False), 7.0) == 3.0
    assert state.mean_seconds(Job("a", 0, True), 7.0) == 3.0
    state.runs.append(FinishedRun("a", 0, True, {}, 1.0, 1))
    assert state.mean_seconds(Job("a", 1, True), 7.0) == 1.0
