"""The parser of a command: it declares flags with their rules, and merges typed flags, a YAML file and defaults.

The keys of a YAML file become flags and pass through the same parser, which checks types, choices and misspellings.
Typed flags win over the file.

    args = parse_train_args(["data", "-c", "recipe.yaml", "--lr", "0.05"])
"""

import argparse
import glob
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from options.rules import Declaration, Rules, flag
from options.run_folder import AUTO
from options.values import Mapped, Number, Switch, shortened
from options.yaml_file import YamlWords
from runtime.errors import UsageError, print_any_text, printable, system_errors_explained
from runtime.regular_file import irregular_file

Kind = Callable[[str], Any] | list[str] | str

_LONGEST_MESSAGE = 4000  # characters of a message; one that repeats a longer input loses its middle


class Parser(argparse.ArgumentParser):
    """An argument parser that separates what was given from defaults, and reads YAML.

    Attributes:
        flags: every spelling of every flag, `--batch-size` and `-b`.
        defaults: the default of each option. The argparse actions have none (argparse.SUPPRESS), so that parsing
            returns only what was given.
        rules: what the flags need from each other.
        settle: returns options that follow from which ones were given, from all options and the given names.
        groups: the groups of flags, as `--help` and docs/flags.md show them.
    """

    def __init__(self, prog: str, description: str, usage: str) -> None:
        # No abbreviations: --warm means --warmup-epochs only until a second flag begins with it.
        super().__init__(
            prog,
            f"{prog} {usage}",
            description,
            epilog="Every switch has an opposite: --amp and --no-amp.",
            allow_abbrev=False,
        )
        self.flags: dict[str, argparse.Action] = {}
        self.defaults: dict[str, Any] = {}
        self.rules = Rules()
        self.groups: list[Group] = []
        self.settle: Callable[[argparse.Namespace, Collection[str]], dict[str, Any]] = lambda args, given: {}
        self._source = ""

    def group(self, title: str, intro: str = "") -> "Group":
        """Return a new group of flags."""
        group = Group(self, self.add_argument_group(title, intro or None), title, intro)
        self.groups.append(group)
        return group

    def error(self, message: str) -> NoReturn:
        """Print one sentence and where to read more, and exit; only rank 0 prints."""
        if os.environ.get("RANK", "0") in ("", "0"):
            text = shortened(self._source + message.removeprefix("argument "), _LONGEST_MESSAGE)
            self.exit(2, f"{self.prog}: error: {printable(text)}\nsee {self.prog} --help\n")
        time.sleep(3)  # the launcher stops all processes when the first one exits, and rank 0 must print before that
        self.exit(2)

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the options that `words` give, without defaults."""
        namespace, unknown = self.parse_known_args(words, argparse.Namespace())
        if unknown:
            # A value after a misspelled flag is unknown too, but the name is what to correct.
            names = [shortened(word.split("=")[0]) for word in unknown if word.startswith("-")] or unknown
            self.error(f"unrecognized arguments: {' '.join(names)}{self._nearest(names[0])}")
        given = vars(namespace)
        for mistake in self.rules.contradictions(given):
            self.error(mistake)
        return given

    def read_yaml(self, file: str) -> dict[str, Any]:
        """Return the options that a YAML file gives, without defaults."""
        self._source = f"{file}: "  # precedes every message until the file is read
        try:
            words = YamlWords(self.flags, self.error, self._nearest).read(file)
        except argparse.ArgumentTypeError as error:
            self.error(str(error))
        recipe = self.read(words)
        self._source = ""
        return recipe

    def _nearest(self, name: str) -> str:
        """Return "; did you mean --lr?" for an unknown flag, or "" if no flag resembles it."""
        name = shortened(name)
        if short := self.flags.get("-" + name.lstrip("-")):
            return f"; did you mean {short.option_strings[0]}?"
        names = [flag for flag in self.flags if flag.startswith("--")]
        near = get_close_matches(name, names, 1, 0.75) or [flag for flag in names if flag.startswith(name)]
        near = near or get_close_matches(name, names, 1)
        return f"; did you mean {near[0]}?" if near else ""

    def notes(self, args: argparse.Namespace, device: object) -> list[str]:
        """Return a sentence for each flag that is accepted although it has no effect on the device in use."""
        return self.rules.notes(argparse.Namespace(**{**vars(args), "device": str(device)}))

    def combine(self, recipe: dict[str, Any], typed: dict[str, Any]) -> argparse.Namespace:
        """Return every option: as typed, else as in the recipe, else its default.

        A typed flag removes from the recipe the options that contradict it and those that it leaves without effect.
        """
        self.rules.drop_contradicted(recipe, typed)
        decided = set(typed)
        while True:
            args = argparse.Namespace(**{**deepcopy(self.defaults), **recipe, **typed})
            idle = self.rules.without_effect(args, recipe, decided)
            if idle is None:
                return argparse.Namespace(**{**vars(args), **self.settle(args, {*recipe, *typed})})
            recipe.pop(idle)
            decided.add(idle)


@dataclass
class Group:
    """A group of flags.

    Attributes:
        parser: the parser that gets the flags.
        arguments: argparse's group.
        title: the heading.
        intro: a sentence about the group; may be empty.
        dests: the options that its flags set, in order.
    """

    parser: Parser
    arguments: Any
    title: str
    intro: str = ""
    dests: list[str] = field(default_factory=list)

    def value(self, names: str, kind: Kind, default: Any, help: str, **settings: Any) -> None:
        """Declare a flag that takes a value.

        Args:
            names: its spellings, the long one first: "--batch-size -b".
            kind: a function that converts the text, a list of choices, or, for free text, its placeholder in the help.
            default: the value if the flag is not given.
            help: the meaning, with the unit; the default is appended.
            settings: the flag's rules (`needs`, `off`, `excludes`, `implies`: see `Declaration`), and more arguments
                for argparse.
        """
        if isinstance(kind, str):
            settings.setdefault("metavar", kind)
        elif isinstance(kind, list):
            settings["choices"] = kind
        else:
            settings["type"] = kind
            settings.setdefault("metavar", "X" if isinstance(kind, Number) and kind.kind is float else "N")
        self._declare(names, default, help, **settings)

    def switch(self, names: str, help: str, default: bool | None = False, **rules: Any) -> None:
        """Declare a flag that is on or off."""
        self._declare(names, default, help, action=Switch, **rules)

    def bare(self, names: str, help: str, **rules: Any) -> None:
        """Declare a flag without a value and without an opposite."""
        self._declare(names, False, help, action="store_true", **rules)

    def pairs(self, names: str, kind: Kind, shape: str, help: str, **rules: Any) -> None:
        """Declare a flag that takes pairs of a name and a value, stored as a dict."""
        self._declare(names, {}, help, type=kind, nargs="*", action=Mapped, metavar=shape, **rules)

    def refuse(self, names: str, kind: Kind | None, default: Any, reason: str, **rules: Any) -> None:
        """Declare a flag only to explain why it is refused; with kind None it takes no value."""
        if kind is None:
            self.bare(names, f"refused: {reason}", refused=reason)
        else:
            self.value(names, kind, default, f"refused: {reason}", refused=reason, **rules)

    def _declare(self, names: str, default: Any, help: str, **settings: Any) -> None:
        rules = {name: settings.pop(name) for name in _RULES & settings.keys()}
        notes = [f"range: {number.span}"] if isinstance(number := settings.get("type"), Number) else []
        notes += [f"default: {text}"] if (text := default_text(default)) else []
        shown = f"{help} ({'; '.join(notes)})" if notes else help
        action = self.arguments.add_argument(*names.split(), help=shown, default=argparse.SUPPRESS, **settings)
        self.parser.flags.update(dict.fromkeys(action.option_strings, action))
        declared = self.parser.rules.declared
        if action.dest in declared:  # another spelling of the same option
            first = declared[action.dest]
            declared[action.dest] = replace(first, spellings=(*first.spellings, *names.split()))
        else:
            declared[action.dest] = Declaration(action.dest, tuple(names.split()), default, help, **rules)
            self.parser.defaults[action.dest] = default
            self.dests.append(action.dest)


def default_text(default: Any) -> str:
    """Return a default as it is typed; "" for one that is off."""
    if default is None or default is False or default == {}:
        return ""
    values = default if isinstance(default, list) else ["on" if default is True else default]
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


_RULES = {"off", "needs", "excludes", "implies", "refused"}


def parse(
    parser: Parser,
    argv: Sequence[str] | None,
    check_paths: bool,
    conflicts: Callable[[argparse.Namespace], Iterator[str]],
) -> argparse.Namespace:
    """Return the options of a command; on a mistake, print a sentence and exit with status 2.

    Args:
        parser: the command's parser.
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
        conflicts: yields a sentence for each mistake that involves several flags.
    """
    print_any_text()
    typed = parser.read(sys.argv[1:] if argv is None else argv)
    recipe = parser.read_yaml(typed["config"]) if typed.get("config") else {}
    args = parser.combine(recipe, typed)
    try:
        with system_errors_explained():
            paths = missing_files(args) if check_paths else ()
            for mistake in chain(parser.rules.mistakes(args), conflicts(args), paths):
                parser.error(mistake)
    except UsageError as error:
        parser.error(str(error))
    return args


def printable_as_utf8(path: str) -> bool:
    """Return whether a path is text in UTF-8, as tables and saved flags need it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def missing_files(args: argparse.Namespace) -> Iterator[str]:
    """Yield a sentence for each named path that is missing or cannot be read, before torch is imported."""
    given = vars(args)
    split = "split" if "split" in given else "train_split"
    for folder in ("data_dir", "data", "int8"):
        # A split may be a file anywhere, and then needs no folder.
        if given.get(folder) and not Path(given[folder]).is_dir() and not Path(given.get(split) or "").is_file():
            place = Path(given[folder])
            if place.is_file():
                named = f", and {flag(split)} {place.stem}" if split in given else ""
                yield f"{place} is a file, and DATA a folder: give {place.parent}{named}"
            else:
                yield irregular_file(place) or f"no such data folder: {place}"
    for folder in ("data_dir", "data", "image_root", "output"):
        if not printable_as_utf8(str(given.get(folder) or "")):
            yield f"{given[folder]} is not UTF-8: rename the folder"
    for path in given.get("input", ()):
        if fault := irregular_file(path, folders=True):
            yield fault
        if not Path(path).exists():
            yield f"no such image, folder or table: {path}"
    for path in given.get("runs", ()):
        if fault := irregular_file(path, folders=True):
            yield fault
        elif not Path(path).exists():
            yield f"no such run or checkpoint: {path}"
    # A resumed run has its weights from the checkpoint: the files that it started from may be gone.
    # --resume auto names no file, and whether it finds one decides what else is needed.
    resumed = () if given.get("resume") == AUTO else ("resume",)
    weights = resumed if given.get("resume") else ("checkpoint", "initial_checkpoint", "pretrained_path")
    soft = ("pseudo_labels",) if given.get("pseudo_weight") else ()
    for dest in (*weights, *soft):
        paths = given.get(dest)
        for path in [paths] if isinstance(paths, str) else paths or []:
            if path and not Path(path).exists() and not glob.has_magic(path):
                yield f"{flag(dest)}: no such file: {path}"
            elif path and (fault := irregular_file(path, folders=True)):
                yield f"{flag(dest)}: {fault}"
