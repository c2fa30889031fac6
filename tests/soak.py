#!/usr/bin/env python3
"""Run hostile cases and kills, count how they end, and print each fault with the command that repeats it.

    python tests/soak.py [--cases 10000] [--kinds tables images ...] [--seed 0] [--kills 100] [--keep]

Linux only: it forks, and reads /proc. `tests/hostile/` holds the generators.
"""

import argparse
import collections
import random
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from hostile import checkpoints, environment, flags, images, indexes, kills, recipes, server, tables
from hostile.case import Make
from hostile.sound import make_sound, ready
from hostile.verdict import ANSWER, FAULT, SENTENCE, judge

KINDS: dict[str, Make] = {
    "tables": tables.make,
    "images": images.make,
    "checkpoints": checkpoints.make,
    "indexes": indexes.make,
    "yaml": recipes.make,
    "flags": flags.make,
    "environment": environment.make,
}


def main() -> int:
    """Run what the command line asks for; return 1 if there is a fault."""
    args = parse()
    warnings.simplefilter("ignore")  # libraries warn of what the generators write
    server.preload()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)
    faults = 0
    try:
        sound = make_sound(folder / "sound")
        if args.cases:
            faults += soak(args, folder, sound)
        if args.kills:
            faults += kills.kill_runs(args.kills, args.seed, folder, sound)
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    return int(faults > 0)


def parse() -> argparse.Namespace:
    """Return the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000, help="cases of all kinds together")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case of each kind")
    parser.add_argument("--kills", type=int, default=100, help="runs to kill and resume")
    parser.add_argument("--skip", nargs="*", default=[], metavar="KIND-SEED", help="cases to leave out")
    parser.add_argument("--keep", action="store_true", help="keep all folders, and print each case")
    return parser.parse_args()


def soak(args: argparse.Namespace, folder: Path, sound: Path) -> int:
    """Run the cases, a kind after the other; return the number of faults."""
    counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in args.kinds}
    for kind in args.kinds:
        for seed in range(args.seed, args.seed + max(1, args.cases // len(args.kinds))):
            if f"{kind}-{seed}" not in args.skip:
                counts[kind][one(kind, seed, folder, sound, args.keep)] += 1
    width = max(map(len, counts))
    print(f"\n{'kind':{width}} {ANSWER:>12} {SENTENCE:>12} {FAULT:>12}")
    for kind, ends in counts.items():
        print(f"{kind:{width}} " + " ".join(f"{ends[end]:12,}" for end in (ANSWER, SENTENCE, FAULT)), flush=True)
    return sum(ends[FAULT] for ends in counts.values())


def one(kind: str, seed: int, folder: Path, sound: Path, keep: bool) -> str:
    """Make, run and judge a case; return how it ended."""
    place = ready(folder / f"{kind}-{seed}")
    case = KINDS[kind](random.Random(f"{kind}-{seed}"), place, sound)
    before = snapshot(folder, place, case.inside)
    outcome = server.run(case, place)
    outcome.trespasses += sorted(snapshot(folder, place, case.inside) ^ before)[:3]
    end, words = judge(case, outcome, place)
    if end == FAULT or keep:
        about = ascii(case.about)[1:-1][:400]
        print(f"{end} {kind}-{seed}, {outcome.seconds:.1f} s, {outcome.peak >> 20} MiB: {ascii(words)[1:-1][:600]}")
        print(f"    {' '.join(map(ascii, case.words))[:700]}\n    {about}")
        print(f"    python tests/soak.py --kinds {kind} --seed {seed} --cases 1 --kills 0 --keep", flush=True)
    if keep:
        print(f"    {place}", flush=True)
    else:
        remove(place)
    return end


def snapshot(folder: Path, place: Path, inside: tuple[str, ...]) -> set[str]:
    """Return the files that a case must leave alone, each with its size and time."""
    allowed = {place / name for name in (*inside, "tmp", "home")} | {
        place / f"{name}.txt" for name in ("out", "err", "trespasses")
    }
    kept = [file for start in (folder / "sound", place) for file in walk(start, allowed)] + list(
        folder.parent.glob("canary*")
    )
    found = set()
    for file in kept:
        status = file.lstat()
        if not stat.S_ISDIR(status.st_mode):
            found.add(f"{str(file)!a} {status.st_size} {status.st_mtime_ns}")
    return found


def walk(folder: Path, without: set[Path]) -> Iterator[Path]:
    """Yield what is below a folder, without some folders and files."""
    if folder not in without and folder.is_dir() and not folder.is_symlink():
        for entry in folder.iterdir():
            if entry not in without:
                yield entry
                yield from walk(entry, without)


def remove(place: Path) -> None:
    """Delete a case's folder, whatever is in it."""
    shutil.rmtree(place, onerror=lambda function, path, error: None)


if __name__ == "__main__":
    begin = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begin:,.0f} s")
    sys.exit(status)
