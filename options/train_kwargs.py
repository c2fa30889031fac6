"""Keyword arguments that train.py takes from its flags, a function for each part of a run. Imports no torch.

The code below train.py knows no flags; these functions translate them into its arguments.
"""

import math
from argparse import Namespace
from typing import Any

from options.train_optimizer import GENTLE_RATE, is_adaptive, warmup_steps
from options.train_pseudo import has_soft_labels, has_teacher
from options.train_views import mixes_images
from options.values import duration


def process_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `runtime.process.set_up_process`; the three scripts share them."""
    shared = {"device": args.device, "dist_backend": getattr(args, "dist_backend", None)}
    minutes = getattr(args, "dist_timeout", None)
    return shared | {"dist_timeout": minutes and 60 * minutes}


def precision_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `runtime.precision.resolve_precision` besides the device, for the three scripts."""
    return {"amp": args.amp, "amp_dtype": args.amp_dtype, "model_dtype": getattr(args, "model_dtype", None)}


def model_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `training.model.make_model` besides the views and the label space."""
    return {
        "arch": args.model,
        "pretrained": args.pretrained,
        "pretrained_path": args.pretrained_path or None,
        "initial_checkpoint": args.initial_checkpoint or None,
        "image_size": _image_size(args),
        "preprocessing": {
            name: getattr(args, name) for name in ("crop_pct", "crop_mode", "mean", "std", "interpolation")
        },
        "backbone_kwargs": {
            "global_pool": args.gp,
            "drop_path_rate": args.drop_path if args.drop_path is not None else args.drop_connect,
            "drop_block_rate": args.drop_block,
            "model_kwargs": args.model_kwargs,
        },
        "head_kwargs": {
            "drop_rate": args.drop,
            "projection_dim": args.projection_dim,
            "projection_layers": args.projection_layers,
            "projection_norm": args.projection_norm,
            "balance": args.balance,
        },
        "batch_norm": {
            "tensorflow": args.bn_tf,
            "momentum": args.bn_momentum,
            "eps": args.bn_eps,
            "split": args.split_bn,
            "synchronize": args.sync_bn,
            "distribute": bool(args.dist_bn),
        },
        "freeze_backbone": args.freeze_backbone,
        "detach_heads": args.head_grad == "detach",
        "grad_checkpointing": args.grad_checkpointing,
        "channels_last": args.channels_last,
    }


def freeze_bn(args: Namespace, lr: float) -> bool | None:
    """Return whether the backbone's batch norms keep their statistics, given the learning rate.

    None means automatic: in a backbone that has batch norm; a resumed run as before. That is the default where labels
    fine-tune a backbone at a low rate, and no flag asks for other statistics. Above that rate, measured statistics
    score as well, and frozen ones may diverge (benchmarks/README.md).
    """
    if args.freeze_bn is not None:
        return bool(args.freeze_bn)
    if args.freeze_backbone or args.split_bn or args.sync_bn or args.bn_tf or args.bn_momentum is not None:
        return False
    starts = args.pretrained or args.initial_checkpoint
    learns = args.classification_loss_weight and args.head_grad != "detach"
    gentle = is_adaptive(args.opt) and lr <= GENTLE_RATE
    return None if args.resume or (starts and learns and gentle) else False


def task_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `training.task.make_task` that are flags."""
    return {
        "simclr_loss_weight": args.simclr_loss_weight,
        "classification_loss_weight": args.classification_loss_weight,
        "attribute_weights": args.attribute_weights,
        "smoothing": args.smoothing,
        "jsd": args.jsd,
        "multi_valued_loss": args.multi_valued_loss,
        "pseudo_weight": args.pseudo_weight,
        "class_weighting": args.class_weights,
        "logit_adjustment": args.logit_adjustment,
        "contrastive": contrastive_kwargs(args),
        "mixup": _mixup_kwargs(args) if mixes_images(args) else None,
    }


def contrastive_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `timm.task.contrastive_loss.ContrastiveLoss`, and of `contrast_levels`."""
    return {
        "name": args.contrastive,
        "temperature": args.temperature,
        "mask_false_negatives": args.mask_false_negatives,
    }


def _mixup_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `timm.data.multi_label_mixup.MultiLabelMixup` besides the label space."""
    return {
        "mixup_alpha": args.mixup,
        "cutmix_alpha": args.cutmix,
        "cutmix_minmax": args.cutmix_minmax,
        "prob": args.mixup_prob,
        "switch_prob": args.mixup_switch_prob,
        "mode": args.mixup_mode,
    }


