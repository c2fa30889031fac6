"""Training from files, from decoded images in memory and from the device: images per second, and processor cores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from gpu_timing import Settings
from gpu_train import photograph_table, sample, train
from harness import Result
from photographs import photographs

IMAGES, EPOCHS, MINUTES = 44_000, 110, 20  # the target: the whole of the original's dataset in twenty minutes
PLACES = {  # where images come from and views are made
    "from files, views by workers": [],
    "from files, views on the device": ["--augment-on", "device"],
    "--cache device, views on the device": ["--augment-on", "device", "--cache", "device"],
}


def run(settings: Settings) -> Iterator[Result]:
    """Train a few epochs in each way."""
    cores = len(os.sched_getaffinity(0))
    model, side, batch = ("test_efficientnet", 32, 8) if settings.smoke else ("efficientnet_b0", 224, 512)
    with tempfile.TemporaryDirectory() as folder:
        if settings.images:
            count, copies = (16, 1) if settings.smoke else (400, 30)
            data = photograph_table(Path(folder), photographs(count), copies)
            of = f"photographs of {settings.images}"
        else:
            count, copies = (40, 1) if settings.smoke else (600, 25)
            data = sample(Path(folder), count, copies)
            of = "drawn products of 60 x 80 pixels"
        for index, (name, flags) in enumerate(PLACES.items()):
            words = ["--model", model, "--img-size", str(side), "-b", str(batch), "--views", "simclr", *flags]
            words += ["--opt", "adamw", "--lr", "1e-3", "--amp", "--amp-dtype", "bfloat16", "--channels-last"]
            words += ["--sched", "cosine", "--epochs", "2" if settings.smoke else "3", "--cooldown-epochs", "0"]
            words += ["--val-interval", "100", "--log-interval", "100000", "--device", settings.device]
            words += ["-j", "0"] if settings.smoke else ["-j", str(cores), "--use-multi-epochs-loader"]
            words += ["--warmup-epochs", "0"]
            trained = train(data, words, Path(folder, "output"), str(index))
            rate = median(trained.rates[1:])  # the first epoch also starts workers and compiles kernels
            minutes = IMAGES * EPOCHS / rate / 60
            note = f"{model}, two views of {side} pixels, bfloat16, batch {batch}, {of}"
            yield Result(f"training, {name}", "images/s", {"ours": rate}, {}, note)
            yield Result(f"processor cores, {name}", "cores", {"ours": trained.cores}, {}, f"of {cores}; the whole run")
            target = f"projected; target: {MINUTES}"
            yield Result(f"{IMAGES:,} images, {EPOCHS} epochs, {name}", "min", {"ours": minutes}, {}, target)
