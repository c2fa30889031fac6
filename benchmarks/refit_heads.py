#!/usr/bin/env python3
"""Measure what --refit-heads adds to a training run: the demo, from scratch, with several seeds.

    python benchmarks/refit_heads.py [--seeds 5]      train and score, about ten minutes a seed on two cores
    python benchmarks/refit_heads.py --report         print the table

Each seed is one run of the demo's recipe with --refit-heads. Its best checkpoint before the refit is what the recipe
alone leaves; its best checkpoint of all is what the recipe leaves with the flag. Both are scored on the test split. A
finished seed is a line of benchmarks/results/refit-heads.jsonl and does not run again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from command import command_parser, head_commit, run_command
from scipy.stats import t  # type: ignore[attr-defined]  # scipy makes its distributions at run time

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "fashion-product-images"
RESULTS = ROOT / "benchmarks" / "results" / "refit-heads.jsonl"
WORK = ROOT / "output" / "refit-heads"
METRICS = ("top1", "gender_top1", "article_top1", "color_top1", "exact_match")


def main() -> None:
    """Run the missing seeds, or print the table."""
    parser = command_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="print the table, and run nothing")
    args = parser.parse_args()
    if not args.report:
        for seed in sorted(set(range(args.seeds)) - {line["seed"] for line in finished()}):
            run_seed(seed)
    report(finished())


def finished() -> list[dict[str, Any]]:
    """Return the finished seeds."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def run_seed(seed: int) -> None:
    """Train with one seed, score both checkpoints, and append the scores to the results."""
    if not (DATA / "images" / ".made").exists():
        call("fashion-product-images/make_sample.py")
    folder = WORK / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    run = ["--output", f"{WORK}", "--experiment", folder.name, "--seed", f"{seed}"]
    recipe = ["-c", "recipes/demo.yaml", "--refit-heads", "--checkpoint-hist", "2"]  # the two best epochs
    call("train.py", f"{DATA}", *recipe, *run)
    best, trained = folder / "model_best.pth.tar", best_trained(folder)
    line = {"seed": seed, "trained": score(trained), "refitted": score(best)}
    line |= {"commit": head_commit(), "date": f"{date.today()}"}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    shutil.rmtree(folder)


def best_trained(folder: Path) -> Path:
    """Return the best checkpoint of a run that is not the refit, which counts as the epoch after the last."""
    contents = {file: torch.load(file, weights_only=True) for file in folder.glob("checkpoint-*.pth.tar")}
    refit = torch.load(folder / "last.pth.tar", weights_only=True)["epoch"]
    return max(
        (file for file in contents if contents[file]["epoch"] < refit), key=lambda file: contents[file]["metric"]
    )


def score(checkpoint: Path) -> dict[str, float]:
    """Return a checkpoint's scores on the test split, in percent."""
    results = checkpoint.parent / "test.json"
    call("validate.py", f"{DATA}", "--split", "test", "--checkpoint", f"{checkpoint}", "--results-file", f"{results}")
    found = json.loads(results.read_text())
    return {name: found[name] for name in METRICS}


def call(*words: str) -> None:
    """Run a script of the checkout and wait for it; stop with its last lines if it fails."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")


def report(lines: list[dict[str, Any]]) -> None:
    """Print each score with and without the refit, and the mean difference with its 95% interval by Student's t."""
    if len(lines) < 2:
        raise SystemExit(f"{RESULTS} has {len(lines)} seeds, and an interval needs two: run more first")
    print("| score | as trained | refitted | difference |\n|---|---|---|---|")
    for name in METRICS:
        before, after = ([line[kind][name] for line in lines] for kind in ("trained", "refitted"))
        differences = [b - a for a, b in zip(before, after, strict=True)]
        half = t.ppf(0.975, len(lines) - 1) * stdev(differences) / len(lines) ** 0.5
        middle = mean(differences)
        interval = f"{middle:+.1f} ({middle - half:+.1f} to {middle + half:+.1f})"
        print(f"| {name} | {mean(before):.1f} | {mean(after):.1f} | {interval} |")


if __name__ == "__main__":
    run_command(main)
