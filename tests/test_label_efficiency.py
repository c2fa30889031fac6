"""The study of label efficiency: which images a cell sees, and what the report makes of its predictions."""

import fcntl
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import label_efficiency as study
import label_efficiency_report as report

ARTICLES = ["shirt"] * 40 + ["hat"] * 11 + ["sock"] * 3 + [""] * 6
ROWS = [{"image_path": f"{i}.jpg", "article": name, "kids": f"{i % 4 == 0}"} for i, name in enumerate(ARTICLES)]


def paths(rows: list[dict[str, str]]) -> set[str]:
    return {row["image_path"] for row in rows}


def test_a_smaller_fraction_is_contained_in_a_greater_one_with_every_class() -> None:
    few, many = (study.stratified(ROWS, fraction, seed=3) for fraction in (0.1, 0.25))
    assert paths(few) < paths(many) < paths(ROWS)
    assert {row["article"] for row in few} == set(ARTICLES)
    assert [sum(row["article"] == name for row in many) for name in ("shirt", "hat", "sock", "")] == [10, 3, 1, 2]
    assert paths(few) != paths(study.stratified(ROWS, 0.1, seed=4))


def test_no_cell_sees_a_label_that_it_should_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "WORK", tmp_path / "work")
    for name in ("train", "val"):
        lines = [",".join(row.values()) for row in ROWS]
        (tmp_path / f"{name}.csv").write_text("\n".join(["image_path,article,kids", *lines]) + "\n")
    folder = study.make_tables(tmp_path, 0.1, seed=0)
    train, labeled, val = (study.read_rows(folder / f"{name}.csv") for name in ("train", "labeled", "val"))
    assert len(train) + len(val) == len(ROWS)
    assert not paths(train) & paths(val)
    assert paths(labeled) < paths(train)
    assert paths([row for row in train if row["article"] or row["kids"]]) == paths(labeled)
    assert [row["image_path"] for row in val] == [
        row["image_path"] for row in study.read_rows(study.make_tables(tmp_path, 0.25, seed=7) / "val.csv")
    ]


def _runs(accuracies: list[float], images: int = 400) -> list[np.ndarray]:
    """Return what `right` gives for some runs: two attributes, an image in ten without the first one's label."""
    rng = np.random.default_rng(0)
    runs = []
    for accuracy in accuracies:
        hits = (rng.random((2, images)) < accuracy).astype(float)
        hits[0, ::10] = np.nan
        runs.append(hits)
    return runs


def test_the_interval_is_that_of_a_loop_over_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DRAWS", 4000)
    ours, theirs = _runs([0.7, 0.8, 0.75]), _runs([0.6, 0.65, 0.7])
    rng, values = np.random.default_rng(1), []
    for _ in range(4000):
        images, seeds = rng.integers(400, size=400), rng.integers(3, size=2)
        drawn = [[100 * np.nanmean(run[:, images], axis=1).mean() for run in runs] for runs in (ours, theirs)]
        values.append(np.mean([drawn[0][seed] - drawn[1][seed] for seed in seeds]))
    assert report.interval(ours, theirs) == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.35)
    assert report.interval(ours, ours) == (0, 0)


def test_scores_leave_blanks_out() -> None:
    labels = [{"article": a, "kids": k} for a, k in [("x", "1"), ("x", "0"), ("y", ""), ("", "")]]
    predicted = {"article": ["x", "y", "y", "y"], "kids": ["1", "0", "1", "1"]}
    assert report.score(predicted, labels) == pytest.approx(
        {
            "accuracy": (200 / 3 + 100) / 2,
            "article": 200 / 3,
            "kids": 100,
            "balanced_accuracy": 87.5,
            "exact_match": 200 / 3,
        }
    )
    hits = report.right(predicted, labels)
    assert np.array_equal(hits, [[1, 0, 1, np.nan], [1, 1, np.nan, np.nan]], equal_nan=True)


