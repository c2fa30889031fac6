"""Runs commands in forks of this process, which has torch and the project loaded: a case takes a second, not five."""

from __future__ import annotations

import ctypes
import gc
import io
import multiprocessing.util
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from hostile import ROOT
from hostile.case import COMMANDS, Case, Outcome
from hostile.guard import watch

SECONDS = 20.0
MEMORY = 2 << 30  # bytes
_SPACE = 6 << 30  # bytes of address space above what the loaded libraries reserve: ends what would fill the machine
_CAPABILITIES = 0x20080522  # the version of the system call that sets them
_SUBREAPER = 36  # prctl's number: orphans of a case become children of this process, which can then end them


def preload() -> None:
    """Import torch and the commands, and become the parent of every orphan."""
    sys.dont_write_bytecode = True
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import PIL.Image
    import torch

    for command in COMMANDS:
        import_module(command.removesuffix(".py"))
    PIL.Image.init()
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()  # else collections in the forks would copy every page


def start(case: Case, place: Path, report: Path) -> int:
    """Fork a process that runs a case in its folder; return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        _redirect(place)
        _settle(case, place)
        folders = [str(place / name) for name in (*case.inside, "tmp", "home")]
        if case.fresh:
            _exec(case, report, folders)
        watch(report, folders)
        code = _run(case.words)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):  # a closed stream; as when an interpreter ends
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _redirect(place: Path) -> None:
    """Read nothing, and write into the files out.txt and err.txt."""
    writes = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [os.open(os.devnull, os.O_RDONLY), *(os.open(place / f"{n}.txt", writes) for n in ("out", "err"))]
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)


def _settle(case: Case, place: Path) -> None:
    """Give this process the folder, the environment, the limits and the user of a case."""
    os.chdir(place)
    folders = {"TMPDIR": "tmp", "HOME": "home", "XDG_CACHE_HOME": "home", "TORCHINDUCTOR_CACHE_DIR": "tmp/inductor"}
    changed = {name: str(place / folder) for name, folder in folders.items()} | case.env
    for name, value in changed.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPACE, used + _SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    encoding = (os.environ.get("PYTHONIOENCODING") or "utf-8").partition(":")[0]
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding, write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding, "backslashreplace", write_through=True)
    tempfile.tempdir = None  # as in a new process
    if case.powerless and os.getuid() == 0:
        _drop_rights()
    if not case.draws:
        import training.outputs

        training.outputs.draw_curves = lambda source, folder: None
    case.prepare()


def _drop_rights() -> None:
    """Give up root's rights over files that their modes forbid."""
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def _exec(case: Case, report: Path, folders: list[str]) -> None:
    os.environ["PYTHONPATH"] = str(ROOT / "tests")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    script, *words = case.words
    watched = [sys.executable, "-m", "hostile.guard", str(report), ":".join(folders), str(ROOT / script), *words]
    os.execv(sys.executable, watched)


def _run(words: list[str]) -> int:
    """Run a script as a command line does; return its exit status."""
    script, *rest = words
    sys.argv = [str(ROOT / script), *rest]
    code: object = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    multiprocessing.util._exit_function()  # ends the loaders' workers, as at an interpreter's exit
    return code if isinstance(code, int) else 0 if code is None else 1


def run(case: Case, place: Path, seconds: float = SECONDS) -> Outcome:
    """Run a case to its end, or stop it at a limit, with everything it has started.

    Args:
        case: the case.
        place: its folder.
        seconds: wall time on an idle machine; a busy one gives more.
    """
    report = place / "trespasses.txt"
    report.touch()
    report.chmod(0o666)
    begin = time.monotonic()
    process = start(case, place, report)
    status, peak, stopped = None, 0, ""
    while status is None and not stopped:
        done, result = os.waitpid(process, os.WNOHANG)
        if done:
            status = result
            break
        peak = max(peak, sum(map(_resident, [process, *descendants([process])])))
        crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # other processes that take turns with this one
        stopped = "hang" if time.monotonic() - begin > seconds * crowd else "memory" if peak > MEMORY else ""
        time.sleep(0.01)
    end_all([process] if stopped else [])
    return Outcome(
        None if status is None else os.waitstatus_to_exitcode(status),
        stopped,
        *((place / f"{name}.txt").read_text(errors="replace") for name in ("out", "err")),
        time.monotonic() - begin,
        peak,
        report.read_text().splitlines(),
    )


def descendants(of: Iterable[int]) -> list[int]:
    """Return the processes that these have started, and those that they have started."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, open_ = [], list(of)
    while open_:
        new = children.get(open_.pop(), [])
        found += new
        open_ += new
    return found


def end_all(own: list[int]) -> None:
    """End these children and whatever they or earlier ones have left, and wait for their ends."""
    while left := {*own, *descendants([os.getpid()])}:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        own = []
        time.sleep(0.005)


def _resident(process: int) -> int:
    """Return a process's memory in bytes, without the pages that it shares with files."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * resource.getpagesize()
