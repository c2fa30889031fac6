"""The scores of a split from which temperatures are fitted, and measures of how honest its probabilities are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from simclr.collectives import gather_rows, rank, world_size
from timm.data.target_codes import by_attribute, value_sets
from timm.task.temperature import calibration_error, fit_temperature, negative_log_likelihood

_MOST_LOGITS = 1 << 25  # kept on each process, 128 MiB; a temperature is one number and needs no more

Measures = dict[str, float]


class CalibrationMeter:
    """The logits and targets of a split's images, evenly thinned where a split has more than fit.

    Args:
        label_space: the attributes and their classes.
        device: device of the logits.
    """

    def __init__(self, label_space: LabelSpace, device: torch.device | str | None = None) -> None:
        self.label_space = label_space
        self.most = max(1, _MOST_LOGITS // max(1, sum(label_space.num_classes.values())))  # rows
        self.seen, self.stride = 0, 1  # rows whose index is a multiple of the stride are kept
        # Start with empty tensors: a process without any batch still takes part in gathering.
        self.logits = {name: [torch.empty(0, k, device=device)] for name, k in label_space.num_classes.items()}
        self.targets = [torch.empty(0, label_space.width, dtype=torch.int64, device=device)]

    def update(self, output: Mapping[str, Tensor], target: Tensor) -> None:
        """Add a batch.

        Args:
            output: logits of each attribute, [B, K] or longer; later rows are a sampler's padding.
            target: int64 [B, C] of the label space.
        """
        rows = slice(-self.seen % self.stride, len(target), self.stride)
        self.seen += len(target)
        # A CUDA graph writes the output of every batch to the same memory, so copy it.
        for name, parts in self.logits.items():
            parts.append(output[name][rows].detach().float().clone())
        self.targets.append(target[rows].clone())
        while len(range(0, self.seen, self.stride)) > self.most:
            self.stride *= 2
            self.logits = {name: [torch.cat(parts)[::2]] for name, parts in self.logits.items()}
            self.targets = [torch.cat(self.targets)[::2]]

    def temperatures(self, distributed: bool = False) -> dict[str, float]:
        """Return the fitted temperature of each attribute that has a label in the label space.

        With `distributed` every process must make this call, and all get the joint result.
        """
        return {
            name: fit_temperature(logits, truth)
            for name, (logits, truth) in self._labeled(distributed).items()
            if len(truth)
        }

    def measure(
        self, saved: Mapping[str, float], refit: bool = False, distributed: bool = False
    ) -> dict[str, Measures]:
        """Return how honest each attribute's probabilities are, without and with its temperature.

        With `distributed` every process must make this call, and all get the joint result.

        Args:
            saved: the checkpoint's temperature by attribute; empty for none.
            refit: fit each temperature on this split instead. The error with it is then cross-fitted: each half of the
                images is scored with the temperature of the other half.
            distributed: whether the processes of torch.distributed share the split.

        Returns:
            By attribute `ece`, the expected calibration error in percent. Where there is a temperature also
            `temperature`, `calibrated_loss` and `calibrated_ece`.
        """
        found = {}
        for name, (logits, truth) in self._labeled(distributed).items():
            measures = {"ece": calibration_error(logits, truth)}
            if refit and len(truth):
                halves = logits.new_ones(len(truth), 1, dtype=torch.float64)
                for first in (0, 1):
                    halves[1 - first :: 2] = 1 / fit_temperature(logits[first::2], truth[first::2])
                temperature, scaled = fit_temperature(logits, truth), logits.double() * halves
            else:
                temperature = saved.get(name, 1.0)
                scaled = logits.double() / temperature
            if name in saved or (refit and len(truth)):
                measures |= {
                    "temperature": temperature,
                    "calibrated_loss": negative_log_likelihood(scaled, truth),
                    "calibrated_ece": calibration_error(scaled, truth),
                }
            found[name] = measures
        return found

    def _labeled(self, distributed: bool) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the logits and truth of the images with a known label, in the split's order."""
        target = torch.cat(self.targets)
        target = gather_rows(target) if distributed else target
        order = self._order(distributed)
        found = {}
        for name, labels in zip(self.label_space.attributes, by_attribute(target, self.label_space), strict=True):
            logits = torch.cat(self.logits[name])
            logits = (gather_rows(logits) if distributed else logits)[order]
            labels = labels[order]
            if labels.ndim == 1:
                known, truth = labels >= 0, labels
            else:
                sets = value_sets(labels, logits.shape[1])
                known, truth = sets.known, sets.values
            found[name] = (logits[known], truth[known])
        return found

    def _order(self, distributed: bool) -> Tensor:
        """Return the order of the gathered rows in the split: the sampler deals rows to the ranks in turn."""
        kept = torch.arange(0, self.seen, self.stride, device=self.targets[0].device)
        place = kept * world_size() + rank() if distributed else kept
        return (gather_rows(place[:, None])[:, 0] if distributed else place).argsort()
