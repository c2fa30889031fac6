"""The format of a checkpoint: the only module that reads the keys of the file.

A checkpoint is a dict that `torch.load(weights_only=True)` reads. The list has each key, its type, its meaning, and in
brackets its readers:

    state_dict         {name: Tensor}      weights of the model. [resume, initial checkpoint, rebuilding]
    state_dict_ema     {name: Tensor}      averaged weights; only with a moving average. [resume, rebuilding]
    multi_label        dict                MultiLabelModel.config, from which the model is rebuilt:
        arch           str                 name of the timm backbone. [rebuilding, initial checkpoint, validate.py]
        model_kwargs   dict                arguments of the backbone. [rebuilding]
        head_kwargs    dict                arguments of MultiLabelModel. [rebuilding]
        image_size     [C, H, W]           size of the images. [rebuilding]
        label_space    dict                LabelSpace.to_dict. [rebuilding, resume]
        batch_norm     {momentum, eps}     changed settings of batch norms; absent without any. [rebuilding]
        data_config    dict                preprocessing of training; older files lack it. [serving]
    arch               str                 equal to multi_label.arch; older files lack it. [as multi_label.arch]
    epoch              int                 index of the finished or interrupted epoch, from 0. [resume, results]
    version            int                 2 where `epoch` is that index, below 2 where it is the next one. [resume]
    optimizer          dict                state of the optimizer. [resume]
    parameter_names    [[str]]             names of the optimizer's weights, by group; older files lack it. [resume]
    amp_scaler         dict                state of timm's loss scaler; only with float16. [resume]
    args               dict                flags of the run; a Namespace in files of timm and of the original. [serving]
    progress           {epoch, batch}      where training continues; older files lack it. [resume]
        steps          int                 steps per epoch; older files lack it. [resume]
        updates        int                 updates per epoch; older files lack it. [resume]
        random         list                inside an epoch the random states by process. [resume]
        sums           list                inside an epoch the sums of its averages by process. [resume]
    plateau            dict or None        state of a plateau schedule. [resume]
    early_stop         dict                best score of the metric and scorings since; older files lack it. [resume]
    thresholds         {attribute: float}  thresholds of multi-valued attributes. [resume, rebuilding]
    thresholds_ema     {attribute: float}  the same for the averaged weights. [resume, rebuilding]
    temperatures       {attribute: float}  divisors of the logits that calibrate; older files lack it. [as thresholds]
    temperatures_ema   {attribute: float}  the same for the averaged weights. [as thresholds]
    pseudo             dict                state of the teacher of soft targets; only with one. [resume]
    metric             float               value of the evaluation metric; absent in recovery files. [nobody]
    saver              dict                timm's history: checkpoint_files, best_epoch, best_metric, pending. [resume]
    task_state         dict                state of other timm tasks; ours never writes it. [nobody]
    task_state_ema     dict                the same for the averaged weights. [nobody]

Checkpoints of the original have epoch, arch, state_dict (names below `base_model.`), optimizer, version, args and
metric. Checkpoints of timm have the same keys with timm's names. Neither names the classes. A bare file has only
weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from catalog.data_error import DataError
from catalog.label_space import LabelSpace
from runtime.errors import UsageError, first_line
from runtime.regular_file import irregular_file
from timm.models import clean_state_dict, load_state_dict
from timm.models.checkpoint_claims import damage_of, false_claim

StateDict = dict[str, Tensor]

_CHOSEN = ("thresholds", "thresholds_ema", "temperatures", "temperatures_ema")
_ORIGINAL = "base_model."  # the original's prefix of the backbone


class CheckpointError(UsageError):
    """A checkpoint that cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A checkpoint of ours, of the original or of timm, or a bare file of weights.

    Attributes:
        path: the file.
        state_dict: the weights, without prefixes of wrappers.
        state_dict_ema: the averaged weights, or None.
        config: what rebuilds the model; None in files that this project did not write.
        saved_arch: the entry `arch`, or None.
        epoch: index of the epoch in which the file was saved, or None.
        version: timm's version of the meaning of `epoch`.
        optimizer: the optimizer's state, or None.
        parameter_names: names of the optimizer's weights, by parameter group; None in older files.
        amp_scaler: the loss scaler's state, or None.
        trained_flags: the flags of the run; empty where the file has none.
        progress: `epoch` and `batch` where training continues, and inside an epoch `random`; empty in older files.
        plateau: state of a plateau schedule, or None.
        early_stop: best score of the metric and scorings since, or None.
        chosen: what validation chose, by key and attribute, without the keys that the file lacks: `thresholds`, the
            probability from which a value of a multi-valued attribute is predicted, and `temperatures`, the divisor of
            an attribute's logits; the same with `_ema` for the averaged weights.
        pseudo: state of the teacher of soft targets, or None.
        saver: history of the saver, or None.
    """

    path: Path
    state_dict: StateDict
    state_dict_ema: StateDict | None = None
    config: dict[str, Any] | None = None
    saved_arch: str | None = None
    epoch: int | None = None
    version: int = 1
    optimizer: dict[str, Any] | None = None
    parameter_names: list[list[str]] | None = None
    amp_scaler: dict[str, Any] | None = None
    trained_flags: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    plateau: dict[str, Any] | None = None
    early_stop: dict[str, Any] | None = None
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)
    pseudo: dict[str, Any] | None = None
    saver: dict[str, Any] | None = None

    @property
    def is_original(self) -> bool:
        """Whether the original wrote it."""
        return any(name.startswith(_ORIGINAL) for name in self.state_dict)

    @property
    def arch(self) -> str | None:
        """The name of the backbone, None where the file does not say."""
        return self.saved_arch or (self.config or {}).get("arch")

    @property
    def label_space(self) -> LabelSpace | None:
        """The attributes and their classes, None where the file does not name them.

        Raises:
            CheckpointError: they are damaged.
        """
        try:
            return LabelSpace.from_dict(self.config["label_space"]) if self.config else None
        except DataError as error:
            raise CheckpointError(f"{self.path} cannot be used: {error}") from error

    @property
    def next_epoch(self) -> int:
        """The epoch with which training continues, from 0."""
        return 0 if self.epoch is None else self.epoch + (self.version > 1)

    @property
    def heads_are_untrained(self) -> bool:
        """Whether its run had no classification loss, which trains the attribute heads, and nothing solved them."""
        flags = self.trained_flags
        return flags.get("classification_loss_weight") == 0 and not flags.get("refit_heads")

    def chosen_for(self, ema: bool, kind: str) -> dict[str, float]:
        """Return the `thresholds` or `temperatures` of the weights, or of the averaged ones, by attribute."""
        return dict(self.chosen.get(f"{kind}_ema" if ema else kind, {}))

    def weights(self, ema: bool = False) -> StateDict:
        """Return the model's weights, or the averaged ones.

        Raises:
            CheckpointError: it has no averaged weights.
        """
        if not ema:
            return self.state_dict
        if self.state_dict_ema is None:
            raise CheckpointError(
                f"{self.path} was trained without model_ema, so it has no averaged weights: leave use_ema out"
            )
        return self.state_dict_ema


def misfit(path: Path, error: Exception) -> str:
    """Return the sentence for a file whose weights and description contradict each other."""
    reason = first_line(error)
    return f"{path} does not fit its own description ({reason}): use another checkpoint, or write this one again"


def read_checkpoint(path: str | Path, bare: bool = False) -> Checkpoint:
    """Read a checkpoint without running code from it.

    Args:
        path: the file.
        bare: accept a file of weights alone too (.safetensors, .pth).

    Raises:
        CheckpointError: no such file, or damaged, or not a training checkpoint, or one that claims what cannot be.
    """
    path = Path(path)
    if fault := irregular_file(path):
        raise CheckpointError(fault)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if damage := damage_of(path):
        raise CheckpointError(
            f"{path} cannot be used, as {damage}: take another checkpoint of the run, or copy it anew"
        )
    try:
        content = load_content(path)
    except Exception as error:  # on garbage the unpickler raises any type of error
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({first_line(error)}): give another file"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        if bare and isinstance(content, dict):
            return Checkpoint(path, _bare_weights(content))
        raise CheckpointError(f"{path} is not a training checkpoint: it has no state_dict")
    if wrong := false_claim(content):
        raise CheckpointError(f"{path} cannot be used: {wrong}")
    return _parse(path, content)


def with_temperatures(checkpoint: Checkpoint, temperatures: dict[str, float], ema: bool) -> dict[str, Any]:
    """Return the content of a checkpoint's file with the temperatures of its weights, or of the averaged ones."""
    content: dict[str, Any] = load_content(checkpoint.path)
    key = "temperatures_ema" if ema else "temperatures"
    return content | {key: checkpoint.chosen_for(ema, "temperatures") | temperatures}


