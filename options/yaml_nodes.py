"""Reading of a YAML file, with bounds on its size, its nesting and what its aliases expand to.

YAML lets a file of 400 bytes stand for billions of values: an alias repeats a list, whose entries are aliases again.
"""

from pathlib import Path
from typing import Any

import yaml

_BYTES = 8 << 20  # a command line, and so the args.yaml of a run, holds up to 6 MiB
_VALUES = 250_000
_DEPTH = 16

# The parser in C is twenty times as fast, and an installation without it reads the same files.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """A file that is not read; the message is the rest of a sentence that begins with the file's name."""


def read_nodes(file: str) -> yaml.Node | None:
    """Return the root of a YAML file, None for an empty one.

    Raises:
        YamlError: if the file cannot be read, is not YAML, has tags, or exceeds a bound.
    """
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_BYTES + 1)
        if len(content) > _BYTES:
            raise YamlError(f"this takes more than {_BYTES >> 20} MiB, and flags take less: name a file of flags")
        text = content.decode()
        _check(text)
        return yaml.compose(text, Loader=_LOADER)
    except OSError as error:
        raise YamlError(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise YamlError("this is not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        lines = text.count("\n") + (not text.endswith("\n"))  # the end of the file counts as a line of its own
        place = f"line {min(mark.line + 1, lines)}: " if mark else ""
        raise YamlError(
            f"{place}this is not YAML ({getattr(error, 'problem', None) or 'unreadable characters'})"
        ) from None


def _check(text: str) -> None:
    """Refuse YAML that exceeds a bound, from its events alone: they take no memory, whatever aliases expand to."""
    opened: list[tuple[str | None, list[int]]] = [(None, [0, 0])]  # anchor, values and depth of each open collection
    anchors: dict[str, tuple[int, int]] = {}  # values and depth of what an alias repeats
    for event in yaml.parse(text, Loader=_LOADER):
        place = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
        if tag := getattr(event, "tag", None):
            raise YamlError(f"{place}the tag {tag} is not read: write the value alone")

        # the size of a value, when it is complete
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, [1, 0]))
            size = (1, len(opened) - 2)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, (values, depth) = opened.pop()
            size = (values, depth + 1)
            _add(opened[-1][1], anchors, anchor, size)
        elif isinstance(event, yaml.ScalarEvent):
            size = (1, 0)
            _add(opened[-1][1], anchors, event.anchor, size)
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise YamlError(f"{place}*{event.anchor} repeats itself without end: write its values out")
            size = anchors.get(str(event.anchor), (1, 0))  # the composer refuses an unknown anchor
            _add(opened[-1][1], anchors, None, size)
        else:
            continue

        # the bounds
        if max(size[0], opened[-1][1][0]) > _VALUES:
            raise YamlError(f"{place}with its aliases, this holds more than {_VALUES:,} values: name a file of flags")
        if size[1] > _DEPTH or len(opened) > _DEPTH + 2:
            raise YamlError(f"{place}this nests more than {_DEPTH} lists: name a file of flags")


def _add(total: list[int], anchors: dict[str, tuple[int, int]], anchor: str | None, size: tuple[int, int]) -> None:
    """Add a value to the collection around it, and remember it under its anchor."""
    total[0] += size[0]
    total[1] = max(total[1], size[1])
    if anchor is not None:
        anchors[anchor] = size
