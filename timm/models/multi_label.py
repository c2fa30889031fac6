"""A timm backbone with one linear head for each attribute and a projection head for SimCLR (arXiv:2002.05709, 2020)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catalog.label_space import LabelSpace
from runtime.errors import UsageError, first_line
from timm.models import create_model, list_models
from timm.models.pretrained_weights import local_weights

PROJECTION_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MultiLabelModel(nn.Module):
    """Predicts every attribute of an image from one representation h, and projects h for the contrastive loss.

    Args:
        backbone: a timm model made with `num_classes=0`: images [B, C, H, W] to h [B, D].
        label_space: the attributes and their classes; a head is made for each.
        projection_dim: P, the size of a projection; 0 leaves the projection head out.
        projection_layers: linear layers of the projection head; all but the last keep D and end in ReLU.
        projection_norm: "none", "batch" or "layer" normalization after each but the last linear layer.
        drop_rate: dropout probability in front of each attribute head; h itself is projected undropped.
        balance: "uncertainty" gives each attribute a log-variance to learn (arXiv:1705.07115), by which the task weighs
            its loss; "fixed" none.
        image_size: (C, H, W) of an image that the backbone takes, used once to measure D.

    Attributes:
        thresholds: of multi-valued attributes the probability from which a value is predicted; 0.5 where there is none.
        detach_heads: the attribute heads' gradients stop at h, so that they watch the backbone and do not train it.
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
        self.backbone: Any = backbone  # not every timm model has all the methods used here, and no type says which
        self.label_space = label_space
        self.projection_dim = projection_dim
        self.projection_layers = projection_layers
        self.projection_norm = projection_norm
        self.num_features = _measure_features(backbone, image_size)
        self.drop = nn.Dropout(drop_rate)
        # A list, not a ModuleDict: attribute names are the user's and may hold dots or shadow a method of a module.
        self.heads = nn.ModuleList(nn.Linear(self.num_features, k) for k in label_space.num_classes.values())
        self.projector = _projection_head(self.num_features, projection_dim, projection_layers, projection_norm)
        learned = balance == "uncertainty"
        # Here and not in the task, so that DistributedDataParallel, the average and checkpoints have it.
        self.log_variances = nn.Parameter(torch.zeros(len(label_space))) if learned else None
        self.config: dict[str, Any] = {}
        self.thresholds: dict[str, float] = {}
        self.detach_heads = False
        self._frozen = False

    def freeze_backbone(self) -> None:
        """Train the heads alone: the backbone's weights and statistics stay as they are, and it drops nothing out."""
        self._frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> MultiLabelModel:
        """Set training or evaluation mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the representation h [B, D] of images [B, C, H, W].

        What has two dimensions is taken for representations that are known already, as of a frozen backbone.
        """
        if images.ndim == 2:
            return images
        with torch.no_grad() if self._frozen else nullcontext():
            features: Tensor = self.backbone(images)
        return features

    def forward_heads(self, h: Tensor) -> dict[str, Tensor]:
        """Return each attribute's logits [B, K] for representations h [B, D]; dropout differs from head to head."""
        return {name: head(self.drop(h)) for name, head in zip(self.label_space.attributes, self.heads, strict=True)}

    def forward_projection(self, h: Tensor) -> Tensor:
        """Return the projections z [B, P] of representations h [B, D]."""
        assert self.projector is not None, "the model was made with projection_dim=0"
        z: Tensor = self.projector(h)
        return z

    def forward(self, images: Tensor) -> dict[str, Tensor] | tuple[dict[str, Tensor], Tensor | None]:
        """Return logits by attribute in evaluation; logits and projections (None without a head for them) in training.

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
        """The backbone's: timm resolves image size, mean and the like from it."""
        cfg: dict[str, Any] = self.backbone.pretrained_cfg
        return cfg

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory in the backbone.

        Raises:
            UsageError: the backbone cannot.
        """
        try:
            self.backbone.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError) as error:
            name = type(self.backbone).__name__
            raise UsageError(f"{name} has no gradient checkpointing: leave --grad-checkpointing out") from error

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the backbone's layer grouping under this model's parameter names, for layer-wise rate decay.

        Raises:
            UsageError: timm has no grouping for this backbone.
        """
        if not hasattr(self.backbone, "group_matcher"):
            raise UsageError(f"{type(self.backbone).__name__} has no order of layers: leave --layer-decay out")
        return {
            group: [(_below_backbone(rule), suffix) for rule, suffix in rules]
            if isinstance(rules, (list, tuple))
            else rules and _below_backbone(rules)
            for group, rules in self.backbone.group_matcher(coarse=coarse).items()
        }

    def no_weight_decay(self) -> set[str]:
        """Return the names of the backbone's parameters that take no weight decay, such as position embeddings."""
        own = getattr(self.backbone, "no_weight_decay", None)
        return {f"backbone.{name}" for name in own()} if own else set()

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the attribute heads, of their balance, and of the projection head."""
        projector = [] if self.projector is None else list(self.projector.parameters())
        balance = [] if self.log_variances is None else [self.log_variances]
        return [*self.heads.parameters(), *balance, *projector]

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, use_ema: bool = False, label_space: LabelSpace | None = None
    ) -> MultiLabelModel:
        """Rebuild model and label space from a checkpoint alone, in evaluation mode on the CPU.

        Args:
            path: a checkpoint of ours or of the original.
            use_ema: take the averaged weights.
            label_space: class names for a checkpoint of the original, which has none; without it they are numbers.

        Raises:
            timm.models.multi_label_checkpoint.CheckpointError: the file is no such checkpoint, or has no averaged
                weights.
        """
        from timm.models.multi_label_checkpoint import load_model  # it imports this module

        return load_model(path, use_ema, label_space)


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
    """Make a MultiLabelModel by the name of its timm backbone, remembering in `config` how to make it again.

    Args:
        arch: a name that `timm.create_model` knows.
        label_space: the attributes and their classes.
        pretrained: download the backbone's weights.
        pretrained_path: a local file of backbone weights in timm's names; goes before a download.
        image_size: (C, H, W) of the images; the backbone's own when None.
        global_pool: how the backbone pools ("avg", "max", "avgmax", ...).
        drop_path_rate: stochastic depth of the backbone, a probability.
        drop_block_rate: DropBlock of the backbone, a probability.
        model_kwargs: further arguments of the backbone.
        head_kwargs: MultiLabelModel's projection_*, drop_rate and balance.

    Raises:
        UsageError: timm has no such model, or the backbone does not take an argument.
    """
    kwargs: dict[str, Any] = dict(model_kwargs or {})
    options = {"global_pool": global_pool, "drop_path_rate": drop_path_rate, "drop_block_rate": drop_block_rate}
    kwargs |= {name: value for name, value in options.items() if value is not None}
    if image_size is not None:
        kwargs |= {"in_chans": image_size[0]} | _size_kwargs(arch, image_size)
    weights = {"pretrained_cfg_overlay": local_weights(pretrained_path)} if pretrained_path else {}
    backbone: Any = _create_backbone(arch, pretrained=pretrained or bool(pretrained_path), **weights, **kwargs)
    backbone.pretrained_cfg.pop("state_dict", None)  # they have been copied
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


def _create_backbone(arch: str, **kwargs: Any) -> nn.Module:
    """`timm.create_model` without a classifier, its objections to names and arguments turned into sentences."""
    if taken := {"num_classes", "features_only"} & kwargs.keys():
        raise UsageError(f"{taken.pop()} cannot be given to the backbone: the heads' sizes come from the label space")
    try:
        backbone: nn.Module = create_model(arch, num_classes=0, **kwargs)
    except TypeError as error:
        if refused := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
            raise UsageError(f"{arch} does not take {refused[1]}={kwargs.get(refused[1])!r}: leave it out") from error
        raise UsageError(f"{arch} cannot be made with {kwargs}: {first_line(error)}") from error
    except RuntimeError as error:
        if "Unknown model" in str(error):
            near = difflib.get_close_matches(arch.partition(".")[0], list_models(), 3)
            advice = f"is it {' or '.join(near)}" if near else "timm.list_models() lists all"
            raise UsageError(f"timm has no model {arch!r}: {advice}{'?' if near else ''}") from error
        if "Invalid pretrained tag" in str(error) or "No pretrained weights exist" in str(error):
            raise UsageError(f"{arch}: {first_line(error)}") from error
        raise
    except (AssertionError, ValueError) as error:
        raise UsageError(f"{arch}: {first_line(error)}") from error
    except (KeyError, OSError) as error:
        if kwargs["pretrained"]:  # about the weights: told by pretrained_weights, which knows where they come from
            raise
        raise UsageError(f"{arch} cannot be made with {kwargs}: {first_line(error)}") from error
    return backbone


def _size_kwargs(arch: str, image_size: tuple[int, int, int]) -> dict[str, Any]:
    """Tell the backbone the image size where its weights depend on it (ViT, Swin, MaxViT, ...)."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(arch.partition(".")[0])  # a tag of weights changes nothing here, and may be misspelled
    fixed = cfg is not None and cfg.fixed_input_size
    return {"img_size": list(image_size[1:])} if fixed else {}


