"""Compare a training step of EfficientNet-B0 at 224 pixels, and scoring, with the original's way.

The backbone alone, forward and backward on random images in memory, is the limit of a step, and is measured too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Comparison, Result, Work
from original_way import OriginalModel, loss_of_a_step
from photographs import photographs
from PIL import Image

from catalog.label_space import LabelSpace
from catalog.table import read_table
from runtime.host_memory import keep_freed_memory
from timm.data import create_transform
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader
from timm.data.preprocessing import resolve_preprocessing
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import plan_views
from timm.models.multi_label import create_multi_label_model
from timm.optim import create_optimizer_v2
from timm.task.simclr_classification import SimCLRClassificationTask

MODEL = "efficientnet_b0"
CLASSES = {"gender": 5, "article": 141, "color": 47}  # the numbers of the real dataset
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(small: bool) -> list[Result]:
    """Compare training steps in float32, the bare backbone, and scoring."""
    steps = {"ours": our_step, "the original's way": original_step, "the bare backbone": bare_backbone}
    return compare(small, {name: (make, False) for name, make in steps.items()}, amp=False)


def compare(small: bool, steps: dict[str, tuple[Callable[..., Work], bool]], amp: bool) -> list[Result]:
    """Compare training steps and scoring.

    Args:
        small: whether to use smaller sizes.
        steps: by name, ours first, a function that prepares the step, and whether it uses mixed precision.
        amp: whether our scoring uses mixed precision.
    """
    batch, size, images = (8, 64, 32) if small else (32, 224, 128)
    flag = ", --amp" if amp else ""
    training: dict[str, Callable[[], Work]] = {
        name: partial(make, batch, size, mixed) for name, (make, mixed) in steps.items()
    }
    scoring: dict[str, Callable[[], Work]] = {
        f"ours{flag}": partial(our_scoring, images, size, amp),
        "the original's way": partial(original_scoring, images, size),
    }
    step = f"{MODEL}, batch {batch}, two views of {size} pixels, {DEVICE.type}, {torch.get_num_threads()} threads"
    scored = f"{MODEL}, from the file, {size} pixels"
    return [
        Comparison(f"training step{flag}", training, batch, 3, step, apart=True).run(),
        Comparison(f"scoring{flag}", scoring, images, 3, scored, apart=True).run(),
    ]


def _amp(enabled: bool) -> Any:
    return torch.autocast(DEVICE.type, torch.bfloat16) if enabled else nullcontext()


def random_batch(batch: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two views of random images [2B, 3, H, W] and targets [B, A]."""
    torch.manual_seed(0)
    target = torch.stack([torch.randint(count, (batch,)) for count in CLASSES.values()], dim=1)
    return torch.randn(2 * batch, 3, size, size).to(DEVICE), target.to(DEVICE)


def label_space() -> LabelSpace:
    """Return a label space with the real dataset's numbers of classes, under made-up names."""
    return LabelSpace({name: tuple(f"{index:03d}" for index in range(count)) for name, count in CLASSES.items()})


def our_step(batch: int, size: int, amp: bool) -> Work:
    """Return train.py's step: both views in one pass, channels last."""
    keep_freed_memory()
    images, target = random_batch(batch, size)
    images = images.contiguous(memory_format=torch.channels_last)
    model = create_multi_label_model(MODEL, label_space()).to(DEVICE).to(memory_format=torch.channels_last)
    task = SimCLRClassificationTask(
        model, plan_views(True), simclr_loss_weight=0.1, classification_loss_weight=0.9, device=DEVICE
    )
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-4, fused=True)
    task.train()

    def once() -> None:
        with _amp(amp):
            loss = task(images, target)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait()

    return once


def original_step(batch: int, size: int, amp: bool) -> Work:
    """Return the original's step."""
    images, target = random_batch(batch, size)
    views = images.chunk(2)
    model = OriginalModel(MODEL, CLASSES).to(DEVICE).train()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-4)

    def once() -> None:
        with _amp(amp):
            loss = loss_of_a_step(model, (views[0], views[1]), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait()

    return once


def bare_backbone(batch: int, size: int, amp: bool) -> Work:
    """Return a forward and backward pass of the backbone alone, both views in one batch, channels last."""
    keep_freed_memory()
    images, _ = random_batch(batch, size)
    images = images.contiguous(memory_format=torch.channels_last)
    model = create_multi_label_model(MODEL, label_space()).backbone
    model = model.to(DEVICE).to(memory_format=torch.channels_last).train()

    def once() -> None:
        with _amp(amp):
            features = model(images)
        features.float().sum().backward()
        model.zero_grad()
        wait()

    return once


def our_scoring(count: int, size: int, amp: bool) -> Work:
    """Return a pass that reads and scores images with validate.py's loader, without workers."""
    # loader
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "val.csv")
        file.write_text("\n".join(["image_path,gender", *(f"{image},000" for image in photographs(count))]) + "\n")
        table = read_table(file, require_attributes=False)
    dataset = TwoViewDataset(table, np.zeros((count, 1), np.int64))
    config = resolve_preprocessing({}, {"input_size": (3, size, size)})
    loader = create_eval_loader(dataset, config, 32, LoaderSettings(device=DEVICE))

    # model
    model = create_multi_label_model(MODEL, label_space()).to(DEVICE).to(memory_format=torch.channels_last).eval()

    def once() -> None:
        for images, _ in loader:
            with torch.inference_mode(), _amp(amp):
                model(images)
        wait()

    return once


def original_scoring(count: int, size: int) -> Work:
    """Return a pass that makes two views of each image, discards one and scores the other, channels first."""
    files = photographs(count)
    transform = create_transform((3, size, size), is_training=False, normalize=True)
    model = OriginalModel(MODEL, CLASSES).to(DEVICE).eval()

    def two_views(file: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(file) as image:
            opened = image.convert("RGB")
        return transform(opened), transform(opened)

    def once() -> None:
        for start in range(0, count, 32):
            views = [two_views(file) for file in files[start : start + 32]]
            with torch.inference_mode():
                model(torch.stack([first for first, _ in views]).to(DEVICE))
        wait()

    return once


def wait() -> None:
    """Wait until the device has finished its queued work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
