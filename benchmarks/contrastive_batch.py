"""Measure memory and time of a contrastive batch: in chunks (--contrastive-batch-size) and as one batch.

    python benchmarks/contrastive_batch.py --model test_resnet --img-size 160 -b 32

A step has 1, 4 and 8 times the images of the batch size. The table has, for each, the rise of the peak resident memory
above the model and the images, and the processor time on one core. Each step runs in a separate process.
"""

import multiprocessing
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the checkout's timm and simclr

import torch
from command import command_parser, run_command

from catalog.label_space import LabelSpace
from timm.data.view_plan import plan_views
from timm.models.multi_label import create_multi_label_model
from timm.task.gradient_cache import chunk_forwards
from timm.task.simclr_classification import SimCLRClassificationTask


def main() -> None:
    """Measure every size in both ways, and print a table."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--model", default="resnet18", help="architecture (default: %(default)s)")
    add("--img-size", type=int, default=64, help="side in pixels (default: %(default)s)")
    add("--batch-size", "-b", type=int, default=32, help="images in a chunk (default: %(default)s)")
    args = parser.parse_args()
    print("images   in chunks         as one batch")
    for count in (1, 4, 8):
        images = args.batch_size * count
        memory, seconds = measured(args.model, args.img_size, [args.batch_size] * count)
        whole_memory, whole_seconds = measured(args.model, args.img_size, [images])
        print(f"{images:6}   {memory:5.0f} MB {seconds:5.2f} s   {whole_memory:5.0f} MB {whole_seconds:5.2f} s")


def measured(model: str, side: int, sizes: list[int]) -> tuple[float, float]:
    """Return the memory in MB and the seconds of a step with chunks of the given sizes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, (model, side, sizes))


def step(arch: str, side: int, sizes: list[int]) -> tuple[float, float]:
    """Measure a step in this process, whose peak memory must not have been higher before."""
    torch.set_num_threads(1)
    space = LabelSpace.numbered({"gender": 5, "article": 20, "color": 13})
    task = SimCLRClassificationTask(create_multi_label_model(arch, space, image_size=(3, side, side)), plan_views(True))
    task.train()
    chunk = torch.randn(4, 3, side, side), torch.zeros(4, 3, dtype=torch.long)
    task(*chunk)["loss"].backward()  # a first step also sets up the libraries: leave that out
    chunks = [(torch.randn(2 * size, 3, side, side), torch.zeros(2 * size, 3, dtype=torch.long)) for size in sizes]
    before, start = peak_megabytes(), time.process_time()
    for forward in chunk_forwards(task, chunks, nullcontext):
        forward()["loss"].backward()
    return peak_megabytes() - before, time.process_time() - start


def peak_megabytes() -> float:
    """Return the peak resident memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    run_command(main)
