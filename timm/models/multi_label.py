"""A timm backbone with one linear head for each attribute and a projection head for SimCLR (arXiv:2002.05709, 2020)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catalog.data_error import DataError
from catalog.label_space import LabelSpace
from runtime.errors import UsageError, exhausted
from timm.models.backbone import create_backbone, measure_features, size_kwargs
from timm.models.batch_norm import batch_norms, set_batch_norm
from timm.models.multi_label_checkpoint import (
    Checkpoint,
    CheckpointError,
    StateDict,
    misfit,
    read_checkpoint,
    without_auxiliary_norms,
)
from timm.models.original_checkpoint import OriginalWeights
from timm.models.pretrained_weights import create_from_file, create_from_hub
from timm.models.projection_head import projection_head

_NEVER = -1e4  # logit of a class that no weights predict; float16 can hold it


class MultiLabelModel(nn.Module):
    """A model that predicts every attribute from one representation h, and projects h for the contrastive loss.

    Args:
        backbone: a timm model made with `num_classes=0`: images [B, C, H, W] to h [B, D].
        label_space: the attributes and their classes; each attribute has a head.
        projection_dim: P, the size of a projection; 0 leaves the projection head out.
        projection_layers: number of linear layers in the projection head; all but the last keep D and end in ReLU.
        projection_norm: "none", "batch" or "layer" normalization after each linear layer except the last.
        drop_rate: dropout probability before each attribute head; the projection head has no dropout.
        balance: "uncertainty" gives each attribute a learned log-variance (arXiv:1705.07115), which weights its loss;
            "fixed" gives none.
        image_size: (C, H, W) that the backbone accepts, used once to measure D.

    Attributes:
        thresholds: the probability from which a value of a multi-valued attribute is predicted; 0.5 for an attribute
            without an entry.
        temperatures: the divisor of each attribute's logits that calibrates its probabilities; 1 for an attribute
            without an entry. `forward` does not apply it.
        detach_heads: whether the gradients of the attribute heads stop at h, and the heads do not train the backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        label_space: LabelSpace,
        projection_dim: int = 64,
        projection_layers: int = 2,
        projection_norm: str = "none",
        drop_rate: float = 0.0,
        balance: str = "fixed",
        image_size: tuple[int, int, int] = (3, 224, 224),
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone  # timm's models share no type that has all the methods used here
        self.label_space = label_space
        self.projection_dim = projection_dim
        self.projection_layers = projection_layers
        self.projection_norm = projection_norm
        self.num_features = measure_features(backbone, image_size)
        self.drop = nn.Dropout(drop_rate)
        # A list instead of a ModuleDict: attribute names may contain dots or equal a method of nn.Module.
        self.heads = nn.ModuleList(nn.Linear(self.num_features, k) for k in label_space.num_classes.values())
        self.projector = projection_head(self.num_features, projection_dim, projection_layers, projection_norm)
        learned = balance == "uncertainty"
        # In the model instead of the task, so that DistributedDataParallel, the average and checkpoints include it.
        self.log_variances = nn.Parameter(torch.zeros(len(label_space))) if learned else None
        self.config: dict[str, Any] = {}
        self.thresholds: dict[str, float] = {}
        self.temperatures: dict[str, float] = {}
        self.detach_heads = False
        self._frozen = False
        self._keeps_statistics = False

    def freeze_backbone(self) -> None:
        """Train only the heads: the backbone keeps its weights and statistics, and has no dropout."""
        self._frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def keep_statistics(self) -> None:
        """Normalize with the backbone's running statistics in training too, and leave them as they are."""
        self._keeps_statistics = True
        self.train(self.training)

    @property
    def keeps_statistics(self) -> bool:
        """Whether the backbone's batch norms keep their running statistics while the weights train."""
        return self._keeps_statistics

    def train(self, mode: bool = True) -> MultiLabelModel:
        """Set training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        if self._keeps_statistics:
            for norm in batch_norms(self.backbone):
                norm.training = False  # not norm.eval(), which would also switch off the DropBlock inside some
        return self

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the representation h [B, D] of images [B, C, H, W].

        Input [B, D] is returned unchanged: representations of a frozen backbone are computed once.
        """
        if images.ndim == 2:
            return images
        with torch.no_grad() if self._frozen else nullcontext():
            features: Tensor = self.backbone(images)
        return features

    def forward_heads(self, h: Tensor) -> dict[str, Tensor]:
        """Return each attribute's logits [B, K] for representations h [B, D].

        In training each head has its own dropout. In evaluation all heads are one product of matrices, so that an
        exported model, whose classifier is the heads stacked, has the same logits to the last bit.
        """
        names: Any = self.label_space.attributes
        if self.training or len(self.heads) < 2:
            return {name: head(self.drop(h)) for name, head in zip(names, self.heads, strict=True)}
        weight, bias = self.stacked_heads()
        logits = nn.functional.linear(h, weight, bias)
        return dict(zip(names, logits.split(list(self.label_space.num_classes.values()), dim=1), strict=True))

    def stacked_heads(self) -> tuple[Tensor, Tensor]:
        """Return weight [K of all attributes, D] and bias [K of all attributes] of the heads below each other."""
        heads: Any = list(self.heads)
        return torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])

    def forward_projection(self, h: Tensor) -> Tensor:
        """Return the projections z [B, P] of representations h [B, D]."""
        assert self.projector is not None, "the model was made with projection_dim=0"
        z: Tensor = self.projector(h)
        return z

    def forward_embedding(self, images: Tensor, projection: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return h [B, D], or the projection z [B, P], as float32, and each attribute's logits [B, K].

        Args:
            images: [B, C, H, W].
            projection: return z instead of h.
        """
        h = self.forward_features(images)
        return (self.forward_projection(h) if projection else h).float(), self.forward_heads(h)

    def forward(self, images: Tensor) -> dict[str, Tensor] | tuple[dict[str, Tensor], Tensor | None]:
        """Return logits by attribute in evaluation; logits and projections (None without a head) in training.

        Args:
            images: [V*B, C, H, W], all views in one batch, view 0 first.
        """
        h = self.forward_features(images)
        logits = self.forward_heads(h.detach() if self.detach_heads else h)
        if not self.training:
            return logits
        return logits, self.forward_projection(h) if self.projector is not None else None

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The backbone's configuration, from which timm resolves image size, mean and standard deviation."""
        cfg: dict[str, Any] = self.backbone.pretrained_cfg
        return cfg

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory in the backbone.

        Raises:
            UsageError: the backbone does not support it.
        """
        try:
            self.backbone.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError) as error:
            name = type(self.backbone).__name__
            raise UsageError(f"{name} has no gradient checkpointing: leave grad_checkpointing out") from error

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the backbone's layer grouping under this model's parameter names, for layer-wise rate decay.

        Raises:
            UsageError: timm has no grouping for this backbone.
        """
        if not hasattr(self.backbone, "group_matcher"):
            raise UsageError(f"{type(self.backbone).__name__} has no order of layers: leave layer_decay out")
        return {
            group: [(_below_backbone(rule), suffix) for rule, suffix in rules]
            if isinstance(rules, (list, tuple))
            else rules and _below_backbone(rules)
            for group, rules in self.backbone.group_matcher(coarse=coarse).items()
        }

    def no_weight_decay(self) -> set[str]:
        """Return the names of the backbone's parameters without weight decay, such as position embeddings."""
        names: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in names}

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the attribute heads, their balance, and the projection head."""
        projector = [] if self.projector is None else list(self.projector.parameters())
        balance = [] if self.log_variances is None else [self.log_variances]
        return [*self.heads.parameters(), *balance, *projector]

    @torch.no_grad()
    def change_label_space(self, label_space: LabelSpace) -> None:
        """Predict other attributes or classes; a class that was there keeps its weights, a new one is never predicted.

        Optimizers, averages and wrappers of the model do not follow.
        """
        earlier: dict[str, Any] = dict(zip(self.label_space.attributes, self.heads, strict=True))
        heads = [nn.Linear(self.num_features, count) for count in label_space.num_classes.values()]
        for (name, classes), head in zip(label_space.classes.items(), heads, strict=True):
            head.weight.zero_()
            head.bias.fill_(_NEVER)
            if name in earlier:
                known = self.label_space.classes[name]
                kept = [position for position, kind in enumerate(classes) if kind in known]
                rows = [known.index(classes[position]) for position in kept]
                head.weight[kept] = earlier[name].weight[rows].to(head.weight)
                head.bias[kept] = earlier[name].bias[rows].to(head.bias)
        parameter = next(self.parameters())
        self.heads = nn.ModuleList(heads).to(parameter.device, parameter.dtype)
        if self.log_variances is not None:
            variances = dict(zip(self.label_space.attributes, self.log_variances.tolist(), strict=True))
            found = [variances.get(name, 0.0) for name in label_space.attributes]
            self.log_variances = nn.Parameter(torch.tensor(found).to(self.log_variances))
        self.label_space = label_space
        self.config = self.config | {"label_space": label_space.to_dict()}

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, use_ema: bool = False, label_space: LabelSpace | None = None
    ) -> MultiLabelModel:
        """Rebuild model and label space from a checkpoint, in evaluation mode on the CPU.

        Args:
            path: a checkpoint of ours or of the original.
            use_ema: take the averaged weights.
            label_space: class names for a checkpoint of the original, which has none; None gives numbers.

        Raises:
            timm.models.multi_label_checkpoint.CheckpointError: the file is no such checkpoint, or has no averaged
                weights.
        """
        return build_model(read_checkpoint(path), use_ema, label_space)


def create_multi_label_model(
    arch: str,
    label_space: LabelSpace,
    *,
    pretrained: bool = False,
    pretrained_path: str | None = None,
    image_size: tuple[int, int, int] | None = None,
    global_pool: str | None = None,
    drop_path_rate: float | None = None,
    drop_block_rate: float | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **head_kwargs: Any,
) -> MultiLabelModel:
    """Return a MultiLabelModel with a timm backbone; its `config` records how to make it again.

    Args:
        arch: a name that `timm.create_model` knows.
        label_space: the attributes and their classes.
        pretrained: download the backbone's weights.
        pretrained_path: a local file of backbone weights in timm's names, used instead of a download.
        image_size: (C, H, W) of the images; None for the backbone's default.
        global_pool: how the backbone pools ("avg", "max", "avgmax", ...).
        drop_path_rate: stochastic depth of the backbone, a probability.
        drop_block_rate: DropBlock of the backbone, a probability.
        model_kwargs: further arguments of the backbone.
        head_kwargs: projection_*, drop_rate and balance of MultiLabelModel.

    Raises:
        UsageError: timm has no such model, the backbone does not take an argument, or its weights are unavailable.
    """
    kwargs: dict[str, Any] = dict(model_kwargs or {})
    options = {"global_pool": global_pool, "drop_path_rate": drop_path_rate, "drop_block_rate": drop_block_rate}
    kwargs |= {name: value for name, value in options.items() if value is not None}
    if image_size is not None:
        kwargs |= {"in_chans": image_size[0]} | size_kwargs(arch, image_size)
    make = partial(create_backbone, arch, **kwargs)
    if pretrained_path:
        backbone = create_from_file(arch, pretrained_path, make)
    else:
        backbone = create_from_hub(arch, make) if pretrained else make(pretrained=False)
    image_size = image_size or tuple(backbone.pretrained_cfg["input_size"])
    model = MultiLabelModel(backbone, label_space, image_size=image_size, **head_kwargs)
    model.config = {
        "arch": arch,
        "model_kwargs": kwargs,
        "head_kwargs": head_kwargs,
        "image_size": list(image_size),
        "label_space": label_space.to_dict(),
    }
    return model


def build_model(
    checkpoint: Checkpoint, use_ema: bool = False, label_space: LabelSpace | None = None
) -> MultiLabelModel:
    """Rebuild the model of a checkpoint, in evaluation mode on the CPU.

    Args:
        checkpoint: one of ours or of the original.
        use_ema: take the averaged weights.
        label_space: class names for a checkpoint of the original, which has none; None gives numbers.

    Raises:
        CheckpointError: the checkpoint names no classes, has no averaged weights, or does not fit the table.
    """
    try:
        return _rebuild(checkpoint, use_ema, label_space)
    except DataError as error:
        raise CheckpointError(f"{checkpoint.path} cannot be used: {error}") from error
    except UsageError:
        raise
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError, AssertionError, ArithmeticError) as error:
        if exhausted(error):
            raise
        raise CheckpointError(misfit(checkpoint.path, error)) from error


def _rebuild(checkpoint: Checkpoint, use_ema: bool, label_space: LabelSpace | None) -> MultiLabelModel:
    """Do what `build_model` does, with any type of error where the file contradicts itself."""
    weights = checkpoint.weights(use_ema)
    if checkpoint.is_original:
        model = _build_original(checkpoint, weights, label_space)
        model.temperatures = checkpoint.chosen_for(use_ema, "temperatures")
        return model
    if checkpoint.config is None:
        raise CheckpointError(
            f"{checkpoint.path} names no attributes, so it is no checkpoint of this trainer: start from its backbone "
            "with initial_checkpoint or pretrained_path"
        )
    _check_size(checkpoint.config, weights)
    model = model_from_config(checkpoint.config)
    model.load_state_dict(without_auxiliary_norms(weights))
    model.thresholds = checkpoint.chosen_for(use_ema, "thresholds")
    model.temperatures = checkpoint.chosen_for(use_ema, "temperatures")
    return model.eval()


def _check_size(config: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if a network is far larger than the weights, before it takes gigabytes of memory."""
    try:
        with torch.device("meta"):  # takes no memory
            described = model_from_config(config)
    except (RuntimeError, NotImplementedError):  # a few networks compute numbers while they are made
        return
    needed, held = (sum(map(Tensor.numel, found)) for found in (described.parameters(), weights.values()))
    if needed > 2 * held:
        raise ValueError(f"{config['arch']} needs {needed:,} weights, and it has {held:,}")


def model_from_config(config: dict[str, Any]) -> MultiLabelModel:
    """Make the model that a checkpoint's config describes, with random weights."""
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


def _build_original(checkpoint: Checkpoint, weights: StateDict, label_space: LabelSpace | None) -> MultiLabelModel:
    """Rebuild the original's model, with the given class names or with numbers."""
    original = OriginalWeights(checkpoint.path, weights)
    space = original.matching_label_space(label_space)
    model = create_multi_label_model(str(checkpoint.arch), space, **original.projection_kwargs())
    model.load_state_dict(original.renamed(model.backbone.state_dict(), space.attributes))
    return model.eval()


def _below_backbone(rule: str) -> str:
    """Return one of timm's layer patterns anchored below `backbone.`; a caret inside brackets is no anchor."""
    unanchored = re.sub(r"(?<![\[\\])\^", "", rule)
    return rf"^backbone\.(?:{unanchored})"
