#!/usr/bin/env python3
"""Time this project against others, side by side in one run, and write down what came out.

    pip install -r benchmarks/requirements.txt      the peers
    python benchmarks/run.py                        everything
    python benchmarks/run.py nt-xent views          some of it
    python benchmarks/run.py --images FOLDER        with photographs of one's own
    python benchmarks/run.py --small --dry          minutes less, and nothing written: does it still run?

Prints each peer's ratio to ours, above 1 where ours is better, with the least and the greatest of the rounds. Writes
benchmarks/results/<machine>-<date>.json and the tables of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as train.py has it
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # for the checkout's timm and simclr

from harness import Result, machine  # noqa: E402
from page import PAGE, write_into_page  # noqa: E402
from photographs import FOLDER  # noqa: E402

BENCHMARKS = ["nt-xent", "label-losses", "views", "step", "step-amp", "shares", "growth"]


def main() -> None:
    """Run what is named, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--small", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--images", metavar="FOLDER", help="photographs to read (default: made ones)")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    if strangers := set(args.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {strangers.pop()!r}; there are {', '.join(BENCHMARKS)}")
    if args.images:
        os.environ[FOLDER] = args.images
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items() if value))
    found: dict[str, list[Result]] = {}
    for name in args.names or BENCHMARKS:
        if results := import_module(name.replace("-", "_")).run(args.small):
            found[name] = results
            print("\n" + "\n".join(table(results)))
    if not args.dry:
        save(about, found)


def table(results: list[Result]) -> list[str]:
    """Return results as the lines of a Markdown table, a contender a line."""
    lines = ["| | against | ours | theirs | ratio | least to greatest |", "|---|---|---|---|---|---|"]
    for result in results:
        if not result.ratios and len(result.figures) > 1:  # a line of a plot
            values = ", ".join(f"{size}: {value:.3g}" for size, value in result.figures.items())
            lines.append(f"| {result.name} | {result.note} | {values} ({result.unit}) | | | |")
            continue
        (_, own), *peers = result.figures.items()
        head = f"{result.name}{f' ({result.note})' if result.note else ''}"
        if not peers:
            lines.append(f"| {head} | | {own:.3g} {result.unit} | | | |")
        for peer, figure in peers:
            ratio, least, greatest = result.ratios[peer]
            spread = f"{least:.2f} to {greatest:.2f}" if least < greatest else ""
            both = f"{own:.3g} {result.unit} | {figure:.3g} {result.unit}"
            lines.append(f"| {head} | {peer} | {both} | **{ratio:.2f}** | {spread} |")
            head = ""
    return lines


def save(about: dict[str, Any], found: dict[str, list[Result]]) -> None:
    """Write the results beside earlier ones of the day, and the tables into the README."""
    machine_name = re.sub(r"\W+", "-", str(about["gpu"] or about["processor"])).strip("-").lower()
    file = HERE / "results" / f"{machine_name}-{about['cores']}-cores-{date.today()}.json"
    file.parent.mkdir(exist_ok=True)
    earlier = json.loads(file.read_text())["results"] if file.exists() else {}
    results = earlier | {name: [asdict(result) for result in group] for name, group in found.items()}
    file.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")
    for name, group in found.items():
        command = f"`python benchmarks/run.py {name}`, {about['gpu'] or about['processor']}, {about['cores']} cores, "
        versions = f"Python {about['python']}, torch {about['torch']}, {date.today()}"
        write_into_page(name, [command + versions, "", *table(group)])
    print(f"\nWritten: {file.relative_to(HERE.parent)} and {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
