"""A checkpoint made ready to predict: the common beginning of validate.py and inference.py."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from catalog.build_label_space import build_label_space
from catalog.label_space import LabelSpace
from catalog.splits import find_label_table, find_split
from catalog.table import read_table
from options.serving_kwargs import PREPROCESSING
from runtime.batch_memory import check_batch_fits
from runtime.errors import UsageError, first_line
from runtime.precision import Autocast, resolve_precision
from runtime.process import memory_format
from runtime.process_group import processes_here
from serving.checkpoint_files import ONNX
from serving.exported import ExportedModel
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader, usable_workers
from timm.data.preprocessing import DataConfig, resolve_preprocessing
from timm.models.multi_label import MultiLabelModel, build_model
from timm.models.multi_label_checkpoint import Checkpoint, CheckpointError
from timm.task.multi_valued_meter import DEFAULT_THRESHOLD

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationModel:
    """A model on its device, in evaluation mode, and the input that it takes.

    Attributes:
        model: the model that the checkpoint describes.
        run: the callable model: `model` itself or its compiled form.
        data_config: the preprocessing of training, with the changes that the user asked for.
        device: the model's device.
        dtype: the dtype of the weights.
        autocast: returns the context in which the model is called.
        channels_last: whether images have the channels last in memory.
    """

    model: MultiLabelModel | ExportedModel
    run: nn.Module
    data_config: DataConfig
    device: torch.device
    dtype: torch.dtype
    autocast: Autocast
    channels_last: bool

    @property
    def network(self) -> MultiLabelModel:
        """The model, where its weights are needed.

        Raises:
            UsageError: it is an ONNX file.
        """
        if isinstance(self.model, ExportedModel):
            raise UsageError(f"{self.model.path} is exported, so its weights are out of reach: name the checkpoint")
        return self.model

    @property
    def arch(self) -> str:
        """The name of the backbone."""
        return str(self.model.config["arch"])

    @property
    def label_space(self) -> LabelSpace:
        """The attributes that it predicts and their classes."""
        return self.model.label_space

    @property
    def thresholds(self) -> dict[str, float]:
        """The probability from which a value is predicted, for each multi-valued attribute."""
        return {name: self.model.thresholds.get(name, DEFAULT_THRESHOLD) for name in self.label_space.multi_valued}

    @property
    def temperatures(self) -> dict[str, float]:
        """The divisor of each attribute's logits, 1 where the checkpoint has none."""
        return {name: self.model.temperatures.get(name, 1.0) for name in self.label_space.attributes}

    @property
    def channels(self) -> int:
        """The channels of an image: 3 for color, 1 for gray."""
        return int(self.data_config["input_size"][0])

    def to_device(self, images: Tensor) -> Tensor:
        """Move images [B, C, H, W] to the model's device, dtype and memory format."""
        # Without the prefetcher the loader returns float32, for weights of any dtype.
        images = images.to(self.device, self.dtype, non_blocking=True)
        return images.contiguous(memory_format=memory_format(self.channels_last))

    def random_image(self) -> Tensor:
        """Return noise [1, C, H, W] that the model accepts, for measurements."""
        return self.to_device(torch.randn(1, *self.data_config["input_size"]))


