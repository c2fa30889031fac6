#!/usr/bin/env python3
"""Find the recipe for your table: try candidates on your machine, within a time budget.

    python choose.py DATA --budget 30m --model tf_efficientnet_lite0 --pretrained
    python choose.py DATA --budget 2h --group contributor --model NAME --pretrained-path FILE

At the end it prints the commands that train with the winner on the whole table.

choose.py reads DATA's train.csv, and the classes of all.csv if there is one. It reads no other table. Each split holds
out a fifth of the labeled rows for scoring. Every candidate trains on the rest, and validates on an eighth of it. With
--group, rows that share a value of a column stay together.

The report has the scores of each candidate, its difference to the first with an interval, its cost, and what twice as
many labels would gain. The winner becomes a recipe. At the end of the budget choose.py stops with what it knows; the
same command with a larger budget continues.
"""

from commands.early_mistakes import report_table_mistakes
from options.choose import parse_choose_args

if __name__ == "__main__":
    # --help, a misspelled flag and a wrong table are answered at once, not after torch was imported.
    report_table_mistakes("choose.py", parse_choose_args(check_paths=True))

import logging
import shlex
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from catalog.splits import find_split
from catalog.table import read_table
from options.candidates import SOFT_LABELS, Candidate, usable
from options.choose import choice_settings, data_kwargs, labeling_words, recipes, train_args, trained_weights, trial
from options.train_kwargs import model_kwargs, precision_kwargs
from options.values import duration_text
from options.yaml_file import recipe_text
from reports.choice_report import best, choice_lines, standing, wrapped
from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.precision import resolve_precision
from runtime.process import Process, set_up_process
from serving.loading import load_evaluation_model, make_loader
from serving.scoring import score_model, scored_dataset
from timm.data.loader_workers import explained_workers
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import plan_views
from timm.models.backbone import own_size
from timm.models.multi_label_checkpoint import read_checkpoint
from timm.task.refit import Features
from training.child_process import interrupted_by_signals
from training.choice import Choice, run_jobs
from training.choice_data import read_choice_data
from training.choice_state import ChoiceState, Job, plan_jobs
from training.flag_names import naming_flags
from training.frozen_candidate import FrozenCandidate, attribute_scores, compute_features, freeze
from training.model import make_model
from training.time_limit import OutOfTime, time_limit

_logger = logging.getLogger("choose")

_SAMPLE = 128  # images that are timed before anything is planned


def main(argv: list[str] | None = None) -> None:
    """Choose as the command line says."""
    began, start_up = time.monotonic(), time.process_time()
    args = parse_choose_args(argv)
    with (
        report_usage_errors("choose.py", "use a smaller --img-size or --model"),
        interrupted_by_signals(),
        naming_flags("budget", "max_unreadable", "workers", "batch_size", "separator", "image_root"),
        explained_workers(),
    ):
        with naming_flags("device"):
            process = set_up_process(args.device)
        choice = make_choice(args, process, began, start_up)
        jobs = plan_jobs(list(choice.candidates), args.splits)
        try:
            if not choice.state.done.issuperset(jobs):
                run_jobs(choice, jobs, measure(args, choice, process, jobs))
        except KeyboardInterrupt:
            _logger.info(f"Interrupted after {len(choice.state.runs)} finished runs: the same command continues")
            raise
        report(args, choice, jobs)


