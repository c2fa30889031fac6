"""The model of a run."""

from __future__ import annotations

import logging
from argparse import Namespace
from contextlib import nullcontext

import torch

from catalog.label_space import LabelSpace
from runtime.process import memory_format
from timm.data.multi_label_loader import (
    resolve_preprocessing,
)
from timm.data.view_plan import ViewPlan
from timm.models.batch_norm import require_batch_norm, set_batch_norm, split_batch_norm, synchronize_batch_norm
from timm.models.initial_checkpoint import load_initial_checkpoint
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.models.pretrained_weights import pretrained_weights

_logger = logging.getLogger("train")


def make_model(args: Namespace, plan: ViewPlan, label_space: LabelSpace, fresh: bool = True) -> MultiLabelModel:
    """Make the model; the preprocessing that it is trained with goes into its config.

    Args:
        args: the flags.
        plan: the views.
        label_space: the attributes and their classes.
        fresh: give it its first weights; a checkpoint that will overwrite them all spares looking for them.
    """
    image_size = tuple(args.input_size) if args.input_size else (3, args.img_size, args.img_size)
    pretrained = args.pretrained and fresh
    weights = args.pretrained_path or None  # None: downloaded
    with pretrained_weights(args.model, weights) if pretrained else nullcontext():
        model = create_multi_label_model(
            args.model,
            label_space,
            pretrained=pretrained,
            pretrained_path=weights if pretrained else None,
            image_size=image_size if args.input_size or args.img_size else None,
            global_pool=args.gp,
            drop_path_rate=args.drop_path if args.drop_path is not None else args.drop_connect,
            drop_block_rate=args.drop_block,
            model_kwargs=args.model_kwargs,
            drop_rate=args.drop,
            projection_dim=args.projection_dim if plan.contrast else 0,
            projection_layers=args.projection_layers,
            projection_norm=args.projection_norm,
            balance=args.balance,
        )
    model.config["data_config"] = resolve_preprocessing(
        model.pretrained_cfg, vars(args) | {"input_size": model.config["image_size"]}
    )
    if args.initial_checkpoint and fresh:
        load_initial_checkpoint(model, args.initial_checkpoint)
    if args.freeze_backbone:
        model.freeze_backbone()
    model.detach_heads = args.head_grad == "detach"
    apply_batch_norm_flags(args, model, plan)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(True)
    return model.to(memory_format=memory_format(args.channels_last))


def apply_batch_norm_flags(args: Namespace, model: MultiLabelModel, plan: ViewPlan) -> None:
    """Apply the batch norm flags to whatever batch norms the model has."""
    set_batch_norm(model, args.bn_tf, args.bn_momentum, args.bn_eps)
    if args.split_bn:
        split_batch_norm(model, len(plan))
    if args.sync_bn:
        synchronize_batch_norm(model, torch.device(args.device).type)
    if args.dist_bn:
        require_batch_norm(model, model)
