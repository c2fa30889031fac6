"""A checkpoint made ready to predict: what validate.py and inference.py both begin with."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from catalog.build_label_space import build_label_space
from catalog.label_space import LabelSpace
from catalog.splits import find_label_table, find_split
from catalog.table import read_table
from runtime.errors import UsageError, first_line
from runtime.precision import Autocast, resolve_precision
from runtime.process import memory_format
from timm.data.preprocessing import DataConfig, resolve_preprocessing
from timm.models.multi_label import MultiLabelModel, build_model
from timm.models.multi_label_checkpoint import Checkpoint, CheckpointError
from timm.task.multi_valued_meter import DEFAULT_THRESHOLD

_logger = logging.getLogger(__name__)

_PREPROCESSING = ("img_size", "input_size", "crop_pct", "crop_mode", "mean", "std", "interpolation")


@dataclass(frozen=True)
class EvaluationModel:
    """A model on its device, in evaluation mode, and how to feed it.

    Attributes:
        model: as the checkpoint describes it.
        run: the model, or its compiled form: what to call.
        data_config: preprocessing: the one it was trained for, with what the command line changed.
        device: where it is.
        dtype: of its weights.
        autocast: makes the context to call it in.
        channels_last: whether images go in that memory format.
    """

    model: MultiLabelModel
    run: nn.Module
    data_config: DataConfig
    device: torch.device
    dtype: torch.dtype
    autocast: Autocast
    channels_last: bool

    @property
    def label_space(self) -> LabelSpace:
        """The attributes it predicts and their classes."""
        return self.model.label_space

    @property
    def thresholds(self) -> dict[str, float]:
        """Of each multi-valued attribute the probability from which a value is predicted."""
        return {name: self.model.thresholds.get(name, DEFAULT_THRESHOLD) for name in self.label_space.multi_valued}

    @property
    def channels(self) -> int:
        """Channels of an image: 3 for color, 1 for gray."""
        return int(self.data_config["input_size"][0])

    def to_device(self, images: Tensor) -> Tensor:
        """Move images [B, C, H, W] to the model's device, number format and memory format."""
        # Without the prefetcher they come in float32, whatever the model's weights are.
        images = images.to(self.device, self.dtype, non_blocking=True)
        return images.contiguous(memory_format=memory_format(self.channels_last))

    def random_image(self) -> Tensor:
        """Return noise [1, C, H, W] as the model takes it, to measure with."""
        return self.to_device(torch.randn(1, *self.data_config["input_size"]))


def load_evaluation_model(
    checkpoint: Checkpoint,
    args: Namespace,
    device: torch.device,
    *,
    data: str | None = None,
    model_dtype: str | None = None,
) -> EvaluationModel:
    """Rebuild a checkpoint's model and settle preprocessing and precision.

    Args:
        checkpoint: what `read_checkpoint` gave.
        args: the script's flags about preprocessing, precision and --use-ema.
        device: where the model goes.
        data: a data folder, from which a checkpoint of the original, which has no class names, gets them.
        model_dtype: format of the weights, float32 when None.

    Raises:
        UsageError: the checkpoint cannot serve, or the flags do not fit it.
    """
    autocast, _, dtype = resolve_precision(device, args.amp, args.amp_dtype, model_dtype, training=False)
    path = checkpoint.path
    if args.use_ema and checkpoint.state_dict_ema is None:
        raise CheckpointError(f"{path} holds no averaged weights: it was trained without --model-ema")
    if checkpoint.config is None and not checkpoint.is_original:
        raise CheckpointError(
            f"{path} holds no label space: it is no checkpoint of this trainer; start from its backbone with "
            "--initial-checkpoint or --pretrained-path"
        )
    try:
        model = build_model(checkpoint, args.use_ema)
        if checkpoint.config is None:
            model = _name_classes(model, checkpoint, args.use_ema, data)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{path} does not fit the model that it describes: {reason}") from error
    if not len(model.label_space):
        raise CheckpointError(f"{path} was trained without attributes, so it predicts none: train it further with some")
    if checkpoint.heads_are_untrained:
        _logger.warning(
            f"{path} was trained with -wlc 0, so that its heads have learned nothing in that run and guess: train it "
            "further with --initial-checkpoint, or see its *_knn20 in summary.csv"
        )
    trained = _trained_preprocessing(model, checkpoint)
    data_config = _override(path, trained, vars(args))
    if data_config["input_size"] != trained["input_size"]:
        _resize(path, model, data_config["input_size"])
    model = model.to(device=device, dtype=dtype).eval()
    model = model.to(memory_format=memory_format(args.channels_last))
    run: nn.Module = model
    if args.torchcompile:
        torch._dynamo.reset()  # what was compiled for the checkpoint before is of no use
        try:
            run = cast(nn.Module, torch.compile(model, backend=args.torchcompile))
        except RuntimeError as error:
            raise UsageError(f"--torchcompile {args.torchcompile}: {first_line(error)}") from error
    return EvaluationModel(model, run, data_config, device, dtype, autocast, args.channels_last)


