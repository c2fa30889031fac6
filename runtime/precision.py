"""The number formats of a run: autocast, loss scaling, and the dtype of the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runtime.errors import UsageError
from timm.utils import NativeScaler, dispatch_clip_grad

_logger = logging.getLogger(__name__)

Autocast = Callable[[], AbstractContextManager[Any]]


class PlainBackward:
    """A backward pass and update without loss scaling, with the signature of timm's NativeScaler."""

    state_dict_key = "amp_scaler"

    def __call__(
        self,
        loss: Tensor,
        optimizer: torch.optim.Optimizer,
        clip_grad: float | None = None,
        clip_mode: str = "norm",
        parameters: Iterable[Tensor] | None = None,
        create_graph: bool = False,
        need_update: bool = True,
    ) -> None:
        """Add the gradients of a loss; with `need_update` also clip them and step the optimizer."""
        loss.backward(create_graph=create_graph)
        if need_update:
            if clip_grad is not None:
                dispatch_clip_grad(parameters, clip_grad, mode=clip_mode)
            optimizer.step()


def emulates_bfloat16(device: torch.device) -> bool:
    """Return whether the device is a CPU without instructions for bfloat16."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def resolve_precision(
    device: torch.device, amp: bool, amp_dtype: str | None, model_dtype: str | None, training: bool = True
) -> tuple[Autocast, Any, torch.dtype]:
    """Return the autocast context, the backward pass with update, and the dtype of the model and its images.

    Args:
        device: where the model runs.
        amp: whether to use mixed precision. On the CPU that is bfloat16, on CUDA float16 with a loss scaler.
        amp_dtype: "float16" or "bfloat16", another dtype for `amp`; None for the default.
        model_dtype: dtype of the weights without `amp`; None for float32.
        training: whether gradients are computed.

    Raises:
        UsageError: the settings exclude each other.
    """
    dtype = getattr(torch, model_dtype or "float32")
    if not amp:
        if amp_dtype:
            raise UsageError(f"amp_dtype {amp_dtype} needs amp: without it nothing is cast")
        if dtype is torch.float16 and training:
            raise UsageError("model_dtype float16 is too narrow for gradients: use model_dtype bfloat16, or amp")
        return nullcontext, PlainBackward(), dtype
    if dtype is not torch.float32:
        raise UsageError(f"amp casts a float32 model as it runs: choose either amp or model_dtype {model_dtype}")
    cast = getattr(torch, amp_dtype or ("float16" if device.type == "cuda" else "bfloat16"))
    if device.type == "cpu" and cast is torch.float16:
        raise UsageError("amp_dtype float16 needs a GPU: on the CPU use amp_dtype bfloat16")
    if emulates_bfloat16(device):
        _logger.warning(
            "amp: this processor has no bfloat16 instructions, and emulating them is several times slower than "
            "float32: leave it out"
        )
    autocast = partial(torch.autocast, device_type=device.type, dtype=cast)
    return autocast, NativeScaler(device.type) if cast is torch.float16 else PlainBackward(), dtype
