"""report.py as a command, and what a training leaves: figures of a real model, from its checkpoint and its data."""

import logging
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from page_reader import read_page
from test_options import PARSE
from test_report_page import OTHERS
from tiny_checkpoint import make_data, make_model, save_checkpoint

import report
import validate
from commands.leave_report import leave_report
from serving.reported_model import load_reported, report_results, reported_table
from serving.run_report import usage

CPU = ("--device", "cpu", "-j", "0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run, in which only the training is missing."""
    folder = tmp_path_factory.mktemp("report")
    data = make_data(make_data(folder / "data", rows=30), rows=40, split="train")
    make_data(data, rows=12, split="test")
    flags = {"data_dir": str(data), "val_split": "validation", "train_split": "train", "attribute_weights": {}}
    for name, seed in (("run", 0), ("other", 1)):
        save_checkpoint(folder / name / "model_best.pth.tar", make_model(seed=seed), args=flags | {"seed": seed})
    return folder / "run"


def test_a_report_has_the_scores_of_validate_and_a_model_card(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.main([str(run), *CPU])
    assert capsys.readouterr().out == f"Report: {run / 'report.html'}\n"
    shown = "".join(read_page((run / "report.html").read_text(encoding="utf-8"), scripts=2, others=OTHERS).texts)
    loaded = load_reported(run, device="cpu")
    scores = loaded.model.evaluate(run.parent / "data")
    for name in ("color", "size"):
        assert f"{name}: {scores[f'{name}_top1']:.1f}% right" in shown
    assert "on the representations of 40 labeled training images" in shown or "labeled training images" in shown
    card = (run / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: timm\n")
    assert f"value: {scores['color_top1'] / 100:.4f}" in card
    assert 'MultiLabel("model_best.pth.tar")' in card


def test_every_command_of_a_report_parses(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(report.__file__).parent)
    trained = load_reported(run, device="cpu")
    blind = replace(trained, checkpoint=replace(trained.checkpoint, trained_flags={"classification_loss_weight": 0.0}))
    assert blind.checkpoint.heads_are_untrained
    shown = [line for one in (trained, blind) for _, text in usage(one) for line in text.splitlines()]
    commands = [shlex.split(line)[1:] for line in shown if line.startswith("python ")]
    assert {"inference.py", "validate.py", "export.py", "refit.py", "train.py"} == {words[0] for words in commands}
    for program, *words in commands:
        PARSE[program](words)
    assert 'table = model.predict("PHOTOS", precision=0.97)  # blank where fewer are right' in shown


def test_a_readme_that_is_no_model_card_is_kept(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model_best.pth.tar").symlink_to(run / "model_best.pth.tar")
    (tmp_path / "README.md").write_text("# My project\n")
    leave_report(tmp_path, torch.device("cpu"), 0)
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "README.md").read_text() == "# My project\n"


def test_the_results_are_those_of_the_model_on_each_image(run: Path) -> None:
    loaded = load_reported(run, device="cpu")
    results = report_results(loaded, reported_table(loaded), logistic_images=0)
    labeled = loaded.model.predict(run.parent / "data" / "val.csv")
    assert results.map is not None
    assert results.map.tiles.shape == (30, 96, 96, 3)
    h = loaded.model.embed(run.parent / "data" / "val.csv", normalize=True)
    centered = h - h.mean(axis=0)
    _, values, _ = np.linalg.svd(centered.astype(np.float64))
    assert results.map.explained == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-3)
    for one in results.attributes:
        names = [labeled[one.name][int(row)].as_py() for row in one.rows]
        assert [one.prediction_text(place) for place in range(len(one))] == names
        assert one.raw.sum(axis=1) == pytest.approx(np.ones(len(one)), abs=1e-4)
        most = int(np.argmax(one.trained))
        assert (one.guess == (one.truth == most)).all()


def test_runs_are_compared_on_another_split(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "pair.html"
    report.main([str(run), str(run.parent / "other"), "--split", "test", "-o", str(page), *CPU])
    shown = "".join(read_page(page.read_text(encoding="utf-8"), others=OTHERS).texts)
    assert "On the same 12 images of test.csv" in shown
    assert "Difference to run" in shown
    assert not (run.parent / "comparison.html").exists()


def test_runs_are_compared_in_a_data_folder_that_was_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = make_data(make_data(tmp_path / "moved", rows=30), rows=40, split="train")
    for name, seed in (("one", 0), ("two", 1)):
        flags = {"data_dir": str(tmp_path / "gone"), "val_split": "validation", "train_split": "train"}
        save_checkpoint(tmp_path / name / "model_best.pth.tar", make_model(seed=seed), args=flags)
    words = [str(tmp_path / name) for name in ("one", "two")]
    report.main([*words, "--data-dir", str(moved), "-o", str(tmp_path / "pair.html"), *CPU])
    assert "Without the training table" not in "".join(capsys.readouterr())


def test_validating_leaves_a_page_of_the_split(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, checkpoint = run.parent / "data", run / "model_best.pth.tar"
    validate.main([str(data), "--checkpoint", str(checkpoint), "--split", "test", "--report", "--no-latency", *CPU])
    text = (run / "model_best-test-report.html").read_text(encoding="utf-8")
    assert "scored on test.csv" in "".join(read_page(text, scripts=2, others=OTHERS).texts)


def test_a_training_leaves_a_report_and_never_fails_for_it(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    (run / "report.html").unlink(missing_ok=True)
    leave_report(run, torch.device("cpu"), 0)
    assert (run / "report.html").stat().st_size > 10_000
    assert caplog.records[-1].getMessage().startswith(f"Report: {run / 'report.html'}  (")
    assert logging.root.manager.disable == 0
    # whatever happens
    caplog.clear()
    leave_report(run.parent / "nowhere", torch.device("cpu"), 0)
    for error in (KeyboardInterrupt(), MemoryError(), RuntimeError("CUDA error: out of memory\nmore")):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("serving.run_report.write_run_page", fail)
        leave_report(run, torch.device("cpu"), 0)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    assert all(line.startswith("No report: ") and "Make it with python report.py " in line for line in messages)
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["RUN/nowhere"], "no checkpoint at RUN/nowhere"),
        (["RUN", "RUN"], "RUN/model_best.pth.tar is named twice: compare it with another run"),
        (["RUN", "--split", "nowhere"], "; choose another split, or name the data folder of today with --data-dir"),
        (["RUN", "--output", "page.txt"], "--output page.txt does not end in .html: name the page to write"),
        (["RUN", "--data-dir", "RUN/nowhere"], "no such data folder: RUN/nowhere; choose another split"),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        report.main([*[word.replace("RUN", str(run)) for word in words], *CPU])
    assert end.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("report.py: error: ")]
    assert len(lines) == 1
    assert sentence.replace("RUN", str(run)) in lines[0]
