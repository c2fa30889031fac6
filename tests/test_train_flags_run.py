"""Flags of train.py about how a run goes: its loop and what it leaves, processes, devices, precision, loading."""

import json
import math
import multiprocessing
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from distributed import run_on_processes
from flag_effects import (
    ON_GPU,
    Prepare,
    batch_of,
    command,
    gradients_of,
    images_of,
    loop_through,
    model_of,
    shows,
    silence,
    train_through,
)
from flag_effects import prepare as make_ready
from PIL import Image
from table_files import draw_catalog, read_rows, write_table
from test_loggers import fake_service
from torch import Tensor

import train
from catalog import image_cache
from catalog.label_space import UNKNOWN
from options import train as options
from options.train_kwargs import process_kwargs
from runtime.errors import LostRank, UsageError
from runtime.process import leave_process_group, set_up_process
from runtime.random_state import seed_all
from runtime.rank_watch import explained_ranks
from timm.data import two_view_dataset
from training.epoch_scores import evaluate_epoch

EPOCHS = 4
Outcome = tuple[Path, str]  # a run's folder and its output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture
def prepare(data: Path, tmp_path: Path) -> Prepare:
    return partial(make_ready, data, tmp_path)


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return a run with only the flags that make it short."""
    return train_through(data, tmp_path_factory.mktemp("plain"), "--epochs", EPOCHS)


@pytest.fixture(scope="module")
def busy(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return a run with a flag for each thing that a run may leave."""
    words = "--eval-metric loss --val-interval 2 --checkpoint-hist 1 --recovery-interval 2 --log-interval 1"
    flags = [*words.split(), "--decay-rate", 0.5, "--save-images", "--experiment", "busy", "--epochs", EPOCHS]
    return train_through(data, tmp_path_factory.mktemp("busy"), *flags)


def summary(outcome: Outcome) -> list[dict[str, str]]:
    return read_rows(outcome[0] / "summary.csv")


# The loop and what it leaves


@shows("epochs")
def test_a_run_has_the_epochs_asked_for(plain: Outcome) -> None:
    assert [row["epoch"] for row in summary(plain)] == ["0", "1", "2", "3"]


def test_a_flag_without_effect_that_is_not_refused_is_logged(plain: Outcome, busy: Outcome) -> None:
    assert "--decay-rate has no effect here: this schedule does not decay by a factor" in busy[1]
    assert "no effect" not in plain[1]


@shows("start_epoch")
def test_a_run_starts_at_the_epoch_asked_for(data: Path, plain: Outcome, tmp_path: Path) -> None:
    folder, _ = train_through(data, tmp_path, "--epochs", 3, "--start-epoch", 2)
    assert [row["epoch"] for row in read_rows(folder / "summary.csv")] == ["2"]
    shutil.copytree(plain[0], tmp_path / "again")
    with silence():
        train.main(
            command(data, tmp_path, "--resume", tmp_path / "again" / "last.pth.tar", "--output", "", "--epochs", 5)
        )
    assert [row["epoch"] for row in read_rows(tmp_path / "again" / "summary.csv")] == ["0", "1", "2", "3", "4"]


@shows("output", "experiment")
def test_a_run_has_the_folder_and_the_name_asked_for(plain: Outcome, busy: Outcome) -> None:
    assert busy[0].name == "busy"
    assert plain[0].name.endswith("-test_efficientnet-32")
    assert (plain[0] / "last.pth.tar").exists()  # train_through found it below --output


@shows("eval_metric")
def test_the_metric_decides_which_checkpoint_is_best(plain: Outcome, busy: Outcome, prepare: Prepare) -> None:
    for outcome, column, best in (plain, "eval_top1", max), (busy, "eval_loss", min):
        values = {int(row["epoch"]): float(row[column]) for row in summary(outcome) if row[column]}
        chosen = torch.load(outcome[0] / "model_best.pth.tar")["epoch"]
        assert values[chosen] == best(values.values())
    for words, metric in (
        ([], "top1"),
        (["-wlc", 0], "simclr_loss"),
        (["-wlc", 0, "--eval-metric", "top1"], "top1"),
        (["--multi-valued", "color", "shape"], "map"),
        (["--multi-valued", "color", "shape", "--eval-metric", "top1"], "top1"),
    ):
        assert prepare(*words).settings.eval_metric == metric
    with pytest.raises(UsageError, match="--eval-metric taste is not logged"):
        prepare("--eval-metric", "taste")


