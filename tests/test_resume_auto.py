"""A killed run is started again with the same command, --resume auto, and ends as the uninterrupted one."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flag_effects import command, model_of, prepare, silence
from table_files import draw_catalog, read_rows

import train
from training.loss_meter import NonFiniteLossGuard
from training.optimizer_state import parameter_names

WORDS = ["-b", 4, "--experiment", "run", "--epochs", 3, "--opt", "adamw", "--lr", 0.001, "--recovery-interval", 1]


class Killed(Exception):
    """The machine goes down."""


def run(data: Path, output: Path, *words: object, kill_at: int = 0) -> str:
    """Train until the end, or until a step; return what was logged."""
    count = 0

    def killed(*_: object) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, silence() as text:
        if kill_at:
            patch.setattr(NonFiniteLossGuard, "check", killed)
            with pytest.raises(Killed):
                train.main(command(data, output, *WORDS, *words))
        else:
            train.main(command(data, output, *WORDS, *words))
    return text.getvalue()


def content(folder: Path, name: str = "last") -> Any:
    return torch.load(folder / f"{name}.pth.tar", weights_only=True)


def assert_same_end(one: Path, other: Path) -> None:
    expected, found = content(one), content(other)
    for name, weight in expected["state_dict"].items():
        assert torch.equal(weight, found["state_dict"][name]), name
    for number, state in expected["optimizer"]["state"].items():
        assert all(torch.equal(value, found["optimizer"]["state"][number][key]) for key, value in state.items())


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix not in (".png", ".jpg", ".json"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the uninterrupted run, which has six steps an epoch."""
    output = tmp_path_factory.mktemp("whole")
    run(data, output, "--resume", "auto")
    return output / "run"


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a run that was killed in its first epoch."""
    output = tmp_path_factory.mktemp("first")
    run(data, output, kill_at=5)
    return output


@pytest.fixture(scope="module")
def second(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a run that was killed in its second epoch."""
    output = tmp_path_factory.mktemp("second")
    run(data, output, kill_at=10)
    return output


