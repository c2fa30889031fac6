"""How a run was made: its command, code, packages, data and machine, in its run.json."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog.data_error import DataError
from catalog.splits import find_split
from runtime.atomic_file import atomic_file

FILE = "run.json"
VIEWS = "views.jpg"  # beside it, the views of the run's first images
Record = dict[str, Any]

_HASHED = 1 << 28  # bytes of a table up to which its hash is worth the time: a second
_LARGEST = 1 << 22  # bytes of a run.json: a thousand sessions have fewer


class RunRecord:
    """The record of a run, which grows by a session each time the run is started.

    Args:
        folder: the run's folder.
        session: facts of this session: `command`, `versions`, ... ; its times are added.
    """

    def __init__(self, folder: Path, session: Record) -> None:
        self.path = folder / FILE
        self.start = time.monotonic()
        earlier = read_record(folder).get("sessions", [])
        self.record: Record = {"sessions": [*earlier, dict(session) | {"started": _now(), "seconds": 0.0}]}

    def write(self) -> None:
        """Write the record with the time so far; a failure is ignored, since the run does not need this file."""
        self.record["sessions"][-1]["seconds"] = round(time.monotonic() - self.start, 1)
        try:
            with atomic_file(self.path) as unfinished:
                unfinished.write_text(json.dumps(self.record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError:
            return


def read_record(folder: Path) -> Record:
    """Return the record of a run; empty if there is none, or it is damaged."""
    path = folder / FILE
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    sessions = found.get("sessions") if isinstance(found, dict) else None
    if not isinstance(sessions, list) or not all(isinstance(one, dict) for one in sessions):
        return {}
    return {"sessions": sessions}


def seconds_trained(record: Record) -> float:
    """Return the time of all sessions of a run."""
    found = [one.get("seconds") for one in record.get("sessions", [])]
    return sum(float(seconds) for seconds in found if isinstance(seconds, int | float))


def table_hash(path: Path) -> str:
    """Return the SHA-256 of a table's file as text, or why there is none."""
    try:
        if not path.is_file():
            return "in several files, not hashed"
        if path.stat().st_size > _HASHED:
            return f"not hashed, as it has {path.stat().st_size / 1e6:,.0f} MB"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "not here"


def table_hashes(folder: str | None, *splits: str | None) -> dict[str, str]:
    """Return the SHA-256 of some splits' tables, by file name; those that are not here are left out.

    Args:
        folder: the data folder.
        splits: names of the splits.
    """
    found = {}
    for split in splits:
        try:
            path = find_split(folder or "", split or "")
        except DataError:
            continue
        found[path.name] = table_hash(path)
    return found


def duration(seconds: float) -> str:
    """Return a time in the largest fitting unit."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def record_lines(record: Record) -> list[tuple[str, str]]:
    """Return what a record says, as pairs of a heading and a text."""
    sessions: Sequence[Record] = record.get("sessions", [])
    if not sessions:
        return []
    last, seconds = sessions[-1], seconds_trained(record)
    devices = " and ".join(dict.fromkeys(str(one["device"]) for one in sessions if one.get("device")))
    hours = f"{duration(seconds)} on {devices}" if devices else duration(seconds)
    processes = int(last.get("processes") or 1)
    lines = [("command", " ; then ".join(dict.fromkeys(str(one.get("command", "")) for one in sessions)))]
    lines += [("started", str(sessions[0].get("started", ""))), ("time and device", hours)]
    if processes > 1:
        lines.append(("device hours", f"{seconds * processes / 3600:.2f}, on {processes} devices"))
    versions = last.get("versions")
    if isinstance(versions, dict):
        lines.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if last.get("commit"):
        lines.append(("commit", str(last["commit"])))
    tables = last.get("tables")
    for name, digest in (tables if isinstance(tables, dict) else {}).items():
        lines.append((f"SHA-256 of {name}", str(digest)))
    return [line for line in lines if line[1]]


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")
