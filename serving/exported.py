"""What export.py wrote, as the source of predictions: a folder in timm's format, or an ONNX file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catalog.data_error import DataError
from catalog.label_space import LabelSpace
from runtime.errors import UsageError, first_line
from runtime.json_file import read_json
from runtime.regular_file import irregular_file
from serving.checkpoint_files import ONNX, is_exported_folder, run_checkpoint
from serving.onnx_session import METADATA, open_session, run_session
from timm.models import create_model
from timm.models.checkpoint_claims import false_claim
from timm.models.multi_label_checkpoint import (
    Checkpoint,
    CheckpointError,
    StateDict,
    load_content,
    misfit,
    read_checkpoint,
)


class ExportedModel(nn.Module):
    """A model in an ONNX file; it takes the place of a MultiLabelModel in evaluation.

    Args:
        checkpoint: the result of `read_model` for the file.
        device: where it runs, if onnxruntime supports that; else on the CPU.

    Attributes:
        label_space: the attributes and their classes.
        thresholds: by multi-valued attribute, the probability from which a value is predicted.
        temperatures: by attribute, the divisor of its logits.
        projector: None, as for a model without a projection head.
        parameter_count: number of weights of the model that was exported; None in older files.

    Raises:
        UsageError: onnxruntime is missing or cannot read the file.
    """

    projector = None

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        super().__init__()
        assert checkpoint.config is not None
        self.path, self.config = checkpoint.path, checkpoint.config
        self.label_space = LabelSpace.from_dict(self.config["label_space"])
        self.thresholds, self.temperatures = checkpoint.chosen["thresholds"], checkpoint.chosen["temperatures"]
        self.pretrained_cfg: dict[str, Any] = {}
        self.parameter_count: int | None = self.config.get("param_count")
        self.session = open_session(self.path, torch.get_num_threads(), on_gpu=device.type == "cuda")
        found = {output.name: output.shape[-1] for output in self.session.get_outputs()}
        expected = self.label_space.num_classes
        if wrong := [name for name, size in expected.items() if found.get(name) != size]:
            raise UsageError(
                f"{self.path} lacks the output {wrong[0]!r} of {expected[wrong[0]]} classes that its own description "
                "lists: export the checkpoint again"
            )
        self.sizes = found

    @property
    def num_features(self) -> int:
        """The length of h."""
        return self._size("h")

    @property
    def projection_dim(self) -> int:
        """The length of z."""
        return self._size("z")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return each attribute's logits [B, K] of images [B, C, H, W]."""
        return run_session(self.session, images, self.label_space.attributes)

    def forward_embedding(self, images: Tensor, projection: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return h [B, D], or z [B, P], and each attribute's logits [B, K] of images [B, C, H, W].

        Raises:
            UsageError: the file has no such output.
        """
        output = "z" if projection else "h"
        self._size(output)
        found = run_session(self.session, images, [*self.label_space.attributes, output])
        return found.pop(output), found

    def _size(self, output: str) -> int:
        if output not in self.sizes or output in self.label_space.attributes:
            raise UsageError(f"{self.path} has no output {output}: export the checkpoint again with --outputs {output}")
        return int(self.sizes[output])


def read_model(source: str | os.PathLike[str]) -> Checkpoint:
    """Read a model: a checkpoint, the best one of a run's folder, or what export.py wrote.

    Args:
        source: a checkpoint, the folder of a run, a folder in timm's format, or an ONNX file.

    Raises:
        UsageError: it is none of these, or is damaged.
    """
    path = Path(source)
    if path.suffix == ONNX:
        return _read_onnx(path)
    if is_exported_folder(path):
        return _read_folder(path)
    return read_checkpoint(run_checkpoint(path))


def _read_onnx(path: Path) -> Checkpoint:
    """Return the description in an ONNX file as a checkpoint without weights."""
    if fault := irregular_file(path):
        raise CheckpointError(fault)
    if not path.is_file():
        raise CheckpointError(f"no model at {path}")
    entries = open_session(path, 1, on_gpu=False).get_modelmeta().custom_metadata_map
    try:
        described = json.loads(entries[METADATA])
    except (KeyError, ValueError) as error:
        raise _foreign(path) from error
    return _described(path, described, {})


def _read_folder(path: Path) -> Checkpoint:
    """Return a folder in timm's format as a checkpoint, with its classifier split into the heads."""
    config_file = path / "config.json"
    try:
        config = read_json(config_file)
    except ValueError as error:
        raise CheckpointError(
            f"{config_file} describes no model ({first_line(error)}): export the checkpoint again"
        ) from None
    try:
        described = config["pretrained_cfg"].get(METADATA) or config[METADATA]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _foreign(path) from error
    try:
        weights = load_content(path / "model.safetensors")
    except Exception as error:  # garbage can raise any type of error
        raise CheckpointError(
            f"{path / 'model.safetensors'} cannot be read ({first_line(error)}): copy the folder or export it again"
        ) from error
    arguments = {name: value for name, value in (config.get("model_args") or {}).items() if name != "num_classes"}
    described = {**described, "model_kwargs": arguments}
    checkpoint = _described(path, described, weights)
    try:
        return _with_heads(checkpoint, described["arch"], described["model_kwargs"], dict(weights))
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(misfit(path, error)) from error


def _described(path: Path, described: Any, weights: StateDict) -> Checkpoint:
    """Return what a description claims as a checkpoint, after checking it.

    Raises:
        CheckpointError: an entry cannot be.
    """
    if not isinstance(described, Mapping) or not isinstance(described.get("data_config"), Mapping):
        raise _foreign(path)
    size = described["data_config"].get("input_size")
    config = {
        "arch": described.get("arch"),
        "model_kwargs": described.get("model_kwargs") or {},
        "head_kwargs": {"projection_dim": 0},
        "image_size": size,
        "label_space": described.get("label_space"),
        "data_config": dict(described["data_config"]),
    }
    chosen = {key: described.get(key) or {} for key in ("thresholds", "temperatures")}
    if wrong := false_claim({"state_dict": weights, "multi_label": config, **chosen}):
        raise CheckpointError(f"{path} cannot be used: {wrong}")
    try:
        LabelSpace.from_dict(config["label_space"])
    except DataError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    count = described.get("param_count")
    config["param_count"] = count if isinstance(count, int) else None
    return Checkpoint(path, weights, config=config, saved_arch=config["arch"], chosen=chosen)


def _with_heads(checkpoint: Checkpoint, arch: str, kwargs: Mapping[str, Any], weights: StateDict) -> Checkpoint:
    """Return a checkpoint whose classifier of timm is split into the heads."""
    assert checkpoint.config is not None
    sizes = list(LabelSpace.from_dict(checkpoint.config["label_space"]).num_classes.values())
    with torch.device("meta"):  # takes no time and no memory
        stock: Any = create_model(arch, num_classes=sum(sizes), **kwargs)
    classifier = stock.get_classifier()
    layers = list(classifier) if isinstance(classifier, (tuple, list)) else [classifier]  # equal ones, if several
    owners = [name for name, module in stock.named_modules() if any(module is layer for layer in layers)]
    heads: StateDict = {}
    if sizes:
        weight, bias = (weights.pop(f"{owners[0]}.{kind}") for kind in ("weight", "bias"))
        parts = zip(weight.flatten(1).split(sizes), bias.split(sizes), strict=True)
        for index, (rows, biases) in enumerate(parts):
            heads |= {f"heads.{index}.weight": rows, f"heads.{index}.bias": biases}
        weights = {name: value for name, value in weights.items() if name.rpartition(".")[0] not in owners}
    return replace(checkpoint, state_dict={f"backbone.{name}": value for name, value in weights.items()} | heads)


def _foreign(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} has no names of attributes and classes, which export.py of this project writes: export the checkpoint "
        "with this export.py"
    )