def make_choice(args: Namespace, process: Process, began: float, start_up: float) -> Choice:
    """Read the table and what has finished.

    Args:
        args: the flags.
        process: where this process computes.
        began: when this session began, on the monotonic clock.
        start_up: seconds that a process needs before it trains.
    """
    folder = Path(args.output)
    check_writable(folder / "recipe.yaml")
    data = read_choice_data(**data_kwargs(args))
    candidates, reasons = usable(args.candidates, trained_weights(args), data.has_blanks or bool(args.unlabeled))
    if reasons:
        raise UsageError(reasons[0])
    state = ChoiceState.load(folder / "state.json", choice_settings(args) | {"table": data.digest})
    _logger.info(f"{data.table.path}: {len(data.table)} images, {len(data.labeled)} labeled; {data.label_space}")
    return Choice(
        folder=folder,
        budget=args.budget,
        data=data,
        candidates=candidates,
        recipes=partial(recipes, args, data.columns, own_size(args.model)),
        trial=partial(trial, args),
        labeling=partial(labeling_words, args),
        score=partial(score_checkpoint, args, process),
        script=Path(__file__).with_name("train.py"),
        state=state,
        counted=began,
        start_up=start_up,
    )


def measure(args: Namespace, choice: Choice, process: Process, jobs: list[Job]) -> FrozenCandidate | None:
    """Time how long an image takes; where a candidate is frozen, return it with the features of all labeled rows.

    Raises:
        UsageError: the budget is too small for any job.
    """
    # the model, and the images
    data, first = choice.data, jobs[0].candidate
    plan = plan_views(contrast=False, classify_view=None, mixing=False, aug_splits=0)
    kwargs = model_kwargs(train_args(choice.recipes(first, len(data.labeled), len(data.table))[0]))
    model = make_model(plan, data.label_space, process.device, fresh=True, freeze_bn=False, **kwargs).to(process.device)
    choice.img_size = model.config["data_config"]["input_size"][-1]
    autocast, _, _ = resolve_precision(process.device, **precision_kwargs(args))
    frozen = any(candidate.frozen for candidate in choice.candidates.values())
    sample = np.unique(np.linspace(0, len(data.labeled) - 1, _SAMPLE, dtype=np.int64))
    rows = data.labeled if frozen else data.labeled[sample]

    def on_batch(seconds: float, images: int) -> None:
        if images >= min(_SAMPLE, len(rows)):
            choice.image_seconds = seconds / images
            choice.check_budget(jobs, first=choice.image_seconds * (len(rows) - images))

    def compute() -> Features:
        channels = model.config["data_config"]["input_size"][0]
        limit = {"max_unreadable": args.max_unreadable}
        images = TwoViewDataset(data.table.take(rows), data.targets[rows], None, channels, **limit)
        _logger.info(f"Timing this machine, and computing the features of {len(rows)} images")
        with time_limit(choice.seconds_left):
            return compute_features(model, images, args.workers, autocast, on_batch)

    # their time
    try:
        if not frozen:
            compute()
            return None
        candidate = freeze(model, rows, choice.folder / f"features-{choice.state.key}.pt", compute)
    except OutOfTime as error:
        raise UsageError(
            f"--budget {duration_text(args.budget)} is too small: it ended before {_SAMPLE} images had passed through "
            f"{args.model}; use ten times as much"
        ) from error
    choice.image_seconds = candidate.seconds / len(rows)
    return candidate


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Leave a logger's lines out, except warnings: the scoring of a trial needs no log of its own."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


@quiet("validate")
def score_checkpoint(args: Namespace, process: Process, file: Path, table: Path, averaged: bool) -> dict[str, float]:
    """Return the score of each attribute on a table, in percent: top-1, or mAP if it is multi-valued.

    Args:
        args: the flags.
        process: where this process computes.
        file: checkpoint of a trial.
        table: the held-out rows.
        averaged: whether the moving average of the weights is scored.
    """
    ready = load_evaluation_model(
        read_checkpoint(file),
        process.device,
        use_ema=averaged,
        preprocessing={},
        precision=precision_kwargs(args),
        channels_last=args.channels_last,
        compiler=None,
        data=None,
    )
    dataset = scored_dataset(read_table(table), ready, args.max_unreadable)
    loader = make_loader(ready, dataset, batch_size=64, workers=args.workers, pin_memory=False, prefetcher=True)
    weights = [1.0] * len(ready.label_space)
    metrics = score_model(ready, dataset, loader, weights, tta=0, log_interval=len(dataset)).metrics
    return attribute_scores(metrics, ready.label_space)


