"""The flags of choose.py: a budget with its unit, and mistakes in one sentence."""

import argparse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from options.choose import parse_choose_args
from options.values import duration, duration_text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("0.5h", 1800), ("1.5m", 90)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds
    assert parse_choose_args(["data", "--budget", text]).budget == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0s", "infh", "nanm", "3 minutes", "1h30m", "2d"])
def test_any_other_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time with its unit, such as 90s, 30m or 2h"):
        duration(text)


@given(st.floats(0.01, 1e7))
def test_a_shown_duration_is_enough_and_not_much_more(seconds: float) -> None:
    shown = duration(duration_text(seconds))
    assert seconds <= shown * (1 + 1e-9)
    assert shown <= max(2, 1.5 * seconds)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--budget 30m", "DATA is missing: the folder that holds train.csv"),
        ("data", "--budget is missing: say how long choose.py may take, such as --budget 30m"),
        ("data --budget 30", "--budget: '30' is not a time with its unit, such as 90s, 30m or 2h"),
        ("data --budget 1h --group a --attributes a b", "--group a is also in --attributes: the model would learn"),
        ("data --budget 1h --candidates best", "--candidates: invalid choice: 'best'"),
        ("data --budget 1h --pretrained --initial-checkpoint x", "--pretrained excludes --initial-checkpoint: that "),
        ("data --budget 1h --budgte 2h", "unrecognized arguments: --budgte; did you mean --budget?"),
    ],
)
def test_a_mistake_gets_one_sentence(words: str, sentence: str, mistake: Callable[..., str]) -> None:
    assert mistake(*words.split(), parse=parse_choose_args).startswith(sentence)


def test_several_processes_are_refused(mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    sentence = mistake("data", "--budget", "1h", parse=parse_choose_args)
    assert sentence == "several processes would try the same candidates: start a single process, without torchrun"
