"""Every number on a command line has a range, and a hostile number gets one sentence that names it."""

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from options.choose import choose_parser
from options.inference import inference_parser
from options.parser import Parser
from options.refit import refit_parser
from options.train import parse_train_args, train_parser
from options.validate import validate_parser
from options.values import (
    COUNT,
    NONNEGATIVE,
    POSITIVE,
    RATE,
    SIDE,
    Number,
    auto_augment,
    duration,
    keyword,
    shortened,
    views_at_test,
    weight,
)

PARSERS = (train_parser, validate_parser, inference_parser, refit_parser, choose_parser)
HOSTILE = (
    *("nan", "inf", "-inf", "-1", "-1e-9", "0", "-0.0", "1e-320", "1e309", "1e12", "1000000000000", str(2**70)),
    *(str(10**400), "9" * 5000, "", " ", "1e3", "0x10", "1_0", "１", "1,5", "--", "\0", "\ud800", "x" * 100_000),
)


def numeric_flags() -> Iterator[tuple[Callable[[], Parser], argparse.Action]]:
    for parser in PARSERS:
        actions = {id(action): action for action in parser().flags.values()}.values()
        yield from ((parser, action) for action in actions if action.type in (weight, duration, views_at_test))
        yield from ((parser, action) for action in actions if isinstance(action.type, Number))


FLAGS = list(numeric_flags())


def test_no_flag_takes_a_number_without_a_range() -> None:
    for parser in PARSERS:
        for action in parser().flags.values():
            assert action.type not in (int, float, complex), action.option_strings
    assert len(FLAGS) > 100


@pytest.mark.parametrize(("parser", "action"), FLAGS, ids=lambda value: getattr(value, "option_strings", [""])[0])
def test_a_hostile_number_is_within_the_range_or_gets_one_short_sentence(
    parser: Callable[[], Parser], action: argparse.Action, capsys: pytest.CaptureFixture[str]
) -> None:
    name, kind = action.option_strings[0], action.type
    count = action.nargs if isinstance(action.nargs, int) else 1
    command = parser()
    for text in HOSTILE:
        word = f"color={text}" if kind is weight else text
        try:
            given = command.read([f"{name}={word}"] if count == 1 else [name, *[word] * count])
        except SystemExit:
            error, see, *others = capsys.readouterr().err.split("\n")
            assert error.startswith(f"{command.prog}: error: ")
            assert len(error) < 400
            assert (see, others) == (f"see {command.prog} --help", [""])
            continue
        for value in flattened(given[action.dest]):
            assert math.isfinite(value)
            assert abs(value) <= 2**32
            assert not isinstance(kind, Number) or kind.low <= value <= kind.high


def flattened(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    yield from value if isinstance(value, list) else [value]


def test_a_default_lies_in_the_range_and_the_help_states_it() -> None:
    for parser in PARSERS:
        command = parser()
        for action in command.flags.values():
            if isinstance(action.type, Number):
                assert f"range: {action.type.span}" in str(action.help)
                default = command.defaults[action.dest]
                for value in flattened(default) if default is not None else ():
                    assert action.type(str(value)) == value


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (SIDE, "20000", "20000 is not a whole number from 1 to 4,096"),
        (COUNT, "1000000000000", "1000000000000 is not a whole number from 1 to 1,000,000"),
        (COUNT, "1.5", "1.5 is not a whole number from 1 to 1,000,000"),
        (POSITIVE, "0", "0 is not a number above 0, up to 1,000"),
        (RATE, "1", "1 is not a number from 0 to below 1"),
        (COUNT.to(8, "try less"), "9", "9 is not a whole number from 1 to 8: try less"),
        (COUNT.to(8, "try less"), "0", "0 is not a whole number from 1 to 8"),
        (POSITIVE.since(0.5), "0.4", "0.4 is not a number from 0.5 to 1,000"),
        (duration, "1e9h", "'1e9h' is not a time with its unit, such as 90s, 30m or 2h, above 0 and up to 10,000h"),
    ],
)
def test_the_sentence_states_the_range(kind: Callable[[str], Any], text: str, sentence: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        kind(text)
    assert str(error.value) == sentence


def test_both_ends_of_a_range_are_numbers_of_it_unless_it_says_otherwise() -> None:
    assert NONNEGATIVE("1e-320") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="1e-320 is not a number above 0"):
        POSITIVE("1e-320")
    assert (SIDE("1"), SIDE("4096"), POSITIVE("1000"), RATE("0"), POSITIVE.since(2)("2")) == (1, 4096, 1000, 0, 2)


@pytest.mark.parametrize("value", ["(" * 5000, "-" * 9000 + "1", "[" * 9000, "{[]: 1}", "9" * 9000, "9**9**9", "\0"])
def test_a_keyword_that_python_cannot_parse_stays_text(value: str) -> None:
    assert keyword(f"depth={value}") == ("depth", value)


def test_a_keyword_of_many_characters_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="depth has more than 10,000 characters: shorten it"):
        keyword("depth=" + "1" * 20_000)


def test_a_policy_of_augmentation_has_no_large_numbers() -> None:
    for policy in ("rand-m9-n1000000000", "augmix-w1000000", "rand-m9-mstd1000000", "augmix-d100"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a setting of"):
            auto_augment(policy)
    assert auto_augment("rand-m15-n2-p0.5-mstd101-inc1") == "rand-m15-n2-p0.5-mstd101-inc1"


def test_a_message_repeats_no_long_input(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--" + "x" * 100_000], ["--sched", "x" * 100_000], ["--aa", "rand-" + "m" * 100_000]):
        with pytest.raises(SystemExit):
            parse_train_args(["data", *words])
        assert len(capsys.readouterr().err) < 5000
    assert shortened("a" * 100) == "a" * 30 + "..." + "a" * 15


def test_cycles_cannot_make_a_run_that_never_ends(capsys: pytest.CaptureFixture[str]) -> None:
    cycles = ["data", "--sched", "cosine", "--lr-cycle-limit"]
    assert parse_train_args([*cycles, "5", "--lr-cycle-mul", "2"]).lr_cycle_limit == 5
    assert parse_train_args([*cycles, "1000", "--lr-cycle-mul", "0.5"]).lr_cycle_limit == 1000
    for words in (["1000", "--lr-cycle-mul", "100"], ["1000", "--epochs", "1000000"]):
        with pytest.raises(SystemExit):
            parse_train_args([*cycles, *words])
        assert "makes a run of more than 1,000,000 epochs: lower one of them" in capsys.readouterr().err
