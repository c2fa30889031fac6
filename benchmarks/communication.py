#!/usr/bin/env python3
"""Where a step on many GPUs would spend its time, on paper: the model, the loss, and what travels.

    python benchmarks/communication.py                    a table for 2 to 1,024 GPUs, and what it assumes
    python benchmarks/communication.py --link-gb 200      with another link

Each GPU holds B images, so 2B views of D -> P projections; the joint batch grows with the number of GPUs W.

- model: 2B views at the GPU's measured or assumed rate; the same for every W.
- all-reduce of the gradients, of G bytes: 2 (W - 1) / W x G / link (a ring's bandwidth), overlapped with backward.
- all-gather of the projections: (W - 1) x 2B x P x 4 bytes / link, forward, and two numbers a row for backward.
- loss: a GPU's own 2B rows against all 2BW, twice forward and once made anew backward with two products: 2B x 2BW x P
  multiply-adds x 4 / the rate of matrix products.
- latency of collectives: each takes log2(W) hops (trees), three of them a step.
"""

from __future__ import annotations

import argparse
import math

SIZES = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=int, default=128, help="on each GPU, B (default: %(default)s)")
    add("--dim", type=int, default=64, help="of the projection, P (default: %(default)s)")
    add("--parameters", type=float, default=6.0e6, help="of EfficientNet-B0 with its heads (default: %(default)g)")
    add("--views-per-s", type=float, default=3000, help="of one GPU, forward and backward (default: %(default)g)")
    add("--link-gb", type=float, default=50, help="bandwidth of a GPU's link, GB/s each way (default: %(default)g)")
    add(
        "--hop-us", type=float, default=10, help="latency of a hop of a collective, microseconds (default: %(default)g)"
    )
    add("--tflops", type=float, default=30, help="float32 matrix products, TFLOP/s (default: %(default)g)")
    args = parser.parse_args()
    print(", ".join(f"{name} {value:g}" for name, value in vars(args).items()))
    print("\n| GPUs | joint batch | model | all-reduce | all-gather | loss | latency | efficiency |\n|" + "---|" * 8)
    for gpus in SIZES:
        parts = milliseconds(gpus, args)
        # The all-reduce hides behind the backward pass, two thirds of the model's time, as far as that is long.
        exposed = max(0.0, parts["all-reduce"] - 2 / 3 * parts["model"])
        step = parts["model"] + exposed + parts["all-gather"] + parts["loss"] + parts["latency"]
        figures = " | ".join(f"{value:.2f} ms" for value in parts.values())
        print(f"| {gpus} | {gpus * args.images:,} | {figures} | {parts['model'] / step:.1%} |")


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
    main()
