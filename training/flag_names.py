"""Flags in error messages: lower layers name settings, but users know flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import LocalError, UsageError

_QUOTED = r"(?<!\w)'[^']*'(?!\w)"  # what the user wrote; the apostrophe of "the run's" opens no quote
_WORD = re.compile(_QUOTED + r"|(?<![\w/.-])\w+(?:=(?=\w)|(?![\w/-]|\.\w))")  # not inside a path


@contextmanager
def naming_flags(*settings: str, **flags: str) -> Iterator[None]:
    """Replace the names of settings in a UsageError by the flags: pretrained_path becomes --pretrained-path.

    A setting with a value, such as data=DATA, becomes a flag with a value: --data DATA.

    Args:
        settings: settings that have the name of their flag. One that is also a common word ends in "=", and is replaced
            only where a value follows it.
        flags: the flags of settings that have another name, named in the same way.
    """
    try:
        yield
    except UsageError as error:
        names = {name: f"--{name.rstrip('=').replace('_', '-')}" for name in settings} | flags
        message = _WORD.sub(lambda word: _flag(word[0], names), str(error))
        raise (LocalError if isinstance(error, LocalError) else UsageError)(message) from error


def _flag(word: str, names: dict[str, str]) -> str:
    """Return what replaces a word: the flag of the setting that it names, or the word itself."""
    flag = names.get(word) or names.get(word.removesuffix("="))
    if flag is None:
        return word
    return f"{flag} " if word.endswith("=") else flag
