"""The optimizer and the learning rate's schedule, both timm's."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from runtime.errors import UsageError
from timm.models.multi_label import MultiLabelModel
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info
from timm.scheduler import create_scheduler_v2
from training.flag_names import naming_flags
from training.flat_adamp import flattened

_logger = logging.getLogger(__name__)

_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_MOMENTUM = 0.9  # the default of --momentum: no sign that the user wants momentum


def learning_rate(images: int, *, lr: float, base: float | None, base_size: int, scale: str, optimizer: str) -> float:
    """Return the learning rate, scaled to the global batch where a base rate is given.

    Args:
        images: images per update, over all processes.
        lr: learning rate where no base rate is given.
        base: learning rate for `base_size` images per update; None for `lr`.
        base_size: images per update at which the rate is `base`.
        scale: "linear" or "sqrt" in the images per update; "" is sqrt for Adam's family, else linear.
        optimizer: name of the optimizer.
    """
    if base is None:
        return lr
    adaptive = any(name in optimizer.lower() for name in ("ada", "lamb"))
    scale = scale or ("sqrt" if adaptive else "linear")
    ratio = images / base_size
    rate = base * (ratio**0.5 if scale == "sqrt" else ratio)
    _logger.info(f"Learning rate {rate:g} = {base:g} scaled ({scale}) to a global batch of {images}")
    return rate


@naming_flags("layer_decay")
def make_optimizer(
    model: MultiLabelModel,
    device: torch.device,
    lr: float,
    *,
    name: str,
    settings: Mapping[str, Any],
    extra: Mapping[str, Any],
    backbone_lr_scale: float = 1.0,
    gradient_centralization: bool = False,
    cached_gradients: bool = False,
) -> torch.optim.Optimizer:
    """Return timm's optimizer with this name.

    Args:
        model: the model, on its device.
        device: the model's device; on the CPU and on CUDA one kernel updates all weights, or a few for AdamP on CUDA.
        lr: learning rate.
        name: timm's name of the optimizer.
        settings: weight_decay, momentum, eps, betas, foreach and layer decay, where given.
        extra: further arguments of the optimizer's class.
        backbone_lr_scale: factor on the learning rate of the backbone.
        gradient_centralization: whether gradients are centered before each update.
        cached_gradients: whether steps cache gradients, which excludes second-order optimizers.

    Raises:
        UsageError: there is no such optimizer, or it does not take a setting.
    """
    try:
        _check_optimizer(name, settings, cached_gradients)
        optional = {**fused(device, name, settings, extra), **extra}
        optimizer: torch.optim.Optimizer = create_optimizer_v2(model, opt=name, lr=lr, **settings, **optional)
    except (ValueError, TypeError, AssertionError) as error:
        raise UsageError(f"--opt {name}: {error}") from error
    if device.type == "cuda":  # where launching many kernels costs more than the arithmetic
        optimizer = flattened(optimizer)
    if backbone_lr_scale != 1:
        _scale_rate(optimizer, model.backbone, backbone_lr_scale)
    if gradient_centralization:
        inner = getattr(optimizer, "_base_optimizer", optimizer)  # lookahead never calls its own hooks
        inner.register_step_pre_hook(lambda stepping, *_: centralize_gradients(stepping))
    return optimizer


@torch.no_grad()
def centralize_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Subtract from each output's gradient its mean over the inputs (arXiv:2004.01461, equation 1).

    Only weights with two dimensions or more are changed; the first dimension is the outputs. This comes after
    clipping and before momentum and decay. It is linear, so a loss scaler's factor does not matter.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.ndim > 1:
                gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True))


def _scale_rate(optimizer: torch.optim.Optimizer, part: nn.Module, scale: float) -> None:
    """Multiply the learning rate of a part's parameters through `lr_scale`, which timm's schedules apply."""
    inside = {id(parameter) for parameter in part.parameters()}
    groups = []
    for group in optimizer.param_groups:
        for within, factor in (True, scale), (False, 1.0):
            parameters = [one for one in group["params"] if (id(one) in inside) == within]
            if parameters:
                groups.append({**group, "params": parameters, "lr_scale": group.get("lr_scale", 1.0) * factor})
    optimizer.param_groups[:] = groups  # in place: lookahead shares the list with the optimizer that it wraps


def fused(device: torch.device, name: str, settings: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, bool]:
    """Return the argument that makes a PyTorch optimizer update all weights in one kernel, where it has one.

    On the CPU an update then takes a tenth of the time. A form chosen in `extra`, or `foreach` in `settings`,
    takes precedence.
    """
    optimizer = get_optimizer_class(_base_name(name), bind_defaults=False)
    chosen = {"fused", "foreach", "capturable", "differentiable"} & (extra.keys() | settings.keys())
    return {"fused": True} if optimizer in _FUSED and device.type in ("cpu", "cuda") and not chosen else {}


def _base_name(name: str) -> str:
    """Return an optimizer's name without lookahead's prefix."""
    return name.lower().rpartition("_")[2]


def _check_optimizer(name: str, settings: Mapping[str, Any], cached_gradients: bool) -> None:
    """Refuse settings that timm would silently drop, and second-order optimizers with cached gradients.

    Raises:
        ValueError: a sentence about what the optimizer has.
    """
    info = get_optimizer_info(_base_name(name))
    if settings.get("momentum", _MOMENTUM) != _MOMENTUM and not info.has_momentum:
        raise ValueError("it has no momentum: leave --momentum out")
    if "eps" in settings and not info.has_eps:
        raise ValueError("it has no epsilon: leave --opt-eps out")
    if info.second_order and cached_gradients:
        raise ValueError("it needs second-order gradients, which cached ones lack: leave --contrastive-batch-size out")
    betas = info.num_betas if info.has_betas else 0
    if "betas" in settings and len(settings["betas"]) != betas:
        given = len(settings["betas"])
        raise ValueError(f"it has {betas} betas, not {given}" if betas else "it has no betas: leave --opt-betas out")


class ConstantRate:
    """A schedule that never changes the learning rate, with the interface of timm's."""

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Do nothing after an epoch."""

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """Do nothing after an update."""


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    updates: int,
    lower_is_better: bool,
    metric_interval: int = 1,
    *,
    sched: str,
    num_epochs: int,
    steps: int | None,
    warmup_steps: int,
    patience_epochs: int,
    **settings: Any,
) -> tuple[Any, int]:
    """Return timm's schedule and the number of epochs, which includes the cooldown of cyclic schedules.

    Args:
        optimizer: the optimizer whose learning rate is set.
        updates: updates per epoch.
        lower_is_better: whether the metric that a plateau schedule watches is a loss.
        metric_interval: epochs between values of that metric.
        sched: timm's name of the schedule; "none" for a constant rate without warm-up.
        num_epochs: number of epochs asked for.
        steps: number of updates asked for, which sets the number of epochs and the schedule; None for `num_epochs`.
        warmup_steps: updates of warm-up among these steps.
        patience_epochs: epochs without a better metric before a plateau schedule decays the rate.
        settings: further arguments of timm's `create_scheduler_v2`.

    Raises:
        UsageError: the settings contradict each other.
    """
    if not num_epochs and steps is None:
        return ConstantRate(), 0
    length = {"num_epochs": num_epochs, "updates_per_epoch": updates} | settings
    if steps is not None:
        length = _length_in_steps(steps, warmup_steps, updates, sched, settings)
    try:
        with warnings.catch_warnings():
            # timm warns that its checkpoints lack what a plateau schedule remembers; ours have it.
            warnings.filterwarnings("ignore", "PlateauLRScheduler", FutureWarning)
            scheduler, epochs = create_scheduler_v2(
                optimizer,
                sched,
                # timm counts values of the metric: with k epochs between them, n epochs hold n // k values.
                patience_epochs=patience_epochs // metric_interval,
                plateau_mode="min" if lower_is_better else "max",
                **length,
            )
    except (ValueError, AssertionError) as error:
        raise UsageError(f"--sched {sched}: {error}") from error
    return scheduler or ConstantRate(), epochs if steps is None else math.ceil(steps / updates)


def _length_in_steps(
    steps: int, warmup_steps: int, updates: int, sched: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of timm's `create_scheduler_v2` for a run whose length is a number of updates.

    Args:
        steps: updates of the run.
        warmup_steps: updates of warm-up among them.
        updates: updates per epoch.
        sched: timm's name of the schedule.
        settings: arguments in epochs.
    """
    if sched in ("plateau", "none"):  # they change the rate after an epoch, or never
        warmup = round(warmup_steps / updates)
        return {**settings, "num_epochs": math.ceil(steps / updates), "warmup_epochs": warmup, "step_on_epochs": True}
    # The phases of wsd and rsqrt take a fraction of the run.
    names = ["stable_timescale"] if sched in ("wsd", "rsqrt") else ["decay_epochs", "stable_timescale"]
    scaled: dict[str, Any] = {name: settings[name] * updates for name in names if settings[name] is not None}
    scaled["decay_milestones"] = [epoch * updates for epoch in settings["decay_milestones"]]
    # timm multiplies epochs by their updates: here its epoch is one update.
    one = {"num_epochs": steps, "warmup_epochs": warmup_steps, "updates_per_epoch": 1, "step_on_epochs": False}
    return {**settings, **scaled, **one}


def plateau_memory(scheduler: Any) -> dict[str, Any] | None:
    """Return what a plateau schedule remembers, without its settings, which are flags; None for other schedules."""
    plateau = getattr(scheduler, "lr_scheduler", None)
    if plateau is None:
        return None
    state = plateau.state_dict()
    return {name: state[name] for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}
