"""Keyword arguments that validate.py and inference.py take from their flags. Imports no torch.

The code below the scripts knows no flags; these functions translate them into its arguments.
"""

from argparse import Namespace
from typing import Any

from options.train_kwargs import precision_kwargs

# Settings that errors about a checkpoint name; the scripts replace them with their flags.
NAMED = (
    "amp",
    "amp_dtype",
    "model_dtype",
    "model_ema",
    "initial_checkpoint",
    "pretrained_path",
    "batch_size",
    "img_size",
    "use_ema",
    "torchcompile",
    "engine",
    "data=",
)
PREPROCESSING = ("img_size", "input_size", "crop_pct", "crop_mode", "mean", "std", "interpolation")


def serving_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `serving.MultiLabel` that are flags, besides the checkpoint and the device."""
    model = model_kwargs(args)
    taken = {"number_format": model.pop("precision"), "tta": args.tta, "engine": getattr(args, "engine", "torch")}
    return model | taken | loader_kwargs(args)


def model_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `serving.loading.load_evaluation_model` besides the checkpoint and the device."""
    return {
        "use_ema": getattr(args, "use_ema", False),
        "preprocessing": {name: getattr(args, name) for name in PREPROCESSING},
        "precision": precision_kwargs(args),
        "channels_last": args.channels_last,
        "compiler": getattr(args, "torchcompile", None) or None,
        "data": getattr(args, "data", None),
    }


def loader_kwargs(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `serving.loading.make_loader` besides the model and the dataset."""
    return {
        "batch_size": args.batch_size,
        "workers": args.workers,
        "pin_memory": args.pin_mem,
        "prefetcher": not args.no_prefetcher,
    }
