"""What the end of a case is worth: an answer, one sentence, or a fault."""

from __future__ import annotations

import re
from pathlib import Path

from hostile.case import Case, Outcome

ANSWER, SENTENCE, FAULT = "answer", "one sentence", "FAULT"

_SENTENCE = re.compile(r"^\w+\.py: error: (.+)$", re.MULTILINE)
_SEVERAL = re.compile(r"^\d+ of \d+ checkpoints could not be scored", re.MULTILINE)
_BROKEN = re.compile(r"Traceback \(most recent call last\)|Exception ignored|Fatal Python error|Segmentation fault")
# A sentence names its place: a file of the case, a flag, a folder, or a variable.
_PLACE = re.compile(
    r"(?<!\w)--?[a-zA-Z]|\b(in|out|tmp|home)/|/|[A-Z]{3,}|\bout\b|\.(csv|yaml|png|pt|parquet)\b|'|^unrecognized"
    r"|\bworking directory\b|^no such|^in (has|is) |No such file"
)
_UNFINISHED = re.compile(r"\..+\.\d+|(recovery_)?tmp\.pth\.tar")
_LONGEST = 5000  # characters of a sentence that can still be read


def judge(case: Case, outcome: Outcome, place: Path) -> tuple[str, str]:
    """Return what a case ended in, and the sentence, or what is wrong."""
    text = f"{outcome.err}\n{outcome.out}"
    said = _SENTENCE.findall(outcome.err)
    faults = {
        outcome.stopped: bool(outcome.stopped),
        f"trespass: {outcome.trespasses[:1]}": bool(outcome.trespasses),
        f"code run: {[path.name for path in place.rglob('canary*')]}": any(place.rglob("canary*")),
        f"signal {-(outcome.code or 0)}": (outcome.code or 0) < 0,
        f"traceback: {_last_line(text)}": _BROKEN.search(text) is not None,
        f"status {outcome.code}": outcome.code not in (0, 1, 2),
        f"left behind: {_left(place)}": bool(_left(place)),
    }
    if outcome.code in (1, 2) and not _SEVERAL.search(text):
        faults |= {
            f"{len(said)} sentences: {_last_line(text)}": len(said) != 1,
            f"no place: {said[0] if said else ''}": len(said) == 1 and not _PLACE.search(said[0]),
            f"long sentence: {said[0][:200] if said else ''}": len(said) == 1 and len(said[0]) > _LONGEST,
        }
    for words, is_so in faults.items():
        if is_so:
            return FAULT, words
    return (ANSWER, "") if outcome.code == 0 else (SENTENCE, said[0] if said else "several checkpoints")


def _last_line(text: str) -> str:
    """Return the line that ends the first traceback, or the last line."""
    broken = _BROKEN.search(text)
    lines = text[broken.start() if broken else 0 :].splitlines()
    ends = [line for line in lines[1:] if line and not line.startswith((" ", "The above", "During"))]
    return (ends[0] if broken and ends else next((line for line in reversed(lines) if line.strip()), ""))[:300]


def _left(place: Path) -> list[str]:
    return [path.name for path in (place / "out").rglob("*") if _UNFINISHED.fullmatch(path.name)]
