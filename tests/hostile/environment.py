"""Hostile surroundings: variables, encodings, limits, closed streams, folders that cannot be written."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from hostile.case import COMMANDS, Case, copy_data, link_checkpoint, link_index, on_data

# Variables and their odd values; None deletes one. Launchers' variables alone start no process group.
VARIABLES: dict[str, tuple[str | None, ...]] = {
    "RANK": ("", "0", "x", "-1", "7"),
    "WORLD_SIZE": ("", "0", "1", "x", "-1", "1.5"),
    "LOCAL_RANK": ("", "0", "x", "-1", "7"),
    "LOCAL_WORLD_SIZE": ("", "0", "1", "x"),
    "MASTER_ADDR": ("", "127.0.0.1"),
    "MASTER_PORT": ("", "x", "0", "99999"),
    "SLURM_NTASKS": ("", "1", "x"),
    "SLURM_PROCID": ("", "0", "x"),
    "SLURM_LOCALID": ("", "0", "x"),
    "SLURM_JOB_ID": ("1",),
    "OMPI_COMM_WORLD_SIZE": ("1", "x"),
    "PMI_SIZE": ("1", "x"),
    "CUDA_VISIBLE_DEVICES": ("", "-1", "7", "x"),
    "COLUMNS": ("0", "1", "-5", "x", "9999999"),
    "LINES": ("0", "x"),
    "TERM": (None, "dumb", "x"),
    "NO_COLOR": ("1",),
    "USER": (None, "", "é"),
    "PWD": (None, "/nowhere"),
    "PATH": (None, "", "/nowhere"),
    "HF_HOME": ("/dev/null", "/proc/x", ""),
    "TORCH_HOME": ("/dev/null", ""),
    "MPLBACKEND": ("x", "TkAgg", ""),
    "MPLCONFIGDIR": ("/dev/null", ""),
    "TZ": ("x", "Asia/Kathmandu", ""),
    "PYTHONHASHSEED": ("0",),
    "SOURCE_DATE_EPOCH": ("x",),
    "HTTP_PROXY": ("x://",),
    "WANDB_MODE": ("x",),
}
# Variables that Python or a library reads when it starts, so that a new interpreter runs these cases.
AT_START: dict[str, tuple[str | None, ...]] = {
    "LC_ALL": ("C", "POSIX", "xx_XX", "", "en_US.ISO-8859-1", "tr_TR.UTF-8"),
    "LANG": (None, "C", "xx"),
    "PYTHONUTF8": ("0", "1"),
    "PYTHONIOENCODING": ("ascii", "cp1252", "utf-16", "latin-1:strict"),
    "PYTHONWARNINGS": ("error::UserWarning:__main__", "default"),
    "PYTHONOPTIMIZE": ("1", "2"),
    "OMP_NUM_THREADS": ("0", "-1", "x", "1,2", "999"),
    "MKL_NUM_THREADS": ("x",),
    "OMP_WAIT_POLICY": ("x", None),
    "HOME": (None, "", "/nowhere", "/dev/null"),
    "TMPDIR": ("", "/nowhere", "/dev/null"),
    "MALLOC_ARENA_MAX": ("1",),
    "OPENCV_IO_MAX_IMAGE_PIXELS": ("x",),
    "ARROW_DEFAULT_MEMORY_POOL": ("x", "system"),
    "TORCH_LOGS": ("x",),
}


def make(rng: random.Random, place: Path, sound: Path) -> Case:
    """Return a sound command in hostile surroundings."""
    data, checkpoint = copy_data(sound, place), link_checkpoint(sound, place)
    link_index(sound, place)
    if rng.random() < 0.5:  # names that not every encoding has
        for table in ("train.csv", "val.csv"):
            text = (
                (data / table)
                .read_text()
                .replace("color", rng.choice(("Größe", "色", "color")))
                .replace("blue", "b\u00e9\U0001f600")
            )
            (data / table).write_text(text)
    command = rng.choice(COMMANDS)
    case = Case(on_data(command, "in/data", checkpoint), "")
    way = rng.choice((_variables, _variables, _variables, _at_start, _limits, _streams, _output, _output, _place))
    case.about = way(case, place, rng)
    return case


def _variables(case: Case, place: Path, rng: random.Random) -> str:
    names = rng.sample(sorted(VARIABLES), rng.choice((1, 1, 2, 4)))
    case.env = {name: rng.choice(VARIABLES[name]) for name in names}
    return f"{case.env}"


def _at_start(case: Case, place: Path, rng: random.Random) -> str:
    names = rng.sample(sorted(AT_START), rng.choice((1, 2)))
    case.env = {name: rng.choice(AT_START[name]) for name in names}
    case.fresh = True
    if "TMPDIR" in names:  # Python tries this folder, and takes the system's where it cannot be used
        case.inside += (tempfile.gettempdir(), "/nowhere")
    if "HOME" in names:
        case.inside += ("/.config", "/.cache", "/nowhere")
    return f"{case.env}, a new interpreter"


def _limits(case: Case, place: Path, rng: random.Random) -> str:
    kind, amount = rng.choice(LIMITS)
    case.prepare = lambda: resource.setrlimit(getattr(resource, kind), (amount, amount))
    return f"{kind} {amount}"


LIMITS = (
    ("RLIMIT_FSIZE", 3000),
    ("RLIMIT_FSIZE", 1_000_000),
    ("RLIMIT_FSIZE", 6_000_000),
    ("RLIMIT_NOFILE", 16),
    ("RLIMIT_NOFILE", 24),
    ("RLIMIT_NOFILE", 64),
    ("RLIMIT_STACK", 1 << 20),
    ("RLIMIT_MEMLOCK", 0),
)


def _streams(case: Case, place: Path, rng: random.Random) -> str:
    about = rng.choice(list(STREAMS))
    case.prepare = STREAMS[about]
    return about


def _to(path: str, *numbers: int) -> Callable[[], None]:
    def redirect() -> None:
        file = os.open(path, os.O_RDWR)
        for number in numbers:
            os.dup2(file, number)

    return redirect


STREAMS: dict[str, Callable[[], object]] = {
    "no input": lambda: os.close(0),
    "output to nothing": _to("/dev/null", 1),
    "Ctrl-C is ignored": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "children are reaped": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    "a mask of 777": lambda: os.umask(0o777),
    "a mask of 0": lambda: os.umask(0),
    "a low priority": lambda: os.nice(19),
}


def _output(case: Case, place: Path, rng: random.Random) -> str:
    """Make the output's place unfit for writing."""
    about = rng.choice(list(OUTPUTS))
    OUTPUTS[about](place / "out")
    case.powerless = about.startswith("read-only") or rng.random() < 0.3
    return f"the output folder is {about}" + ", without rights" * case.powerless


