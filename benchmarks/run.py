#!/usr/bin/env python3
"""Time this project against others, side by side in one run, and record the results.

    pip install -r benchmarks/requirements.txt      install the peers
    python benchmarks/run.py                        all benchmarks
    python benchmarks/run.py nt-xent views          some of them
    python benchmarks/run.py --images FOLDER        with your photographs
    python benchmarks/run.py --small --dry          a quick check that everything runs; writes nothing

Prints each peer's ratio to ours (above 1 ours is better), with the lowest and the highest of the rounds.
Writes benchmarks/results/<machine>-<date>.json and the tables of benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train.py
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # for the checkout's timm and simclr

from command import command_parser, run_command  # noqa: E402
from harness import Result, machine  # noqa: E402
from photographs import FOLDER  # noqa: E402
from readme_tables import PAGE, markdown_table, write_into_page  # noqa: E402

BENCHMARKS = [
    "nt-xent",
    "label-losses",
    "views",
    "cache",
    "step",
    "step-amp",
    "shares",
    "growth",
    "search-index",
    "labeling",
]


def main() -> None:
    """Run the named benchmarks, print their tables, and record them."""
    # flags
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)} (default: all)")
    add("--small", action="store_true", help="use smaller sizes and fewer rounds")
    add("--images", metavar="FOLDER", help="folder of photographs to read (default: generated pictures)")
    add("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {unknown.pop()!r}; there are {', '.join(BENCHMARKS)}")
    if args.images:
        os.environ[FOLDER] = args.images

    # benchmarks
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
    """Return results as the lines of a Markdown table, one line for each contender."""
    rows = []
    for result in results:
        if not result.ratios and len(result.figures) > 1:  # a line of a plot
            values = ", ".join(f"{size}: {value:.3g}" for size, value in result.figures.items())
            rows.append([result.name, result.note, f"{values} ({result.unit})", "", "", ""])
            continue
        (_, ours), *peers = result.figures.items()
        head = f"{result.name}{f' ({result.note})' if result.note else ''}"
        if not peers:
            rows.append([head, "", f"{ours:.3g} {result.unit}", "", "", ""])
        for peer, figure in peers:
            ratio, lowest, highest = result.ratios[peer]
            spread = f"{lowest:.2f} to {highest:.2f}" if lowest < highest else ""
            both = [f"{value:.3g} {result.unit}" for value in (ours, figure)]
            rows.append([head, peer, *both, f"**{ratio:.2f}**", spread])
            head = ""
    return markdown_table(["", "against", "ours", "theirs", "ratio", "least to greatest"], rows)


def save(about: dict[str, Any], found: dict[str, list[Result]]) -> None:
    """Add the results to the file of this machine and day, and write the tables into the README."""
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
    run_command(main)