def _name_classes(model: MultiLabelModel, checkpoint: Checkpoint, use_ema: bool, data: str | None) -> MultiLabelModel:
    """Name the classes of the original's model, which are numbers so far, by the table it was trained on."""
    path = checkpoint.path
    if data is None:
        _logger.warning(f"{path} holds no class names: classes are written as numbers, in the order of their names")
        return model
    # The original sorted the classes of all.csv by name; of other columns that the table has it knew nothing.
    label_path = find_label_table(data, find_split(data, "train"))
    label_space = build_label_space(read_table(label_path, model.label_space.attributes), multi_valued=())
    _logger.info(f"{path} holds no class names: they are those of {label_path}")
    return build_model(checkpoint, use_ema, label_space)


def _trained_preprocessing(model: MultiLabelModel, checkpoint: Checkpoint) -> DataConfig:
    """Return the preprocessing of training: the checkpoint's, of an old one what its flags made of the backbone's."""
    if saved := model.config.get("data_config"):
        return resolve_preprocessing(saved, {})
    flags = checkpoint.trained_flags
    given = {name: flags[name] for name in _PREPROCESSING if flags.get(name) not in (None, "")}
    if not {"img_size", "input_size"} & set(given):
        given["input_size"] = model.config["image_size"]
    return resolve_preprocessing(model.pretrained_cfg, given)


def _override(path: Path, trained: DataConfig, flags: Mapping[str, Any]) -> DataConfig:
    """Return the preprocessing with what the command line changes."""
    channels = trained["input_size"][0]
    given = {name: flags[name] for name in _PREPROCESSING if flags[name] not in (None, "")}
    if size := given.pop("img_size", None):
        given["input_size"] = [channels, size, size]
    if given.get("input_size", [channels])[0] != channels:
        raise UsageError(
            f"--input-size {' '.join(map(str, given['input_size']))}: {path} takes images of {channels} channels"
        )
    for name in ("mean", "std"):
        if len(given.get(name, [])) == 1:
            given[name] = given[name] * channels
    return resolve_preprocessing(trained, {"input_size": trained["input_size"]} | given)


@torch.no_grad()
def _resize(path: Path, model: MultiLabelModel, input_size: list[int]) -> None:
    """Fit a model to another image size: position embeddings and windows, where its backbone has them.

    Raises:
        UsageError: its weights belong to one size.
    """
    height, width = input_size[1:]
    fixed = model.pretrained_cfg.get("fixed_input_size")
    try:
        if fixed and hasattr(model.backbone, "set_input_size"):
            model.backbone.set_input_size((height, width))
        model.eval()(torch.zeros(1, *input_size))
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise UsageError(
            f"{path}: {model.config['arch']} cannot take images of {height} x {width} pixels ({reason}): leave "
            "--img-size and --input-size out to use the size it was trained for"
        ) from error
