"""What a contrastive batch costs in memory and time: in chunks, as --contrastive-batch-size does, and as one batch.

    python benchmarks/contrastive_batch.py --model test_resnet --img-size 160 -b 32

Prints, for 1, 4 and 8 times as many images, how far a step raises the peak of this machine's resident memory above
what the model and the images take, and its processor time on one core. Each has a process of its own.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the checkout's timm and simclr

import torch

from catalog.label_space import LabelSpace
from timm.data.view_plan import plan_views
from timm.models.multi_label import create_multi_label_model
from timm.task.gradient_cache import chunk_forwards
from timm.task.simclr_classification import SimCLRClassificationTask


def main() -> None:
    """Measure every size both ways, and print a table."""
    parser = argparse.ArgumentParser(description="Memory and time of a step by the size of its contrastive batch.")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--img-size", type=int, default=64)
    parser.add_argument("--batch-size", "-b", type=int, default=32)
    args = parser.parse_args()
    print("images   in chunks         as one batch")
    for count in (1, 4, 8):
        sizes = [args.batch_size] * count, [args.batch_size * count]
        (memory, seconds), (whole_memory, whole_seconds) = (measured(args.model, args.img_size, own) for own in sizes)
        print(f"{sizes[1][0]:6}   {memory:5.0f} MB {seconds:5.2f} s   {whole_memory:5.0f} MB {whole_seconds:5.2f} s")


def measured(model: str, side: int, sizes: list[int]) -> tuple[float, float]:
    """Return the memory in MB and the seconds of a step with chunks of such sizes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, (model, side, sizes))


def step(arch: str, side: int, sizes: list[int]) -> tuple[float, float]:
    """Measure a step in this process, whose peak of memory must not have been higher before."""
    torch.set_num_threads(1)
    space = LabelSpace.numbered({"gender": 5, "article": 20, "color": 13})
    task = SimCLRClassificationTask(create_multi_label_model(arch, space, image_size=(3, side, side)), plan_views(True))
    task.train()
    chunk = torch.randn(4, 3, side, side), torch.zeros(4, 3, dtype=torch.long)
    task(*chunk)["loss"].backward()  # what a first step sets up is not the batch's
    chunks = [(torch.randn(2 * size, 3, side, side), torch.zeros(2 * size, 3, dtype=torch.long)) for size in sizes]
    before, start = peak_megabytes(), time.process_time()
    for forward in chunk_forwards(task, chunks, nullcontext):
        forward()["loss"].backward()
    return peak_megabytes() - before, time.process_time() - start


def peak_megabytes() -> float:
    """Return this process's peak of resident memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
