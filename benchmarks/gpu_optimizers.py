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

FORMS: dict[str, dict[str, Any]] = {  # ours first: what train.py --opt adamw takes
    "adamw, fused": {"opt": "adamw", "fused": True},
    "adamw, foreach": {"opt": "adamw", "foreach": True},
    "adamw, a kernel for each tensor": {"opt": "adamw", "foreach": False},
    "sgd, fused": {"opt": "sgd", "momentum": 0.9, "fused": True},
    "nadamw": {"opt": "nadamw"},
    "adamp": {"opt": "adamp"},
    "lamb": {"opt": "lamb"},
    "lookahead_adamp": {"opt": "lookahead_adamp"},
}


def run(settings: Settings) -> Iterator[Result]:
    """Compare the time of one update."""
    contenders: dict[str, Prepare] = {label: partial(_update, form, settings) for label, form in FORMS.items()}
    yield compare("update of all weights", contenders, settings, calls=20, note="efficientnet_b0, float32")


def _update(form: dict[str, Any], settings: Settings) -> Work:
    name = "test_efficientnet" if settings.smoke else "efficientnet_b0"
    model = create_model(name, num_classes=0).to(settings.device)
    optimizer = create_optimizer_v2(model, lr=1e-5, weight_decay=0.01, **form)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    return optimizer.step
