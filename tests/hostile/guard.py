"""A watch over a process: files changed outside the allowed folders, programs run, connections made.

Python reports each such action to an audit hook before it happens. Libraries in C are not seen there, so the soak
also compares the surroundings afterwards. As a script it watches a command in a new interpreter:

    python -m hostile.guard REPORT FOLDER[:FOLDER...] SCRIPT WORD ...
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Each event's paths, as pairs of a path's index and the index of the folder that it is relative to.
_CHANGES = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.chmod": ((0, 2),),
    "os.truncate": ((0, None),),
}
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_FINE = ("/dev", "/proc")  # they keep nothing
_LOOKUPS = ("/sbin/ldconfig", "fc-list")  # ctypes asks where a library is, and Matplotlib where fonts are


def changed_paths(event: str, args: tuple[Any, ...]) -> list[str]:
    """Return the absolute paths of the files that an audited event is about to change."""
    if event == "open":
        path, _, flags = args
        named = [(path, -1)] if isinstance(flags, int) and flags & _WRITES else []
    else:
        named = [(args[i], -1 if j is None else args[j]) for i, j in _CHANGES.get(event, ())]
    return [_absolute(path, folder) for path, folder in named if not isinstance(path, int)]


def _absolute(path: Any, folder: int) -> str:
    text = os.fsdecode(path)
    start = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
    return os.path.normpath(start / text)


def watch(report: Path, folders: list[str]) -> None:
    """Write what this process does elsewhere than in the folders to the report, from now on."""
    line = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    allowed = tuple(folders) + _FINE

    def hook(event: str, args: tuple[Any, ...]) -> None:
        found = ""
        if event == "open" or event in _CHANGES:
            try:
                paths = changed_paths(event, args)
            except OSError:  # the working directory is gone
                return
            bad = [path for path in paths if not path.startswith(allowed)]
            found = f"{event} {bad[0]}" if bad else ""
        elif event in _PROGRAMS and not _is_ours(args):
            found = f"{event} {args[:2]}"
        elif event == "socket.connect" and isinstance(args[1], tuple) and not str(args[1][0]).startswith("127."):
            found = f"{event} {args[1]}"
        if found:
            os.write(line, (ascii(found)[1:-1] + "\n").encode())

    sys.addaudithook(hook)


def _is_ours(args: tuple[Any, ...]) -> bool:
    """Return whether a program is train.py, which choose.py starts, or finds libraries, fonts or the commit."""
    words = args[1] if len(args) > 1 and isinstance(args[1], list) else []
    if words and (words[0] in _LOOKUPS or words[:2] == ["git", "describe"]):  # a run names its commit
        return True
    return len(words) > 1 and words[0] == sys.executable and any(str(word).endswith("train.py") for word in words[:4])


if __name__ == "__main__":
    log, places, *sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    watch(Path(log), places.split(":"))
    runpy.run_path(sys.argv[0], run_name="__main__")
