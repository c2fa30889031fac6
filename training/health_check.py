"""Warnings about a run that does not learn: a contrastive loss at chance, or collapsed representations.

Each is logged once, after two bad epochs in a row, because a single epoch may look bad in any run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from timm.task.contrastive_loss import KINDS

_IN_A_ROW = 2
# A run that learns covers at least this share of the way from chance to the best loss in the epoch after warm-up.
_LEAST_PROGRESS = 0.02
# Thresholds for unit vectors. Collapsed vectors may differ by noise, which has a high rank: either threshold suffices.
_LEAST_RANK, _LEAST_VARIANCE = 1.5, 1e-4

_LEAST_USED = 1.0  # percent of the weight of soft targets

Numbers = Mapping[str, float]


class HealthCheck:
    """A check of each epoch's numbers.

    Args:
        warn: function that takes a sentence.
        warmup_epochs: number of epochs at the start that are not checked.
        levels: the contrastive loss at chance and its lowest value, both means over an epoch; None for no check.
    """

    def __init__(self, warn: Callable[[str], None], warmup_epochs: int, levels: tuple[float, float] | None) -> None:
        self.warn, self.warmup_epochs, self.levels = warn, warmup_epochs, levels
        self._bad: dict[str, int] = {}
        self._warned: set[str] = set()

    def check(self, epoch: int, numbers: Numbers) -> None:
        """Check an epoch.

        Args:
            epoch: index of the epoch, from 0.
            numbers: what was measured among `simclr_loss` (mean over the epoch), `effective_rank_z`, `variance_z`,
                `effective_rank_h`, `variance_h`, and `<attribute>_pseudo_used` (percent 0-100).
        """
        if epoch < self.warmup_epochs:
            return
        # contrastive loss
        if self.levels is not None and "simclr_loss" in numbers:
            chance, best = self.levels
            self._count(
                "chance",
                numbers["simclr_loss"] > chance - _LEAST_PROGRESS * (chance - best),
                f"simclr_loss has been at chance ({chance:.4f}) for {_IN_A_ROW} epochs after warm-up: the model does "
                "not yet recognize the views of an image; try a lower --temperature (0.1), a lower --lr, a longer "
                "--warmup-epochs, weaker augmentation (--scale 0.3 1, --view-strength 0.5), or a larger batch",
            )
        # projections and representations
        for key, name in (("z", "projections"), ("h", "representations")):
            rank, variance = (numbers.get(f"{metric}_{key}", math.nan) for metric in ("effective_rank", "variance"))
            if not math.isnan(rank):
                self._count(
                    key,
                    rank < _LEAST_RANK or variance < _LEAST_VARIANCE,
                    f"The {name} have collapsed: they are almost equal for all images (effective rank {rank:.2f}, "
                    f"variance {variance:.1e}); try a lower --lr, a longer --warmup-epochs, --clip-grad 1, less "
                    "--weight-decay or --projection-norm batch, and start anew: such weights seldom recover",
                )

        # soft targets
        for name, value in numbers.items():
            if name.endswith("_pseudo_used"):
                attribute = name.removesuffix("_pseudo_used")
                self._count(
                    f"{name} low",
                    value < _LEAST_USED,
                    f"Under {_LEAST_USED:g}% of the soft targets of {attribute} are used: the teacher is unsure of "
                    "nearly all; start from solved heads, with --probe-first, or use --pseudo-skip "
                    f"{attribute}",
                )
                self._count(
                    f"{name} high",
                    value > 100 - _LEAST_USED,
                    f"Over {100 - _LEAST_USED:g}% of the soft targets of {attribute} are used: the teacher is nearly "
                    "equally sure of all, so the weights hold back no wrong target; compare with a run with "
                    f"--pseudo-skip {attribute}",
                )

    def _count(self, kind: str, bad: bool, sentence: str) -> None:
        self._bad[kind] = self._bad.get(kind, 0) + 1 if bad else 0
        if self._bad[kind] >= _IN_A_ROW and kind not in self._warned:
            self._warned.add(kind)
            self.warn(sentence)


def contrast_levels(
    steps: Sequence[int], *, name: str, temperature: float, mask_false_negatives: bool
) -> tuple[float, float] | None:
    """Return the contrastive loss at chance and its lowest value, as means over an epoch's images.

    Args:
        steps: images that each step of an epoch contrasts, over all processes.
        name: name of the contrastive loss.
        temperature: its temperature.
        mask_false_negatives: whether it masks negatives that share labels.

    Returns:
        None where the levels depend on the labels of each batch.
    """
    kind = KINDS[name]
    if kind.best is None or mask_false_negatives:
        return None
    chance = sum(n * kind.chance(n) for n in steps) / sum(steps)
    best = sum(n * kind.best(n, temperature) for n in steps) / sum(steps)
    return chance, best
