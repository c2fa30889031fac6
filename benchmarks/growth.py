"""Measure how costs grow, and plot each in docs/scaling/: step, loss, loader, start-up and processes.

Each point is the median of a few repeats. docs/scaling.md explains where the lines bend.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import torch
from harness import Result, Work, peak_rise
from nt_xent import LOSSES, work
from step import our_step

from catalog.build_label_space import build_label_space
from catalog.table import read_table
from catalog.targets import encode_targets
from timm.data.multi_label_loader import LoaderSettings, ViewSource, create_train_loader
from timm.data.preprocessing import resolve_preprocessing
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation
from timm.data.view_plan import plan_views

mpl.use("Agg")
from matplotlib import pyplot as plt

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "scaling"
Points = dict[str, list[tuple[float, float]]]


def run(small: bool) -> list[Result]:
    """Measure and draw every plot; return all points."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    results = []
    for title, x, y, measure in [
        ("step", "images in a batch", "images/s, two views each", step_against_batch),
        ("loss-time", "images in a batch, N", "ms", loss_against_n),
        ("loss-memory", "images in a batch, N", "MiB", memory_against_n),
        ("loader", "workers", "images/s, two views each", images_against_workers),
        ("start-up", "rows of the table", "s", start_up_against_rows),
        ("processes", "processes", "images/s, two views each", processes_against_throughput),
    ]:
        points = measure(small)
        if not small:
            draw(title, x, y, points)
        for name, line in points.items():
            figures = {f"{size:g}": value for size, value in line}
            results.append(Result(f"{title}: {name}", y, figures, {}, x))
    return results


def step_against_batch(small: bool) -> Points:
    """Measure a step of EfficientNet-B0 at 128 pixels, float32, at several batch sizes."""
    points = []
    for batch in [2, 4] if small else [2, 4, 8, 16, 32, 64, 128]:
        once = our_step(batch, 128, False)
        points.append((float(batch), batch / _seconds(once, 2 if small else 3)))
    return {"EfficientNet-B0, 128 pixels": points}


def loss_against_n(small: bool) -> Points:
    """Measure NT-Xent, forward and backward, on one thread."""
    return _loss_points(small, lambda name, n: _seconds(work(name, n), 3) * 1000)


def memory_against_n(small: bool) -> Points:
    """Measure the memory of NT-Xent beyond its inputs."""
    return _loss_points(small, lambda name, n: peak_rise(work, (name, n)))


def _loss_points(small: bool, measure: Callable[[str, int], float]) -> Points:
    threads = torch.get_num_threads()
    largest = {"ours": 32768, "lightly": 4096, "plain formula": 4096}
    points = {
        name: [(float(n), measure(name, n)) for n in _doublings(128, 512 if small else last)]
        for name, last in largest.items()
        if name in LOSSES
    }
    torch.set_num_threads(threads)
    return points


def images_against_workers(small: bool) -> Points:
    """Measure the training loader alone at SimCLR's strength, after its workers have started."""
    from photographs import photographs

    files = photographs(96 if small else 1600)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "train.csv")
        rows = [f"{file},{'a' if index % 2 else 'b'}" for index, file in enumerate(files)]
        table.write_text("\n".join(["image_path,kind", *rows]) + "\n")
        lines: Points = {}
        for name, policy in {"--views simclr": {"strength": 1.0, "keep_color": False}, "timm's flags": None}.items():
            lines[name] = []
            for workers in [0, 1] if small else [0, 1, 2, 3, 4]:
                loader = _loader(table, workers, policy)
                batches = iter(loader)
                next(batches)  # the workers have started
                start = time.perf_counter()
                count = sum(len(target) for _, target in batches)
                lines[name].append((float(workers), count / (time.perf_counter() - start)))
    return lines


def _loader(table: Path, workers: int, policy: dict[str, Any] | None) -> Any:
    read = read_table(table)
    space = build_label_space(read)
    dataset = TwoViewDataset(read, encode_targets(read, space, strict=True), plan_views(True))
    config = resolve_preprocessing({}, {"input_size": (3, 224, 224)})
    augmentation = Augmentation(
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        color_jitter=(0.8, 0.8, 0.8, 0.2),
        color_jitter_prob=0.8,
        grayscale_prob=0.2,
        gaussian_blur_prob=0.5,
    )
    source = ViewSource(augmentation, policy)
    return create_train_loader(dataset, config, 32, source, LoaderSettings(num_workers=workers))


