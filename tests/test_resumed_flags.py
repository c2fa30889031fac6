"""What may change when a run is resumed: every flag has a rule, and each change is named with both values."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from options import resumed_flags
from options.resumed_flags import change_lines, changes, check_resumed, network_changes, resume_rule
from options.train import parse_train_args, train_parser
from runtime.errors import UsageError

LAST = Path("run/last.pth.tar")
TABLES = [value for name, value in vars(resumed_flags).items() if name.isupper() and isinstance(value, set)]


def train(*words: str) -> Namespace:
    return parse_train_args(["data", *words])


def saved(*words: str, **others: Any) -> dict[str, Any]:
    """Return the flags that a run on two processes has left in its checkpoint."""
    return vars(train(*words)) | {"world_size": 2} | others


def check(args: Namespace, before: dict[str, Any], epoch: int | None = None, processes: int = 2) -> None:
    check_resumed(LAST, before, args, processes, epoch)


def test_the_tables_name_existing_flags_and_each_flag_once() -> None:
    dests = set(train_parser().rules.declared) | {"world_size"}
    assert len(TABLES) == 5
    assert all(table <= dests for table in TABLES)
    ruled = [dest for table in TABLES for dest in table if resume_rule(dest) != "takes effect"]
    assert len(set(ruled)) == len(ruled)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--weight-decay 0", "--weight-decay 0.0 (was 0.0001)"),
        ("--layer-decay 0.7", "--layer-decay 0.7 (was not given)"),
        ("--backbone-lr-scale 0.1", "--backbone-lr-scale 0.1 (was 1.0)"),
        ("--freeze-backbone --pretrained -wls 0", "--freeze-backbone on (was off)"),
        ("-wls 0.1", "--simclr-loss-weight 0.1 (was 0.5)"),
        ("--balance uncertainty", "--balance uncertainty (was fixed)"),
        ("--attribute-weights color=2 shape=1", "--attribute-weights color=2.0 shape=1.0 (was not given)"),
        ("--sched cosine --epochs 9", "--sched cosine (was step), --epochs 9 (was 200)"),
        ("--opt-betas 0.8 0.9", "--opt-betas 0.8 0.9 (was not given)"),
        ("--train-split b", "--train-split b (was train)"),
        ("-b 7", "--batch-size 7 (was 32)"),
        ("--amp", "--amp on (was off)"),
    ],
)
def test_a_change_that_takes_effect_is_named_with_both_values(words: str, line: str) -> None:
    args = train(*words.split())
    check(args, saved())
    [text] = change_lines(LAST, changes(saved(), vars(args)))
    assert text.startswith(f"Resuming {LAST} with changed flags, which take effect: ")
    assert line in text


def test_nothing_is_said_where_nothing_changed_and_about_what_is_free() -> None:
    free = "--output there --experiment b --log-interval 1 --resume a --start-epoch 2 --pretrained --checkpoint-hist 2"
    found = changes(saved(), vars(train(*free.split(), "--recovery-interval", "10m")) | {"world_size": 2})
    assert found == []
    assert change_lines(LAST, found) == []
    listed = train("--mean", "0.5", "--std", "0.5")
    assert changes(vars(listed) | {"mean": (0.5,), "attributes": []}, vars(listed)) == []  # as torch may load them
    assert changes({}, vars(listed)) == []  # an older file


def test_other_workers_draw_other_random_numbers_and_the_log_says_so() -> None:
    _, line = change_lines(LAST, changes(saved(), vars(train("-j", "0"))))
    assert line == (
        "--workers 0 (was 4) draws other random numbers for the views: the run is valid, but not bit for bit the one "
        "that was interrupted"
    )


def test_another_optimizer_is_refused_unless_it_starts_anew() -> None:
    before = saved("--opt", "adamw")
    with pytest.raises(UsageError) as error:
        check(train("--opt", "sgd"), before)
    assert str(error.value) == (
        f"--resume {LAST} has the averages of --opt adamw, which --opt sgd cannot use: give --opt adamw, or start "
        "the optimizer anew with --no-resume-opt"
    )
    check(train("--opt", "AdamW"), before)
    check(train("--opt", "sgd", "--resume", "a", "--no-resume-opt"), before)


@pytest.mark.parametrize(
    ("words", "processes", "named"),
    [
        ("", 1, "1 process (was 2)"),
        ("", 3, "3 processes (was 2)"),
        ("-b 16", 2, "--batch-size 16 (was 32)"),
        ("-b 64", 1, "--batch-size 64 (was 32), 1 process (was 2)"),
        ("--grad-accum-steps 2", 2, "--grad-accum-steps 2 (was 1)"),
        ("--seed 1", 2, "--seed 1 (was 42)"),
        ("--unlabeled more", 2, "--unlabeled more (was not given)"),
    ],
)
def test_only_the_end_of_an_epoch_allows_other_images_in_its_steps(
    words: str, processes: int, named: str, tmp_path: Path
) -> None:
    args = train(*words.split())
    check(args, saved(), processes=processes)
    [line] = change_lines(LAST, changes(saved(), vars(args) | {"world_size": processes}))
    assert named in line
    file = tmp_path / "recovery-3-9.pth.tar"
    with pytest.raises(UsageError) as error:
        check_resumed(file, saved(), args, processes, epoch=3)
    start = (
        f"--resume {file} stopped inside epoch 3, and {named} would repeat or skip images in the rest of this epoch: "
    )
    assert str(error.value).startswith(start)
    assert str(error.value).endswith("keep the run's flags, or repeat epoch 3 from these weights with --start-epoch 3")
    (tmp_path / "last.pth.tar").write_text("")
    with pytest.raises(UsageError, match=f"resume {tmp_path / 'last.pth.tar'}, the end of an epoch"):
        check_resumed(file, saved(), args, processes, epoch=3)
    check_resumed(file, saved(), train(*words.split(), "--start-epoch", "3"), processes, epoch=3)


def test_what_may_make_another_network_is_named_apart() -> None:
    found = changes(saved(), vars(train("-wls", "0", "--lr", "1", "--projection-dim", "64")))
    assert network_changes(found) == "--simclr-loss-weight 0.0 (was 0.5)"
    assert network_changes([]) == ""