@pytest.fixture
def output(second: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy of the output of the run that was killed in its second epoch."""
    shutil.copytree(second, tmp_path / "out")
    yield tmp_path / "out"
    assert names(tmp_path / "out") == ["run"]  # no second folder


def test_a_run_killed_in_its_first_epoch_continues_in_its_folder(
    data: Path, first: Path, whole: Path, tmp_path: Path
) -> None:
    assert names(first / "run") == ["args.yaml", "recovery-0-2.pth.tar", "recovery-0-3.pth.tar"]
    for word in ("auto", "recovery-0-3.pth.tar"):
        output = tmp_path / word
        shutil.copytree(first, output)
        log = run(data, output, "--resume", word if word == "auto" else output / "run" / word)
        assert names(output) == ["run"]
        assert_same_end(whole, output / "run")
        assert len(list((output / "run").glob("recovery-*"))) == 2
        assert [row["epoch"] for row in read_rows(output / "run" / "summary.csv")] == ["0", "1", "2"]
        expected = f"--resume auto: {output}/run/recovery-0-3.pth.tar, which continues with epoch 0 after step 4"
        assert (expected in log) == (word == "auto")


def test_auto_passes_over_damaged_states_and_ends_as_the_uninterrupted_run(
    data: Path, whole: Path, output: Path
) -> None:
    newest, before = (output / "run" / f"recovery-1-{step}.pth.tar" for step in (2, 1))
    newest.write_bytes(newest.read_bytes()[:1000])
    damaged = bytearray(before.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    before.write_bytes(damaged)
    log = run(data, output, "--resume", "auto")
    assert f"--resume auto, passed over: {newest} cannot be read as a checkpoint (" in log
    assert f"--resume auto, passed over: {before} cannot be used, as its part " in log
    assert f"--resume auto: {output}/run/last.pth.tar, which continues with epoch 1\n" in log
    assert_same_end(whole, output / "run")


def test_auto_takes_the_end_of_an_epoch_where_the_steps_would_have_other_images(data: Path, output: Path) -> None:
    log = run(data, output, "--resume", "auto", "-b", 8, "--epochs", 1)
    assert (
        "recovery-1-2.pth.tar is inside epoch 1, and --batch-size 8 (was 4) gives its other steps other images" in log
    )
    assert "last.pth.tar, which continues with epoch 1\n" in log
    assert "with changed flags, which take effect: --epochs 1 (was 3), --batch-size 8 (was 4)" in log
    assert "Nothing left to train: 1 of 1 epochs are done" in log


def test_without_a_state_that_can_be_used_auto_starts_fresh_in_the_folder(
    data: Path, output: Path, whole: Path
) -> None:
    for file in (output / "run").glob("*.pth.tar"):
        file.write_bytes(b"")
    (output / "run" / ".last.pth.tar.17").write_bytes(b"unfinished")
    log = run(data, output, "--resume", "auto")
    assert log.count("--resume auto, passed over: ") == 5
    assert f"--resume auto: {output}/run has no state of training that can be used: a fresh start" in log
    assert_same_end(whole, output / "run")
    assert names(output / "run") == names(whole)
    assert "resume: ''" in (output / "run" / "args.yaml").read_text()


def test_a_fresh_start_needs_what_any_start_needs(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train.main(command(data, tmp_path, *WORDS, "--resume", "auto", "--no-resume-opt"))
    assert "train.py: error: --no-resume-opt needs --resume: there is no optimizer state" in capsys.readouterr().err


def test_a_file_under_the_name_of_the_folder_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match=f"cannot make the folder {tmp_path / 'run'}"):
        prepare(data, tmp_path, *WORDS, "--resume", "auto")


def refused(data: Path, output: Path, *words: object) -> str:
    """Prepare a run that is resumed with other flags; return the sentence that refuses them."""
    with pytest.raises(ValueError, match=r"^--resume ") as error:
        prepare(data, output, *WORDS, *words)
    return str(error.value)


def test_inside_an_epoch_the_table_may_not_have_changed(data: Path, output: Path, tmp_path: Path) -> None:
    longer = shutil.copytree(data, tmp_path / "longer")
    rows = (longer / "train.csv").read_text().splitlines()
    (longer / "train.csv").write_text("\n".join([*rows, *rows[1:9]]))
    sentence = refused(longer, output, "--resume", "auto")
    assert "-1-2.pth.tar stopped after step 3 of 6 in epoch 1, but the table or flags now make 8 steps" in sentence
    assert sentence.endswith("or repeat epoch 1 from these weights with --start-epoch 1")
    assert prepare(longer, output, *WORDS, "--resume", "auto", "--start-epoch", 1).start == {"epoch": 1, "batch": 0}


@pytest.mark.parametrize("words", ["-wls 0", "--balance uncertainty", "--projection-dim 8", "--gp catavgmax"])
def test_weights_that_do_not_fit_name_the_flag_and_both_values(data: Path, output: Path, words: str) -> None:
    sentence = refused(data, output, "--resume", output / "run" / "last.pth.tar", *words.split())
    name, value = words.split()
    name = {"-wls": "--simclr-loss-weight"}.get(name, name)
    assert f"last.pth.tar does not fit {name} {value}" in sentence
    assert " (was " in sentence
    assert "start a new run from its weights with --initial-checkpoint" in sentence


GROUPS = ["--weight-decay 0", "--layer-decay 0.7", "--backbone-lr-scale 0.1"]


@pytest.mark.parametrize("words", GROUPS)
def test_each_weight_keeps_its_averages_in_other_parameter_groups(data: Path, output: Path, words: str) -> None:
    last = output / "run" / "last.pth.tar"
    ready = prepare(data, output, *WORDS, "--resume", last, *words.split())
    assert_same_averages(ready, content(output / "run"))
    if words == "--weight-decay 0":
        assert {group["weight_decay"] for group in ready.optimizer.param_groups} == {0}


def test_a_backbone_may_be_frozen_and_thawed_when_resuming(data: Path, tmp_path: Path) -> None:
    labels = ["-wls", 0, "-wlc", 1, "--epochs", 1]
    run(data, tmp_path, *labels)
    last = tmp_path / "run" / "last.pth.tar"
    frozen = prepare(data, tmp_path, *WORDS, *labels, "--resume", last, "--freeze-backbone")
    assert_same_averages(frozen, content(tmp_path / "run"))
    assert sum(len(group["params"]) for group in frozen.optimizer.param_groups) == 4  # two heads
    log = run(data, tmp_path, *labels, "--resume", last, "--freeze-backbone", "--epochs", 2)
    assert "which take effect: --freeze-backbone on (was off), --epochs 2 (was 1)" in log
    log = run(data, tmp_path, *labels, "--resume", last, "--epochs", 3)
    assert "which take effect: --freeze-backbone off (was on), --epochs 3 (was 2)" in log
    assert len(content(tmp_path / "run")["optimizer"]["state"]) > 4


def assert_same_averages(ready: train.Run, saved: Any) -> None:
    """Check that each weight of a run has the averages that it has in a checkpoint."""
    index = [name for group in saved["parameter_names"] for name in group]
    names = parameter_names(ready.optimizer, model_of(ready))
    for group, members in zip(ready.optimizer.param_groups, names, strict=True):
        for name, parameter in zip(members, group["params"], strict=True):
            expected = saved["optimizer"]["state"][index.index(name)]
            assert torch.equal(ready.optimizer.state[parameter]["exp_avg"], expected["exp_avg"])


def test_a_plateau_keeps_how_far_it_has_fallen_under_other_rates(data: Path, output: Path) -> None:
    last = output / "run" / "last.pth.tar"
    saved = content(output / "run")
    saved["plateau"] = {"best": 1.0, "num_bad_epochs": 0, "cooldown_counter": 0, "last_epoch": 1}
    for group in saved["optimizer"]["param_groups"]:
        group["lr"] = 0.00025  # two decays by half
    torch.save(saved, last)
    plateau = ["--sched", "plateau", "--resume", last]
    kept = prepare(data, output, *WORDS, *plateau).optimizer.param_groups
    assert {group["lr"] for group in kept} == {0.00025}
    moved = prepare(data, output, *WORDS, *plateau, "--lr", 0.1, "--backbone-lr-scale", 0.1).optimizer.param_groups
    assert sorted({round(group["lr"], 9) for group in moved}) == [0.0025, 0.025]


def test_another_metric_ranks_the_checkpoints_anew(data: Path, output: Path) -> None:
    log = run(data, output, "--resume", output / "run" / "last.pth.tar", "--epochs", 2, "--eval-metric", "loss")
    assert "The epochs so far are ranked by top1, not loss: the best one is among the next" in log
    saver = content(output / "run")["saver"]
    assert saver["best_metric"] is None  # before epoch 1 is ranked
    row = read_rows(output / "run" / "summary.csv")[1]
    assert content(output / "run", "model_best")["metric"] == pytest.approx(float(row["eval_loss"]))
