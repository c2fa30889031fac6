"""A choice among candidates: jobs run one after the other until the budget ends or all have run."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.split_tables import write_csv, write_split
from options.candidates import Candidate, Stage, images_trained, work
from options.values import duration_text
from reports.choice_report import FinishedRun
from runtime.errors import UsageError
from training.choice_data import ChoiceData
from training.choice_state import ChoiceState, Job, next_job
from training.frozen_candidate import FrozenCandidate
from training.time_limit import OutOfTime, time_limit
from training.trials import run_stages

_logger = logging.getLogger("choose")

_ENOUGH_SPLITS = 3  # splits that the budget of an error message has time for

Recipes = Callable[[str, int, int], list[Stage]]
Trial = Callable[[Stage, str, str], Stage]
Labeling = Callable[[str], list[str]]
Score = Callable[[Path, Path, bool], dict[str, float]]


@dataclass
class Choice:
    """A choice in progress.

    Args:
        folder: where the state, the tables and the runs are.
        budget: seconds to spend, in all sessions together.
        data: the table and its splits.
        candidates: the candidates by name.
        recipes: function of a candidate's name, the number of labeled rows and that of all rows; returns its stages.
        trial: function of a stage, a folder of tables and the name of one there; returns the stage for these tables.
        labeling: function of a table; returns the words of inference.py with which a teacher labels its images.
        score: function of a checkpoint, a table, and whether to score the averaged weights; returns the score of each
            attribute in percent.
        script: train.py.
        state: the finished runs.
        counted: when this session began, or when its last run finished, on the monotonic clock.
        start_up: seconds that a process needs before it trains.
        image_seconds: seconds to read an image and pass it through the backbone.
        img_size: side in pixels of the images that were timed.
        failed: why a candidate is not tried any more, by name.
    """

    folder: Path
    budget: float
    data: ChoiceData
    candidates: Mapping[str, Candidate]
    recipes: Recipes
    trial: Trial
    labeling: Labeling
    score: Score
    script: Path
    state: ChoiceState
    counted: float
    start_up: float = 0.0
    image_seconds: float = 0.0
    img_size: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        """The rest of the budget."""
        return self.budget - self.state.seconds - (time.monotonic() - self.counted)

    def rows(self, job: Job) -> tuple[int, int]:
        """Return the number of labeled rows, and of all rows, that a job trains on."""
        split = self.data.splits[job.split]
        return len(split.first_half if job.half else split.labeled), len(split.training)

    def expected_seconds(self, job: Job) -> float:
        """Return how long a job will take: as the candidate's finished runs, else predicted from its work."""
        if job.candidate in self.failed:
            return math.inf
        if self.candidates[job.candidate].frozen:
            return 0.0  # the features are computed, and the time limit ends the rest
        labeled, rows = self.rows(job)
        stages = self.recipes(job.candidate, labeled, rows)
        passes = [self._pixels(stage) * work(stage, labeled, rows) + len(self.data.labeled) for stage in stages]
        if self.candidates[job.candidate].teaches:
            passes.append(self._pixels(stages[0]) * rows)
        return self.state.mean_seconds(job, sum(self.start_up + self.image_seconds * count for count in passes))

    def _pixels(self, stage: Stage) -> float:
        """Return how many times as many pixels a stage's images have as the images that were timed."""
        return float((stage.get("img-size", self.img_size) / self.img_size) ** 2) if self.img_size else 1.0

    def check_budget(self, jobs: Sequence[Job], first: float = 0.0) -> None:
        """Raise unless the rest of the budget is enough for a job.

        Args:
            jobs: jobs to run.
            first: seconds that pass before the first job.

        Raises:
            UsageError: the budget is too small for any of the jobs.
        """
        spent = self.budget - self.seconds_left + first
        if spent + min(map(self.expected_seconds, jobs)) <= self.budget:
            return
        enough = sum(self.expected_seconds(job) for job in jobs if job.split < _ENOUGH_SPLITS and not job.half)
        title, needed = self.candidates[jobs[0].candidate].title, spent + self.expected_seconds(jobs[0])
        raise UsageError(
            f"budget {duration_text(self.budget)} is too small for one run of {title}, which takes about "
            f"{duration_text(needed)} here: use budget {duration_text(spent + enough)}, for {_ENOUGH_SPLITS} splits"
        )


def run_jobs(choice: Choice, jobs: list[Job], frozen: FrozenCandidate | None) -> None:
    """Run job after job; stop at the end of the budget, with the run in progress left out.

    Args:
        choice: the choice; its state grows.
        jobs: all jobs, in their order.
        frozen: the frozen backbone; None without such a candidate.
    """
    try:
        write_csv(choice.data.label_table, choice.folder / "tables" / "all.csv")
        while job := next_job(jobs, choice.state.done, choice.seconds_left, choice.expected_seconds):
            # say what and how long
            candidate, seconds = choice.candidates[job.candidate], choice.expected_seconds(job)
            labels = "half of the labels" if job.half else "all labels"
            about = f", about {duration_text(seconds)}" if seconds else ""
            _logger.info(f"Split {job.split + 1}, {labels}: {candidate.title}{about}")

            # run it
            try:
                run = _run_frozen(choice, frozen, job) if candidate.frozen and frozen else _run_trained(choice, job)
            except UsageError as error:
                choice.failed[job.candidate] = str(error)
                _logger.warning(f"{candidate.title} failed, and is not tried again: {error}")
                continue
            now = time.monotonic()
            choice.state.add(run, now - choice.counted)
            choice.counted = now
            _logger.info(f"    mean {run.mean:.1f}%, {duration_text(run.seconds)}")
    except OutOfTime:
        _logger.info("The budget ends during this run, which does not count")
    finally:
        for name in ("tables", "runs"):
            shutil.rmtree(choice.folder / name, ignore_errors=True)


def _run_frozen(choice: Choice, frozen: FrozenCandidate, job: Job) -> FinishedRun:
    """Solve the heads on the frozen features of a split."""
    split = choice.data.splits[job.split]
    with time_limit(choice.seconds_left):
        training = split.first_half if job.half else split.labeled
        scores, seconds = frozen.score(training, split.validation, split.held_out)
    return FinishedRun(*job, scores, seconds, choice.rows(job)[0])


def _run_trained(choice: Choice, job: Job) -> FinishedRun:
    """Train a candidate's stages on a split and score the last one."""
    # tables and recipes
    start, candidate = time.monotonic(), choice.candidates[job.candidate]
    labeled, rows = choice.rows(job)
    tables = choice.folder / "tables"
    write_split(choice.data.table, choice.data.splits[job.split], job.half, tables, "trial")
    stages = choice.recipes(job.candidate, labeled, rows)
    trials = [choice.trial(stage, str(tables), "trial") for stage in stages]

    # training and scores
    labeling = choice.labeling(str(tables / "trial.csv")) if candidate.teaches else ()
    run = run_stages(choice.script, trials, choice.folder / "runs", choice.seconds_left, labeling)
    with time_limit(choice.seconds_left):
        scores = choice.score(run / "last.pth.tar", tables / "trial-held-out.csv", candidate.averaged)
    images = sum(images_trained(stage, labeled, rows) for stage in stages)
    return FinishedRun(*job, scores, time.monotonic() - start, images)