def pseudo_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `training.pseudo.set_teacher` that are flags."""
    return {"skipped": args.pseudo_skip, "warmup": args.pseudo_warmup}


def rate_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `training.optimization.learning_rate` besides the images of an update."""
    return {
        "lr": args.lr,
        "base": args.lr_base,
        "base_size": args.lr_base_size,
        "scale": args.lr_base_scale,
        "optimizer": args.opt,
    }


def optimizer_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `training.optimization.make_optimizer` besides the model, the device and the rate."""
    settings = {
        "eps": args.opt_eps,
        "betas": args.opt_betas,
        "layer_decay": args.layer_decay,
        "layer_decay_no_opt_scale": args.layer_decay_no_opt_scale,
        "foreach": args.opt_foreach,
    }
    return {
        "name": args.opt,
        "settings": {
            "weight_decay": args.weight_decay,
            "momentum": args.momentum,
            "layer_decay_min_scale": args.layer_decay_min_scale,
            **{name: value for name, value in settings.items() if value is not None},
        },
        "extra": args.opt_kwargs,
        "backbone_lr_scale": args.backbone_lr_scale,
        "gradient_centralization": args.gradient_centralization,
    }


def schedule_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of timm's `create_scheduler_v2` that are flags; timm's own defaults differ from ours."""
    return {
        "sched": args.sched,
        "num_epochs": args.epochs,
        "steps": args.steps,
        "decay_epochs": args.decay_epochs,
        "decay_milestones": args.decay_milestones,
        "warmup_epochs": args.warmup_epochs,
        "warmup_steps": warmup_steps(args) if args.steps else 0,
        "cooldown_epochs": 0 if args.steps else args.cooldown_epochs,
        "patience_epochs": args.patience_epochs,
        "decay_rate": args.decay_rate,
        "min_lr": args.min_lr,
        "warmup_lr": args.warmup_lr,
        "warmup_prefix": args.warmup_prefix,
        "noise": args.lr_noise,
        "noise_pct": args.lr_noise_pct,
        "noise_std": args.lr_noise_std,
        "noise_seed": args.seed,
        "cycle_mul": args.lr_cycle_mul,
        "cycle_decay": args.lr_cycle_decay,
        "cycle_limit": args.lr_cycle_limit,
        "k_decay": args.lr_k_decay,
        "decay_fn": args.lr_decay_fn,
        "stable_timescale": args.lr_stable_timescale,
        "step_on_epochs": not args.sched_on_updates,
    }


def resumed_schedule_kwargs(args: Namespace, updates: int) -> dict[str, Any]:
    """Return the arguments of `training.resume.restore_schedule` that are flags, given the updates of an epoch."""
    on_updates = args.sched_on_updates or (args.steps is not None and args.sched not in ("plateau", "none"))
    return {"sched": args.sched, "on_updates": on_updates, "warmup_epochs": warmup_epochs(args, updates)}


def warmup_epochs(args: Namespace, updates: int) -> int:
    """Return the epochs of warm-up, with --steps to the nearest whole one, given the updates of an epoch."""
    if args.sched == "none":
        return 0
    return round(warmup_steps(args) / updates) if args.steps else int(args.warmup_epochs)


