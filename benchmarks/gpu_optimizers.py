"""An update of EfficientNet-B0's weights, by optimizers that launch a few kernels and by those that launch many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from gpu_timing import Prepare, Settings, compare
from harness import Result, Work

from timm.models import create_model
from timm.optim import create_optimizer_v2
from training.flat_adamp import flattened

FORMS: dict[str, dict[str, Any]] = {  # ours first: what train.py --opt adamw takes
    "adamw, fused": {"opt": "adamw", "fused": True},
    "adamw, foreach": {"opt": "adamw", "foreach": True},
    "adamw, a kernel for each tensor": {"opt": "adamw", "foreach": False},
    "sgd, fused": {"opt": "sgd", "momentum": 0.9, "fused": True},
    "nadamw": {"opt": "nadamw"},
    "adamp, ours": {"opt": "adamp"},
    "adamp, timm's": {"opt": "adamp"},
    "lamb": {"opt": "lamb"},
    "lookahead_adamp": {"opt": "lookahead_adamp"},
}


def run(settings: Settings) -> Iterator[Result]:
    """Compare the time of one update."""
    contenders: dict[str, Prepare] = {label: partial(_update, label, settings) for label in FORMS}
    yield compare("update of all weights", contenders, settings, calls=20, note="efficientnet_b0, float32")


def _update(label: str, settings: Settings) -> Work:
    name = "test_efficientnet" if settings.smoke else "efficientnet_b0"
    model = create_model(name, num_classes=0).to(settings.device)
    optimizer = create_optimizer_v2(model, lr=1e-5, weight_decay=0.01, **FORMS[label])
    if label == "adamp, ours":
        optimizer = flattened(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    return optimizer.step
