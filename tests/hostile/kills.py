"""Kills a run at each change of its folder and at random moments, resumes it, and compares it with the unbroken run.

The changes are those that Python's audit events report, and the half-written states of checkpoints and copies. A run
has one or two processes, and a folder with or without hard links. Afterwards the folder must hold the same bytes.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from hostile.case import TRAIN, Case
from hostile.guard import changed_paths
from hostile.server import end_all, start
from hostile.sound import ready

FLAGS = (*TRAIN, "--epochs", "2", "--recovery-interval", "1", "--seed", "7", "--model-ema", "--checkpoint-hist", "1")
FLAGS = (*FLAGS, "--eval-metric", "loss")
COMPARED = ("model_best.pth.tar", "last.pth.tar", "summary.csv", "args.yaml")
VARIANTS = [(1, True), (2, False), (1, False), (2, True)]  # processes, and whether hard links work
_RANDOM = 5  # each kill of this number is at a random moment
_PATIENCE = 120.0  # seconds for a run of two epochs on a busy machine


def kill_runs(count: int, seed: int, folder: Path, sound: Path) -> int:
    """Kill and resume runs; print how many end as the unbroken run; return how many do not.

    Args:
        count: number of runs, spread over the changes; fewer than 8 visit the first variants alone.
        seed: seed of the random moments.
        folder: folder for the runs.
        sound: folder of the sound data.
    """
    rng = random.Random(f"kills-{seed}")
    variants = VARIANTS[: max(1, count // 2)]
    unbroken = {variant: _unbroken(folder, sound, *variant) for variant in variants}
    moments = [(variant, point) for variant in variants for point in range(1, len(unbroken[variant][1]) + 1)]
    print(f"\n{len(moments)} changes of the folders of {len(variants)} runs", flush=True)
    tried = max(1, count - count // _RANDOM)
    points = [moments[i * len(moments) // tried] for i in range(tried)] if tried < len(moments) else moments
    kills = [*points, *((rng.choice(variants), rng.uniform(0.1, 1.0)) for _ in range(count - len(points)))]
    equal = 0
    for number, (variant, moment) in enumerate(kills, 1):
        wanted, trace, seconds = unbroken[variant]
        place = _place(folder / f"kill-{number}", sound)
        at = moment if isinstance(moment, int) else 0
        _run(place, variant, FLAGS, kill_at=at, kill_after=None if at else moment * seconds)
        difference = _resume(place, variant, wanted)
        what = trace[at - 1] if at else f"{moment:.0%} of the time"
        if difference:
            print(
                f"FAULT kill {number}: {variant[0]} processes, hard links {variant[1]}, {what}: {difference}",
                flush=True,
            )
        equal += not difference
        shutil.rmtree(place)
    print(f"{equal} of {len(kills)} killed runs ended as the unbroken run: {', '.join(COMPARED)}", flush=True)
    return len(kills) - equal


def _place(place: Path, sound: Path) -> Path:
    ready(place)
    (place / "in" / "data").symlink_to(sound / "data")
    return place


def _unbroken(folder: Path, sound: Path, processes: int, links: bool) -> tuple[dict[str, bytes], list[str], float]:
    """Return the files of the unbroken run, the changes of its folder, and its seconds."""
    place = _place(folder / f"unbroken-{processes}-{links}", sound)
    begin = time.monotonic()
    _run(place, (processes, links), FLAGS)
    seconds = time.monotonic() - begin
    trace = (place / "changes.txt").read_text().splitlines()
    return _files(place), trace, seconds


def _files(place: Path) -> dict[str, bytes]:
    """Return the content of the compared files in the newest folder of a place, where they exist."""
    runs = sorted((place / "out").iterdir())
    return {name: (runs[-1] / name).read_bytes() for name in COMPARED if runs and (runs[-1] / name).is_file()}


def _resume(place: Path, variant: tuple[int, bool], wanted: dict[str, bytes]) -> str:
    """Resume a killed run to its end; return how it differs from the unbroken one, or ""."""
    folder = place / "out" / "run"
    saved = [file for file in folder.glob("*.pth.tar") if file.name == "last.pth.tar" or file.match("recovery-*")]
    torn = [
        file.name for file in folder.glob("*.pth.tar") if not file.name.endswith("tmp.pth.tar") and not _is_whole(file)
    ]
    more = ["--resume", f"out/run/{max(saved, key=lambda file: file.stat().st_mtime_ns).name}"] if saved else []
    codes = _run(place, variant, (*FLAGS, *more))
    if any(codes):
        errors = (place / "rank-0" / "err.txt").read_text().splitlines()
        return f"resumed{more[1:]} it ends with {codes}: {errors[-1] if errors else ''}"
    found = _files(place)
    differing = [
        name + _first_difference(found.get(name, b""), wanted[name])
        for name in COMPARED
        if not _are_equal(found.get(name), wanted[name])
    ]
    left = sorted(file.name for file in folder.glob(".*")) + [file.name for file in folder.glob("*tmp.pth.tar")]
    return "; ".join(
        f"{what} {', '.join(names)}"
        for what, names in (("torn", torn), ("other", differing), ("left", left))
        if names and saved
    ) or ("other " + ", ".join(differing) if differing else "")


def _is_whole(file: Path) -> bool:
    try:
        torch.load(file, weights_only=True)
    except Exception:
        return False
    return True


def _are_equal(found: bytes | None, wanted: bytes) -> bool:
    """Return whether two files have the same bytes or, as checkpoints, the same content."""
    if found is None or found == wanted:
        return found == wanted
    if not wanted.startswith(b"PK"):
        return False
    return _same(*(torch.load(io.BytesIO(content), weights_only=True) for content in (found, wanted)))


def _first_difference(found: bytes, wanted: bytes) -> str:
    """Return the first line or cell of a text that differs; "" for a checkpoint."""
    if wanted.startswith(b"PK"):
        return ""
    cells = [re.split("[\n,]", content.decode()) for content in (found, wanted)]
    pairs = zip_longest(*cells, fillvalue="(missing)")
    return next((f" ({one} for {other})" for one, other in pairs if one != other), "")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(_same(a[key], b[key]) for key in a if key != "resume")
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)


def _run(
    place: Path, variant: tuple[int, bool], flags: tuple[str, ...], kill_at: int = 0, kill_after: float | None = None
) -> list[int]:
    """Run train.py on one process or two, and kill it at a change of its folder or after some seconds.

    The second process is killed after the first, as a launcher would.

    Returns:
        The exit status of each process.
    """
    processes, links = variant
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = []
    for rank in range(processes):
        here = place / f"rank-{rank}"
        here.mkdir(exist_ok=True)
        env: dict[str, str | None] = {}
        if processes > 1:
            env = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
            env |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        prepare = _prepare(place, rank, links, kill_at)
        case = Case(["train.py", "in/data", *flags], "", env=env, prepare=prepare, draws=False)
        ranks.append(start(case, here, here / "trespasses.txt"))
    return _wait(ranks, kill_after)


def _wait(ranks: list[int], kill_after: float | None) -> list[int]:
    """Wait for the ranks; kill all when one fails, or after some seconds; return their statuses."""
    begin, codes = time.monotonic(), dict.fromkeys(ranks, -1)
    running = set(ranks)
    while running:
        for rank in list(running):
            done, status = os.waitpid(rank, os.WNOHANG)
            if done:
                running.discard(rank)
                codes[rank] = os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - begin
        late = passed > (_PATIENCE if kill_after is None else kill_after)
        if late or any(codes[rank] for rank in ranks if rank not in running):
            for rank in running:
                os.kill(rank, signal.SIGKILL)
        time.sleep(0.01)
    end_all([])
    return [codes[rank] for rank in ranks]


def _prepare(place: Path, rank: int, links: bool, kill_at: int) -> Callable[[], None]:
    """Return a function that, in the process of a rank, counts the changes of the run's folder and kills at one."""

    def prepare() -> None:
        os.chdir(place)
        if not links:
            os.link = _no_link  # type: ignore[assignment]
        if rank == 0:
            _count_changes(place, kill_at)

    return prepare