def refitted_content(
    checkpoint: Checkpoint,
    weights: StateDict,
    averaged: StateDict | None,
    config: dict[str, Any],
    chosen: Mapping[str, dict[str, float]],
    trained: bool,
) -> dict[str, Any]:
    """Return the content of a file with refitted heads, without the states of a run, which belong to other heads.

    Args:
        checkpoint: the checkpoint before.
        weights: the model's weights.
        averaged: the averaged weights, or None.
        config: what rebuilds the model.
        chosen: what validation chose, as in `Checkpoint.chosen`.
        trained: whether every head was trained or solved.
    """
    content = {"state_dict": weights, "multi_label": config, "arch": config["arch"], "epoch": checkpoint.epoch}
    content |= {"version": checkpoint.version, "args": checkpoint.trained_flags | {"refit_heads": trained}}
    return content | ({} if averaged is None else {"state_dict_ema": averaged}) | dict(chosen)


def without_auxiliary_norms(weights: StateDict) -> StateDict:
    """Leave out the batch norms of augmented views: evaluation uses only the main ones."""
    return {name: value for name, value in weights.items() if ".aux_bn." not in name}


def load_content(path: Path) -> Any:
    """Return the content of a file without running code from it; a damaged one raises any type of error."""
    if path.suffix == ".safetensors":
        return load_state_dict(str(path))
    # Checkpoints of timm and of the original carry their arguments as a Namespace; ours are plain.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _bare_weights(content: dict[str, Any]) -> StateDict:
    """Return the tensors of a file without `state_dict`, or of the entry that timm's older files keep them in."""
    nested = next((content[key] for key in ("model_ema", "model") if isinstance(content.get(key), dict)), content)
    return {name: value for name, value in clean_state_dict(nested).items() if isinstance(value, Tensor)}


def _parse(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    """Return the entries of a file by their names here."""
    averaged, args = content.get("state_dict_ema"), content.get("args")
    flags = vars(args) if isinstance(args, argparse.Namespace) else args if isinstance(args, Mapping) else {}
    names = ("epoch", "optimizer", "amp_scaler", "parameter_names", "plateau", "early_stop", "pseudo", "saver")
    return Checkpoint(
        path,
        clean_state_dict(content["state_dict"]),
        clean_state_dict(averaged) if averaged is not None else None,
        config=content.get("multi_label"),
        saved_arch=content.get("arch"),
        version=content.get("version", 1),
        trained_flags=dict(flags),
        progress=content.get("progress") or {},
        chosen={key: dict(content[key]) for key in _CHOSEN if content.get(key) is not None},
        **{name: content.get(name) for name in names},
    )
