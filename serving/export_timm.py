"""Export to timm's own format: a folder that stock timm and transformers load, without this project."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from reports.model_card import model_card
from runtime.errors import UsageError, first_line
from serving.export_outputs import METADATA, describe
from serving.loading import EvaluationModel
from timm.models import create_model, save_for_hf

FOLDER_FILES = {"config.json", "model.safetensors", "README.md"}


def is_written_by_us(folder: Path) -> bool:
    """Return whether config.json of a folder has the entry of an export of this project."""
    try:
        return METADATA in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def label_names(ready: EvaluationModel) -> list[str]:
    """Return the names of a timm classifier's outputs: `gender=Men`, `gender=Women`, `article=Jeans`, ..."""
    return [f"{attribute}={kind}" for attribute, kinds in ready.label_space.classes.items() for kind in kinds]


@torch.no_grad()
def stock_model(ready: EvaluationModel, backbone_only: bool) -> nn.Module:
    """Return a model of timm with the backbone's weights, and the heads stacked into its classifier.

    Args:
        ready: the model.
        backbone_only: whether the classifier is left out.

    Raises:
        UsageError: the architecture has no classifier of one linear layer.
    """
    model, arch = ready.network, ready.arch
    outputs = 0 if backbone_only else len(label_names(ready))
    stock: Any = create_model(arch, num_classes=outputs, **model.config["model_kwargs"]).eval()
    if model.pretrained_cfg.get("fixed_input_size") and hasattr(stock, "set_input_size"):
        stock.set_input_size(tuple(ready.data_config["input_size"][1:]))
    weights = model.backbone.state_dict()
    missing = stock.load_state_dict(weights, strict=False).missing_keys
    if outputs:
        classifier = stock.get_classifier()
        layers = list(classifier) if isinstance(classifier, (tuple, list)) else [classifier]
        owned = sum(isinstance(getattr(layer, name, None), Tensor) for layer in layers for name in ("weight", "bias"))
        if not owned or len(missing) != owned or any(layer.weight.flatten(1).shape[0] != outputs for layer in layers):
            raise UsageError(
                f"--format timm: the classifier of {arch} is more than a linear layer, so that it cannot take the "
                "heads; use --format onnx or --backbone-only"
            )
        weight, bias = model.stacked_heads()
        for layer in layers:
            layer.weight.copy_(weight.view_as(layer.weight))
            layer.bias.copy_(bias)
    return stock  # type: ignore[no-any-return]


def write_timm_folder(ready: EvaluationModel, stock: nn.Module, folder: Path, backbone_only: bool) -> None:
    """Write config.json, model.safetensors and README.md.

    Args:
        ready: the model.
        stock: the result of `stock_model`.
        folder: an empty folder.
        backbone_only: whether the classifier is left out.

    Raises:
        UsageError: an argument of the model cannot be written.
    """
    described = {METADATA: describe(ready, [] if backbone_only else ready.label_space.attributes)}
    config = described | ({} if backbone_only else {"label_names": label_names(ready)})
    preprocessing = {
        key: tuple(value) if isinstance(value, list) else value for key, value in ready.data_config.items()
    }
    try:
        save_for_hf(stock, str(folder), model_config=config, safe_serialization=True, data_config=preprocessing)
    except SafetensorError as error:  # what the system says is in its words
        raise UsageError(
            f"cannot write {folder / 'model.safetensors'} ({first_line(error)}): make room, or name another folder"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"--format timm cannot describe {ready.arch} in config.json ({first_line(error)}): choose another format"
        ) from error
    _drop_doubled_number(folder / "config.json")
    # safetensors lets only the owner read its file, and a server may run as another user
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    card = model_card(ready.arch, ready.label_space, dict(ready.data_config), backbone_only)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _drop_doubled_number(file: Path) -> None:
    """Remove the number of classes from the model's arguments, where transformers refuses it; timm reads the other."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def load_folder(folder: Path, names: Sequence[str], sizes: Sequence[int]) -> Callable[[Tensor], dict[str, Tensor]]:
    """Load a written folder as stock timm does; return it as a function of images that gives outputs by name.

    Args:
        folder: the folder.
        names: the attributes, or `h` alone for a backbone.
        sizes: number of outputs of each.
    """
    loaded = create_model(f"local-dir:{folder.resolve()}", pretrained=True).eval()
    return lambda images: dict(zip(names, loaded(images).split(list(sizes), dim=1), strict=True))
