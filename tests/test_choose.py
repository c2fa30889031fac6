"""choose.py from end to end on a tiny catalog: the report, the recipe, the budget, stopping and continuing."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from table_files import draw_catalog, read_rows, write_table
from tiny_checkpoint import make_model, save_checkpoint

import choose
import inference
import train
from catalog.table import read_table
from training import choice_state, trials
from training.time_limit import OutOfTime

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--model", "test_efficientnet", "--img-size", "32", "-j", "0", "--device", "cpu", "--steps", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a catalog whose other tables hold garbage."""
    folder = draw_catalog(tmp_path_factory.mktemp("catalog"), train=40, val=1)
    for name in ("val", "test"):
        (folder / f"{name}.csv").write_bytes(b"\xff\x00 garbage")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    file = tmp_path_factory.mktemp("weights") / "start.pth.tar"
    return ["--initial-checkpoint", str(save_checkpoint(file, make_model()))]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Train in this process, which is faster than starting one; return the recipes, which fill up."""
    calls: list[list[str]] = []

    def run(words: list[str], log: Path, seconds: float) -> int:
        calls.append(words[2:])
        train.main(words[2:])
        return 0

    monkeypatch.setattr(trials, "run_child", run)
    return calls


def run(data: Path, output: Path, *words: str, budget: str = "1h") -> None:
    choose.main([str(data), "--budget", budget, "--output", str(output), *TINY, *words])


def refusal(capsys: pytest.CaptureFixture[str], data: Path, output: Path, *words: str, budget: str = "1h") -> str:
    """Run the script on something wrong; return its sentence."""
    with pytest.raises(SystemExit) as end:
        run(data, output, *words, budget=budget)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    [sentence] = [line for line in error.splitlines() if line.startswith("choose.py: error: ")]
    return sentence.removeprefix("choose.py: error: ")


def report(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed from the table of candidates on."""
    table, rest = capsys.readouterr().out.partition("candidate  ")[1:]
    return table + rest