def load_evaluation_model(
    checkpoint: Checkpoint,
    device: torch.device,
    *,
    use_ema: bool,
    preprocessing: Mapping[str, Any],
    precision: Mapping[str, Any],
    channels_last: bool,
    compiler: str | None = None,
    data: str | None = None,
    needs_heads: bool = True,
) -> EvaluationModel:
    """Rebuild a checkpoint's model and resolve preprocessing and precision.

    Args:
        checkpoint: the result of `read_checkpoint`.
        device: the device of the model.
        use_ema: take the averaged weights.
        preprocessing: img_size, input_size, crop_pct, crop_mode, mean, std and interpolation; None or "" keeps the
            value of training.
        precision: amp, amp_dtype and model_dtype, as in `runtime.precision.resolve_precision`.
        channels_last: whether images and convolutions have the channels last in memory.
        compiler: a backend of torch.compile; None does not compile.
        data: a data folder whose table names the classes of a checkpoint of the original, which has no names.
        needs_heads: whether a model without attributes is an error, and one with untrained heads is warned of.

    Raises:
        UsageError: the checkpoint cannot be used, or the settings do not fit it.
    """
    if checkpoint.path.suffix == ONNX:
        return _load_onnx(checkpoint, device, use_ema, preprocessing, precision, compiler)
    autocast, _, dtype = resolve_precision(device, **precision, training=False)
    model = _rebuild(checkpoint, use_ema, data)
    if needs_heads:
        check_heads(checkpoint, model)
    trained = _trained_preprocessing(model, checkpoint)
    data_config = _override(checkpoint.path, trained, preprocessing)
    if data_config["input_size"] != trained["input_size"]:
        _resize(checkpoint.path, model, data_config["input_size"])
    model = model.to(device=device, dtype=dtype).eval()
    model = model.to(memory_format=memory_format(channels_last))
    run = _compiled(model, compiler) if compiler else model
    return EvaluationModel(model, run, data_config, device, dtype, autocast, channels_last)


def _load_onnx(
    checkpoint: Checkpoint,
    device: torch.device,
    use_ema: bool,
    preprocessing: Mapping[str, Any],
    precision: Mapping[str, Any],
    compiler: str | None,
) -> EvaluationModel:
    """Return an ONNX file as a model, as `load_evaluation_model` does.

    Raises:
        UsageError: a setting does not fit a file whose weights, size and precision are fixed.
    """
    path = checkpoint.path
    asked = {"use_ema": use_ema, "torchcompile": compiler, **precision}
    if fixed := next((name for name, value in asked.items() if value), None):
        raise UsageError(
            f"{fixed} has no effect on the exported model {path}: leave {fixed} out, or give the checkpoint"
        )
    model = ExportedModel(checkpoint, device)
    trained = resolve_preprocessing(model.config["data_config"], {})
    data_config = _override(path, trained, preprocessing)
    if data_config["input_size"] != trained["input_size"]:
        shown = " x ".join(map(str, trained["input_size"][1:]))
        raise UsageError(
            f"{path} takes only images of {shown} pixels: leave img_size out, or export the checkpoint again with this "
            "img_size"
        )
    return EvaluationModel(
        model, model, data_config, torch.device("cpu"), torch.float32, nullcontext, channels_last=False
    )


def make_loader(
    ready: EvaluationModel,
    dataset: Any,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool,
    prefetcher: bool,
    distributed: bool = False,
    together: int = 1,
    first_row: int = 0,
) -> Any:
    """Return timm's evaluation loader; with several processes each reads its share.

    Args:
        ready: the model that determines preprocessing and dtype.
        dataset: the images.
        batch_size: images per process and batch.
        workers: loader processes of this process.
        pin_memory: whether batches are loaded into page-locked memory.
        prefetcher: whether images are normalized on the device.
        distributed: whether there is a process group.
        together: number of loaders that this process reads at the same time.
        first_row: row of the dataset with which a single process begins.
    """
    check_batch_fits(batch_size, tuple(ready.data_config["input_size"]), on_host=ready.device.type == "cpu")
    processes = processes_here() if distributed else 1
    usable = usable_workers(workers, processes)
    if usable < workers:
        _logger.info(f"--workers {workers}: {usable} CPUs for each process here, so {usable} workers")
    settings = LoaderSettings(
        num_workers=usable,
        distributed=distributed,
        pin_memory=pin_memory,
        device=ready.device,
        img_dtype=ready.dtype,
        use_prefetcher=prefetcher,
        sharers=processes * together,
        first_row=first_row,
    )
    return create_eval_loader(dataset, ready.data_config, batch_size, settings)


def _rebuild(checkpoint: Checkpoint, use_ema: bool, data: str | None) -> MultiLabelModel:
    """Return the checkpoint's model."""
    model = build_model(checkpoint, use_ema)
    return _name_classes(model, checkpoint, use_ema, data) if checkpoint.is_original else model


