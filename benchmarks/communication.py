#!/usr/bin/env python3
"""Estimate by a formula the time of a training step on many GPUs: model, loss and communication.

    python benchmarks/communication.py                    a table for 2 to 1,024 GPUs, and its assumptions
    python benchmarks/communication.py --link-gb 200      with another link

Each GPU holds B images: 2B views, each with a projection of P numbers. The joint batch grows with the number of GPUs W.

- model: 2B views at the GPU's rate, for any W
- all-reduce: 2 (W - 1) / W x G / link for G bytes of gradients (the bandwidth of a ring), overlapped with backward
- all-gather: (W - 1) x 2B x P x 4 bytes / link for the projections in forward, and two numbers a row for backward
- loss: 2B local rows against all 2BW rows, computed twice in forward and once more in backward with two products;
  2B x 2BW x P multiply-adds x 4 / the rate of matrix products
- latency: three collectives a step, each of log2(W) hops (trees)
"""

from __future__ import annotations

import argparse
import math

from command import command_parser, run_command
from readme_tables import markdown_table

SIZES = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def main() -> None:
    """Print the assumptions and the table."""
    # flags
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--images", type=int, default=128, help="images on each GPU, B (default: %(default)s)")
    add("--dim", type=int, default=64, help="numbers in a projection, P (default: %(default)s)")
    add("--parameters", type=float, default=6.0e6, help="parameters (default: %(default)g, EfficientNet-B0 with heads)")
    add("--views-per-s", type=float, default=3000, help="rate of one GPU, forward and backward (default: %(default)g)")
    add("--link-gb", type=float, default=50, help="bandwidth of a GPU's link, GB/s each way (default: %(default)g)")
    add("--hop-us", type=float, default=10, help="latency of a collective's hop, microseconds (default: %(default)g)")
    add("--tflops", type=float, default=30, help="float32 matrix products, TFLOP/s (default: %(default)g)")
    args = parser.parse_args()
    print(", ".join(f"{name} {value:g}" for name, value in vars(args).items()))

    # table
    rows = []
    for gpus in SIZES:
        parts = milliseconds(gpus, args)
        # The backward pass takes two thirds of the model's time and hides that much of the all-reduce.
        exposed = max(0.0, parts["all-reduce"] - 2 / 3 * parts["model"])
        step = parts["model"] + exposed + parts["all-gather"] + parts["loss"] + parts["latency"]
        figures = [f"{value:.2f} ms" for value in parts.values()]
        rows.append([f"{gpus}", f"{gpus * args.images:,}", *figures, f"{parts['model'] / step:.1%}"])
    header = ["GPUs", "joint batch", "model", "all-reduce", "all-gather", "loss", "latency", "efficiency"]
    print("", *markdown_table(header, rows), sep="\n")


def milliseconds(gpus: int, args: argparse.Namespace) -> dict[str, float]:
    """Return the milliseconds of each part of a step."""
    rows = 2 * args.images
    link = args.link_gb * 1e6  # bytes per millisecond
    return {
        "model": 1e3 * rows / args.views_per_s,
        "all-reduce": 2 * (gpus - 1) / gpus * 4 * args.parameters / link,
        "all-gather": (gpus - 1) * rows * (args.dim + 2) * 4 / link,
        "loss": 1e3 * rows * rows * gpus * args.dim * 2 * 4 / (args.tflops * 1e12),
        "latency": 3 * math.log2(gpus) * args.hop_us / 1e3,
    }


if __name__ == "__main__":
    run_command(main)