def _instead(make_it: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(out: Path) -> None:
        shutil.rmtree(out)
        make_it(out)

    return replace


def _full(out: Path) -> None:
    """Have folders where the commands write files."""
    names = (
        "p.csv",
        "refitted.pth.tar",
        "run",
        "run/summary.csv",
        "run/args.yaml",
        "run/last.pth.tar",
        "recipe.yaml",
        "state.json",
        "color.csv",
        "audit/audit.html",
        "tables/train.csv",
        "filled.csv",
        "queue.csv",
        "hits.csv",
        "report.html",
        "exported/config.json",
        "new-index/rows.parquet",
    )
    for name in names:
        (out / name).mkdir(parents=True, exist_ok=True)


OUTPUT_FOLDERS = ("audit", "tables", "exported", "new-index")
OUTPUTS: dict[str, Callable[[Path], object]] = {
    "read-only": lambda out: out.chmod(0o555),
    "read-only and hidden": lambda out: out.chmod(0o000),
    "a file": _instead(Path.touch),
    "a pipe": _instead(os.mkfifo),
    "a device": _instead(lambda out: out.symlink_to("/dev/full")),
    "a dangling link": _instead(lambda out: out.symlink_to("nowhere/at/all")),
    "a loop of links": _instead(lambda out: out.symlink_to("out")),
    "in /proc": _instead(lambda out: out.symlink_to("/proc/self")),
    "full of folders": _full,
    "full of old files": lambda out: [
        (out / name).write_bytes(b"\xff old")
        for name in ("p.csv", "refitted.pth.tar", "run", "state.json", *OUTPUT_FOLDERS, "filled.csv", "hits.csv")
    ],
    "missing": shutil.rmtree,
}


def _place(case: Case, place: Path, rng: random.Random) -> str:
    """Run in a working directory that is gone or cannot be read, with absolute paths."""
    about = rng.choice(("gone", "hidden", "the root"))
    case.words = [str(place / word) if word.startswith(("in/", "out")) else word for word in case.words]
    gone = place / "tmp" / "here"
    gone.mkdir()

    def prepare() -> None:
        os.chdir("/" if about == "the root" else gone)
        if about == "gone":
            gone.rmdir()

    case.prepare = prepare
    if about == "hidden":
        gone.chmod(0o000)
        case.powerless = False
    return f"the working directory is {about}"
