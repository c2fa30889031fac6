#!/usr/bin/env python3
"""Measure NT-Xent on a GPU, forward and backward: time, and memory beyond the inputs. A CPU runs fewer sizes.

    python benchmarks/nt_xent_gpu.py

The peers multiply in TF32, as a training script may allow; the plain formula is also measured in float32. Ours always
multiplies in float32.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the checkout's simclr

import torch
from command import run_command
from nt_xent import WIDTH, Loss, lightly, ours, plain

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = [256, 1024, 4096, 16384, 32768] if DEVICE.type == "cuda" else [256, 1024]
CONTENDERS = {
    "ours": (ours, True),
    "plain formula": (plain, False),
    "plain formula, TF32": (plain, True),
    "lightly, TF32": (lightly, True),
}


def main() -> None:
    """Print one row of a Markdown table for each size, as it is measured."""
    print(f"{torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'CPU'}, torch {torch.__version__}")
    print("| N | " + " | ".join(CONTENDERS) + " |")
    print("|---" * (1 + len(CONTENDERS)) + "|")
    for n in SIZES:
        cells = []
        for make, tf32 in CONTENDERS.values():
            torch.backends.cuda.matmul.allow_tf32 = tf32
            cells.append(measured(make(), n))
        print(f"| {n} | " + " | ".join(cells) + " |", flush=True)


def measured(loss: Loss, n: int) -> str:
    """Return the median time of a call with N pairs, and on a GPU its memory."""
    z_i, z_j = (torch.randn(n, WIDTH, device=DEVICE, requires_grad=True) for _ in range(2))

    def once() -> float:
        z_i.grad = z_j.grad = None
        start = time.perf_counter()
        loss(z_i, z_j).backward()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    try:
        if DEVICE.type == "cpu":
            return f"{1e3 * median(once() for _ in range(22)):.2f} ms"
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        times = [once() for _ in range(7 if n > 4096 else 22)][2:]
        return f"{1e3 * median(times):.2f} ms, {(torch.cuda.max_memory_allocated() - before) / 2**20:.0f} MiB"
    except torch.cuda.OutOfMemoryError:
        return "out of memory"
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    run_command(main)
