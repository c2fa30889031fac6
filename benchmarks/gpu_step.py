"""A training step on a GPU: the original's way, ours in several forms, and the bare backbone, which is the limit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from gpu_timing import Prepare, Settings, compare, first_line, idle_percent
from harness import Result, Work
from original_way import OriginalModel, loss_of_a_step
from step import CLASSES, label_space, random_batch
from torch import nn

from timm.data.view_plan import plan_views
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.optim import create_optimizer_v2
from timm.task.simclr_classification import SimCLRClassificationTask

BATCHES = (32, 128, 512, 1024)
TARGETS = "targets: 10 times the original's way at batch 32, 90% of the bare backbone, less than 5% idle"


def run(settings: Settings) -> Iterator[Result]:
    """Compare training steps and the GPU's idle time, at several batch sizes."""
    model, side = _shape(settings)
    for batch in (2,) if settings.smoke else BATCHES:
        make = partial(_ours, model, batch, side, settings)
        contenders: dict[str, Prepare] = {
            "ours": partial(make, "eager"),
            "the original's way": partial(_original, model, batch, side, settings),
            "the bare backbone": partial(_bare, model, batch, side, settings),
        }
        if settings.device == "cuda":
            contenders["ours, CUDA graphs (experiment)"] = partial(make, "graphed")
        note = f"{model}, two views of {side} pixels, bfloat16; {TARGETS}"
        yield compare(f"step, batch {batch}", contenders, settings, items=batch, calls=_calls(batch), note=note)
        if idle := _idle({form: partial(make, form) for form in ("eager", "graphed")}, settings.device):
            yield Result(f"GPU idle, batch {batch}", "%", idle, {}, "one form after the other, target: less than 5")


def run_compiled(settings: Settings) -> Iterator[Result]:
    """Compare the step with the one under --torchcompile, which compiles for a minute, at two batch sizes."""
    model, side = _shape(settings)
    for batch in (2,) if settings.smoke else (32, 512):
        make = partial(_ours, model, batch, side, settings)
        contenders: dict[str, Prepare] = {
            "ours, --torchcompile": partial(make, "compiled"),
            "ours": partial(make, "eager"),
        }
        note = f"{model}, two views of {side} pixels, bfloat16"
        yield compare(
            f"compiled step, batch {batch}", contenders, settings, items=batch, calls=_calls(batch), note=note
        )


def _shape(settings: Settings) -> tuple[str, int]:
    """Return the model's name and the side of a view in pixels."""
    return ("test_efficientnet", 32) if settings.smoke else ("efficientnet_b0", 224)


def _calls(batch: int) -> int:
    return min(20, max(3, 1024 // batch))


def _idle(forms: dict[str, Prepare], device: str) -> dict[str, float]:
    found = {}
    for form, prepare in forms.items():
        try:
            work = prepare()
            for _ in range(5):
                work()
            share = idle_percent(work, device)
        except RuntimeError as error:
            print(f"  {form}: {first_line(error)}")
            continue
        if share is not None:
            found[form] = share
    return found


def _autocast(device: str, **settings: Any) -> Any:
    return torch.autocast(device, torch.bfloat16, **settings)


def _ours(name: str, batch: int, side: int, settings: Settings, form: str) -> Work:
    """Return train.py's step with --amp --amp-dtype bfloat16."""
    images, target = random_batch(batch, side)
    images = images.contiguous(memory_format=torch.channels_last)
    model = create_multi_label_model(name, label_space())
    model = model.to(settings.device).to(memory_format=torch.channels_last).train()
    if form == "graphed":
        _capture(model, images, settings.device)
    task = SimCLRClassificationTask(
        model,
        plan_views(True),
        simclr_loss_weight=0.1,
        classification_loss_weight=0.9,
        device=torch.device(settings.device),
    )
    if form == "compiled":
        task.compile(backend="eager" if settings.smoke else "inductor")
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-4, fused=True)
    task.train()

    def once() -> None:
        with _autocast(settings.device, cache_enabled=form != "graphed"):
            loss = task(images, target)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return once


def _capture(model: MultiLabelModel, images: torch.Tensor, device: str) -> None:
    """Record the backbone's forward and backward pass as CUDA graphs, which replay without launching each kernel."""
    with _autocast(device, cache_enabled=False):  # a cached cast would live in the graph's memory
        backbone: nn.Module = model.get_submodule("backbone")
        torch.cuda.make_graphed_callables(backbone, (images,))


def _original(name: str, batch: int, side: int, settings: Settings) -> Work:
    """Return the original's step, in the same number format."""
    images, target = random_batch(batch, side)
    views = images.chunk(2)
    model = OriginalModel(name, CLASSES).to(settings.device).train()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-4, foreach=False)

    def once() -> None:
        with _autocast(settings.device):
            loss = loss_of_a_step(model, (views[0], views[1]), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return once


def _bare(name: str, batch: int, side: int, settings: Settings) -> Work:
    """Return forward, backward and update of the backbone alone, on random images in the device's memory."""
    images, _ = random_batch(batch, side)
    images = images.contiguous(memory_format=torch.channels_last)
    model = create_multi_label_model(name, label_space()).backbone
    model = model.to(settings.device).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-4, fused=True)

    def once() -> None:
        with _autocast(settings.device):
            features = model(images)
        features.float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return once
