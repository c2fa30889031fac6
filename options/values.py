"""The types of flags: bounded numbers, NAME=VALUE pairs, switches. Each rejects a wrong value with one sentence."""

import argparse
import ast
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

_SMALLEST = 1e-38  # float32 has no smaller number, and counts with one give NaN


@dataclass(frozen=True)
class Number:
    """The `type` of a flag that takes a number, with the bounds of the number.

    Every number has two bounds. Without the upper one, a slip of the finger asks for more memory or time than there is.

    Attributes:
        kind: int or float.
        low: smallest number; with `above`, the number below the smallest.
        high: largest number; with `below`, the number above the largest.
        noun: what the number is, in messages.
        above: whether `low` itself is refused.
        below: whether `high` itself is refused.
        hint: what to do instead of a number above `high`; may be empty.
    """

    kind: type[int] | type[float]
    low: float
    high: float
    noun: str = "a number"
    above: bool = False
    below: bool = False
    hint: str = ""

    def __call__(self, text: str) -> float:
        """Return the number that `text` spells."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if abs(value) < _SMALLEST:
            value = self.kind(0)
        if self._accepts(value):
            return value
        hint = f": {self.hint}" if self.hint and value > self.high else ""
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not {self.rule}{hint}")

    def to(self, high: float, hint: str = "") -> "Number":
        """Return the same kind of number with another upper bound, and a hint for larger ones."""
        return replace(self, high=high, hint=hint)

    def since(self, low: float) -> "Number":
        """Return the same kind of number with another lower bound, which is accepted."""
        return replace(self, low=low, above=False)

    @property
    def rule(self) -> str:
        """What the number must be: "a whole number from 1 to 8,192"."""
        return f"{self.noun} {'' if self.above else 'from '}{self.span}"

    @property
    def span(self) -> str:
        """The bounds in words: "1 to 4,096", "above 0, up to 1,000" or "0 to below 1"."""
        low, high = _figure(self.low), _figure(self.high)
        return f"above {low}, up to {high}" if self.above else f"{low} to {'below ' * self.below}{high}"

    def _accepts(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)  # no comparison accepts NaN


def _figure(number: float) -> str:
    """Return a bound as text, with commas between thousands."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def shortened(text: str, length: int = 60) -> str:
    """Return a text for a message, without its middle if it is longer than that many characters."""
    return text if len(text) <= length else f"{text[: length // 2]}...{text[-length // 4 :]}"


COUNT = Number(int, 1, 1_000_000, "a whole number")
WHOLE = replace(COUNT, low=0)
STEPS = COUNT.to(10**9)
BATCH = COUNT.to(2**20)
SIDE = COUNT.to(4096)  # checkpoints with larger images are not loaded
SEED = WHOLE.to(2**32 - 1)
WORKERS = WHOLE.to(1024)
POSITIVE = Number(float, 0, 1000, above=True)
NONNEGATIVE = replace(POSITIVE, above=False)
FRACTION = Number(float, 0, 1, "a fraction")
PROBABILITY = replace(FRACTION, noun="a probability")
RATE = Number(float, 0, 1, below=True)


_UNITS = {"h": 3600, "m": 60, "s": 1}


_LONGEST = 10_000  # hours


def duration(text: str) -> float:
    """Return the seconds that `90s`, `30m` or `2h` spells; a number without a unit could mean any of them."""
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = math.nan
    if not 0 < seconds <= _LONGEST * _UNITS["h"]:
        limit = "" if math.isnan(seconds) else f", above 0 and up to {_LONGEST:,}h"
        raise argparse.ArgumentTypeError(
            f"'{shortened(text)}' is not a time with its unit, such as 90s, 30m or 2h{limit}"
        )
    return seconds


def steps_or_time(text: str) -> int | str:
    """Return a number of steps, or the text of a time, such as `10m`; a saved run repeats the text."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        duration(text)
    except argparse.ArgumentTypeError:
        rule = "a number of steps, such as 500, or a time with its unit, such as 90s, 30m or 2h"
        raise argparse.ArgumentTypeError(f"'{text}' is not {rule}") from None
    return text


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
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not {rule}")
    return int(text)


# The sections that may follow each policy's name. timm skips one that it cannot read, so typos are caught here,
# and so are counts of 100 or more, which would apply as many operations to each image.
_AUGMENT_SECTION = {
    "rand": r"(m|n|inc|mmax)\d{1,2}|(p|mstd)\d{1,3}(\.\d*)?|t(weights|3a|3aw|default)",
    "augmix": r"[mwdb]\d{1,2}|(a|mstd)\d{1,3}(\.\d*)?",
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), r"mstd\d{1,3}(\.\d*)?"),
}


def auto_augment(text: str) -> str:
    """Return an augmentation policy, such as `rand-m9-mstd0.5-inc1`, after checking each of its sections."""
    policy, *sections = text.split("-")
    if policy not in _AUGMENT_SECTION:
        policies = ", ".join(_AUGMENT_SECTION)
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' does not begin with a policy: {policies}")
    for section in sections:
        if not re.fullmatch(_AUGMENT_SECTION[policy], section):
            place = f"'{shortened(section)}' in '{shortened(text)}'"
            raise argparse.ArgumentTypeError(f"{place} is not a setting of {policy}, such as mstd0.5")
    return text


def predictions_file(text: str) -> str:
    """Return the name of a predictions file, whose ending is its format."""
    if not text.endswith((".csv", ".json", ".parquet")):
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' does not end in .csv, .json or .parquet")
    return text


def csv_file(text: str) -> str:
    """Return the name of a CSV file."""
    if not text.endswith(".csv"):
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' does not end in .csv")
    return text


def open_fraction(text: str) -> float:
    """Return a share that is neither 0 nor 1, such as 0.97."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        hint = f"; for {value:g}% write {value / 100:g}" if 1 < value < 100 else ""
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a share above 0 and below 1, such as 0.97{hint}")
    return value


def probabilities_file(text: str) -> str:
    """Return the name of a file of probabilities, which is Parquet."""
    if not text.endswith(".parquet"):
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' does not end in .parquet")
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
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' is not name=weight, such as color=2")
    return name, NONNEGATIVE.to(1_000_000)(number)


_LONGEST_VALUE = 10_000  # characters; Python parses a longer one for seconds, or runs out of stack


def keyword(text: str) -> tuple[str, Any]:
    """Return the name and the Python value of `depth=3`; a word that is not a Python value stays a string."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' is not name=value, such as act_layer=silu")
    if len(value) > _LONGEST_VALUE:
        raise argparse.ArgumentTypeError(f"{name} has more than {_LONGEST_VALUE:,} characters: shorten it")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last two: nested too deeply
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
