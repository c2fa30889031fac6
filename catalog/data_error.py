"""The exception for faults in a user's data, and the wording that its sentences share."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from runtime.errors import UsageError


class DataError(UsageError):
    """A user's mistake in the data; the message says where it is by file, line and column."""


def quoted(names: Sequence[str], limit: int = 5) -> str:
    """Return names in quotes, separated by commas; an ellipsis replaces those beyond the limit."""
    return ", ".join(map(repr, names[:limit])) + (", ..." if len(names) > limit else "")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'Teal'?" with the most similar of the names, or "" if none is similar."""
    names = list(names)
    form = without_form(name)
    similar = next((other for other in names if without_form(other) == form), None)
    if similar is None and not _number(name):  # a number has no misspelling
        by_lower = {other.lower(): other for other in names}
        similar = next((by_lower[near] for near in difflib.get_close_matches(name.lower(), by_lower, 1)), None)
    return "" if similar is None else f"; did you mean {similar!r}?"


def without_form(name: str) -> str:
    """Return what names that differ in form only have in common: without case and hyphens, 1.50 and 1,5 as 1.5."""
    if number := _number(name):
        return repr(float(number.replace(",", ".")))
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _number(name: str) -> str:
    """Return a name that is a number in decimal notation, or ""."""
    found = re.fullmatch(r"\s*([+-]?[0-9]{1,15}([.,][0-9]{1,15})?)\s*", name)
    return found[1] if found else ""