@torch.no_grad()
def _measure_features(backbone: nn.Module, image_size: tuple[int, int, int]) -> int:
    """Return D by running one empty image: pooling variants double it, and no attribute of timm's tells for all."""
    training = backbone.training
    parameter = next(backbone.parameters())
    try:
        h = backbone.eval()(torch.zeros(1, *image_size, device=parameter.device, dtype=parameter.dtype))
    except (AssertionError, RuntimeError, ValueError) as error:
        size = "x".join(map(str, image_size))
        raise UsageError(f"the backbone takes no images of {size} (C, H, W): {first_line(error)}") from error
    backbone.train(training)
    if h.ndim != 2:
        raise UsageError(f"the backbone gives features of shape {tuple(h.shape)}, not [B, D]: choose a --gp that pools")
    return int(h.shape[1])


def _projection_head(features: int, dim: int, layers: int, norm: str) -> nn.Sequential | None:
    """D -> D -> ... -> P with ReLU between and no bias, as in the original; None where P is 0."""
    if dim == 0:
        return None
    head: list[nn.Module] = []
    for _ in range(layers - 1):
        head.append(nn.Linear(features, features, bias=False))
        if norm != "none":
            head.append(PROJECTION_NORMS[norm](features))
        head.append(nn.ReLU())
    return nn.Sequential(*head, nn.Linear(features, dim, bias=False))


def _below_backbone(rule: str) -> str:
    """Anchor one of timm's layer patterns below `backbone.`; a caret inside brackets is no anchor."""
    unanchored = re.sub(r"(?<![\[\\])\^", "", rule)
    return rf"^backbone\.(?:{unanchored})"
