"""The tables of benchmarks/README.md, each between two marks that name it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "README.md"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def write_into_page(name: str, lines: Sequence[str]) -> None:
    """Replace the lines between the marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found_begin, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise SystemExit(f"{PAGE} has no place for {name}: add {begin} and {end}")
    PAGE.write_text("\n".join([before + begin, "", "\n".join(lines).strip(), "", end + after]), encoding="utf-8")
