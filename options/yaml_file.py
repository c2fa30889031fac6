"""YAML files of flags: one is read as the words that one would type, and written so that it repeats a run."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import yaml

from options.rules import flag
from options.values import Mapped, Switch, keyword, shortened
from options.yaml_nodes import YamlError, read_nodes
from runtime.regular_file import irregular_kind


def args_text(args: argparse.Namespace) -> str:
    """Return options as YAML; `-c` with that file gives the same options again."""
    # The values already include the config file. --lr is unused with --lr-base, and --epochs with --steps; both
    # together are refused.
    unused = {"lr": "lr_base", "epochs": "steps"}
    left_out = {"config", *(dest for dest, other in unused.items() if getattr(args, other, None) is not None)}
    return recipe_text({dest: value for dest, value in vars(args).items() if dest not in left_out})


def recipe_text(flags: Mapping[str, Any]) -> str:
    """Return flags as YAML, by their names without dashes; `-c` with that file gives the same flags."""
    values = {name: _plain(value) for name, value in flags.items()}
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    """Return a mapping with its values as YAML scalars; any other value becomes the text that parses to it."""
    if not isinstance(value, dict):
        return value
    plain = {}
    for key, item in value.items():
        unquoted = isinstance(item, str) and keyword(f"k={item}")[1] == item
        plain[key] = item if unquoted or item is None or isinstance(item, bool | int | float) else repr(item)
    return plain


class YamlWords:
    """Turns a YAML file into the words that one would type.

    Args:
        flags: the action of every spelling of every flag.
        error: reports a mistake and does not return.
        nearest: returns "; did you mean --lr?" for an unknown flag, or "".
    """

    def __init__(
        self,
        flags: Mapping[str, argparse.Action],
        error: Callable[[str], NoReturn],
        nearest: Callable[[str], str],
    ) -> None:
        self._flags, self._error, self._nearest = flags, error, nearest

    def read(self, file: str) -> list[str]:
        """Return the words of a file."""
        root = self._parse(file)
        if root is not None and not isinstance(root, yaml.MappingNode):
            self._error("this is not a list of keys with values, such as batch-size: 64")
        words, seen = [], {"config"}  # the file itself, so that it cannot name another
        for key, value in root.value if root else []:
            if not isinstance(key, yaml.ScalarNode):
                self._error(f"line {key.start_mark.line + 1}: a key is the name of a flag, not a list")
            words += self._words(shortened(str(key.value)), value, seen)
        return words

    def _parse(self, file: str) -> yaml.Node | None:
        """Return the root of a file."""
        if kind := irregular_kind(file):
            self._error(f"this is {kind}, not a regular file: save the flags as a file, and name that")
        try:
            return read_nodes(file)
        except YamlError as error:
            self._error(str(error))

    def _words(self, key: str, node: yaml.Node, seen: set[str]) -> list[str]:
        """Return what one would type for a key and its value."""
        name = flag(key)
        action = self._flags.get(name)
        if action is None:
            self._error(f"unknown key '{key}'{self._nearest(name).replace('--', '')}")
        if action.dest in seen:
            nested = "a YAML file cannot name another; merge them, or give the other on the command line"
            self._error(f"'{key}': {nested if action.dest == 'config' else 'this flag is set twice'}")
        seen.add(action.dest)

        if isinstance(node, yaml.ScalarNode):
            return self._scalar_words(name, action, node)
        if isinstance(node, yaml.MappingNode) and isinstance(action, Mapped):
            items = [_pair(*item) for item in node.value]
        elif isinstance(node, yaml.SequenceNode) and action.nargs not in (None, 0, "?"):
            items = [item.value if isinstance(item, yaml.ScalarNode) else "a list in a list" for item in node.value]
        else:
            kind = "one value" if action.nargs in (None, "?") else "true or false" if action.nargs == 0 else "a list"
            self._error(f"'{key}' takes {kind}")
        # An empty list means no flag where the flag needs a value, and an empty flag where it does not.
        return [name, *items] if items or (action.nargs == "*" and not isinstance(action, Mapped)) else []

    def _scalar_words(self, name: str, action: argparse.Action, node: yaml.ScalarNode) -> list[str]:
        """Return what one would type for a single value.

        The word is the text in the file, so `experiment: 007` and an attribute called `no` keep their spelling.
        Only YAML's null, true and false decide whether a flag is given.
        """
        value = _typed(node) if node.tag.endswith((":bool", ":null")) else node.value
        if action.nargs == 0 and not isinstance(value, bool | None):
            self._error(f"'{name[2:]}' takes true or false, not '{node.value}'")
        if value is None or (value is False and node.value.lower() == "false" and not isinstance(action, Switch)):
            return []
        if isinstance(action, Switch) and value is False:
            return [action.opposite if name != action.opposite else action.option_strings[0]]
        if value is True and action.nargs in (0, "?"):
            return [name]
        return [f"{name}={node.value}"]  # one word, because the value may begin with a dash


def _typed(node: yaml.Node) -> Any:
    """Return the Python value of a YAML node.

    Raises:
        argparse.ArgumentTypeError: the text looks like a date and is none, as `2001-13-40`.
    """
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except ValueError as error:
        line = node.start_mark.line + 1
        raise argparse.ArgumentTypeError(f"line {line}: this value cannot be read ({error})") from error


def _pair(key: yaml.Node, value: yaml.Node) -> str:
    """Return an entry of a YAML mapping as it is typed: depth=3."""
    text = isinstance(value, yaml.ScalarNode) and not value.tag.endswith((":bool", ":null", ":int", ":float"))
    return f"{key.value}={value.value if text else repr(_typed(value))}"
