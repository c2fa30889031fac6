"""What choose.py has finished, in a file, and what it runs next within the budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from reports.choice_report import FinishedRun
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from runtime.json_file import read_json


class Job(NamedTuple):
    """A training to run: a candidate on a split, with all labels or half of them.

    Attributes:
        candidate: name of the candidate.
        split: index of the split, from 0.
        half: whether half of the labels are taken away.
    """

    candidate: str
    split: int
    half: bool


@dataclass
class ChoiceState:
    """The finished runs, in a file that is rewritten after each.

    Attributes:
        file: where they are kept, as JSON.
        settings: what decides the results; a file with other settings is refused.
        runs: finished runs in the order in which they finished.
        seconds: time that all sessions spent, without runs that were stopped.
    """

    file: Path
    settings: Mapping[str, Any]
    runs: list[FinishedRun] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def load(cls, file: Path, settings: Mapping[str, Any]) -> ChoiceState:
        """Return the state that a file holds; an empty one if there is no file.

        Raises:
            UsageError: the file was written with other settings, or is damaged.
        """
        state = cls(file, settings)
        if not file.exists():
            return state
        remedy = f"name another output folder, or delete {file.parent}"
        try:
            saved = read_json(file)
            runs = [FinishedRun(**run) for run in saved["runs"]]
            before, seconds = dict(saved["settings"]), float(saved["seconds"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{file} is damaged, or was not written by choose.py: {remedy}") from error
        now = json.loads(json.dumps(settings))
        if changed := [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]:
            raise UsageError(
                f"{file} was written by choose.py with other settings ({', '.join(sorted(changed))}): {remedy}"
            )
        state.runs, state.seconds = runs, seconds
        return state

    def add(self, run: FinishedRun, seconds: float) -> None:
        """Add a run and the time since the last one, and save.

        Args:
            run: the finished run.
            seconds: time of this session that is not yet counted.
        """
        self.runs.append(run)
        self.seconds += seconds
        saved = {
            "settings": dict(self.settings),
            "seconds": self.seconds,
            "runs": [asdict(finished) for finished in self.runs],
        }
        with atomic_file(self.file) as unfinished:
            unfinished.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @property
    def key(self) -> str:
        """A name of the settings, for other files that hold only for them."""
        return hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def done(self) -> set[Job]:
        """The jobs of the finished runs."""
        return {Job(run.candidate, run.split, run.half) for run in self.runs}

    def by_split(self, candidate: str, half: bool = False) -> dict[int, FinishedRun]:
        """Return a candidate's finished runs by split, with all labels or half of them."""
        return {run.split: run for run in self.runs if (run.candidate, run.half) == (candidate, half)}

    def mean_seconds(self, job: Job, predicted: float) -> float:
        """Return the mean time of the candidate's finished runs, of the same kind if there are any, or a prediction.

        Args:
            job: the job to come.
            predicted: its seconds if the candidate has no finished run.
        """
        for half in (job.half, not job.half):
            if times := [run.seconds for run in self.by_split(job.candidate, half).values()]:
                return sum(times) / len(times)
        return predicted


def plan_jobs(candidates: Sequence[str], splits: int) -> list[Job]:
    """Return all jobs in their order: a budget that ends early leaves whole splits of all candidates.

    The first three splits come first, then the same with half of the labels, then each further split with both.
    """
    first = min(3, splits)
    rounds = [(split, half) for half in (False, True) for split in range(first)]
    rounds += [(split, half) for split in range(first, splits) for half in (False, True)]
    return [Job(candidate, split, half) for split, half in rounds for candidate in candidates]


def next_job(
    jobs: Sequence[Job], done: Collection[Job], seconds_left: float, expect: Callable[[Job], float]
) -> Job | None:
    """Return the first unfinished job that is expected to end within the budget; None if there is none.

    Args:
        jobs: all jobs in their order.
        done: jobs that have finished.
        seconds_left: rest of the budget.
        expect: function that returns the expected seconds of a job.
    """
    return next((job for job in jobs if job not in done and expect(job) < seconds_left), None)