def state(output: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((output / "state.json").read_text())
    return found


def test_candidates_are_compared_and_the_winner_becomes_a_recipe_that_trains(
    data: Path,
    weights: list[str],
    tmp_path: Path,
    in_process: list[list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    level = logging.getLogger("validate").level
    run(data, output, "--splits", "1", "--candidates", "frozen", "fine-tune", *weights)
    assert logging.getLogger("validate").level == level
    shown = report(capsys)
    assert "frozen features, logistic regression" in shown
    assert "fine-tuning" in shown
    assert "of 4 runs" in shown
    assert len(in_process) == 2  # the features serve all splits without a training
    runs = state(output)["runs"]
    assert isinstance(runs, list)
    assert [(one["candidate"], one["split"], one["half"]) for one in runs] == [
        (name, 0, half) for half in (False, True) for name in ("frozen", "fine-tune")
    ]
    names = sorted(path.name for path in output.iterdir())
    assert names[0].startswith("features-")
    assert names[1:] == ["recipe.yaml", "state.json"]

    # the recipe has the figures in its head, and trains on the whole table
    text = (output / "recipe.yaml").read_text()
    assert all(f"# {line}".rstrip() in text for line in shown.partition("\n\npython")[0].splitlines())
    recipe = yaml.safe_load(text)
    assert recipe["attributes"] == ["color", "shape"]
    folder = draw_catalog(tmp_path / "whole", train=40, val=10)
    command = ["-c", str(output / "recipe.yaml"), "-j", "0", "--output", str(tmp_path), "--experiment", "mine"]
    train.main([str(folder), *command])
    assert (tmp_path / "mine" / "model_best.pth.tar").exists()

    # the same command repeats the report and trains nothing
    monkeypatch.setattr(trials, "run_child", None)
    run(data, output, "--splits", "1", "--candidates", "frozen", "fine-tune", *weights)
    assert report(capsys) == shown


def test_a_teacher_labels_the_training_images_alone_and_the_commands_of_the_winner_run(
    data: Path,
    weights: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripts = {"train.py": train.main, "inference.py": inference.main}
    calls: list[str] = []
    labeled: list[str] = []

    def work(words: list[str], log: Path, seconds: float) -> int:
        name = Path(words[1]).name
        calls.append(name)
        if name == "inference.py":
            labeled.extend(read_table(words[2]).image_paths.to_pylist())
        scripts[name](words[2:])
        return 0

    monkeypatch.setattr(trials, "run_child", work)
    rows = [row | {"image_path": str(data / row["image_path"])} for row in read_rows(data / "train.csv")]
    blank = dict.fromkeys(("color", "shape"), "")
    folder = tmp_path / "few"
    folder.mkdir()
    write_table(folder / "train.csv", [row | (blank if index % 2 else {}) for index, row in enumerate(rows)])
    output = tmp_path / "out"
    run(folder, output, "--splits", "1", "--candidates", "self-train", *weights)
    assert calls == ["train.py", "inference.py", "train.py"] * 2  # with all labels and with half of them
    assert 0 < len(labeled) < 2 * len(rows)  # held-out rows are not among them

    # the printed commands, in another folder for the runs
    printed = report(capsys).partition("\n\n")[2].split("\n\n")[-1].splitlines()
    assert [line.split()[1] for line in printed] == ["train.py", "inference.py", "train.py"]
    write_table(folder / "val.csv", rows)
    runs = tmp_path / "runs"
    for line in printed:
        words = [word.replace("output/train", str(runs)) for word in shlex.split(line)[1:]]
        extra = ["--output", str(runs)] if words[0] == "train.py" else ["-o", str(tmp_path / "labels.csv")]
        scripts[words[0]]([*words[1:], *extra, "-j", "0"])
    assert (runs / "mine" / "model_best.pth.tar").exists()


def test_a_stopped_choice_continues_to_the_same_answer(
    data: Path,
    weights: list[str],
    tmp_path: Path,
    in_process: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--splits", "1", "--candidates", "frozen", "fine-tune", *weights]
    run(data, tmp_path / "whole", *words)
    finished = choose.score_checkpoint

    def stop(*arguments: object) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(choose, "score_checkpoint", stop)
    with pytest.raises(SystemExit) as end:
        run(data, tmp_path / "stopped", *words)
    assert end.value.code == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not {"runs", "tables", "recipe.yaml"} & {path.name for path in (tmp_path / "stopped").iterdir()}
    monkeypatch.setattr(choose, "score_checkpoint", finished)
    monkeypatch.setattr(choose, "compute_features", None)  # they were kept
    run(data, tmp_path / "stopped", *words)
    capsys.readouterr()
    one, other = (
        [(run["candidate"], run["split"], run["half"], run["scores"]) for run in state(tmp_path / name)["runs"]]  # type: ignore[attr-defined]
        for name in ("whole", "stopped")
    )
    assert one == other
    assert len(one) == 4


def test_a_split_trains_on_no_held_out_label_and_groups_stay_together(
    data: Path, weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "grouped"
    rows = read_rows(data / "train.csv")
    folder.mkdir()
    shops = {f"{data / row['image_path']}": f"shop{index % 7}" for index, row in enumerate(rows)}
    write_table(
        folder / "train.csv",
        [row | {"image_path": path, "shop": shops[path]} for row, path in zip(rows, shops, strict=True)],
    )
    seen = []

    def look(words: list[str], log: Path, seconds: float) -> int:
        flags = yaml.safe_load(Path(words[3]).read_text())
        names = flags["train-split"], flags["val-split"], "trial-held-out"
        parts = [read_table(Path(flags["data-dir"], f"{name}.csv")) for name in names]
        seen.append([{shops[path] for path in part.image_paths.to_pylist()} for part in parts])
        assert all(part.attributes == ("color", "shape") for part in parts)
        raise OutOfTime

    monkeypatch.setattr(trials, "run_child", look)
    run(folder, tmp_path / "out", "--group", "shop", "--splits", "1", *weights)
    assert len(seen) == 1
    assert all(seen[0])
    assert sum(map(len, seen[0])) == len(set.union(*seen[0]))


def test_a_candidate_that_fails_is_named_and_the_others_go_on(
    data: Path, weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str], log: Path, seconds: float) -> int:
        log.write_text("loading\ntrain.py: error: there is no room\nsee train.py --help\n")
        return 2

    monkeypatch.setattr(trials, "run_child", fail)
    run(data, tmp_path / "out", "--splits", "1", "--candidates", "frozen", "fine-tune", *weights)
    shown = capsys.readouterr().out
    assert "Failed: fine-tuning: train.py: error: there is no room" in shown
    assert "Best: frozen features, logistic regression, the only candidate that finished." in shown


@pytest.mark.parametrize("budget", ["90s", "1h"])
def test_a_job_that_would_not_end_within_the_budget_is_not_started(
    data: Path,
    weights: list[str],
    tmp_path: Path,
    in_process: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    budget: str,
) -> None:
    monkeypatch.setattr(choice_state.ChoiceState, "mean_seconds", lambda self, job, predicted: 1000.0)
    run(data, tmp_path / "out", "--splits", "1", "--candidates", "frozen", "fine-tune", *weights, budget=budget)
    started = 0 if budget == "90s" else 2
    assert len(in_process) == started
    unfinished = "Not tried within the budget: fine-tuning, about 17m a run." in capsys.readouterr().out
    assert unfinished == (budget == "90s")


def test_a_budget_that_is_too_small_is_refused_with_one_that_is_enough(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = refusal(capsys, data, tmp_path / "a", "--candidates", "labels", budget="1s")
    assert sentence.startswith("--budget 1s is too small")
    # 10 s to start a process, and almost nothing for an image
    monkeypatch.setattr(time, "process_time", lambda: 500.0)
    sentence = refusal(capsys, data, tmp_path / "b", "--candidates", "labels", budget="5m")
    assert sentence.startswith("--budget 5m is too small for one run of labels alone, which takes about ")
    assert sentence.endswith(", for 3 splits")
    assert "use --budget 2" in sentence  # 25 minutes


def test_mistakes_get_one_sentence(
    data: Path, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert refusal(capsys, tmp_path, out).startswith(f"{tmp_path} has no train.csv, train.tsv or train.parquet")
    sentence = refusal(capsys, data, out, "--group", "shop", *weights)
    assert sentence == "train.csv has no column 'shop' for the groups; did you mean 'shape'?"
    assert refusal(capsys, data, out, "--candidates", "fine-tune").startswith("--candidates fine-tune: it starts from")
    (out / "state.json").write_text('{"settings": {"model": "x"}, "seconds": 1, "runs": []}')
    assert "was written by choose.py with other settings" in refusal(capsys, data, out, *weights)


@pytest.mark.slow
def test_ctrl_c_stops_the_training_and_the_deadline_ends_the_choice(
    data: Path, weights: list[str], tmp_path: Path
) -> None:
    words = [str(ROOT / "choose.py"), str(data), "--budget", "900h", "--output", str(tmp_path / "out"), *TINY, *weights]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = [sys.executable, *words, "--splits", "1", "--candidates", "fine-tune", "--steps", "100000"]
    process = subprocess.Popen(started, env=environment, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out" / "runs" / "stage-1.log"
    for _ in range(1200):
        if log.exists() and "Train:" in log.read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "runs").exists()
