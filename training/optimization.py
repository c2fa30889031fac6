"""The optimizer and the schedule of the learning rate: timm's, made of the flags."""

from __future__ import annotations

import logging
import warnings
from argparse import Namespace
from typing import Any

import torch
from torch import nn

from runtime.errors import UsageError
from timm.models.multi_label import MultiLabelModel
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task.gradient_cache import chunks_per_step

_logger = logging.getLogger(__name__)

_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def make_optimizer(args: Namespace, model: MultiLabelModel) -> torch.optim.Optimizer:
    """Return timm's optimizer by name; with --lr-base its rate follows from the global batch.

    Raises:
        UsageError: there is no such optimizer, or it does not take a flag.
    """
    if args.lr_base is not None:
        batch = args.batch_size * chunks_per_step(args) * args.world_size * args.grad_accum_steps
        adaptive = any(name in args.opt.lower() for name in ("ada", "lamb"))
        scale = args.lr_base_scale or ("sqrt" if adaptive else "linear")
        ratio = batch / args.lr_base_size
        args.lr = args.lr_base * (ratio**0.5 if scale == "sqrt" else ratio)
        _logger.info(f"Learning rate {args.lr:g} = {args.lr_base:g} scaled ({scale}) to a global batch of {batch}")
    try:
        _check_optimizer(args)
        extra = fused(args) | args.opt_kwargs
        optimizer: torch.optim.Optimizer = create_optimizer_v2(model, **optimizer_kwargs(args), **extra)
    except (ValueError, TypeError, AssertionError) as error:
        raise UsageError(f"--opt {args.opt}: {error}") from error
    if args.backbone_lr_scale != 1:
        _scale_rate(optimizer, model.backbone, args.backbone_lr_scale)
    if args.gradient_centralization:
        inner = getattr(optimizer, "_base_optimizer", optimizer)  # lookahead's own hooks are never called
        inner.register_step_pre_hook(lambda stepping, *_: centralize_gradients(stepping))
    return optimizer


@torch.no_grad()
def centralize_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Take from the gradient of each output of a weight its mean over the inputs (arXiv:2004.01461, equation 1).

    A weight is what has two dimensions or more, the first being the outputs. It comes after clipping and before
    momentum and decay, and as it is linear a loss scaler's factor does not matter.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.ndim > 1:
                gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True))


def _scale_rate(optimizer: torch.optim.Optimizer, part: nn.Module, scale: float) -> None:
    """Multiply the learning rate of a part's parameters, by the factor in their groups that timm's schedules apply."""
    inside = {id(parameter) for parameter in part.parameters()}
    groups = []
    for group in optimizer.param_groups:
        for within, factor in (True, scale), (False, 1.0):
            parameters = [one for one in group["params"] if (id(one) in inside) == within]
            if parameters:
                groups.append({**group, "params": parameters, "lr_scale": group.get("lr_scale", 1.0) * factor})
    optimizer.param_groups[:] = groups  # in place: lookahead shares the list with the optimizer that it wraps


def fused(args: Namespace) -> dict[str, bool]:
    """Return the argument that makes an optimizer of PyTorch's update all weights in one kernel, where it has one.

    On the CPU that takes a tenth of the time. `--opt-kwargs fused=False`, --opt-foreach or another form goes before it.
    """
    device = torch.device(args.device).type
    optimizer = get_optimizer_class(_base_name(args), bind_defaults=False)
    forms = {"fused", "foreach", "capturable", "differentiable"} & args.opt_kwargs.keys()
    chosen = bool(forms) or args.opt_foreach is not None
    return {"fused": True} if optimizer in _FUSED and device in ("cpu", "cuda") and not chosen else {}


def _base_name(args: Namespace) -> str:
    """Return the optimizer's name without lookahead's prefix."""
    return str(args.opt).lower().rpartition("_")[2]


def _check_optimizer(args: Namespace) -> None:
    """Refuse an epsilon, or a number of betas, that timm would drop in silence, and gradients without a second order.

    Raises:
        ValueError: says what the optimizer has.
    """
    info = get_optimizer_info(_base_name(args))
    if args.opt_eps is not None and not info.has_eps:
        raise ValueError("it has no epsilon: leave --opt-eps out")
    if info.second_order and chunks_per_step(args) > 1:
        raise ValueError("it differentiates gradients, which cached ones cannot be: leave --contrastive-batch-size out")
    betas = info.num_betas if info.has_betas else 0
    if args.opt_betas is not None and len(args.opt_betas) != betas:
        given = len(args.opt_betas)
        raise ValueError(f"it has {betas} betas, not {given}" if betas else "it has no betas: leave --opt-betas out")


def make_scheduler(
    args: Namespace, optimizer: torch.optim.Optimizer, updates: int, lower_is_better: bool
) -> tuple[Any, int]:
    """Return timm's schedule (None for none) and the number of epochs, with the cooldown of cyclic ones.

    Args:
        args: the flags.
        optimizer: whose rate it sets.
        updates: of an epoch.
        lower_is_better: whether --eval-metric, which a plateau schedule watches, is a loss.

    Raises:
        UsageError: the flags contradict each other.
    """
    try:
        with warnings.catch_warnings():
            # timm warns that its checkpoints lack what a plateau schedule remembers; ours have it.
            warnings.filterwarnings("ignore", "PlateauLRScheduler", FutureWarning)
            scheduler, epochs = create_scheduler_v2(
                optimizer, **scheduler_kwargs(args, lower_is_better), updates_per_epoch=updates
            )
    except (ValueError, AssertionError) as error:
        raise UsageError(f"--sched {args.sched}: {error}") from error
    return scheduler, epochs