def report(args: Namespace, choice: Choice, jobs: list[Job]) -> None:
    """Print the table of the candidates, and write the winner as a recipe.

    Raises:
        UsageError: nothing finished.
    """
    # what finished
    state, splits = choice.state, choice.data.splits
    tried = [name for name in choice.candidates if state.by_split(name)]
    if not tried:
        reasons = [*choice.failed.values()]
        raise UsageError(reasons[0] if reasons else "nothing finished within the budget: use a larger --budget")
    share = sum(split.held_out_share for split in splits) / len(splits)
    fewest = min(len(split.held_out) for split in splits)
    standings = [
        standing(
            choice.candidates[name].title,
            state.by_split(name),
            state.by_split(name, half=True),
            None if name == tried[0] else state.by_split(tried[0]),
            share,
            fewest,
        )
        for name in tried
    ]

    # the report
    lines, left = choice_lines(standings), len(set(jobs) - state.done)
    for name, candidate in choice.candidates.items():
        if name in choice.failed:
            lines += wrapped([f"Failed: {candidate.title}: {choice.failed[name]}"])
        elif name not in tried:
            needed = choice.expected_seconds(Job(name, 0, half=False))
            lines.append(f"Not tried within the budget: {candidate.title}, about {duration_text(needed)} a run.")
    lines.append(f"{duration_text(state.seconds)} spent; {left} of {len(jobs)} runs are left for a larger --budget.")
    print("\n".join(map(printable, lines)), flush=True)

    # the recipe
    winner = tried[best(standings)]
    files = write_recipe(args, choice, winner, lines)
    print("\n" + "\n".join(map(printable, train_commands(args, choice.candidates[winner], files))), flush=True)


def train_commands(args: Namespace, candidate: Candidate, files: list[Path]) -> list[str]:
    """Return the commands that train with the winner, a line for each stage, and for what a teacher labels."""
    commands = []
    for number, file in enumerate(files, start=1):
        words = ["python", "train.py", args.data_dir, "-c", str(file)]
        before = f"output/train/stage-{number - 1}/last.pth.tar"
        if number > 1 and candidate.teaches:
            table = str(find_split(args.data_dir, args.train_split))
            labels = ["--checkpoint", before, "--probabilities", str(file.with_name(SOFT_LABELS))]
            commands.append(["python", "inference.py", *labeling_words(args, table), *labels])
        elif number > 1:
            words += ["--initial-checkpoint", before]
        commands.append([*words, "--experiment", f"stage-{number}" if number < len(files) else "mine"])
    return [shlex.join(words) for words in commands]


def write_recipe(args: Namespace, choice: Choice, name: str, lines: list[str]) -> list[Path]:
    """Write the stages of the winner as recipes, with the figures in their head; return their paths."""
    stages = choice.recipes(name, len(choice.data.labeled), len(choice.data.table))
    last = choice.folder / "recipe.yaml"
    files = [last.with_stem(f"recipe-stage-{index + 1}") for index in range(len(stages) - 1)] + [last]
    candidate = choice.candidates[name]
    for number, (file, stage) in enumerate(zip(files, stages, strict=True), start=1):
        which = f"stage {number} of {len(stages)} of " if len(stages) > 1 else ""
        head = [
            f"{which}{candidate.title}: the choice of choose.py for {choice.data.table.path}, {date.today()}.",
            "",
            *(f"    {command}" for command in train_commands(args, candidate, files)),
            "",
            *lines,
            *(["", "Score and label with --use-ema: the figures are of the averaged weights."] * candidate.averaged),
        ]
        text = "\n".join(f"# {line}".rstrip() for line in head)
        with atomic_file(file) as unfinished:
            unfinished.write_text(f"{text[:2]}{text[2].upper()}{text[3:]}\n{recipe_text(stage)}", encoding="utf-8")
    return files


if __name__ == "__main__":
    main()
