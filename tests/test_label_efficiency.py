"""The label-efficiency study: the images of a cell, the stored results, and the figures of the report."""

import argparse
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import label_efficiency as study
import label_efficiency_cells as cells
import label_efficiency_data as data
import label_efficiency_report as report
import label_efficiency_settings as settings
import label_efficiency_statistics as statistics

ARTICLES = ["shirt"] * 40 + ["hat"] * 11 + ["sock"] * 3 + [""] * 6
ROWS = [{"image_path": f"{i}.jpg", "article": name, "kids": f"{i % 4 == 0}"} for i, name in enumerate(ARTICLES)]


def paths(rows: list[dict[str, str]]) -> set[str]:
    return {row["image_path"] for row in rows}


def test_a_larger_fraction_contains_a_smaller_one_with_every_class() -> None:
    few, many = (data.stratified(ROWS, "article", fraction, seed=3) for fraction in (0.1, 0.25))
    assert paths(few) < paths(many) < paths(ROWS)
    assert {row["article"] for row in few} == set(ARTICLES)
    assert [sum(row["article"] == name for row in many) for name in ("shirt", "hat", "sock", "")] == [10, 3, 1, 2]
    assert paths(few) != paths(data.stratified(ROWS, "article", 0.1, seed=4))


def test_a_cell_sees_no_label_beyond_its_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "WORK", tmp_path / "work")
    for name in ("train", "val"):
        lines = [",".join(row.values()) for row in ROWS]
        (tmp_path / f"{name}.csv").write_text("\n".join(["image_path,article,kids", *lines]) + "\n")
    folder = data.make_tables(tmp_path, "scratch", 0.1, seed=0)
    train, labeled, val = (cells.read_rows(folder / f"{name}.csv") for name in ("train", "labeled", "val"))
    assert len(train) + len(val) == len(ROWS)
    assert not paths(train) & paths(val)
    assert paths(labeled) < paths(train)
    assert paths([row for row in train if row["article"] or row["kids"]]) == paths(labeled)
    for name, table in (("train", train), ("labeled", labeled), ("val", val)):  # the same rows, of the photographs
        original = cells.read_rows(folder / "original" / f"{name}.csv")
        assert [row["article"] for row in original] == [row["article"] for row in table]
        assert [Path(row["image_path"]).stem for row in original] == [Path(row["image_path"]).stem for row in table]
        assert {Path(row["image_path"]).parent.name for row in original} <= {tmp_path.name}
    assert [row["image_path"] for row in val] == [
        row["image_path"] for row in cells.read_rows(data.make_tables(tmp_path, "scratch", 0.25, seed=7) / "val.csv")
    ]


def _runs(accuracies: list[float], images: int = 400) -> list[np.ndarray]:
    """Return results of `right` for some runs: two attributes, and one image in ten without its first label."""
    rng = np.random.default_rng(0)
    runs = []
    for accuracy in accuracies:
        hits = (rng.random((2, images)) < accuracy).astype(float)
        hits[0, ::10] = np.nan
        runs.append(hits)
    return runs


def test_the_interval_equals_a_loop_over_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 4000)
    runs, baseline = _runs([0.7, 0.8, 0.75]), _runs([0.6, 0.65, 0.7])
    rng, values = np.random.default_rng(1), []
    for _ in range(4000):
        images, seeds = rng.integers(400, size=400), rng.integers(3, size=2)
        drawn = [[100 * np.nanmean(run[:, images], axis=1).mean() for run in group] for group in (runs, baseline)]
        values.append(np.mean([drawn[0][seed] - drawn[1][seed] for seed in seeds]))
    assert statistics.interval(runs, baseline) == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.35)
    assert statistics.interval(runs, runs) == (0, 0)


def test_scores_leave_blanks_out() -> None:
    labels = [{"article": a, "kids": k} for a, k in [("x", "1"), ("x", "0"), ("y", ""), ("", "")]]
    predicted = {"article": ["x", "y", "y", "y"], "kids": ["1", "0", "1", "1"]}
    assert statistics.score(predicted, labels) == pytest.approx(
        {
            "accuracy": (200 / 3 + 100) / 2,
            "article": 200 / 3,
            "kids": 100,
            "balanced_accuracy": 87.5,
            "exact_match": 200 / 3,
        }
    )
    hits = statistics.right(predicted, labels)
    assert np.array_equal(hits, [[1, 0, 1, np.nan], [1, 1, np.nan, np.nan]], equal_nan=True)