def data_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the fields of `training.label_tables.DataSettings`."""
    return {
        "data_dir": args.data_dir,
        "train_split": args.train_split,
        "val_split": args.val_split,
        "attributes": args.attributes,
        "multi_valued": args.multi_valued,
        "separator": args.separator,
        "image_root": args.image_root or None,
        "attribute_weights": args.attribute_weights,
        "unlabeled": args.unlabeled,
        "pseudo": has_teacher(args) or has_soft_labels(args),
        "pseudo_skip": args.pseudo_skip,
        "channels": args.input_size[0] if args.input_size else 3,
        "max_unreadable": args.max_unreadable,
        "classify": args.classification_loss_weight > 0,
        "contrastive": args.contrastive,
        "mask_false_negatives": args.mask_false_negatives,
        "resume": args.resume,
    }


def loader_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the fields of `training.loaders.RunLoaderSettings` besides `reads_labels`."""
    simclr = {"strength": args.view_strength, "keep_color": args.views == "simclr-keepcolor"}
    return {
        "batch_size": args.batch_size,
        "eval_batch_size": args.batch_size * args.validation_batch_size_multiplier,
        "contrastive_batch_size": args.contrastive_batch_size,
        "workers": args.workers,
        "loader": {"pin_memory": args.pin_mem, "use_prefetcher": not args.no_prefetcher},
        "train_loader": {
            "worker_seeding": args.worker_seeding,
            "use_multi_epochs_loader": args.use_multi_epochs_loader,
            "num_aug_repeats": args.aug_repeats,
        },
        "augmentation": augmentation_kwargs(args),
        "simclr_policy": None if args.views == "timm" else simclr,
        "views_on_device": args.augment_on == "device",
        "scaled": args.decode == "reduced",
        "cache": args.cache,
        "cache_dir": args.cache_dir or None,
        "unlabeled_ratio": unlabeled_ratio(args),
        "neighbor_images": args.knn_images if args.knn_interval else 0,
        "solves_heads": args.refit_heads or args.probe_first,
        "seed": args.seed,
    }


def unlabeled_ratio(args: Namespace) -> float:
    """Return the unlabeled images in a batch for each labeled one; 0 draws batches from all rows of the table."""
    return float(args.unlabeled_ratio or bool(args.unlabeled))


def augmentation_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the fields of `timm.data.view_maker.Augmentation`."""
    return {
        "no_aug": args.no_aug,
        "re_prob": args.reprob,
        "re_mode": args.remode,
        "re_count": args.recount,
        "re_split": args.resplit,
        "train_crop_mode": args.train_crop_mode,
        "scale": args.scale,
        "ratio": args.ratio,
        "hflip": args.hflip,
        "vflip": args.vflip,
        "color_jitter": args.color_jitter,
        "color_jitter_prob": args.color_jitter_prob,
        "grayscale_prob": args.grayscale_prob,
        "gaussian_blur_prob": args.gaussian_blur_prob,
        "auto_augment": args.aa,
        "num_aug_splits": args.aug_splits,
        "interpolation": args.train_interpolation,
    }


def val_interval(args: Namespace, updates: int) -> int:
    """Return the epochs between scorings; by default a run of --steps has about 20, given the updates of an epoch."""
    if args.val_interval is not None:
        return int(args.val_interval)
    return max(1, math.ceil(args.steps / updates) // 20) if args.steps else 1


def loop_kwargs(args: Namespace, updates: int) -> dict[str, Any]:
    """Return the fields of `training.run.Settings` that are flags, given the updates of an epoch."""
    timed = isinstance(args.recovery_interval, str)
    return {
        "seed": args.seed,
        "grad_accum_steps": args.grad_accum_steps,
        "clip_grad": args.clip_grad,
        "clip_mode": args.clip_mode,
        "mixup_off_epoch": args.mixup_off_epoch,
        "channels_last": args.channels_last,
        "dist_bn": args.dist_bn,
        "ema_on_cpu": args.model_ema_force_cpu,
        "val_interval": val_interval(args, updates),
        "knn_interval": args.knn_interval,
        "tta": args.tta,
        "log_interval": args.log_interval,
        "recovery_interval": 0 if timed else args.recovery_interval,
        "recovery_seconds": duration(args.recovery_interval) if timed else 0.0,
        "counts_confusions": args.log_tensorboard or args.log_wandb or args.log_trackio,
        "log_weights": args.balance != "fixed",
        "synchronize": args.synchronize_step,
        "refit_heads": args.refit_heads,
        "probe_first": args.probe_first and not args.resume,
    }


def view_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the fields of `training.view_warnings.ViewSettings`."""
    return {
        "views": args.views,
        "classify_view": args.classify_view,
        "no_aug": args.no_aug,
        "aug_splits": args.aug_splits,
        "hflip": args.hflip,
        "color_jitter": args.color_jitter,
        "grayscale_prob": args.grayscale_prob,
        "aa": args.aa,
        "contrast": args.simclr_loss_weight > 0,
        "classify": args.classification_loss_weight > 0,
    }


def _image_size(args: Namespace) -> tuple[int, int, int] | None:
    """Return the size (C, H, W) of the images that the flags ask for, None for the backbone's."""
    if args.input_size:
        channels, height, width = args.input_size
        return channels, height, width
    return (3, args.img_size, args.img_size) if args.img_size else None