@shows("val_interval")
def test_epochs_between_validations_have_no_scores(plain: Outcome, busy: Outcome) -> None:
    assert [bool(row["eval_top1"]) for row in summary(plain)] == [True] * EPOCHS
    assert [bool(row["eval_top1"]) for row in summary(busy)] == [False, True, False, True]


@shows("early_stop")
@pytest.mark.usefixtures("curves")
def test_a_run_stops_after_scorings_without_a_better_one_and_does_what_ends_a_run(data: Path, tmp_path: Path) -> None:
    still = ["--lr", "1e-12", "--model", "test_vit", "--model-ema", "--eval-metric", "ema_top1"]  # nothing gets better
    folder, said = train_through(
        data, tmp_path, *still, "--epochs", 9, "--early-stop", 2, "--val-interval", 2, "--refit-heads"
    )
    rows = read_rows(folder / "summary.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4", "5", "6"]  # scored in 1, 3, 5; then refitted
    assert [bool(row["ema_top1"]) for row in rows] == [False, True, False, True, False, True, True]
    assert said.count("Neighbors: k = 20:") == 1  # after the last epoch
    best = float(rows[1]["ema_top1"])
    assert (
        f"Stopped early after epoch 5: 2 scorings of ema_top1 since {best:.4f} (epoch 1) gave no better one "
        "(--early-stop 2)\n"
    ) in said
    assert "Refit (EMA): color" in said
    assert "*** Best ema_top1" in said
    assert {"last.pth.tar", "model_best.pth.tar", "accuracy.png"} <= {file.name for file in folder.iterdir()}
    lower, _ = train_through(data, tmp_path, "--epochs", 9, "--early-stop", 1, "--eval-metric", "simclr_weight")
    assert len(read_rows(lower / "summary.csv")) == 2
    other, said = train_through(
        data, tmp_path, "--epochs", 3, "--early-stop", 3, "--lr", "1e-12", "--model", "test_vit"
    )
    assert len(read_rows(other / "summary.csv")) == 3
    assert "Stopped early" not in said


@shows("knn_interval")
def test_neighbors_are_scored_at_the_interval_and_after_the_last_epoch(
    plain: Outcome, data: Path, tmp_path: Path, prepare: Prepare
) -> None:
    asked, said = train_through(data, tmp_path, "--knn-interval", 3, "--epochs", EPOCHS)
    rows = read_rows(asked / "summary.csv")
    for column in ("eval_knn20", "color_knn200", "train_effective_rank_h"):
        assert [bool(row[column]) for row in rows] == [False, False, True, True]
        assert [bool(row[column]) for row in summary(plain)] == [False, False, False, True]  # 10 by default
    assert said.count("Neighbors: k = 20:") == 2
    assert prepare("--knn-interval", 0).index_loader is None
    with pytest.raises(UsageError, match="--eval-metric knn20 is not logged"):
        prepare("--knn-interval", 0, "--eval-metric", "knn20")
    prepare("--eval-metric", "knn20")


@shows("knn_images")
def test_the_neighbor_index_is_a_sample_of_the_images(prepare: Prepare) -> None:
    def rows(*words: object) -> list[int]:
        chosen: list[int] = prepare(*words).index_loader.dataset.rows.tolist()
        return chosen

    assert len(rows()) == 23  # all but the one without a label
    assert rows("--knn-images", 9) == rows("--knn-images", 9)
    assert len(rows("--knn-images", 9)) == 9
    assert rows("--knn-images", 9) != rows("--knn-images", 9, "--seed", 1)


@shows("checkpoint_hist")
def test_the_number_of_kept_checkpoints_is_chosen(plain: Outcome, busy: Outcome) -> None:
    assert len(list(plain[0].glob("checkpoint-*.pth.tar"))) == EPOCHS
    assert len(list(busy[0].glob("checkpoint-*.pth.tar"))) == 1