def test_a_difference_uses_the_seeds_of_both_methods_if_there_are_enough() -> None:
    labels = [{"article": "x", "kids": "1"}] * 4
    right, half = (
        {"predicted": {"article": ["x"] * n + ["y"] * (4 - n), "kids": ["1"] * 4}, "held_out": 20.0 * n} for n in (4, 2)
    )
    base = {0: half, 2: right, 3: half, 4: half}
    key, runs = ("scratch", 0.1, "joint"), {("scratch", 0.1, "classification"): base}
    row = statistics.summary(key, runs | {key: {0: right, 1: half, 2: right, 3: right}}, labels, "classification")
    assert (row["accuracy"], row["seeds"], row["paired_seeds"]) == (93.75, 4, 3)
    assert row["difference"] == pytest.approx(50 / 3)
    assert (row["held_out"], row["held_out_wins"]) == (70, 2)
    assert row["held_out_difference"] == pytest.approx(80 / 3)
    row = statistics.summary(key, runs | {key: {0: right, 1: half, 2: right}}, labels, "classification")
    assert (row["seeds"], row["paired_seeds"], row["difference"]) == (3, "", "")


@pytest.mark.parametrize("start", settings.STARTS)
def test_fractions_share_pretraining_and_nothing_else(start: str) -> None:
    for method in settings.methods_of(start):
        for setting in settings.METHODS[method][start]:
            grid = [{"start": start, "fraction": fraction, "seed": 0} for fraction in settings.FRACTIONS]
            for index in range(len(setting)):
                folders = {study.stage_folder(cell, setting[: index + 1]) for cell in grid}
                shared = re.search(r"-wlc 0(?!\S)", setting[index]) is not None
                assert len(folders) == (1 if shared else len(grid)), (method, index)


