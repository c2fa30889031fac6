"""Split a training step's time into parts, for the original's step and for ours.

The kernel's time is part of all the others. It goes into memory pages that a step returns and the next one requests.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from harness import Result, in_a_process
from original_way import OriginalModel, loss_of_a_step
from step import CLASSES, DEVICE, MODEL, label_space, random_batch, wait

from runtime.host_memory import keep_freed_memory
from timm.data.view_plan import plan_views
from timm.models.multi_label import create_multi_label_model
from timm.optim import create_optimizer_v2
from timm.task.simclr_classification import SimCLRClassificationTask

STEPS = 5
Parts = dict[str, float]


def run(small: bool) -> list[Result]:
    """Measure the parts of both steps, each in a separate process."""
    batch, size = (8, 64) if small else (32, 224)
    note = f"{MODEL}, batch {batch}, two views of {size} pixels, {DEVICE.type}, {torch.get_num_threads()} threads"
    ours = in_a_process(our_parts, batch, size, True)
    peers = {
        "ours, freed memory given back": in_a_process(our_parts, batch, size, False),
        "the original's way": in_a_process(original_parts, batch, size),
    }
    results = []
    for part, taken in ours.items():
        figures = {"ours": taken} | {name: parts[part] for name, parts in peers.items()}
        ratios = {name: (parts[part] / taken,) * 3 for name, parts in peers.items()}
        results.append(Result(part, "ms", figures, ratios, note))
        note = ""
    return results


def our_parts(batch: int, size: int, keep: bool) -> Parts:
    """Return the milliseconds of each part of train.py's step, with or without keeping freed memory."""
    if keep:
        keep_freed_memory()
    images, target = random_batch(batch, size)
    images = images.contiguous(memory_format=torch.channels_last)
    model = create_multi_label_model(MODEL, label_space()).to(DEVICE).to(memory_format=torch.channels_last)
    task = SimCLRClassificationTask(
        model, plan_views(True), simclr_loss_weight=0.1, classification_loss_weight=0.9, device=DEVICE
    )
    task.train()
    return _parts(model, lambda: task(images, target)["loss"], fused=True)


def original_parts(batch: int, size: int) -> Parts:
    """Return the milliseconds of each part of the original's step."""
    images, target = random_batch(batch, size)
    views = images.chunk(2)
    model = OriginalModel(MODEL, CLASSES).to(DEVICE).train()
    return _parts(model, partial(loss_of_a_step, model, (views[0], views[1]), target), fused=False)


def _parts(model: Any, loss_of: Callable[[], Any], fused: bool) -> Parts:
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-4, fused=fused)
    clock = _Clock()
    model.backbone.register_forward_pre_hook(lambda *_: clock.tick("heads and losses, forward"))
    model.backbone.register_forward_hook(lambda *_: clock.tick("backbone, forward"))
    steps = []
    for _ in range(STEPS + 1):  # the first step allocates and does not count
        clock.start()
        loss = loss_of()
        clock.tick("heads and losses, forward")
        loss.backward()
        clock.tick("backward")
        optimizer.step()
        optimizer.zero_grad()
        clock.tick("optimizer")
        steps.append(clock.stop())
    return {name: median(step[name] for step in steps[1:]) for name in steps[1]}


class _Clock:
    """A stopwatch that adds up the milliseconds of each part of a step; a tick ends a part."""

    def start(self) -> None:
        """Begin a step."""
        wait()
        self.parts: Parts = defaultdict(float)
        self.begin = self.last = time.perf_counter()
        self.usage = resource.getrusage(resource.RUSAGE_SELF)

    def tick(self, name: str) -> None:
        """End a part."""
        wait()
        now = time.perf_counter()
        self.parts[name] += (now - self.last) * 1000
        self.last = now

    def stop(self) -> Parts:
        """End the step; return the milliseconds of its parts, their sum, and the kernel's share over all cores."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        threads = torch.get_num_threads()
        kernel = (usage.ru_stime - self.usage.ru_stime) * 1000 / threads
        order = ("backbone, forward", "heads and losses, forward", "backward", "optimizer")
        return {name: self.parts[name] for name in order} | {
            "all": (self.last - self.begin) * 1000,
            "all, in the kernel": kernel,
        }