def check_heads(checkpoint: Checkpoint, model: MultiLabelModel | ExportedModel) -> None:
    """Raise if a model has no attributes; warn if no labels trained its heads.

    Raises:
        CheckpointError: there is no attribute to predict.
    """
    path = checkpoint.path
    if not len(model.label_space):
        raise CheckpointError(f"{path} was trained without attributes, so it predicts none: train it further with some")
    if checkpoint.heads_are_untrained:
        _logger.warning(
            f"{path} was trained with -wlc 0: its heads learned nothing in that run and guess. Train it further with "
            "--initial-checkpoint, solve them with refit.py, or see its *_knn20 in summary.csv"
        )


def check_data_needed(data: str | None, path: Path, is_original: bool) -> None:
    """Raise if a folder is given to name the classes of a checkpoint that holds their names.

    Args:
        data: the folder; None for none.
        path: file of the checkpoint.
        is_original: whether the checkpoint, or another that is loaded with it, is one of the original.

    Raises:
        UsageError: there is a folder, and no checkpoint of the original.
    """
    if data is not None and not is_original:
        raise UsageError(f"data=DATA has no effect, since {path} holds the names of its classes: leave it out")


def _name_classes(model: MultiLabelModel, checkpoint: Checkpoint, use_ema: bool, data: str | None) -> MultiLabelModel:
    """Rebuild the original's model with the class names of its table; without one the classes stay numbers."""
    path = checkpoint.path
    if data is None:
        _logger.warning(f"{path} holds no class names: classes are written as numbers, in the order of their names")
        return model
    # The original sorted the classes of all.csv by name. The table may have more columns than its model knew.
    label_path = find_label_table(data, find_split(data, "train"))
    label_space = build_label_space(read_table(label_path, model.label_space.attributes), multi_valued=())
    _logger.info(f"{path} holds no class names: they are read from {label_path}")
    return build_model(checkpoint, use_ema, label_space)


def _trained_preprocessing(model: MultiLabelModel, checkpoint: Checkpoint) -> DataConfig:
    """Return the preprocessing of training; older checkpoints have only the flags that changed the backbone's."""
    if saved := model.config.get("data_config"):
        return resolve_preprocessing(saved, {})
    flags = checkpoint.trained_flags
    given = {name: flags[name] for name in PREPROCESSING if flags.get(name) not in (None, "")}
    if not {"img_size", "input_size"} & set(given):
        given["input_size"] = model.config["image_size"]
    return resolve_preprocessing(model.pretrained_cfg, given)


def _override(path: Path, trained: DataConfig, asked: Mapping[str, Any]) -> DataConfig:
    """Return the preprocessing with the changes that the user asked for."""
    channels = trained["input_size"][0]
    given = {name: asked[name] for name in PREPROCESSING if asked.get(name) not in (None, "")}
    if size := given.pop("img_size", None):
        given["input_size"] = [channels, size, size]
    if given.get("input_size", [channels])[0] != channels:
        raise UsageError(
            f"--input-size {' '.join(map(str, given['input_size']))}: give {channels} as the first number, for the "
            f"channels that {path} takes"
        )
    for name in {"mean", "std"} & set(given):
        if len(given[name]) not in (1, channels):
            raise UsageError(
                f"--{name} has {len(given[name])} values: give one value, or one for each channel of {path} "
                f"({channels})"
            )
        given[name] = given[name] * (channels // len(given[name]))
    return resolve_preprocessing(trained, {"input_size": trained["input_size"]} | given)


@torch.no_grad()
def _resize(path: Path, model: MultiLabelModel, input_size: list[int]) -> None:
    """Adapt a model to another image size: position embeddings and windows, where its backbone has them.

    Raises:
        UsageError: the weights belong to one size.
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


def _compiled(model: MultiLabelModel, compiler: str) -> nn.Module:
    torch._dynamo.reset()  # code compiled for the previous checkpoint is useless now
    try:
        return cast(nn.Module, torch.compile(model, backend=compiler))
    except RuntimeError as error:
        raise UsageError(
            f"--torchcompile {compiler} cannot be used ({first_line(error)}): choose another backend, or leave "
            "--torchcompile out"
        ) from error
