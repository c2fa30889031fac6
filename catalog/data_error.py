"""The exception for faults in a user's data, and the wording that its sentences share."""

import difflib
from collections.abc import Iterable, Sequence

from runtime.errors import UsageError


class DataError(UsageError):
    """A user's mistake in the data, which scripts print without a traceback.

    The message is one sentence on one line: what is wrong, where (file, line, column), and what to do about it.

    Args:
        message: the sentence. Line breaks can only come from the user's names; they are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))


def quoted(names: Sequence[str], limit: int = 5) -> str:
    """Return names in quotes, separated by commas; an ellipsis replaces those beyond the limit."""
    return ", ".join(map(repr, names[:limit])) + (", ..." if len(names) > limit else "")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'Teal'?" with the most similar of the names, or "" if none is similar."""
    by_lower = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
