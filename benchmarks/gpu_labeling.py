"""Labeling and evaluation from files, the model alone, and the pretraining recipe: images per second."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_timing import Settings, compare
from gpu_train import ROOT, photograph_table, train
from harness import Result, Work
from photographs import photographs
from step import label_space, random_batch

from serving.multi_label import MultiLabel
from timm.models.multi_label import create_multi_label_model


def run(settings: Settings) -> Iterator[Result]:
    """Train a model for a moment, and label with it."""
    workers = 0 if settings.smoke else len(os.sched_getaffinity(0))
    model, side = ("test_efficientnet", 32) if settings.smoke else ("efficientnet_b0", 224)
    files = photographs(12 if settings.smoke else 300)
    copies = 1 if settings.smoke else 20
    note = f"{model}, {side} pixels, bfloat16"
    with tempfile.TemporaryDirectory() as folder:
        data, output = photograph_table(Path(folder), files, copies), Path(folder, "output")
        shape = ["--model", model, "--img-size", str(side), "--device", settings.device, "-j", str(workers)]
        once = ["--epochs", "1", "--cooldown-epochs", "0", "--log-interval", "100000", "--knn-interval", "0"]
        trained = train(data, [*shape, *once, "-b", "8", "--sched", "none", "--lr", "1e-3"], output, "model")
        (data / "test.csv").write_text((data / "train.csv").read_text())

        # labeling and evaluation
        batch = 4 if settings.smoke else 256
        model_of_files = MultiLabel(
            trained.folder / "last.pth.tar",
            device=settings.device,
            batch_size=batch,
            workers=workers,
            number_format={"amp": True, "amp_dtype": "bfloat16"},
        )
        listed = [str(file) for file in files] * copies
        rate = _rate(lambda: model_of_files.predict(listed), len(listed))
        yield Result("labeling from files", "images/s", {"ours": rate}, {}, f"{note}, {workers} workers")
        rate = _rate(lambda: model_of_files.evaluate(data, "test"), len(listed))
        yield Result("evaluation from files", "images/s", {"ours": rate}, {}, f"{note}, {workers} workers")
        alone = {"ours": lambda: _model_alone(model, batch, side, settings)}
        yield compare("the model alone", alone, settings, items=2 * batch, note=f"{note}, images on the device")

        # pretraining
        recipe = ["-c", str(ROOT / "recipes" / "pretrain.yaml"), "--steps", "3" if settings.smoke else "180"]
        recipe += ["-b", "4"] if settings.smoke else ["--amp", "--amp-dtype", "bfloat16"]
        trained = train(data, [*recipe, *shape, "--log-interval", "100000", "--knn-interval", "0"], output, "pretrain")
        rate = median(trained.rates[1:] or trained.rates)
        yield Result("recipes/pretrain.yaml", "images/s", {"ours": rate}, {}, f"{note}, batch 64, {workers} workers")


def _rate(call: Callable[[], Any], images: int) -> float:
    call()
    start = time.perf_counter()
    call()
    return images / (time.perf_counter() - start)


def _model_alone(name: str, batch: int, side: int, settings: Settings) -> Work:
    images, _ = random_batch(batch, side)
    images = images.contiguous(memory_format=torch.channels_last)
    model = (
        create_multi_label_model(name, label_space()).to(settings.device).to(memory_format=torch.channels_last).eval()
    )

    def once() -> None:
        with torch.inference_mode(), torch.autocast(settings.device, torch.bfloat16):
            model(images)

    return once