def _no_link(*args: Any, **kwargs: Any) -> None:
    raise PermissionError(1, "Operation not permitted")  # as on exFAT, SMB, and many file systems in user space


def _count_changes(place: Path, kill_at: int) -> None:
    """Log each change below out/ before it happens, and end this process instead of the change number `kill_at`."""
    folder, count = f"{place / 'out'}/", 0
    log = os.open(place / "changes.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def change(what: str) -> None:
        nonlocal count
        count += 1
        os.write(log, f"{what}\n".encode())
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" and not event.startswith("os."):
            return
        for path in changed_paths(event, args):
            if path.startswith(folder):
                change(f"{event} {Path(path).name}")

    def save(content: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        whole = io.BytesIO()
        real_save(content, whole, *args, **kwargs)
        _write_halves(path, whole.getvalue(), change)

    def copyfile(source: Any, target: Any, **kwargs: Any) -> Any:
        _write_halves(target, Path(source).read_bytes(), change)
        return target

    real_save = torch.save
    torch.save, shutil.copyfile = save, copyfile
    sys.addaudithook(hook)


def _write_halves(path: Any, content: bytes, change: Callable[[str], None]) -> None:
    """Write a file in two halves, with a change in between."""
    with Path(path).open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        change(f"half of {Path(path).name}")
        file.write(content[len(content) // 2 :])
