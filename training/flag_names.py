"""Flags in error messages: lower layers name settings, but users know flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import LocalError, UsageError

_QUOTED = r"(?<!\w)'[^']*'(?!\w)"  # what the user wrote; the apostrophe of "the run's" opens no quote
_WORD = re.compile(_QUOTED + r"|(?<![\w/.-])\w+(?![\w/-]|\.\w)")  # not inside a path


@contextmanager
def naming_flags(*settings: str, **flags: str) -> Iterator[None]:
    """Replace the names of settings in a UsageError by the flags: pretrained_path becomes --pretrained-path.

    Args:
        settings: settings that have the name of their flag.
        flags: the flags of settings that have another name.
    """
    try:
        yield
    except UsageError as error:
        names = {name: f"--{name.replace('_', '-')}" for name in settings} | flags
        message = _WORD.sub(lambda word: names.get(word[0], word[0]), str(error))
        raise (LocalError if isinstance(error, LocalError) else UsageError)(message) from error