@shows("recovery_interval")
def test_recovery_checkpoints_are_written_between_steps(plain: Outcome, busy: Outcome, prepare: Prepare) -> None:
    assert not list(plain[0].glob("recovery-*"))
    assert (busy[0] / "recovery-3-1.pth.tar").exists()  # after the second of three steps
    run = prepare(
        "-b", 2, "--grad-accum-steps", 2, "--recovery-interval", 3
    )  # 12 steps, an update after every second one
    written: list[int] = []
    run.outputs.saver.save_recovery = lambda epoch, batch_idx: written.append(batch_idx + 1)
    gradients_of(run)
    assert prepare("--recovery-interval", "10m").settings.recovery_seconds == 600  # tests/test_recovery.py has when
    assert written == [4, 6, 10]  # the first update at or after every third step, without the last


@shows("on_save_error")
def test_a_run_may_continue_after_a_file_could_not_be_written(prepare: Prepare) -> None:
    assert not prepare().outputs.continues
    assert prepare("--on-save-error", "go-on").outputs.continues  # tests/test_outputs.py has what follows


@shows("log_interval")
def test_steps_are_logged_at_intervals(plain: Outcome, busy: Outcome) -> None:
    assert plain[1].count("Train: 0 [") == 2  # the first and the last
    assert busy[1].count("Train: 0 [") == 3


@shows("report")
def test_a_run_leaves_a_report_unless_told_not_to(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Path] = []
    monkeypatch.setattr("commands.leave_report.leave_report", lambda folder, device, workers: left.append(folder))
    words = ("--knn-interval", "0", "--output", tmp_path)
    folder, _ = train_through(data, tmp_path, *words)
    train_through(data, tmp_path, *words, "--no-report")
    assert left == [folder]
    # what the report needs of the run
    session = json.loads((folder / "run.json").read_text())["sessions"][0]
    assert session["seconds"] > 0
    assert set(session["tables"]) == {"train.csv", "val.csv"}
    with Image.open(folder / "views.jpg") as sheet:
        assert sheet.width > 2 * 32


@shows("save_images")
def test_views_are_saved_as_the_model_sees_them(plain: Outcome, busy: Outcome) -> None:
    assert not list(plain[0].glob("train-*.png"))
    assert len(list(busy[0].glob("train-*.png"))) == 3 * EPOCHS
    with Image.open(busy[0] / "train-0-0.png") as sheet:
        assert sheet.width > 2 * 32  # eight images, two views each
        assert len(sheet.getcolors(1_000_000) or []) > 20


@shows("tta")
def test_an_image_and_its_mirror_image_are_averaged(prepare: Prepare) -> None:
    for words, mirrored in ([], False), (["--tta", 2], True):
        run = prepare("--smoothing", 0, *words)
        model = model_of(run).eval()
        for head in model.heads:
            head.weight.data *= 1000  # untrained heads hardly differ between the two images
        terms: dict[str, list[Tensor]] = {"color": [], "shape": []}
        with torch.inference_mode():
            for images, target in run.eval_loader:
                logits, others = model(images), model(images.flip(-1))
                for index, (name, losses) in enumerate(terms.items()):
                    values = (logits[name] + others[name]) / 2 if mirrored else logits[name]
                    losses.append(F.cross_entropy(values, target[:, index], reduction="none")[target[:, index] >= 0])
        expected = sum(torch.cat(losses).mean() for losses in terms.values()) / 2
        assert evaluate_epoch(run)[0]["loss"] == pytest.approx(float(expected), rel=1e-4)


