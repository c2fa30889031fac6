"""The types of flags: bounded numbers, NAME=VALUE pairs, switches. Each rejects a wrong value with one sentence."""

import argparse
import ast
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """The `type` of a flag that takes a number, with the bounds of the number."""

    kind: type[int] | type[float]
    rule: str
    accepts: Callable[[float], bool]

    def __call__(self, text: str) -> float:
        """Return the number that `text` spells."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan  # no rule accepts it
        if not (math.isfinite(value) and self.accepts(value)):
            raise argparse.ArgumentTypeError(f"{text} is not {self.rule}")
        return value


COUNT = Number(int, "a whole number of at least 1", lambda n: n >= 1)
WHOLE = Number(int, "a whole number of at least 0", lambda n: n >= 0)
REAL = Number(float, "a number", lambda x: True)
POSITIVE = Number(float, "a number above 0", lambda x: x > 0)
NONNEGATIVE = Number(float, "a number of at least 0", lambda x: x >= 0)
PROBABILITY = Number(float, "a probability in 0..1", lambda x: 0 <= x <= 1)
FRACTION = Number(float, "a fraction in 0..1", lambda x: 0 <= x <= 1)
RATE = Number(float, "a number from 0 up to but not including 1", lambda x: 0 <= x < 1)


_UNITS = {"h": 3600, "m": 60, "s": 1}


def duration(text: str) -> float:
    """Return the seconds that `90s`, `30m` or `2h` spells; a number without a unit could mean any of them."""
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a time with its unit, such as 90s, 30m or 2h")
    return seconds


def duration_text(seconds: float) -> str:
    """Return seconds as one types a duration, rounded up to two digits: 90s, 12m, 3h."""
    unit, size = next(((unit, size) for unit, size in _UNITS.items() if seconds >= 2 * size), ("s", 1))
    count = max(1, math.ceil(seconds / size))
    digits = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // digits) * digits}{unit}"


def views_at_test(text: str) -> int:
    """Return the number of predictions to average per image when scoring."""
    if text not in ("0", "2"):
        rule = "0 (off) or 2 (the average over the image and its mirror image): nothing else is defined"
        raise argparse.ArgumentTypeError(f"{text} is not {rule}")
    return int(text)


# The sections that may follow each policy's name. timm skips one that it cannot read, so typos are caught here.
_AUGMENT_SECTION = {
    "rand": r"(m|n|inc|mmax)\d+|(p|mstd)\d+(\.\d*)?|t(weights|3a|3aw|default)",
    "augmix": r"[mwdb]\d+|(a|mstd)\d+(\.\d*)?",
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), r"mstd\d+(\.\d*)?"),
}


def auto_augment(text: str) -> str:
    """Return an augmentation policy, such as `rand-m9-mstd0.5-inc1`, after checking each of its sections."""
    policy, *sections = text.split("-")
    if policy not in _AUGMENT_SECTION:
        raise argparse.ArgumentTypeError(f"'{text}' does not begin with a policy: {', '.join(_AUGMENT_SECTION)}")
    for section in sections:
        if not re.fullmatch(_AUGMENT_SECTION[policy], section):
            raise argparse.ArgumentTypeError(f"'{section}' in '{text}' is not a setting of {policy}, such as mstd0.5")
    return text


def predictions_file(text: str) -> str:
    """Return the name of a predictions file, whose ending is its format."""
    if not text.endswith((".csv", ".json", ".parquet")):
        raise argparse.ArgumentTypeError(f"'{text}' does not end in .csv, .json or .parquet")
    return text


def probabilities_file(text: str) -> str:
    """Return the name of a file of probabilities, which is Parquet."""
    if not text.endswith(".parquet"):
        raise argparse.ArgumentTypeError(f"'{text}' does not end in .parquet")
    return text


def separator(text: str) -> str:
    """Return the text between the values of a cell, without the spaces around it."""
    text = text.strip()
    if not text or not text.isprintable() or re.search(r"""[\w"']""", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a separator such as ; or , without letters and quotes")
    return text


def weight(text: str) -> tuple[str, float]:
    """Return the name and the number of `color=2`; the name itself may contain an equals sign."""
    name, _, number = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not name=weight, such as color=2")
    return name, NONNEGATIVE(number)


def keyword(text: str) -> tuple[str, Any]:
    """Return the name and the Python value of `depth=3`; a word that is not a Python value stays a string."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not name=value, such as act_layer=silu")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


class Switch(argparse.Action):
    """A flag without a value, and its opposite: --amp and --no-amp, --no-aug and --aug.

    Every switch has an opposite, so that the command line can undo a YAML file.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        name = option_strings[0].removeprefix("--")
        self.opposite = "--" + (name.removeprefix("no-") if name.startswith("no-") else f"no-{name}")
        super().__init__([*option_strings, self.opposite], dest, nargs=0, **settings)

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, name: str | None = None) -> None:
        """Set the option to on, or with the opposite to off."""
        setattr(namespace, self.dest, name != self.opposite)


class OneOrMany(argparse.Action):
    """A flag that stores a single value as itself and several values as a list."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, name: str | None = None) -> None:
        """Set the option to the value, or to the list."""
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


class Mapped(argparse.Action):
    """A flag whose values are pairs, `color=2 gender=1`, stored as a dict."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, name: str | None = None) -> None:
        """Set the option to the dict."""
        pairs = dict(values)
        if len(pairs) < len(values):
            raise argparse.ArgumentError(self, "a name is given twice")
        setattr(namespace, self.dest, pairs)