def test_a_difference_is_of_the_seeds_that_both_methods_have_where_they_are_enough() -> None:
    labels = [{"article": "x", "kids": "1"}] * 4
    right, half = (
        {"predicted": {"article": ["x"] * n + ["y"] * (4 - n), "kids": ["1"] * 4}, "held_out": 20.0 * n} for n in (4, 2)
    )
    base = {0: half, 2: right, 3: half, 4: half}
    key, runs = ("scratch", 0.1, "joint"), {("scratch", 0.1, "classification"): base}
    row = report.summary(key, runs | {key: {0: right, 1: half, 2: right, 3: right}}, labels)
    assert (row["accuracy"], row["seeds"], row["paired_seeds"]) == (93.75, 4, 3)
    assert row["difference"] == pytest.approx(50 / 3)
    assert (row["held_out"], row["held_out_wins"]) == (70, 2)
    assert row["held_out_difference"] == pytest.approx(80 / 3)
    row = report.summary(key, runs | {key: {0: right, 1: half, 2: right}}, labels)
    assert (row["seeds"], row["paired_seeds"], row["difference"]) == (3, "", "")


@pytest.mark.parametrize(
    ("labeled", "epochs", "mixed"),
    [(96, 54, True), (640, 8, False)],  # 162 steps of 3 and of 20 batches an epoch
)
def test_steps_become_epochs(tmp_path: Path, labeled: int, epochs: int, mixed: bool) -> None:
    rows = ["image_path,article", *(f"{i}.jpg,a" for i in range(640))]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "labeled.csv").write_text("\n".join(rows[: labeled + 1]) + "\n")
    flags = study.train_flags("--train-split labeled -b 32 --unlabeled-ratio 1 --steps 162 --lr 0.1", tmp_path)
    assert flags[-4:] == ["-b", "32", "--epochs", f"{epochs}"]
    assert ("--unlabeled" in flags) == mixed
    assert ("--warmup-epochs" in flags) == (epochs < 20)
    flags = study.train_flags("--train-split labeled -b 32 --steps 162 --lr 0.1 --times 3", tmp_path)
    assert flags[-2:] == ["--epochs", {96: "162", 640: "24"}[labeled]]


@pytest.mark.parametrize(
    ("stage", "view"),
    [
        ("-wls 0.5 -wlc 0.5", ["first"]),
        ("-wls 0.5 -wlc 0.5 --classify-view both", ["both"]),
        ("-wls 0 -wlc 1", []),
        ("-wls 1 -wlc 0", []),
    ],
)
def test_joint_training_is_by_the_first_view_unless_a_variant_names_another(
    tmp_path: Path, stage: str, view: list[str]
) -> None:
    (tmp_path / "train.csv").write_text("image_path,article\n" + "a.jpg,a\n" * 64)
    flags = study.train_flags(f"{stage} -b 32 --steps 20", tmp_path)
    assert [value for flag, value in itertools.pairwise(flags) if flag == "--classify-view"] == view


@pytest.mark.parametrize("start", study.STARTS)
def test_fractions_share_pretraining_and_nothing_else(start: str) -> None:
    for method, settings in study.METHODS.items():
        for stages in settings[start]:
            cells = [{"start": start, "fraction": fraction, "seed": 0} for fraction in study.FRACTIONS]
            for index in range(len(stages)):
                folders = {study.stage_folder(cell, stages[: index + 1]) for cell in cells}
                shared = index == 0 and method.startswith("pretrain")
                assert len(folders) == (1 if shared else len(cells)), (method, index)


def test_a_setting_counts_once_a_seed_and_a_half_written_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results.jsonl")
    settings = study.METHODS["classification"]["scratch"]
    cells = [
        {"start": "scratch", "method": "classification", "fraction": 0.1, "seed": study.TUNING_SEEDS[0]}
        | {"stages": stages, "held_out": held_out, "common": study.common("scratch")}
        for stages, held_out in zip(settings, range(60, 60 + len(settings)), strict=True)
    ]
    cells += [cells[0], cells[0] | {"held_out": 99, "common": "other flags"}]
    study.RESULTS.write_text("".join(f"{json.dumps(cell)}\n" for cell in cells))
    assert study.best_setting("scratch", "classification", study.read_cells()) == settings[-1]
    study.RESULTS.write_text(study.RESULTS.read_text()[:-9])
    with pytest.raises(SystemExit, match=f"line {len(cells)} is cut off"):
        study.read_cells()


def test_a_lock_keeps_other_processes_out_until_the_child_that_holds_it_ends(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    with study._locked(lock) as held:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held])
    with lock.open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child.communicate(b"\n")
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
