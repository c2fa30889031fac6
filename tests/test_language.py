"""Docstrings, comments and pages avoid turns of phrase that a busy reader has to read twice.

The list is of phrases that were in this project and slowed its readers; British spellings differ from the flags' and
timm's. `D401` in pyproject.toml holds that docstrings are imperative.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = [file for file in sorted(ROOT.rglob("*.py")) if not {".venv", ".upstream", "build"} & {*file.parts}]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "benchmarks" / "README.md"]
PHRASES = re.compile(
    r"\b(so many|told|strangers?|twins?|as ever|in place of|what is no|those of|be it|though it be|mend(s|ed|ing)?"
    r"|go(es)? on|alike|of which|colours?|neighbours?|(un)?labelled|normalis\w+|centres?|licence|catalogues?)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.;])\s+|\n\s*\n")


def prose(file: Path) -> Iterator[str]:
    """Yield the docstrings and comments of a module."""
    source = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("# ")


def slow(text: str) -> list[str]:
    """Return the phrases, and the sentences that begin with "of", in a text."""
    found = [match[0] for match in PHRASES.finditer(text)]
    return found + [sentence[:40] for sentence in SENTENCE.split(text) if re.match(r"\s*of\b", sentence, re.IGNORECASE)]


@pytest.mark.parametrize("file", [file for file in CODE if file != Path(__file__)], ids=lambda file: file.name)
def test_docstrings_and_comments_can_be_read_at_speed(file: Path) -> None:
    assert [phrase for text in prose(file) for phrase in slow(text)] == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_pages_can_be_read_at_speed(file: Path) -> None:
    assert slow(re.sub(r"`[^`]*`|^ {4}.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)) == []
