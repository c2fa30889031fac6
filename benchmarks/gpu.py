#!/usr/bin/env python3
"""Check and time this project on a GPU, in ten minutes.

    python benchmarks/gpu.py                            all sections, the most valuable first
    python benchmarks/gpu.py step losses                some of them
    python benchmarks/gpu.py --images FOLDER            with your photographs
    python benchmarks/gpu.py --smoke                    on the CPU, tiny: see that everything runs; writes nothing

Each section runs in a process of its own with a time limit, and its results are written when it ends. A section that
fails leaves one line with its error, and the next one runs. Writes benchmarks/results/gpu-<device>-<date>.json and
a table of benchmarks/README.md.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import time
import traceback
from dataclasses import asdict
from datetime import date
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # for the checkout's timm and simclr

from command import command_parser, run_command  # noqa: E402
from gpu_timing import Settings, first_line  # noqa: E402
from harness import Result, machine  # noqa: E402
from photographs import FOLDER  # noqa: E402
from readme_tables import write_into_page  # noqa: E402
from run import table  # noqa: E402

SECTIONS = {  # name: its limit in seconds, the most valuable first
    "checks": 90,
    "step": 100,
    "end-to-end": 110,
    "losses": 85,
    "step-compiled": 115,
    "labeling": 75,
    "optimizers": 25,
}
MARK = "gpu"  # the table of benchmarks/README.md


def main() -> None:
    """Run the named sections, print their tables, and record them."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="SECTION", help=f"some of {', '.join(SECTIONS)} (default: all)")
    add("--images", metavar="FOLDER", help="folder of photographs to read (default: drawn pictures)")
    add("--smoke", action="store_true", help="run tiny sizes on the CPU, and write nothing")
    args = parser.parse_args()
    if unknown := set(args.names) - set(SECTIONS):
        parser.error(f"no section {unknown.pop()!r}; there are {', '.join(SECTIONS)}")
    if args.images:
        os.environ[FOLDER] = args.images
    if args.smoke:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when torch first looks for a GPU
    about = machine()
    if not about["gpu"] and not args.smoke:
        parser.error("there is no GPU: see that everything runs with --smoke")
    print(", ".join(f"{key} {value}" for key, value in about.items() if value))
    settings = Settings("cpu" if args.smoke else "cuda", args.smoke, args.images)
    run_sections(args.names or list(SECTIONS), settings, about)


def run_sections(names: list[str], settings: Settings, about: dict[str, Any]) -> dict[str, Any]:
    """Run sections one after the other; print and, except in a smoke run, write what each has found.

    Returns:
        For each section its results, its seconds, and its error in one line, or None.
    """
    found: dict[str, Any] = {}
    for name in names:
        begin = time.perf_counter()
        if settings.smoke:
            results, error = _here(name, settings)
        else:
            results, error = _apart(name, settings, SECTIONS[name])
        seconds = round(time.perf_counter() - begin, 1)
        found[name] = {"results": [asdict(result) for result in results], "seconds": seconds, "error": error}
        print(f"\n{name}, {seconds} s{f': {error}' if error else ''}\n" + "\n".join(table(results)), flush=True)
        if not settings.smoke:
            save(about, found)
    return found


def _here(name: str, settings: Settings) -> tuple[list[Result], str | None]:
    """Run a section in this process."""
    results: list[Result] = []
    try:
        for result in _section(name).run(settings):
            results.append(result)
    except Exception as error:  # a section's error is its result
        traceback.print_exc()
        return results, f"{type(error).__name__}: {first_line(error)}"
    return results, None


def _apart(name: str, settings: Settings, limit: float) -> tuple[list[Result], str | None]:
    """Run a section in a process of its own, since a GPU's errors outlast the call; end it at its limit."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_results, args=(sender, name, settings))
    process.start()
    sender.close()
    results: list[Result] = []
    until = time.perf_counter() + limit
    error: str | None = f"stopped after {limit:.0f} s"
    while receiver.poll(max(0.0, until - time.perf_counter())):
        try:
            message = receiver.recv()
        except EOFError:
            error = "its process died"
            break
        if not isinstance(message, Result):
            error = message
            break
        results.append(message)
        print(f"  {message.name}: {message.figures} {message.unit}", flush=True)
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()
    return results, error


def _send_results(sender: Connection, name: str, settings: Settings) -> None:
    """Send each result as it is measured, then the error in one line or None."""
    try:
        for result in _section(name).run(settings):
            sender.send(result)
    except Exception as error:  # a section's error is its result
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {first_line(error)}")
    else:
        sender.send(None)


def _section(name: str) -> Any:
    return import_module(f"gpu_{name.replace('-', '_')}")


def save(about: dict[str, Any], found: dict[str, Any]) -> None:
    """Add the sections to the file of this device and day, and write the table of all of them."""
    device = re.sub(r"\W+", "-", str(about["gpu"])).strip("-").lower()
    file = HERE / "results" / f"gpu-{device}-{date.today()}.json"
    file.parent.mkdir(exist_ok=True)
    earlier = json.loads(file.read_text())["sections"] if file.exists() else {}
    sections = earlier | found
    file.write_text(json.dumps({"machine": about, "sections": sections}, indent=1) + "\n")
    versions = (
        f"{about['gpu']}, {about['cores']} cores, Python {about['python']}, torch {about['torch']}, {date.today()}"
    )
    lines = [f"`python benchmarks/gpu.py`, {versions}"]
    for name in SECTIONS:
        if section := sections.get(name):
            results = [Result(**result) for result in section["results"]]
            lines += ["", f"**{name}**{': ' + section['error'] if section['error'] else ''}", "", *table(results)]
    write_into_page(MARK, lines)


if __name__ == "__main__":
    run_command(main)
