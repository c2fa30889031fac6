"""Reading checkpoints: ours, and those of the original's model, which hold no class names."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from runtime.errors import UsageError, first_line
from timm.models import clean_state_dict
from timm.models.batch_norm import set_batch_norm
from timm.models.multi_label import MultiLabelModel, create_multi_label_model

StateDict = dict[str, Tensor]


class CheckpointError(UsageError):
    """A checkpoint that cannot serve; the message says which, why, and what to do."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Raises:
        CheckpointError: no such file, or not a training checkpoint.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        # timm's own and the original's checkpoints carry their arguments as a Namespace; ours are plain.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on garbage the unpickler raises whatever the bytes make it stumble over
        raise CheckpointError(f"{path} is not a checkpoint that can be read safely: {first_line(error)}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{path} is not a training checkpoint: it has no state_dict")
    return checkpoint


def trained_flags(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that a checkpoint was trained with, none where it does not say."""
    args = checkpoint.get("args")
    return dict(args) if isinstance(args, Mapping) else vars(args) if isinstance(args, argparse.Namespace) else {}


def heads_are_untrained(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the run that a checkpoint is of trained no head: it had -wlc 0."""
    return trained_flags(checkpoint).get("classification_loss_weight") == 0


def load_model(path: str | Path, use_ema: bool, label_space: LabelSpace | None) -> MultiLabelModel:
    """Rebuild the model of a checkpoint; `MultiLabelModel.from_checkpoint` is the public name."""
    return build_model(path, read_checkpoint(path), use_ema, label_space)


def build_model(
    path: str | Path, checkpoint: dict[str, Any], use_ema: bool, label_space: LabelSpace | None
) -> MultiLabelModel:
    """Rebuild the model of a checkpoint that has been read; the path is for messages."""
    key = "state_dict_ema" if use_ema else "state_dict"
    if checkpoint.get(key) is None:
        raise CheckpointError(f"{path} holds no averaged weights: it was trained without --model-ema")
    weights = clean_state_dict(checkpoint[key])
    if any(name.startswith("base_model.") for name in weights):
        return _load_original(path, checkpoint, weights, label_space)
    if "multi_label" not in checkpoint:
        raise CheckpointError(
            f"{path} holds no label space: it is no checkpoint of this trainer; start from its backbone with "
            "--initial-checkpoint or --pretrained-path"
        )
    config = checkpoint["multi_label"]
    model = model_from_config(config)
    model.load_state_dict(without_auxiliary_norms(weights))
    model.thresholds = dict(checkpoint.get("thresholds_ema" if use_ema else "thresholds") or {})
    return model.eval()


def model_from_config(config: dict[str, Any]) -> MultiLabelModel:
    """Make the model that a checkpoint's `multi_label` entry describes, with random weights."""
    model = create_multi_label_model(
        config["arch"],
        LabelSpace.from_dict(config["label_space"]),
        image_size=tuple(config["image_size"]),
        model_kwargs=config["model_kwargs"],
        **config["head_kwargs"],
    )
    settings = config.get("batch_norm", {})
    set_batch_norm(model, False, settings.get("momentum"), settings.get("eps"))
    model.config = dict(config)
    return model


def without_auxiliary_norms(weights: StateDict) -> StateDict:
    """Leave out the batch norms that --split-bn adds for augmented views: evaluation uses the main ones alone."""
    return {name: value for name, value in weights.items() if ".aux_bn." not in name}


def _load_original(
    path: str | Path, checkpoint: dict[str, Any], weights: StateDict, label_space: LabelSpace | None
) -> MultiLabelModel:
    """Rebuild the original's model: its backbone is a flat `base_model`, its heads `<attribute>.1`."""
    heads = {name[: -len(".1.weight")]: value for name, value in weights.items() if name.endswith(".1.weight")}
    heads = {
        name: value for name, value in heads.items() if "." not in name and name not in ("base_model", "projector")
    }
    classes = {name: len(weight) for name, weight in heads.items()}
    space = _matching_label_space(path, classes, label_space)
    projection = [value for name, value in weights.items() if name.startswith("projector.")]
    model = create_multi_label_model(
        checkpoint["arch"], space, projection_dim=len(projection[-1]), projection_layers=len(projection)
    )
    renamed = _by_order(path, {n: v for n, v in weights.items() if n.startswith("base_model.")}, model.backbone)
    for index, attribute in enumerate(space.attributes):
        renamed |= {f"heads.{index}.{part}": weights[f"{attribute}.1.{part}"] for part in ("weight", "bias")}
    renamed |= {name: value for name, value in weights.items() if name.startswith("projector.")}
    model.load_state_dict(renamed)
    return model.eval()


def _matching_label_space(path: str | Path, classes: dict[str, int], given: LabelSpace | None) -> LabelSpace:
    """Return the given label space where it fits the heads' sizes, else numbered classes."""
    if given is None:
        return LabelSpace.numbered(classes)
    if dict(given.num_classes) != classes:
        raise CheckpointError(
            f"{path} has {_counts(classes)} classes but the table has {_counts(given.num_classes)}: "
            "name the table it was trained on"
        )
    return given


def _by_order(path: str | Path, weights: StateDict, backbone: torch.nn.Module) -> StateDict:
    """Rename a flattened backbone's weights: both sides list them in the order of the layers."""
    expected = backbone.state_dict()
    if len(expected) != len(weights) or any(
        a.rsplit(".", 1)[-1] != b.rsplit(".", 1)[-1] or expected[a].shape != weights[b].shape
        for a, b in zip(expected, weights, strict=True)
    ):
        raise CheckpointError(f"{path}: its backbone does not match the installed timm's model of that name")
    return {f"backbone.{name}": value for name, value in zip(expected, weights.values(), strict=True)}


def _counts(classes: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.items())
