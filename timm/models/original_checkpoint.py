"""The original's weights under this project's names; `timm.models.multi_label` builds the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from catalog.label_space import LabelSpace
from timm.models.multi_label_checkpoint import CheckpointError, StateDict


class OriginalWeights:
    """The weights of the original's model: the backbone is a flat `base_model`, a head is `<attribute>.1`.

    Args:
        path: the file, for messages.
        weights: the tensors under the original's names.
    """

    def __init__(self, path: Path, weights: StateDict) -> None:
        self.path = path
        self.weights = weights
        heads = [name.removesuffix(".1.weight") for name in weights if name.endswith(".1.weight")]
        names = [name for name in heads if "." not in name and name not in ("base_model", "projector")]
        self.classes = {name: len(weights[f"{name}.1.weight"]) for name in names}
        self.projector = {name: value for name, value in weights.items() if name.startswith("projector.")}

    def projection_kwargs(self) -> dict[str, Any]:
        """Return the arguments of MultiLabelModel that give its projection head."""
        layers = list(self.projector.values())
        return {"projection_dim": len(layers[-1]), "projection_layers": len(layers)}

    def matching_label_space(self, given: LabelSpace | None) -> LabelSpace:
        """Return the given label space where it fits the heads' sizes; without one, numbered classes.

        Raises:
            CheckpointError: the given one has other attributes, or other numbers of classes.
        """
        if given is None:
            return LabelSpace.numbered(self.classes)
        if dict(given.num_classes) != self.classes:
            raise CheckpointError(
                f"{self.path} has {_counts(self.classes)} classes but the table has {_counts(given.num_classes)}: "
                "name the table it was trained on"
            )
        return given

    def renamed(self, backbone: StateDict, attributes: Iterable[str]) -> StateDict:
        """Return the weights under the names of MultiLabelModel.

        Args:
            backbone: the state of a new backbone of the same architecture.
            attributes: the attributes in the order of the heads.

        Raises:
            CheckpointError: the backbone is another one.
        """
        renamed = self._backbone_by_order(backbone) | self.projector
        for index, attribute in enumerate(attributes):
            renamed |= {f"heads.{index}.{part}": self.weights[f"{attribute}.1.{part}"] for part in ("weight", "bias")}
        return renamed

    def _backbone_by_order(self, backbone: StateDict) -> StateDict:
        """Rename the flat backbone: both sides list their tensors in the order of the layers."""
        flat = {name: value for name, value in self.weights.items() if name.startswith("base_model.")}
        if len(backbone) != len(flat) or any(
            a.rsplit(".", 1)[-1] != b.rsplit(".", 1)[-1] or backbone[a].shape != flat[b].shape
            for a, b in zip(backbone, flat, strict=True)
        ):
            raise CheckpointError(
                f"{self.path} has another backbone than the installed timm's model of the same name: train a new model"
            )
        return {f"backbone.{name}": value for name, value in zip(backbone, flat.values(), strict=True)}


def _counts(classes: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.items())