def tuned() -> list[dict[str, Any]]:
    """Return a tuning cell for each setting of classification from scratch; the last has the highest accuracy."""
    tried = settings.METHODS["classification"]["scratch"]
    return [
        {"start": "scratch", "method": "classification", "fraction": 0.1, "seed": settings.TUNING_SEEDS[0]}
        | {"stages": setting, "held_out": 60 + number, "common": cells.common("scratch")}
        for number, setting in enumerate(tried)
    ]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty results folder instead of the committed one; return the file of the start from scratch."""
    for module in (cells, report):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(cells, "WORK", tmp_path / "work")
    return cells.results_file("scratch")


def test_a_setting_counts_once_a_seed_and_a_cut_off_line_is_named(store: Path) -> None:
    finished = tuned()
    finished += [finished[0], finished[0] | {"held_out": 99, "common": "other flags"}]
    store.write_text("".join(f"{json.dumps(cell)}\n" for cell in finished))
    best = settings.METHODS["classification"]["scratch"][-1]
    assert cells.best_setting("scratch", "classification", cells.read_cells()) == best
    store.write_text(store.read_text()[:-9])
    with pytest.raises(SystemExit, match=f"line {len(finished)} is cut off"):
        cells.read_cells()


def test_a_second_dataset_takes_its_settings_from_the_first(store: Path) -> None:
    tried = settings.METHODS["fine-tuning"]["imagenet-128"]
    cell = {"start": "imagenet-128", "method": "fine-tuning", "fraction": 0.1, "seed": settings.TUNING_SEEDS[0]}
    finished = [cell | {"stages": stages, "held_out": float(number)} for number, stages in enumerate(tried)]
    assert cells.best_setting("solar-128", "fine-tuning", finished) == tried[-1]
    with pytest.raises(SystemExit, match="imagenet-128, fine-tuning: 1 settings are not tuned yet"):
        cells.best_setting("solar-128", "fine-tuning", finished[1:])
    args = argparse.Namespace(start=["imagenet-128", "solar-128"], method=["fine-tuning"])
    assert {cell["start"] for cell in study.tuning_cells(args)} == {"imagenet-128"}


def test_saved_cells_come_back_with_their_predictions(store: Path) -> None:
    best = tuned()[-1]
    first, second = (best | {"seed": seed, "held_out": 70.0} for seed in (0, 1))
    predicted = [{"article": ["hat", "shirt"], "kids": ["1", "0"]}, {"article": ["sock", "hat"], "kids": ["0", "0"]}]
    for cell in tuned():
        cells.save_cell(cell)
    assert cells.read_predictions() == {}
    cells.save_cell(first, predicted[0])
    cells.save_cell(second, {"article": ["hat", "hat"], "kids": ["1", "1"]})
    cells.save_cell(second, predicted[1])  # a later run of the same cell replaces its predictions
    assert "hat" not in store.read_text()
    assert sorted(file.name for file in store.parent.glob("label*")) == [
        "label-efficiency.jsonl",
        "label-efficiency.npz",
    ]
    stored = cells.read_predictions()
    assert [cells.predictions_of(cell, stored) for cell in (first, second)] == predicted
    runs = report.finished_runs(cells.read_cells())
    assert [run["predicted"] for run in runs["scratch", 0.1, "classification"].values()] == predicted
    with pytest.raises(SystemExit, match=r"no predictions for scratch, classification, 0.1 of the labels, seed 2"):
        cells.predictions_of(best | {"seed": 2}, stored)


def test_a_report_without_enough_finished_cells_says_what_to_run(store: Path, tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("image_path,article,kids\n")
    for cell in tuned():
        cells.save_cell(cell)
    with pytest.raises(SystemExit, match="no method with 3 finished seeds: run the grid first"):
        report.report(tmp_path, ["scratch"])


def test_the_table_at_128_pixels_compares_with_fine_tuning_and_with_frozen_features(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "val.csv").write_text("image_path,article,kids\n" + "a.jpg,x,1\nb.jpg,y,1\n" * 3)
    start, known = "imagenet-128", {"fine-tuning": 2, "logistic regression, 128 pixels": 4}
    for method, right in known.items():  # number of images whose article is right; all but one image of kids is
        wrong = {"x": "y", "y": "x"}
        labels = [kind if number < right else wrong[kind] for number, kind in enumerate("xyxyxy")]
        tried = settings.METHODS[method][start]
        common = {"start": start, "method": method, "fraction": 0.1, "common": cells.common(start)}
        if len(tried) > 1:
            for number, setting in enumerate(tried):
                tuning = {"seed": settings.TUNING_SEEDS[0], "stages": setting, "held_out": 60 - number}
                cells.save_cell(common | tuning)
        for seed in range(3):
            cost = {"minutes": 1.5 + seed, "trained": 3200, "scored": 0}
            cell = common | {"seed": seed, "stages": tried[0], "held_out": 60.0} | cost
            cells.save_cell(cell, {"article": labels, "kids": ["1"] * 5 + ["0"]})
    pages: dict[str, list[str]] = {}
    monkeypatch.setattr(report, "write_into_page", pages.__setitem__)
    drawn: list[Any] = []
    monkeypatch.setattr(report, "draw_cost", lambda rows, methods: drawn.extend(rows))
    report.report(tmp_path, settings.LARGE[:1])
    header, _, first, second, *_ = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in pages["label-efficiency-128"]
    ]
    rows = {row[1]: dict(zip(header, row, strict=True)) for row in (first, second)}
    solved, tuned_row = rows["logistic regression, 128 pixels"], rows["fine-tuning"]
    assert (tuned_row["accuracy"], solved["accuracy"]) == ("58.3 ± 0.0", "75.0 ± 0.0")
    assert solved["difference to fine-tuning"].startswith("+16.7 (")
    assert tuned_row["difference to logistic regression, 128 pixels"].startswith("-16.7 (")
    assert (tuned_row["difference to fine-tuning"], solved["core minutes"], solved["views trained"]) == (
        "",
        "2.5",
        "3,200",
    )
    assert [row["method"] for row in drawn] == list(rows)
    assert (tmp_path / "label-efficiency-128.csv").exists()


def test_the_published_results_are_complete() -> None:
    runs = report.finished_runs(cells.read_cells())
    published = [row for file in cells.RESULTS.glob("label-efficiency*.csv") for row in cells.read_rows(file)]
    assert len(published) > 20
    for row in published:
        run = runs[row["start"], float(row["fraction"]), row["method"]]
        assert len(run) == int(row["seeds"])
        images = {"article": 1138, "defect": 650}[settings.STARTS[row["start"]].attributes[0]]
        assert {len(column) for cell in run.values() for column in cell["predicted"].values()} == {images}


@pytest.mark.parametrize("command", [["communication.py"], ["label_efficiency.py", "--help"], ["run.py", "--help"]])
def test_a_command_ends_quietly_when_the_reader_of_its_output_has_left(command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    folder = Path(cells.__file__).parent
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["communication.py", "label_efficiency.py --help"])
def test_a_command_runs_without_an_open_output(command: str, unbuffered: str) -> None:
    words = ["bash", "-c", f"{sys.executable} {command} >&-"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(words, cwd=Path(cells.__file__).parent, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_lock_keeps_other_processes_out_until_the_child_that_holds_it_ends(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    with cells.locked(lock) as held:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held])
    with lock.open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child.communicate(b"\n")
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
