"""What an exported model returns and carries along: its named outputs, and what a reader needs to use them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from runtime.commit import commit
from runtime.errors import UsageError
from serving.loading import EvaluationModel
from serving.onnx_session import INPUT, METADATA
from timm.models.multi_label import MultiLabelModel
from timm.version import __version__ as timm_version


class NamedOutputs(nn.Module):
    """A model that returns a tuple: each attribute's logits, then the extra outputs. Exporters take no dict.

    Args:
        model: the model, in evaluation mode.
        extra: "h" and "z", in this order, where they are wanted.

    Attributes:
        names: the names of the outputs.
    """

    def __init__(self, model: MultiLabelModel, extra: Sequence[str] = ()) -> None:
        super().__init__()
        if "z" in extra and model.projector is None:
            raise UsageError("--outputs z: the model was trained without a projection head; leave z out")
        attributes = model.label_space.attributes
        if taken := {*extra, INPUT} & set(attributes):
            raise UsageError(
                f"attribute {min(taken)!r} has the name of another tensor of the export: rename the attribute"
            )
        self.model, self.extra = model, [name for name in ("h", "z") if name in extra]
        self.names = [*attributes, *self.extra]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of images [B, C, H, W], in the order of `names`."""
        h = self.model.forward_features(images)
        found = {**self.model.forward_heads(h), "h": h}
        if "z" in self.extra:
            found["z"] = self.model.forward_projection(h)
        return tuple(found[name] for name in self.names)

    @torch.inference_mode()
    def by_name(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of images [B, C, H, W] by name."""
        return dict(zip(self.names, self(images), strict=True))


def describe(ready: EvaluationModel, outputs: Sequence[str]) -> dict[str, Any]:
    """Return what a reader of an exported model needs: classes, preprocessing, thresholds, temperatures, commit.

    Args:
        ready: the model.
        outputs: names of the outputs.
    """
    return {
        "format": 1,
        "arch": ready.arch,
        "input": INPUT,
        "outputs": list(outputs),
        "label_space": ready.label_space.to_dict(),
        "data_config": dict(ready.data_config),
        "thresholds": ready.thresholds,
        "temperatures": ready.temperatures,
        "param_count": sum(weight.numel() for weight in ready.model.parameters()),
        "versions": {"torch": torch.__version__, "timm": timm_version},
        "commit": commit(),
    }


def metadata(ready: EvaluationModel, outputs: Sequence[str]) -> dict[str, str]:
    """Return the description as the text entry that ONNX and torch.export files carry."""
    return {METADATA: json.dumps(describe(ready, outputs), ensure_ascii=False)}
