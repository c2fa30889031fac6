"""One or more models that label images together: their calibrated probabilities are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from serving.calibration import calibrated_threshold, probabilities
from serving.loading import EvaluationModel, make_loader
from serving.selective import Floats, set_confidence
from timm.task.evaluate import Logits, predict
from timm.task.multi_valued_meter import predicted_values
from timm.task.top_classes import top_classes


class Labels(NamedTuple):
    """The labels of a batch for one attribute.

    Attributes:
        probabilities: calibrated probabilities, float32 [B, K].
        ranked: the most probable classes [B, k], best first; None for a multi-valued attribute.
        predicted: which values are predicted, bool [B, K]; None for any other attribute.
    """

    probabilities: Tensor
    ranked: Tensor | None
    predicted: Tensor | None

    def confidence(self) -> Floats:
        """Return the confidence of each image's label, [B]: the probability of its class; or `set_confidence`."""
        probabilities = self.probabilities.cpu()
        if self.ranked is None:
            assert self.predicted is not None
            return set_confidence(probabilities.numpy(), self.predicted.cpu().numpy())
        best: Floats = probabilities.gather(1, self.ranked[:, :1].cpu())[:, 0].numpy()
        return best


@dataclass(frozen=True)
class Ensemble:
    """Models of one label space; a single one is an ensemble too.

    Attributes:
        members: the models, which may differ in backbone and preprocessing.
    """

    members: tuple[EvaluationModel, ...]

    @property
    def label_space(self) -> LabelSpace:
        """The attributes and classes of every member."""
        return self.members[0].label_space

    @property
    def thresholds(self) -> dict[str, float]:
        """For each multi-valued attribute, the mean of the members' thresholds on calibrated probabilities."""
        found = {}
        for name in self.label_space.attributes:
            if name in self.label_space.multi_valued:
                limits = [calibrated_threshold(one.thresholds[name], one.temperatures[name]) for one in self.members]
                found[name] = sum(limits) / len(limits)
        return found

    def batches(self, dataset: Any, **loading: Any) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield for each batch the images of each member [B, C, H, W], and the rows [B] or targets [B, C].

        Members with the same preprocessing share a loader.

        Args:
            dataset: an `ImageDataset`, or a `TwoViewDataset` in evaluation.
            loading: arguments of `make_loader` besides the model and the dataset.
        """
        kinds = [(str(one.data_config), one.dtype) for one in self.members]
        first = [kinds.index(kind) for kind in kinds]  # for each member, the member whose loader it reads
        loaders = {}
        read = dict.fromkeys(first)
        for index in read:
            rows = copy(dataset)
            rows.channels = self.members[index].channels
            loaders[index] = make_loader(self.members[index], rows, together=len(read), **loading)
        for parts in zip(*loaders.values(), strict=True):
            images = {index: part[0] for index, part in zip(loaders, parts, strict=True)}
            yield [images[index] for index in first], parts[0][1]

    @torch.inference_mode()
    def label(self, images: Sequence[Tensor], topk: int, tta: int) -> dict[str, Labels]:
        """Return the labels of a batch by attribute.

        Args:
            images: the images of each member, as `batches` yields them.
            topk: number of classes to rank.
            tta: 2 averages each member's logits over an image and its mirror image.
        """
        outputs: list[Logits] = []
        for one, batch in zip(self.members, images, strict=True):
            with one.autocast():
                outputs.append(predict(one.run, one.to_device(batch), tta))
        return self.labels(outputs, topk)

    def labels(self, outputs: Sequence[Logits], topk: int) -> dict[str, Labels]:
        """Return the labels of a batch by attribute.

        Args:
            outputs: the logits [B, K] of each member by attribute.
            topk: number of classes to rank.
        """
        return {name: self._labels(name, [output[name] for output in outputs], topk) for name in outputs[0]}

    def _labels(self, name: str, logits: Sequence[Tensor], topk: int) -> Labels:
        multi_valued = name in self.label_space.multi_valued
        by_member = [
            probabilities(values, one.temperatures[name], multi_valued)
            for one, values in zip(self.members, logits, strict=True)
        ]
        mean = torch.stack(by_member).mean(dim=0) if len(by_member) > 1 else by_member[0]
        alone = len(self.members) == 1
        # A single model predicts by its uncalibrated scores: no rounding of a temperature changes a prediction.
        if multi_valued:
            threshold = self.members[0].thresholds[name] if alone else self.thresholds[name]
            return Labels(mean, None, predicted_values(logits[0], threshold) if alone else mean >= threshold)
        return Labels(mean, top_classes(logits[0].float() if alone else mean, topk), None)


def make_ensemble(members: Sequence[EvaluationModel], paths: Sequence[str]) -> Ensemble:
    """Return the ensemble of some models.

    Args:
        members: the models.
        paths: their checkpoints, for messages.

    Raises:
        UsageError: two models differ in their attributes or classes.
    """
    for one, path in zip(members, paths, strict=True):
        if one.label_space != members[0].label_space:
            raise UsageError(
                f"{path} predicts {one.label_space} and {paths[0]} {members[0].label_space}, or their classes differ "
                "in name or order: average only checkpoints of the same attributes and classes"
            )
    return Ensemble(tuple(members))
