#!/usr/bin/env python3
"""Time the labeling of a folder of photographs, from the command to the finished table, with each engine and with timm.

    python benchmarks/run.py labeling --images FOLDER            2,000 photographs, two rounds
    python benchmarks/labeling.py --images FOLDER --count 10000  another number, one round

Each contender is one command with its start, in a separate process. timm's way follows timm's inference.py with timm's
own functions: its loader, its defaults, and one class per image.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from command import command_parser, run_command
from harness import Comparison, Result
from photographs import FOLDER, photographs
from step import MODEL, label_space

from timm.data import create_dataset, create_loader, resolve_data_config
from timm.models import create_model, safe_model_name
from timm.models.multi_label import create_multi_label_model

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 193  # as many as all attributes of `step.label_space` have


def main() -> None:
    """Run one round with a number of photographs, or timm's way alone."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--images", metavar="FOLDER", help="folder of photographs (default: generated pictures)")
    add("--count", type=int, default=10_000, help="photographs to label (default: %(default)s)")
    add("--contenders", nargs="+", metavar="NAME", help="some contenders (default: all)")
    add("--as-timm", metavar="FOLDER", help="label this folder in timm's way, and write its table there")
    add("--channels-last", action="store_true", help="for --as-timm")
    args = parser.parse_args()
    if args.as_timm:
        label_as_timm(Path(args.as_timm), args.channels_last)
        return
    if args.images:
        os.environ[FOLDER] = args.images
    result = compare(args.count, 1, 224, args.contenders)
    for name, figure in result.figures.items():
        print(f"{name}: {figure:.1f} images/s, {args.count / figure:.0f} s", flush=True)


def run(small: bool) -> list[Result]:
    """Compare the commands."""
    return [compare(24, 1, 64) if small else compare(2_000, 2, 224)]


def compare(count: int, rounds: int, size: int, named: Iterable[str] | None = None) -> Result:
    """Time every contender in interleaved rounds.

    Args:
        count: photographs to label.
        rounds: number of rounds.
        size: side of the images in pixels.
        named: some contenders; None for all.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photographs"
        folder.mkdir()
        files = [file.resolve() for file in photographs(min(count, 2_000))]
        for index, file in enumerate(islice(cycle(files), count)):
            (folder / f"{index:06d}.jpg").symlink_to(file)
        checkpoint = save_checkpoint(Path(place) / "model.pth.tar", size)
        ours = ["inference.py", str(folder), "--checkpoint", str(checkpoint), "-o", str(Path(place) / "labels.csv")]
        theirs = ["benchmarks/labeling.py", "--as-timm", str(folder)]
        commands = {
            "ours": ours,
            "ours, --engine torch": [*ours, "--engine", "torch"],
            "timm": theirs,
            "timm, channels last": [*theirs, "--channels-last"],
        }
        chosen = {name: words for name, words in commands.items() if named is None or name in named}
        note = f"{MODEL}, {count:,} photographs, {size} pixels, {torch.get_num_threads()} threads, with the start"
        works = {name: partial(partial, seconds_of, words) for name, words in chosen.items()}
        comparison = Comparison("labeling", works, count, rounds, note)
        for _ in range(rounds):  # not `run`, which would label everything once more, untimed
            for name, words in chosen.items():
                comparison.seconds.setdefault(name, []).append(seconds_of(words))
        return comparison.result()


def seconds_of(words: list[str]) -> float:
    """Return the duration of a command in seconds."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def save_checkpoint(path: Path, size: int) -> Path:
    """Write a checkpoint of an untrained model, whose speed is that of a trained one."""
    torch.manual_seed(0)
    model = create_multi_label_model(MODEL, label_space(), image_size=(3, size, size))
    state = {"epoch": 0, "arch": MODEL, "state_dict": model.state_dict(), "multi_label": model.config, "args": {}}
    torch.save(state, path)
    return path


def label_as_timm(folder: Path, channels_last: bool) -> None:
    """Label a folder with timm's functions: batches of 256, two workers, the most probable class of each image."""
    model = create_model(safe_model_name(MODEL), num_classes=CLASSES).eval()
    config = resolve_data_config({}, model=model)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    dataset = create_dataset("", root=str(folder))
    loader = create_loader(
        dataset, batch_size=256, use_prefetcher=True, num_workers=2, device=torch.device("cpu"), **config
    )
    found: list[tuple[int, float]] = []
    with torch.inference_mode():
        for images, _ in loader:
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            probabilities, classes = model(images).softmax(-1).topk(1)
            found += zip(classes[:, 0].tolist(), probabilities[:, 0].tolist(), strict=True)
    names = dataset.filenames(basename=True)
    lines = [f"{name},{label},{share:.4f}" for name, (label, share) in zip(names, found, strict=True)]
    (folder.parent / "timm.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_command(main)