def start_up_against_rows(small: bool) -> Points:
    """Measure reading a table of three attributes and building its label space and targets."""
    points = []
    for rows in [1000, 10_000] if small else [1000, 10_000, 100_000, 1_000_000, 10_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "train.csv")
            write_table(file, rows)

            def once(file: Path = file) -> None:
                table = read_table(file)
                encode_targets(table, build_label_space(table), strict=True)

            points.append((float(rows), _seconds(once, 1 if rows > 1_000_000 else 3)))
    return {"read, label space, targets": points}


def write_table(file: Path, rows: int) -> None:
    """Write a table with the given number of rows and three attributes of 5, 141 and 47 classes."""
    rng = random.Random(0)
    block = [
        f"images/{{}}.jpg,gender {rng.randrange(5)},article {rng.randrange(141)},color {rng.randrange(47)}\n"
        for _ in range(1000)
    ]
    with file.open("w") as out:
        out.write("image_path,gender,article,color\n")
        for start in range(0, rows, 1000):
            out.writelines(line.format(start + index) for index, line in enumerate(block))


def processes_against_throughput(small: bool) -> Points:
    """Measure the images per second of all processes together: 32 images an update, one thread a process.

    The two process counts alternate, since two processes need both cores, and other load would halve their rate.
    """
    rates: dict[int, list[float]] = {1: [], 2: []}
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    for _ in range(1 if small else 3):
        for processes, seen in rates.items():
            command = [
                sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
                __file__, str(32 // processes), "1" if small else "4",
            ]  # fmt: skip
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
            seen.append(float(out.stdout.split()[-1]))
    return {"MobileNetV3-Small, 64 pixels, gloo": [(float(n), median(seen)) for n, seen in rates.items()]}


def _process(batch: int, repeats: int) -> None:
    """Time the steps of this process; the first rank prints the images per second of all processes."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from catalog.label_space import LabelSpace
    from timm.models.multi_label import create_multi_label_model
    from timm.task.simclr_classification import SimCLRClassificationTask

    # model
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    space = LabelSpace({"kind": ("a", "b")})
    model = create_multi_label_model("mobilenetv3_small_100", space, image_size=(3, 64, 64))
    model = model.to(memory_format=torch.channels_last)
    task = SimCLRClassificationTask(model, plan_views(True), device=torch.device("cpu"))
    task.prepare_distributed(device_ids=None)
    assert isinstance(task.trainable_module, DistributedDataParallel)

    # steps
    images = torch.randn(2 * batch, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    target = torch.randint(2, (batch, 1))

    def steps() -> None:
        for _ in range(10):
            task(images, target)["loss"].backward()

    seconds = _seconds(steps, repeats)
    if dist.get_rank() == 0:
        print(10 * batch * dist.get_world_size() / seconds)
    dist.destroy_process_group()


def _doublings(first: int, last: int) -> list[int]:
    return [first * 2**k for k in range(32) if first * 2**k <= last]


def _seconds(once: Work, repeats: int) -> float:
    """Return the median time of a call, after one uncounted call."""
    if repeats > 1:
        once()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        taken.append(time.perf_counter() - start)
    return median(taken)


def draw(title: str, x: str, y: str, lines: Points) -> None:
    """Draw a plot; both axes are logarithmic where the sizes double."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(6.4, 4), dpi=150)
    for (name, points), color, marker in zip(lines.items(), ["#0072B2", "#E69F00", "#009E73"], "os^", strict=False):
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, label=name)
    sizes = [size for points in lines.values() for size, _ in points]
    if max(sizes) / max(1, min(sizes)) > 8:
        axes.set_xscale("log", base=10 if max(sizes) >= 1e6 else 2)
        if title.startswith(("loss", "start")):
            axes.set_yscale("log")
    else:
        axes.set_xticks(sorted(set(sizes)))
    if axes.get_yscale() != "log":
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e4e4e4")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(FIGURES / f"{title}.png")
    plt.close(figure)


if __name__ == "__main__":
    _process(int(sys.argv[1]), int(sys.argv[2]))