@shows("log_tensorboard", "log_wandb", "log_trackio", "wandb_project")
def test_a_training_sends_its_figures_to_every_logger_asked_for(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    for package in ("tensorboard", "wandb", "trackio"):
        with pytest.raises(UsageError, match=f"--log-{package} needs the package {package}: pip install {package}"):
            prepare(f"--log-{package}")
    monkeypatch.setattr(train, "find_spec", lambda name: True)
    services = [fake_service(name) for name in ("wandb", "trackio")]
    for service in services:
        monkeypatch.setitem(sys.modules, service.__name__, service)
    run = prepare("--log-tensorboard", "--log-wandb", "--log-trackio", "--wandb-project", "shop")
    train.train(run)
    folder = run.outputs.folder
    assert list(folder.glob("tensorboard/events.out.tfevents.*"))
    (saved,) = read_rows(folder / "summary.csv")
    for service in services:
        init, views, row, *confusions, finish = service.calls
        assert (init["project"], init["config"]["model"], finish) == ("shop", "test_efficientnet", "finish")
        assert views[1].keys() == {"views"}
        assert float(saved["eval_top1"]) == row[1]["eval_top1"]
        assert {name for _, pictures in confusions for name in pictures} == {"confusion/color", "confusion/shape"}


@shows("batch_size", "validation_batch_size_multiplier")
def test_batches_have_the_sizes_asked_for(prepare: Prepare) -> None:
    for words, train_rows, eval_rows in ([], 8, 8), (["-b", 4, "-vb", 2], 4, 8), (["-b", 3], 3, 3):
        run = prepare("-wls", 0, *words)
        assert len(images_of(run)) == train_rows
        assert len(images_of(run, "eval_loader")) == eval_rows
    run = prepare("-wls", 0, "-b", 64)
    assert len(images_of(run)) == run.settings.batch_size == len(run.train_loader.dataset)


@shows("grad_accum_steps")
def test_the_gradients_of_several_steps_make_one_update(prepare: Prepare) -> None:
    still = ["--lr", 1e-9, "--weight-decay", 0]
    first, second, third = gradients_of(prepare(*still))
    joint, rest = gradients_of(prepare(*still, "--grad-accum-steps", 2))
    torch.testing.assert_close(joint, [(a + b) / 2 for a, b in zip(first, second, strict=True)], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(rest, third, rtol=1e-3, atol=1e-6)


@shows("seed")
def test_all_random_numbers_follow_from_the_seed(prepare: Prepare) -> None:
    def drawn(*words: object) -> tuple[list[float], list[float], list[float]]:
        run = prepare("--sched", "constant", "--lr-noise", 0, *words)
        weights = model_of(run).backbone.conv_stem.weight.flatten().tolist()
        images = [before.mean().item() for before, _ in loop_through(run)]
        return weights, images, run.optimizer.param_groups[0]["lr"]

    assert drawn() == drawn("--seed", 42)
    assert all(one != other for one, other in zip(drawn(), drawn("--seed", 43), strict=True))


# Several processes


@shows("local_rank")
def test_the_local_rank_comes_from_the_launcher(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert prepare("--local_rank", 1).process.local_rank == 0  # a single process
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(SystemExit):
        prepare("--local_rank", 1)
    assert "needs the same LOCAL_RANK in the environment" in capsys.readouterr().err


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return str(probe.getsockname()[1])


@contextmanager
def launched(port: str) -> Iterator[None]:
    """Let a process of tests/distributed.py act as if a launcher had started it: it opens the process group itself."""
    rank = str(dist.get_rank())
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
    dist.barrier()  # the other may still be joining
    dist.destroy_process_group()
    with pytest.MonkeyPatch.context() as patch, silence():
        for name, value in (world | {"MASTER_ADDR": "localhost", "MASTER_PORT": port}).items():
            patch.setenv(name, value)
        yield
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # the caller destroys it


def backend_of_one_of_two(port: str, words: list[str]) -> str:
    """Return the backend that a command line chooses, or why there is none."""
    with launched(port), warnings.catch_warnings(), leave_process_group():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch warns about a backend that it does not know
        try:
            set_up_process(**process_kwargs(options.parse_train_args(words)))
        except UsageError as error:
            return str(error)
        backend: str = dist.get_backend()
        return backend


def late_in_one_of_two(port: str, words: list[str]) -> str:
    """Return what the first process says about the second, which comes too late to an operation."""
    with launched(port), leave_process_group(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.rank_watch._TICK", 0.1)
        process = set_up_process(**process_kwargs(options.parse_train_args(words)))
        try:
            if process.rank:
                time.sleep(4)
            else:
                with explained_ranks():
                    dist.all_reduce(torch.ones(1))
        except LostRank as error:
            return str(error)
        return ""


@shows("dist_backend")
def test_the_process_group_has_the_backend_asked_for(data: Path, tmp_path: Path) -> None:
    def backends(*words: object) -> list[str]:
        return run_on_processes(2, backend_of_one_of_two, free_port(), command(data, tmp_path, *words))

    assert backends() == backends("--dist-backend", "gloo") == ["gloo", "gloo"]
    for sentence in backends("--dist-backend", "pigeon"):
        assert sentence.startswith("device cpu dist_backend pigeon cannot be used (")


@shows("dist_timeout")
def test_a_process_waits_for_the_others_as_long_as_asked_for(data: Path, tmp_path: Path) -> None:
    words = command(data, tmp_path, "--dist-timeout", 0.02)
    sentence, silence = run_on_processes(2, late_in_one_of_two, free_port(), words)
    late = "rank 1 did not come to the other processes within 0.02 minutes: raise dist_timeout if it needs longer"
    assert (sentence, silence) == (late, "")


def train_as_one_of_two(port: str, words: list[str]) -> dict[str, Any]:
    """Train in this process of tests/distributed.py; return what may differ from process to process."""
    runs: list[train.Run] = []
    measured: list[Tensor] = []

    def note(args: object, run: train.Run) -> None:
        runs.append(run)
        mean = model_of(run).backbone.bn1.running_mean
        run.optimizer.register_step_post_hook(lambda *_: measured.append(mean.clone()))

    with launched(port), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "log_start", note)
        train.main(words)
    return {
        "order": list(runs[0].train_loader.sampler),
        "measured": measured[-1],
        "mean": model_of(runs[0]).backbone.bn1.running_mean.clone(),
        "weight": model_of(runs[0]).heads[0].weight.detach().clone(),
    }


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a function that trains on two processes and returns what each of them found, by rank."""

    def train_both(*words: object) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("two")
        argv = command(data, folder, "-b", 4, "--experiment", "run", *words)
        return run_on_processes(2, train_as_one_of_two, free_port(), argv)

    return train_both


@shows("no_ddp_bb", "dist_bn")
def test_running_statistics_are_shared_before_steps_and_after_an_epoch(both: Any) -> None:
    shared, local = both(), both("--no-ddp-bb")
    weights = [outcome["weight"] for outcome in (*shared, *local)]
    assert all(torch.equal(weight, weights[0]) for weight in weights)  # training does not read the statistics
    assert torch.equal(shared[0]["measured"], local[0]["measured"])
    assert not torch.equal(shared[1]["measured"], local[1]["measured"])
    assert not torch.equal(shared[1]["measured"], shared[0]["measured"])  # the statistics of the last step
    mean = (local[0]["measured"] + local[1]["measured"]) / 2
    for words, expected in ([], local[0]["measured"]), (["broadcast"], local[0]["measured"]), (["reduce"], mean):
        outcomes = both("--no-ddp-bb", *(["--dist-bn", *words] if words else []))
        assert torch.equal(outcomes[0]["mean"], outcomes[1]["mean"])
        torch.testing.assert_close(outcomes[0]["mean"], expected)


def test_frozen_statistics_stay_on_every_process(both: Any, data: Path, tmp_path: Path) -> None:
    folder, _ = train_through(data, tmp_path, "--experiment", "first")
    start = torch.load(folder / "last.pth.tar")["state_dict"]
    outcomes = both("--initial-checkpoint", folder / "last.pth.tar", "--freeze-bn", "--dist-bn", "reduce")
    for outcome in outcomes:
        assert torch.equal(outcome["mean"], start["backbone.bn1.running_mean"])
        assert torch.equal(outcome["weight"], outcomes[0]["weight"])
        assert not torch.equal(outcome["weight"], start["heads.0.weight"])


@shows("aug_repeats")
def test_each_process_gets_a_copy_of_an_image(both: Any, prepare: Prepare) -> None:
    def orders(*words: object) -> list[list[int]]:
        return [outcome["order"] for outcome in both(*words)]

    first, second = orders()
    assert sorted(first + second) == list(range(24))
    repeated = orders("--aug-repeats", 2, "-wls", 0)
    assert repeated[0] == repeated[1]
    assert len(set(repeated[0])) == 12
    assert orders("--aug-repeats", 2, "-wls", 0, "--seed", 7) != repeated
    with pytest.raises(UsageError, match="--aug-repeats spreads an image's copies over several processes"):
        prepare("--aug-repeats", 2, "-wls", 0)


# Device and precision


@shows("device")
def test_a_run_is_on_the_device_asked_for(prepare: Prepare) -> None:
    assert {p.device.type for p in model_of(prepare("--device", "cpu")).parameters()} == {"cpu"}
    if torch.cuda.is_available():
        run = prepare("--device", "cuda")
        assert {p.device.type for p in [*model_of(run).parameters(), *batch_of(run)]} == {"cuda"}
    else:
        with pytest.raises(UsageError, match="device cuda: PyTorch finds no GPU here"):
            prepare("--device", "cuda")


def precision(run: train.Run) -> tuple[torch.dtype, torch.dtype, str]:
    """Return the types of the logits and of the weights, and the name of the backward pass."""
    images, target = batch_of(run)
    with run.autocast():
        logits = run.task(run.to_device(images), target)["output"]["color"]
    weight = model_of(run).backbone.conv_stem.weight
    assert weight.dtype == next(model_of(run).parameters()).dtype
    return logits.dtype, weight.dtype, type(run.backward).__name__


@shows("amp", "amp_dtype", "model_dtype")
def test_numbers_have_the_format_asked_for(prepare: Prepare) -> None:
    f32, bf16 = torch.float32, torch.bfloat16
    assert precision(prepare()) == (f32, f32, "PlainBackward")
    assert precision(prepare("--amp")) == (bf16, f32, "PlainBackward")
    assert precision(prepare("--amp", "--amp-dtype", "bfloat16")) == (bf16, f32, "PlainBackward")
    with pytest.raises(UsageError, match="amp_dtype float16 needs a GPU"):
        prepare("--amp", "--amp-dtype", "float16")
    for words in ([], ["--no-prefetcher"]):
        run = prepare("--model-dtype", "bfloat16", *words)
        assert precision(run) == (bf16, bf16, "PlainBackward")
        assert math.isfinite(evaluate_epoch(run)[0]["loss"])
    with pytest.raises(UsageError, match="model_dtype float16 is too narrow for gradients"):
        prepare("--model-dtype", "float16")


@ON_GPU
def test_numbers_on_a_gpu_have_the_format_asked_for(prepare: Prepare) -> None:
    f32, gpu = torch.float32, ["--device", "cuda"]
    assert precision(prepare(*gpu, "--amp")) == (torch.float16, f32, "NativeScaler")
    assert precision(prepare(*gpu, "--amp", "--amp-dtype", "bfloat16")) == (torch.bfloat16, f32, "PlainBackward")


@shows("torchcompile", "torchcompile_mode")
def test_the_model_is_compiled_by_the_backend_and_mode_asked_for(prepare: Prepare) -> None:
    compiled: list[object] = []

    def note(graph: Any, inputs: Any, **settings: Any) -> Any:
        compiled.append(settings)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(compiler_fn=note, name="note")
    for words, settings in ([], {}), (["--torchcompile-mode", "max-autotune"], {"mode": "max-autotune"}):
        run = prepare("-wls", 0, "--torchcompile", "note", *words)
        run.task.get_eval_model().eval()(torch.randn(2, 3, 32, 32))
        assert compiled == [settings]
        compiled.clear()
    assert options.parse_train_args(["DATA", "--torchcompile"]).torchcompile == "inductor"
    with pytest.raises(UsageError, match=r"--torchcompile pencil cannot be used \(Invalid backend: 'pencil'"):
        prepare("--torchcompile", "pencil")
    with pytest.raises(UsageError, match=r"--torchcompile-mode slowly cannot be used \(Unrecognized mode=slowly"):
        prepare("--torchcompile", "--torchcompile-mode", "slowly")


@shows("channels_last")
def test_channels_are_last_in_memory(prepare: Prepare) -> None:
    for words, last in ([], True), (["--no-channels-last"], False):
        run = prepare(*words)
        images = run.to_device(batch_of(run)[0])
        for tensor in (images, model_of(run).backbone.conv_stem.weight):
            assert tensor.is_contiguous(memory_format=torch.channels_last) == last


@shows("synchronize_step")
def test_a_run_waits_for_the_device_after_each_step(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: waits.append(1))
    device = "cuda" if torch.cuda.is_available() else "cpu"  # on the CPU a step is over when it returns
    for words in ([], ["--synchronize-step"]):
        gradients_of(prepare("--device", device, *words))
    assert len(waits) == (3 if device == "cuda" else 0)


# Loading


def workers() -> set[int | None]:
    """Return the ids of the living processes that this process started."""
    return {child.pid for child in multiprocessing.active_children()}


@shows("workers")
def test_the_number_of_workers_is_chosen(prepare: Prepare) -> None:
    for words, expected in ([], 0), (["-j", 1], 1):
        batches, before = iter(prepare(*words).train_loader), workers()
        next(batches)
        assert len(workers() - before) == expected
        list(batches)  # ends them
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert prepare("-j", 1000).train_loader.loader.num_workers == most


@shows("use_multi_epochs_loader")
def test_workers_stay_from_epoch_to_epoch(prepare: Prepare) -> None:
    for words, stay in ([], False), (["--use-multi-epochs-loader"], True):
        loader, before = prepare("-j", 1, *words).train_loader, workers()
        first, _, _ = [workers() - before for _ in loader]
        second, _, _ = [workers() - before for _ in loader]
        assert len(first) == len(second) == 1
        assert (first == second) == stay


@shows("worker_seeding")
def test_timm_or_pytorch_seeds_numpy_in_workers(prepare: Prepare) -> None:
    def drawn(*words: object) -> Tensor:
        return images_of(prepare("-j", 1, "--aa", "rand-m9", *words))

    assert torch.equal(drawn(), drawn("--worker-seeding", "all"))
    assert torch.equal(drawn("--worker-seeding", "part"), drawn("--worker-seeding", "part"))
    assert not torch.equal(drawn(), drawn("--worker-seeding", "part"))


@shows("pin_mem")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_batches_are_loaded_into_page_locked_memory(prepare: Prepare) -> None:
    for words, pinned in ([], False), (["--pin-mem"], True):
        run = prepare(*words)
        assert run.train_loader.loader.pin_memory == run.eval_loader.loader.pin_memory == pinned
        assert next(iter(run.train_loader.loader))[0].is_pinned() == (pinned and torch.cuda.is_available())


@shows("no_prefetcher")
def test_images_normalized_on_the_cpu_equal_the_prefetched_ones(prepare: Prepare) -> None:
    plain, alone = prepare(), prepare("--no-prefetcher")
    views = [run.train_loader.dataset[0][0] for run in (plain, alone)]
    assert [view[0].dtype for view in views] == [torch.uint8, torch.float32]  # the first is normalized on the device
    torch.testing.assert_close(batch_of(plain), batch_of(alone), atol=1e-4, rtol=1e-4)


@shows("unlabeled", "unlabeled_ratio")
def test_images_without_labels_are_mixed_into_every_batch(prepare: Prepare, data: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for index in range(20):
        Image.new("RGB", (40, 40), (index, 0, 0)).save(more / f"{index}.png")
    for prefetcher in [], ["--no-prefetcher"]:
        run = prepare("--unlabeled", more, "--unlabeled-ratio", 0.5, *prefetcher)
        plain = prepare()
        assert len(run.train_loader) == 23 // 8  # the table's row without a label counts as unlabeled
        for images, target in run.train_loader:
            assert len(images) == 2 * (8 + 4)
            assert (target[8:12] == UNKNOWN).all()
            assert len(target) == 8 + 4
            assert (target[:8] >= 0).any(dim=1).all()
        assert run.task.label_space == plain.task.label_space
    order = list(run.train_loader.sampler)
    assert len({row for at in range(0, len(order), 12) for row in order[at : at + 8]}) == 16
    folder, text = train_through(data, tmp_path / "runs", "--unlabeled", more, "--unlabeled-ratio", 0.5)
    assert "44 images" in text
    assert "for N = 12 images" in text
    assert (folder / "last.pth.tar").exists()


@pytest.fixture(scope="module")
def few_labels(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the catalog with labels in its first ten rows only."""
    folder = tmp_path_factory.mktemp("few") / "catalog"
    shutil.copytree(data, folder)
    rows = read_rows(folder / "train.csv")
    write_table(folder / "train.csv", [*rows[:10], *(row | {"color": "", "shape": ""} for row in rows[10:])])
    return folder


def test_rows_without_labels_of_the_table_itself_are_mixed_at_a_ratio(few_labels: Path, tmp_path: Path) -> None:
    run = make_ready(few_labels, tmp_path, "--unlabeled-ratio", 1, "-b", 4)
    assert len(run.train_loader) == 10 // 4
    for _, target in run.train_loader:
        known = (target >= 0).any(dim=1).tolist()
        assert known == [True] * 4 + [False] * 4
    plain = make_ready(few_labels, tmp_path, "-b", 4)
    assert len(plain.train_loader) == 24 // 4
    _, text = train_through(few_labels, tmp_path / "runs", "-b", 4, "--epochs", 1)
    assert "About 1.7 images per batch have a label; with --unlabeled-ratio 1, 4 have one" in text
    write_table(few_labels / "labeled.csv", read_rows(few_labels / "train.csv")[:10])
    with pytest.raises(UsageError, match=r"--unlabeled-ratio 1: .*labeled.csv has no row without a label: name"):
        make_ready(few_labels, tmp_path, "--unlabeled-ratio", 1, "-b", 4, "--train-split", "labeled")
    with pytest.raises(UsageError, match=r"has all its rows in every epoch already, as no loss reads labels: name"):
        make_ready(few_labels, tmp_path, "--unlabeled-ratio", 1, "-b", 4, "-wlc", 0)
    _, text = train_through(
        few_labels, tmp_path / "runs", "-b", 4, "--epochs", 1, "--unlabeled", few_labels / "val.csv"
    )
    assert "of the images are also in val.csv. They train the model without their labels" in text


def test_pretraining_mixes_other_images_with_all_rows_of_the_table(few_labels: Path, tmp_path: Path) -> None:
    more = [few_labels / "images" / f"val-{index}.png" for index in range(3)]
    flags = ["-wlc", 0, "-wls", 1, "-b", 4, "--unlabeled-ratio", 0.5]
    run = make_ready(few_labels, tmp_path, *flags, "--unlabeled", *more)
    assert len(run.train_loader) == 24 // 4
    assert {row for step, row in enumerate(run.train_loader.sampler) if step % 6 >= 4} == {24, 25, 26}


def test_classification_alone_leaves_out_rows_without_a_label(few_labels: Path, tmp_path: Path) -> None:
    run = make_ready(few_labels, tmp_path, "-wls", 0, "-b", 5)
    assert len(run.train_loader.dataset) == 10
    assert len(run.train_loader) == 2
    _, text = train_through(few_labels, tmp_path / "runs", "-wls", 0, "-b", 5, "--epochs", 1)
    assert "train.csv: 14 rows without a label are left out, as -wls 0 needs labels" in text
    blank = [row | {"color": "", "shape": ""} for row in read_rows(few_labels / "train.csv")]
    (tmp_path / "all.csv").write_bytes((few_labels / "train.csv").read_bytes())
    write_table(tmp_path / "train.csv", blank)
    with pytest.raises(UsageError, match=r"train.csv has no label, and -wls 0 learns only from labels"):
        make_ready(tmp_path, tmp_path, "-wls", 0)


@shows("cache", "cache_dir")
def test_with_a_cache_no_image_is_decoded_twice(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    load = two_view_dataset.load_pixels
    for module in (two_view_dataset, image_cache):
        monkeypatch.setattr(module, "load_pixels", lambda *words: (decoded.append(str(words[0])), load(*words))[1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    def epochs(*words: object) -> tuple[list[int], Tensor]:
        """Return how many images each of two epochs decodes, and the training images."""
        decoded.clear()
        run, counts, batches = prepare(*words), [], []
        for epoch in range(2):
            seed_all(0, epoch=epoch)
            batches += [images for images, _ in run.train_loader]
            list(run.eval_loader)
            counts.append(len(decoded))
            decoded.clear()
        return counts, torch.cat(batches)

    images = 24 + 10
    counts, expected = epochs()
    assert counts == [images, images]
    for words, first in (
        (["ram"], images),
        (["ram"], images),  # memory does not outlive a run
        (["disk", "--cache-dir", tmp_path / "named"], images),
        (["disk"], images),
        (["disk"], 0),
    ):
        counts, made = epochs("--cache", *words)
        assert counts == [first, 0]
        assert torch.equal(made, expected)
    on_device = ["--views", "simclr", "--augment-on", "device"]
    counts, expected = epochs(*on_device)
    assert counts == [images, images]
    counts, made = epochs(*on_device, "--cache", "device")
    assert counts == [images, 10]  # the scored images are decoded in every epoch
    assert torch.equal(made, expected)
    folders = {file.parents[1] for file in tmp_path.rglob("pixels")}
    assert folders == {tmp_path / "named", tmp_path / "home" / "simclr-multi-label"}


def test_one_image_a_batch_is_refused_where_batch_norm_trains(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--batch-size 1: batch norm needs two images or more: use --batch-size 2"):
        make_ready(data, tmp_path, "-b", 1, "-wls", 0)
