"""train.py from end to end on a tiny catalog: the files of a run, resuming, several processes, mistakes."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from table_files import COLORS, SHAPES, draw_catalog, read_rows, write_table

import inference
import train
import validate
from runtime.random_state import seed_all
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from training import epoch_scores
from training import loop as train_loop
from training.loss_meter import NonFiniteLossGuard

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--model", "test_efficientnet", "--img-size", "32", "-b", "8", "--device", "cpu", "--warmup-epochs", "0"]
SHORT = [*TINY, "-j", "0", "--cooldown-epochs", "0", "--lr", "0.05"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalog(tmp_path_factory.mktemp("catalog"))


def run(data: Path, output: Path, *words: object, flags: list[str] = SHORT) -> Path:
    """Train in this process; return the run's folder."""
    train.main([str(data), *flags, "--output", str(output), "--experiment", "run", *map(str, words)])
    return output / "run"


def resume(checkpoint: Path, data: Path, *words: object, flags: list[str] = SHORT) -> Path:
    """Resume from a checkpoint with a run's flags; return the folder."""
    train.main([str(data), *flags, *map(str, words), "--resume", str(checkpoint)])
    return checkpoint.parent


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run the script on something wrong; return its one sentence."""
    with pytest.raises(SystemExit) as end:
        train.main([*map(str, argv)])
    assert end.value.code == 2
    [sentence] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py: error: ")]
    return sentence


def summary(folder: Path) -> list[dict[str, str]]:
    return read_rows(folder / "summary.csv")


def load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def assert_same(one: Any, other: Any, at: str = "") -> None:
    """Compare nested lists, dicts and tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            assert_same(one[key], other[key], f"{at}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), at
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{at}/{index}")
    else:
        assert one == other or (one != one and other != other), at


# From nothing to predictions


def command(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in the folder `cwd`."""
    return subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_training_resuming_validating_and_predicting_through_the_command_line(data: Path, tmp_path: Path) -> None:
    common = [data, *SHORT, "--sched", "cosine", "--epochs", "3", "--model-ema", "--output", tmp_path]
    trained = command("./distributed_train.sh", "1", *common, "--experiment", "run")
    assert trained.returncode == 0, trained.stderr
    assert "simclr_loss at chance is ln(2N-1) = 2.7081 for N = 8 images" in trained.stderr
    assert "classes: color (3), shape (2)" in trained.stderr
    assert "Traceback" not in trained.stderr
    folder = tmp_path / "run"
    best = json.loads(trained.stdout.partition("--result\n")[2])
    assert len(best) == 3
    rows = summary(folder)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert list(rows[0])[:10] == [
        *("epoch", "train_loss", "train_top1", "eval_loss", "eval_top1", "eval_top5", "lr"),
        *("simclr_loss", "classification_loss", "color"),
    ]
    for name in ("accuracy.png", "losses.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 400
    assert yaml.safe_load((folder / "args.yaml").read_text())["epochs"] == 3

    # As though it had been stopped after epoch 1: nothing of epoch 2 is there.
    first = summary(folder)[2]
    shutil.copy(folder / "checkpoint-1.pth.tar", folder / "last.pth.tar")
    (folder / "checkpoint-2.pth.tar").unlink()
    resumed = command(sys.executable, "train.py", "-c", folder / "args.yaml", "--resume", folder / "last.pth.tar")
    assert resumed.returncode == 0, resumed.stderr
    assert summary(folder)[2] == first
    assert (folder / "checkpoint-2.pth.tar").exists()

    # from any folder, and nothing but what was asked for is written
    other = tmp_path / "other"
    other.mkdir()
    words = ["--checkpoint", folder / "last.pth.tar", "--device", "cpu", "-j", "0"]
    validated = command(sys.executable, ROOT / "validate.py", data, *words, "--no-latency", cwd=other)
    assert validated.returncode == 0, validated.stderr
    assert not list(other.iterdir())
    scores = json.loads(validated.stdout.partition("--result\n")[2])
    assert scores["color_top1"] == pytest.approx(float(first["color"]))
    assert scores["shape_top1"] == pytest.approx(float(first["shape"]))
    assert scores["loss"] == pytest.approx(float(first["eval_loss"]), rel=1e-4)
    assert scores["exact_match"] == pytest.approx(float(first["eval_exact_match"]))

    predicted = command(sys.executable, ROOT / "inference.py", data / "images", *words, cwd=other)
    assert predicted.returncode == 0, predicted.stderr
    labels = read_rows(other / "predictions.csv")
    assert len(labels) == 34
    assert {row["color"] for row in labels} <= set(COLORS)
    assert {row["shape"] for row in labels} <= set(SHAPES)


def test_good_training_learns_the_catalog(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data", train=128, val=24)
    words = ["--epochs", 12, "--opt", "adamw", "--lr", "0.004", "--scale", 0.8, 1, "--color-jitter", 0, "-wls", 0.1]
    folder = run(data, tmp_path, *words, "-wlc", 0.9, "--smoothing", 0, "--sched", "cosine", "--min-lr", 1e-5)
    last = summary(folder)[-1]
    assert float(last["color"]) == 100
    assert float(last["shape"]) > 80
    chance = math.log(2 * 8 - 1)
    assert float(last["simclr_loss"]) < chance - 0.3
    assert float(last["train_top1"]) > 90  # dropped or blank rows are not in its divisor


# The original's command


ORIGINAL = """--sched cosine --epochs 100 --decay-epochs 2.4 --decay-rate .97 --opt adamp --opt-eps .001 -j 8
--warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.3 --drop-connect 0.2 --model-ema --model-ema-decay 0.9999
--aa rand-m9-mstd0.5 --remode pixel --reprob 0.2 --amp --lr .016 --pretrained -wls 0.1 -wlc 0.9"""


def test_the_originals_command_runs_and_refuses_weights_that_cannot_be_had(data: Path, tmp_path: Path) -> None:
    words = ["--model", "efficientnet_b0", "-b", "32", *ORIGINAL.split(), "--epochs", "1", "--device", "cpu"]
    offline = command("./distributed_train.sh", "1", data, *words, "--output", tmp_path, HF_HUB_OFFLINE="1",
                      HF_HUB_CACHE=str(tmp_path / "cache"))  # fmt: skip
    assert offline.returncode == 2
    sentences = [line for line in offline.stderr.splitlines() if "error" in line]
    assert len(sentences) == 1
    assert "--pretrained: the weights of efficientnet_b0 cannot be downloaded" in sentences[0]
    assert "--pretrained-path FILE" in sentences[0]
    assert not list(tmp_path.iterdir())

    weights = tmp_path / "weights.pth"
    seed_all(0)
    torch.save(create_multi_label_model("test_efficientnet", SPACE).backbone.state_dict(), weights)
    tiny = ["--model", "test_efficientnet", "--img-size", 32, "-b", 8, "--cooldown-epochs", 0]
    folder = run(data, tmp_path, "--pretrained-path", weights, *tiny, flags=words)
    row = summary(folder)[0]
    assert all(math.isfinite(float(row[name])) for name in ("train_loss", "simclr_loss", "eval_loss", "ema_loss"))


SPACE = train.LabelSpace({"color": tuple(sorted(COLORS)), "shape": SHAPES})


# Resuming


PLAIN = ["--epochs", 4, "--checkpoint-hist", 9, "--momentum", 0.9]
RICH = [
    *("--epochs", 4, "--checkpoint-hist", 9, "--opt", "adamw", "--lr", 1e-3, "--sched", "cosine", "--warmup-epochs", 1),
    *("--model-ema", "--model-ema-decay", 0.9, "--drop", 0.3, "--drop-path", 0.2, "--aa", "rand-m9-mstd0.5"),
    *("--reprob", 0.5, "--remode", "pixel", "--mixup", 0.2, "--cutmix", 1, "--grad-accum-steps", 2, "--amp"),
    *("--sched-on-updates", "--classify-view", "both", "--projection-norm", "batch", "--lr-noise", 0.2, 0.9),
    *("--contrastive", "dcl", "--mask-false-negatives"),
]  # fmt: skip
JOINT = [
    *(*RICH, "-b", 4, "--contrastive-batch-size", 8, "--grad-accum-steps", 1),
    *("--contrastive", "supcon", "--no-mask-false-negatives"),
]
MIXED = [*PLAIN, "--unlabeled", "val.csv", "--unlabeled-ratio", 0.25, "--views", "simclr", "--augment-on", "device"]
REFIT = [*PLAIN, "--refit-heads", "--model-ema", "--logit-adjustment", 0.5]
STEPS = ["--steps", 11, "--warmup-steps", 4, "--sched", "cosine", "--opt", "adamw", "--checkpoint-hist", 9]
TAUGHT = [
    *(*PLAIN, "--model-ema", "--model-ema-decay", 0.9, "--pseudo", "ema", "--pseudo-warmup", 0.5, "-b", 4),
    *("--contrastive-batch-size", 8, "--views", "simclr"),
]  # fmt: skip
PLATEAU = [*PLAIN, "--sched", "plateau", "--patience-epochs", 0, "--decay-rate", 0.5, "--warmup-epochs", 1]


@pytest.mark.parametrize(
    "words",
    [PLAIN, RICH, JOINT, MIXED, TAUGHT, PLATEAU, STEPS, REFIT],
    ids=["plain", "rich", "joint", "mixed", "taught", "plateau", "steps", "refit"],
)
def test_resuming_equals_not_stopping_bit_for_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object]
) -> None:
    monkeypatch.chdir(data)
    whole = run(data, tmp_path / "whole", *words)
    part = tmp_path / "part"
    part.mkdir()
    for name, copy in (("checkpoint-0", "checkpoint-0"), ("checkpoint-1", "checkpoint-1"), ("checkpoint-1", "last")):
        shutil.copy(whole / f"{name}.pth.tar", part / f"{copy}.pth.tar")
    lines = (whole / "summary.csv").read_text().splitlines(keepends=True)
    (part / "summary.csv").write_text("".join(lines[:4]))  # and of epoch 2, which was broken off, the row
    resume(part / "last.pth.tar", data, *words)
    one, other = load(whole / "last.pth.tar"), load(part / "last.pth.tar")
    for key in ("state_dict", "optimizer", "state_dict_ema", "plateau", "pseudo", "epoch", "metric"):
        assert_same(one.get(key), other.get(key), key)
    assert summary(part) == summary(whole)
    assert one["saver"]["best_metric"] == other["saver"]["best_metric"]


@pytest.mark.parametrize("finish", [["--refit-heads"], []], ids=["refit", "plain"])
def test_a_run_that_stops_early_is_resumed_to_the_same_end(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], finish: list[str]
) -> None:
    words = [*PLAIN, *finish, "--epochs", 9, "--early-stop", 3, "--lr", "1e-12", "--model", "test_vit"]
    whole = run(data, tmp_path / "whole", *words)
    epochs = [row["epoch"] for row in summary(whole)]
    assert epochs == [str(epoch) for epoch in range(4 + len(finish))]
    for done in (1, 2, 3, 4):  # in between, and before the heads are refitted
        part = tmp_path / f"part-{done}"
        part.mkdir()
        for index in range(done):
            shutil.copy(whole / f"checkpoint-{index}.pth.tar", part)
        shutil.copy(whole / f"checkpoint-{done - 1}.pth.tar", part / "last.pth.tar")
        lines = (whole / "summary.csv").read_text().splitlines(keepends=True)
        (part / "summary.csv").write_text("".join(lines[: done + 1]))
        resume(part / "last.pth.tar", data, *words)
        one, other = load(whole / "last.pth.tar"), load(part / "last.pth.tar")
        for key in ("state_dict", "optimizer", "epoch", "metric", "early_stop"):
            assert_same(one.get(key), other.get(key), key)
        assert summary(part) == summary(whole)
    resume(whole / "last.pth.tar", data, *words)
    assert "epochs are done; the run stopped early; raise --early-stop" in capsys.readouterr().err
    assert [row["epoch"] for row in summary(whole)] == epochs
    if not finish:
        resume(whole / "last.pth.tar", data, *words, "--early-stop", 5)
        assert len(summary(whole)) == 6


def test_a_run_killed_before_its_heads_were_refitted_has_them_after_resuming(data: Path, tmp_path: Path) -> None:
    whole = run(data, tmp_path / "whole", *REFIT, "--epochs", 1)
    part = tmp_path / "part"
    part.mkdir()
    for name in ("checkpoint-0", "last"):
        shutil.copy(whole / "checkpoint-0.pth.tar", part / f"{name}.pth.tar")
    lines = (whole / "summary.csv").read_text().splitlines(keepends=True)
    assert len(lines) == 3
    (part / "summary.csv").write_text("".join(lines[:2]))
    resume(part / "last.pth.tar", data, *REFIT, "--epochs", 1)
    one, other = load(whole / "last.pth.tar"), load(part / "last.pth.tar")
    for key in ("state_dict", "state_dict_ema", "epoch", "progress", "metric"):
        assert_same(one.get(key), other.get(key), key)
    assert summary(part) == summary(whole)
    before = load(whole / "checkpoint-0.pth.tar")["state_dict"]
    moved = {name for name, value in one["state_dict"].items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("heads.") for name in moved)
    resume(part / "last.pth.tar", data, *REFIT, "--epochs", 1)  # nothing is left to do
    assert summary(part) == summary(whole)
    resume(part / "last.pth.tar", data, *REFIT, "--epochs", 3)  # epoch 2 trains on, and 3 refits again
    assert [row["epoch"] for row in summary(part)] == ["0", "1", "2", "3"]


def test_a_resumed_run_keeps_its_statistics_frozen_without_the_flag(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "first", *PLAIN, "--epochs", 1) / "last.pth.tar"
    start = ["--initial-checkpoint", first, "--opt", "adamw", "--lr", 5e-4]
    whole = run(data, tmp_path / "whole", *PLAIN, "--epochs", 2, *start)
    part = tmp_path / "part"
    part.mkdir()
    for name in ("checkpoint-0", "last"):
        shutil.copy(whole / "checkpoint-0.pth.tar", part / f"{name}.pth.tar")
    shutil.copy(whole / "summary.csv", part)
    resume(part / "last.pth.tar", data, *PLAIN, "--epochs", 2, "--opt", "adamw", "--lr", 5e-4)
    one, other = load(whole / "last.pth.tar"), load(part / "last.pth.tar")
    assert_same(one["state_dict"], other["state_dict"], "state_dict")
    assert one["args"]["freeze_bn"]
    statistics = "backbone.bn1.running_mean"
    assert torch.equal(one["state_dict"][statistics], load(first)["state_dict"][statistics])
    resume(part / "last.pth.tar", data, *PLAIN, "--epochs", 3, "--opt", "adamw", "--no-freeze-bn")
    again = load(part / "last.pth.tar")
    assert not torch.equal(again["state_dict"][statistics], one["state_dict"][statistics])
    assert not again["args"]["freeze_bn"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_saves_the_step_that_it_interrupts_and_names_the_command_that_resumes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    whole = run(data, tmp_path / "whole", "--epochs", 2)
    number, steps = getattr(signal, name), 0

    def ask(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:  # the second of three steps of epoch 1
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NonFiniteLossGuard, "check", ask)
        with pytest.raises(SystemExit) as end:
            run(data, tmp_path / "stopped", "--epochs", 2)
    assert end.value.code == 128 + number
    assert signal.getsignal(number) is before
    folder = tmp_path / "stopped" / "run"
    recovery = folder / "recovery-1-1.pth.tar"
    log = capsys.readouterr().err
    assert f"Resume with python train.py -c {folder / 'args.yaml'} --resume {recovery}" in log
    train.main(["-c", str(folder / "args.yaml"), "--resume", str(recovery)])
    one, other = load(whole / "last.pth.tar"), load(folder / "last.pth.tar")
    for key in ("state_dict", "optimizer"):
        assert_same(one[key], other[key], key)


def test_a_signal_during_validation_ends_the_run_after_the_epoch_is_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = epoch_scores.validate

    def asked(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return score(*arguments)

    monkeypatch.setattr(epoch_scores, "validate", asked)
    with pytest.raises(SystemExit) as end:
        run(data, tmp_path, "--epochs", 3)
    assert end.value.code == 143
    assert load(tmp_path / "run" / "last.pth.tar")["epoch"] == 0


@pytest.mark.parametrize("words", [PLAIN, RICH, JOINT, TAUGHT], ids=["plain", "rich", "joint", "taught"])
def test_a_recovery_checkpoint_resumes_in_the_middle_of_its_epoch(
    data: Path, tmp_path: Path, words: list[object]
) -> None:
    class StoppedError(Exception):
        """The machine goes down."""

    whole = run(data, tmp_path / "whole", *words, "--epochs", 2, "--recovery-interval", 2)
    stopped, steps = tmp_path / "stopped", 0

    def stop(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 6:  # three per epoch: recovery-1-1 has just been written
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NonFiniteLossGuard, "check", stop)
        with pytest.raises(StoppedError):
            run(data, stopped, *words, "--epochs", 2, "--recovery-interval", 2)
    recovery = stopped / "run" / "recovery-1-1.pth.tar"
    assert recovery.exists()
    resume(recovery, data, *words, "--epochs", 2, "--recovery-interval", 2)
    one, other = load(whole / "last.pth.tar"), load(stopped / "run" / "last.pth.tar")
    for key in ("state_dict", "optimizer", "state_dict_ema", "pseudo"):
        assert_same(one.get(key), other.get(key), key)
    assert summary(stopped / "run") == summary(whole)


def test_a_run_that_is_stopped_in_its_first_epoch_continues_in_its_folder(data: Path, tmp_path: Path) -> None:
    words = [*PLAIN, "--epochs", 1, "--recovery-interval", 1]
    folder = run(data, tmp_path, *words)
    before = {path: path.read_bytes() for path in (folder / "summary.csv", folder / "args.yaml")}
    (folder / "summary.csv").unlink()
    for name in ("last", "model_best", "checkpoint-0"):
        (folder / f"{name}.pth.tar").unlink()
    resume(folder / "recovery-0-1.pth.tar", data, *words, "--output", tmp_path, "--experiment", "run")
    assert {path: path.read_bytes() for path in before} == before


def test_resuming_keeps_the_best_score_and_the_folder(data: Path, tmp_path: Path) -> None:
    folder = run(data, tmp_path, *PLAIN, "--epochs", 1, "--eval-metric", "loss")
    before = sorted(path.name for path in tmp_path.iterdir())
    resume(folder / "last.pth.tar", data, *PLAIN, "--epochs", 2, "--eval-metric", "loss", "--lr", 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    first, worse = (float(row["eval_loss"]) for row in summary(folder))
    assert worse > first  # as the learning rate makes sure
    assert load(folder / "model_best.pth.tar")["metric"] == pytest.approx(first)
    assert load(folder / "last.pth.tar")["metric"] == pytest.approx(worse)


def test_a_resumed_run_continues_in_its_folder_unless_the_flags_name_another(data: Path, tmp_path: Path) -> None:
    folder = run(data, tmp_path / "out", "--epochs", 1)
    checkpoint = folder / "last.pth.tar"
    before = {path.name for path in (tmp_path / "out").iterdir()}
    resume(checkpoint, data, "--epochs", 2, "--output", tmp_path / "out")
    resume(checkpoint, data, "--epochs", 3, "--output", tmp_path / "out", "--experiment", "run")
    assert {path.name for path in (tmp_path / "out").iterdir()} == before
    assert [row["epoch"] for row in summary(folder)] == ["0", "1", "2"]
    recipe = yaml.safe_load((folder / "args.yaml").read_text())
    assert recipe["resume"] == ""  # else -c args.yaml would not repeat the run
    assert recipe["epochs"] == 3
    resume(checkpoint, data, "--epochs", 4, "--output", tmp_path / "elsewhere", "--experiment", "other")
    assert [row["epoch"] for row in summary(tmp_path / "elsewhere" / "other")] == ["3"]
    assert len(summary(folder)) == 3


def test_a_resumed_run_does_not_need_its_first_weights(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(create_multi_label_model("test_efficientnet", SPACE).backbone.state_dict(), weights)
    folder = run(data, tmp_path, "--epochs", 1, "--pretrained-path", weights)
    weights.unlink()
    resume(folder / "last.pth.tar", data, "--epochs", 2, "--pretrained-path", weights)
    assert len(summary(folder)) == 2


def test_another_learning_rate_counts_when_resuming(data: Path, tmp_path: Path) -> None:
    folder = run(data, tmp_path, "--epochs", 1, "--sched", "constant", "--weight-decay", 0.01)
    resume(folder / "last.pth.tar", data, "--epochs", 2, "--sched", "constant", "--lr", 0.01, "--weight-decay", 0.1)
    assert [float(row["lr"]) for row in summary(folder)] == pytest.approx([0.05, 0.01])
    assert {group["weight_decay"] for group in load(folder / "last.pth.tar")["optimizer"]["param_groups"]} == {0, 0.1}


def test_another_rate_of_the_backbone_counts_when_resuming(data: Path, tmp_path: Path) -> None:
    still = ["--sched", "plateau", "--warmup-epochs", 0, "--lr", 0.01]
    folder = run(data, tmp_path, "--epochs", 1, *still, "--backbone-lr-scale", 0.5)
    for epochs, words, scale in (2, [], 0.1), (3, ["--no-resume-opt"], 0.2):
        resume(folder / "last.pth.tar", data, "--epochs", epochs, *still, "--backbone-lr-scale", scale, *words)
        groups = load(folder / "last.pth.tar")["optimizer"]["param_groups"]
        assert {group["lr_scale"] for group in groups} == {scale, 1.0}
    assert sorted({group["lr"] for group in groups}) == pytest.approx([0.2 * 0.01, 0.01])


def test_resuming_a_finished_run_says_so_and_changes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(data, tmp_path, "--epochs", 1)
    before = (folder / "summary.csv").read_text()
    resume(folder / "last.pth.tar", data, "--epochs", 1)
    assert "Nothing left to train: 1 of 1 epochs are done; raise --epochs" in capsys.readouterr().err
    assert (folder / "summary.csv").read_text() == before


def test_the_label_space_of_a_resumed_run_is_the_checkpoints(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data")
    folder = run(data, tmp_path, "--epochs", 1)
    rows = [row for row in read_rows(data / "train.csv") if row["color"] != "green"]  # sorted anew, red would be 1
    write_table(data / "train.csv", rows)
    resume(folder / "last.pth.tar", data, "--epochs", 2)
    model = MultiLabelModel.from_checkpoint(folder / "last.pth.tar")
    assert model.label_space.classes["color"] == ("blue", "green", "red")


def test_a_run_is_not_resumed_with_other_attributes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw_catalog(tmp_path / "data")
    rows = read_rows(data / "train.csv")
    attributes = [name for name in rows[0] if name != "image_path"]
    kept, *rest = attributes
    write_table(data / "train.csv", [{"image_path": row["image_path"], kept: row[kept]} for row in rows])
    checkpoint = run(data, tmp_path, "--epochs", 1) / "last.pth.tar"
    write_table(data / "train.csv", rows)
    sentence = refusal(capsys, data, *SHORT, "--epochs", 2, "--resume", checkpoint)
    words = f"{checkpoint} was trained on {kept}, but train.csv has {', '.join(attributes)}: choose the same columns"
    assert words in sentence
    resume(checkpoint, data, "--epochs", 2, "--attributes", kept)
    write_table(data / "train.csv", [{name: row[name] for name in ("image_path", *rest)} for row in rows])
    sentence = refusal(capsys, data, *SHORT, "--epochs", 3, "--resume", checkpoint)
    assert (
        f"{checkpoint} was trained on {kept}, but train.csv has {', '.join(rest)}: choose the same columns" in sentence
    )


# The same seed, and another


def test_the_same_seed_gives_the_same_run_and_another_seed_another(data: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        folder = run(data, tmp_path / name, "--epochs", 1, "--seed", seed)
        state: dict[str, torch.Tensor] = load(folder / "last.pth.tar")["state_dict"]
        return state

    first, again, other = weights("first", 1), weights("again", 1), weights("other", 2)
    assert_same(first, again)
    assert not torch.equal(first["heads.0.weight"], other["heads.0.weight"])


# EMA


def test_the_averages_metrics_stand_beside_the_models_own_and_are_no_untrained_models(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data", train=64, val=24)
    words = ["--epochs", 10, "--opt", "adamw", "--lr", "0.004", "--scale", 0.8, 1, "--color-jitter", 0, "-wls", 0]
    folder = run(data, tmp_path, *words, "-wlc", 1, "--model-ema", "--model-ema-decay", 0.9999)
    last = summary(folder)[-1]
    assert last["eval_loss"] != last["ema_loss"]
    # 80 updates at 0.9999 would leave 99 % of the first weights, and with them a loss of ln 3 and ln 2: 0.896.
    assert float(last["ema_loss"]) < 0.75
    assert load(folder / "model_best.pth.tar")["metric"] == max(float(row["eval_top1"]) for row in summary(folder))


# Several processes


def test_two_processes_train_score_every_row_once_and_one_of_them_writes(data: Path, tmp_path: Path) -> None:
    flags = [data, *SHORT, "-b", "4", "--epochs", "1", "--output", tmp_path, "--experiment", "run", "--model-ema"]
    trained = command("./distributed_train.sh", "2", *flags, "--dist-bn", "reduce")
    assert trained.returncode == 0, trained.stderr
    assert "cpu, 2 process(es), batch 4 each" in trained.stderr
    assert "ln(2N-1) = 2.7081 for N = 8 images" in trained.stderr
    folder = tmp_path / "run"
    [row] = summary(folder)
    results = tmp_path / "results.json"
    for ema, prefix, loss in (([], "", "eval_loss"), (["--use-ema"], "ema_", "ema_loss")):
        words = [data, "--checkpoint", folder / "last.pth.tar", *ema, "--device", "cpu", "-j", 0, "--no-latency"]
        validate.main([*map(str, words), "--results-file", str(results)])
        scores = json.loads(results.read_text())
        assert float(row[f"{prefix}color"]) == pytest.approx(scores["color_top1"])
        assert float(row[loss]) == pytest.approx(scores["loss"], rel=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "run"]


@pytest.mark.usefixtures("curves")
def test_a_table_without_labels_pretrains_a_backbone_that_others_start_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    rows = [{"image_path": str(data / row["image_path"])} for row in read_rows(data / "train.csv")]
    write_table(bare / "train.csv", rows)
    assert "has no attribute to learn" in refusal(capsys, bare, *SHORT, "--output", tmp_path)
    folder = run(bare, tmp_path / "first", "-wls", 1, "-wlc", 0, "--epochs", 2, "--model-ema", "--knn-interval", 1)
    lines = summary(folder)
    assert [line["eval_top1"] for line in lines] == ["", ""]
    assert all(float(line["simclr_loss"]) > 0 for line in lines)
    assert all(float(line["train_effective_rank_h"]) > 1 for line in lines)
    best = min(lines, key=lambda line: float(line["simclr_loss"]))["epoch"]
    assert load(folder / "model_best.pth.tar")["epoch"] == int(best)
    assert (folder / "losses.png").exists()
    weights = {k: v for k, v in load(folder / "last.pth.tar")["state_dict"].items() if k.startswith("backbone.")}
    for flag in "--initial-checkpoint", "--pretrained-path":
        probe = ["--freeze-backbone", "--no-aug", "-wls", 0, "--epochs", 1, flag, folder / "last.pth.tar"]
        probed = load(run(data, tmp_path / flag.strip("-"), *probe) / "last.pth.tar")
        assert probed["multi_label"]["label_space"]["attributes"]
        if flag == "--initial-checkpoint":  # the other takes the averaged weights, as timm does
            for name, value in weights.items():
                assert torch.equal(probed["state_dict"][name], value)


def test_a_run_without_validation_labels_says_so_first_and_leaves_a_best_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = tmp_path / "blank"
    blank.mkdir()
    rows = [row | {"image_path": str(data / row["image_path"])} for row in read_rows(data / "train.csv")]
    write_table(blank / "train.csv", rows)
    write_table(blank / "val.csv", [row | {"color": "", "shape": ""} for row in rows[:4]])
    folder = run(blank, tmp_path, "--epochs", 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{blank / 'val.csv'}: no row has a label, so no epoch can be scored")
    assert lines[1].startswith("val.csv: 4 of its 4 images are also in train.csv (val.csv line 2 is train.csv line 2;")
    assert "No epoch has a value of top1: model_best.pth.tar is the last epoch" in lines
    assert load(folder / "model_best.pth.tar")["epoch"] == 1


def test_pretraining_leaves_out_columns_that_could_not_be_learned(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stock = tmp_path / "stock"
    stock.mkdir()
    for split in ("train", "val"):
        rows = read_rows(data / f"{split}.csv")
        table = [
            {"image_path": str(data / row["image_path"]), "sku": str(n), "brand": "", "color": row["color"]}
            for n, row in enumerate(rows)
        ]
        write_table(stock / f"{split}.csv", table)
    assert "column 'sku' is different in each" in refusal(capsys, stock, *SHORT, "--output", tmp_path)
    folder = run(stock, tmp_path / "runs", "-wls", 1, "-wlc", 0, "--epochs", 1)
    assert list(load(folder / "last.pth.tar")["multi_label"]["label_space"]["attributes"]) == ["color"]
    write_table(stock / "train.csv", [row | {"color": ""} for row in read_rows(stock / "train.csv")])
    folder = run(stock, tmp_path / "bare", "-wls", 1, "-wlc", 0, "--epochs", 1)
    assert not load(folder / "last.pth.tar")["multi_label"]["label_space"]["attributes"]


def test_a_mistake_on_two_processes_is_printed_once(data: Path, tmp_path: Path) -> None:
    flags = [data, *SHORT, "--epochs", "1", "--output", tmp_path, "--eval-metric", "colour"]
    failed = command("./distributed_train.sh", "2", *flags)
    assert failed.returncode == 2
    assert failed.stderr.count("--eval-metric colour is not logged") == 1
    assert "Traceback" not in failed.stderr
    assert not list(tmp_path.iterdir())


def started_on_two_processes(data: Path, output: Path) -> subprocess.Popen[str]:
    """Start a long run on two processes; return their launcher."""
    flags = [data, *SHORT, "-b", "4", "--epochs", "500", "--output", output, "--experiment", "run"]
    words = ["./distributed_train.sh", "2", *map(str, flags)]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_ctrl_c_on_two_processes_ends_them_without_a_traceback(data: Path, tmp_path: Path) -> None:
    with started_on_two_processes(data, tmp_path) as run:
        assert run.stderr is not None
        lines = [next(line for line in run.stderr if line.startswith("Train: 1"))]
        run.send_signal(signal.SIGINT)
        lines += run.stderr.readlines()
        assert run.wait(60) == 130
    assert not any("Traceback" in line for line in lines)
    assert (tmp_path / "run" / "last.pth.tar").exists()


def test_a_killed_process_of_two_is_named_by_the_other(data: Path, tmp_path: Path) -> None:
    with started_on_two_processes(data, tmp_path) as run:
        assert run.stderr is not None
        lines = [next(line for line in run.stderr if line.startswith("Train: 1"))]
        ranks = sorted(int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split())
        os.kill(ranks[1], signal.SIGKILL)
        lines += run.stderr.readlines()
        assert run.wait(60) == 2
    (sentence,) = [line for line in lines if "error" in line]
    assert sentence.startswith(f"train.py: error: rank 1 (process {ranks[1]} on ")
    assert "is dead" in sentence
    assert f"--resume {tmp_path / 'run' / 'last.pth.tar'}" in sentence
    assert not any("Traceback" in line for line in lines)


# Mistakes


def test_a_mistake_is_one_sentence_and_leaves_no_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, expected in (
        (["nowhere"], "no such data folder: nowhere"),
        ([data, "--train-split", "trian"], "has no trian.csv"),
        ([data, "--attributes", "colour"], "train.csv has no attribute 'colour'; did you mean 'color'?"),
        (
            [data, "--attribute-weights", "colour=2"],
            "--attribute-weights: there is no attribute 'colour', only color, shape",
        ),
        ([data, "--eval-metric", "ema_top1"], "--eval-metric ema_top1 is not logged; ema_ metrics need --model-ema"),
        ([data, "--eval-metric", "simclr_loss", "-wls", "0"], "--eval-metric simclr_loss is not logged"),
        ([data, "-b", "1"], "--batch-size 1 gives the contrastive loss no other image: use 2 or more"),
        (
            [data, "--attribute-weights", "color=0", "shape=0"],
            "--attribute-weights are all 0: raise one of these, or use -wlc 0",
        ),
        ([data, "--output", data / "train.csv"], "train.csv"),
        ([data, "--opt", "sgdd"], "--opt sgdd: "),
        ([data, "--resume", data / "train.csv"], "cannot be read as a checkpoint"),
        ([data, "--resume", "nothing"], "no checkpoint at nothing"),
        ([data, "--model", "efficientnet_b99"], "timm has no model 'efficientnet_b99'"),
        ([data, "--device", "cuda:99"], "device cuda:99: "),
        ([data, "--gp", "none"], "Invalid pool type: none"),
    ):
        sentence = refusal(capsys, *SHORT, "--output", tmp_path, *words)
        assert expected in sentence
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_does_not_fit_the_flags_is_refused_in_a_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(data, tmp_path, "--epochs", 1)
    checkpoint = folder / "last.pth.tar"
    sentence = refusal(capsys, data, *SHORT, "--model", "test_resnet", "--resume", checkpoint)
    assert f"--resume {checkpoint} does not fit --model test_resnet (was " in sentence


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(
        capsys, data, *SHORT, "--lr", "1000", "--weight-decay", "1000", "--epochs", "3", "--output", tmp_path
    )
    assert "classification_loss" in sentence
    assert "was not finite 3 steps in a row: lower --lr" in sentence


def test_broken_images_are_named_replaced_and_past_the_limit_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw_catalog(tmp_path / "data", train=40, blanks=False)
    paths = [data / row["image_path"] for row in read_rows(data / "train.csv")]
    for path in paths[:2]:
        path.write_bytes(b"no image")
    folder = run(data, tmp_path, "--epochs", 1)
    log = capsys.readouterr().err
    assert log.count("Unreadable image: ") == 2
    assert paths[0].name in log
    assert "2 of 40 images unreadable; other images took their place" in log
    assert len(summary(folder)) == 1
    for path in paths[2:20]:
        path.write_bytes(b"no image")
    sentence = refusal(capsys, data, *SHORT, "--epochs", "2", "--output", tmp_path / "second")
    assert "of the 40 images could not be read so far" in sentence
    assert "--max-unreadable" in sentence


def test_a_table_without_any_readable_image_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw_catalog(tmp_path / "data", train=8, blanks=False)
    for row in read_rows(data / "train.csv"):
        (data / row["image_path"]).write_text("%!PS-Adobe-3.0 EPSF-3.0")
    sentence = refusal(capsys, data, *SHORT, "--output", tmp_path / "out")
    assert "8 of the 8 images could not be read so far" in sentence
    assert "it is EPS, a format that is not read: save it as JPEG or PNG" in sentence


def test_a_class_met_only_in_validation_counts_as_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw_catalog(tmp_path / "data", blanks=False)
    rows = read_rows(data / "val.csv")
    write_table(data / "val.csv", [row | {"color": "teal"} for row in rows])
    [row] = summary(run(data, tmp_path, "--epochs", 1))
    assert float(row["color"]) == 0
    assert "'teal'" in capsys.readouterr().err


def test_ctrl_c_names_the_checkpoint_to_resume_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    train_one_epoch = train_loop.train_one_epoch

    def interrupted(run: train.Run, epoch: int, resumed: Any) -> Any:
        if epoch == 1:
            raise KeyboardInterrupt
        epochs.append(epoch)
        return train_one_epoch(run, epoch, resumed)

    monkeypatch.setattr(train_loop, "train_one_epoch", interrupted)
    with pytest.raises(SystemExit) as end:
        run(data, tmp_path, "--epochs", 3)
    assert end.value.code == 130
    assert f"--resume {tmp_path / 'run' / 'last.pth.tar'}" in capsys.readouterr().err


def test_an_attribute_missing_in_the_table_of_classes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw_catalog(tmp_path / "data")
    rows = read_rows(data / "train.csv") + read_rows(data / "val.csv")
    write_table(data / "all.csv", [{k: v for k, v in row.items() if k != "shape"} for row in rows])
    sentence = refusal(capsys, data, *SHORT, "--output", tmp_path)
    assert (
        "all.csv has no column 'shape', which train.csv has: add the column to all.csv, or train without it by "
        "--attributes" in sentence
    )


# Logs


def test_scoring_reads_one_view_of_each_row_and_nothing_random(data: Path, tmp_path: Path) -> None:
    batches: list[torch.Tensor] = []
    evaluate = epoch_scores.evaluate

    def watched(model: Any, loader: Any, *args: Any, **kwargs: Any) -> Any:
        batches.append(torch.cat([images.clone() for images, _ in loader]))
        return evaluate(model, loader, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epoch_scores, "evaluate", watched)
        run(data, tmp_path, "--epochs", 2, "--classify-view", "both")
    assert [len(images) for images in batches] == [10, 10]
    assert torch.equal(*batches)


def test_the_best_rows_are_those_with_a_value(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, tmp_path, "--epochs", 4, "--val-interval", 2, "--eval-metric", "loss")
    shown = json.loads(capsys.readouterr().out.partition("--result\n")[2])
    losses = [row["eval_loss"] for row in shown]
    assert len(losses) == 2
    assert losses == sorted(losses, reverse=True)


def test_epochs_between_validations_leave_blanks_and_the_last_one_is_scored(data: Path, tmp_path: Path) -> None:
    rows = summary(run(data, tmp_path, "--epochs", 3, "--val-interval", 2))
    assert [bool(row["eval_top1"]) for row in rows] == [False, True, True]
    assert all(row["train_loss"] for row in rows)


def test_an_attribute_may_not_take_the_name_of_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw_catalog(tmp_path / "data")
    for split in ("train", "val"):
        rows = [{"lr" if k == "color" else k: v for k, v in row.items()} for row in read_rows(data / f"{split}.csv")]
        with (data / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    sentence = refusal(capsys, data, *SHORT, "--output", tmp_path / "out")
    assert "an attribute cannot be called 'lr'" in sentence


def test_every_recipe_runs(data: Path, tmp_path: Path) -> None:
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        words = ["-c", recipe, *TINY, "--no-pretrained", "-j", 0, "--epochs", 1, "--warmup-epochs", 0]
        words += ["--unlabeled", data / "images"] if "unlabeled-ratio" in recipe.read_text() else []
        if "pseudo-labels" in recipe.read_text():  # whose teacher is the first recipe's network
            soft, teacher = tmp_path / "soft.parquet", next((tmp_path / "from-pretrained").rglob("last.pth.tar"))
            labeling = f"{data / 'images'} --checkpoint {teacher} --probabilities {soft} -o {tmp_path / 'labels.csv'}"
            inference.main([*labeling.split(), "-j", "0", "--device", "cpu"])
            words += ["--pseudo-labels", soft, "--unlabeled-ratio", 1]
        assert len(summary(run(data, tmp_path / recipe.stem, flags=[*map(str, words)]))) == 1
