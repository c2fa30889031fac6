"""Sentences about a run that does not learn: a contrastive loss at chance, representations that collapse.

Each is said once, after two bad epochs in a row: the first epochs, and warm-up, may look bad in any run.
"""

from __future__ import annotations

import logging
import math
from argparse import Namespace
from collections.abc import Callable, Mapping

from catalog.unlabeled import unlabeled_per_batch
from timm.task.contrastive_loss import KINDS
from timm.task.gradient_cache import chunks_per_step

_IN_A_ROW = 2
# Of the way from chance to the best loss there can be, what a run that learns has made in the epoch after warm-up.
_LEAST_PROGRESS = 0.02
# Of unit vectors; directions of nothing but noise have a higher rank than 1, so either will do.
_LEAST_RANK, _LEAST_VARIANCE = 1.5, 1e-4

Numbers = Mapping[str, float]


class HealthCheck:
    """Looks at an epoch's numbers, and speaks up.

    Args:
        warn: takes a sentence.
        warmup_epochs: to be left alone.
        levels: the contrastive loss at chance, and the lowest there can be, both of an epoch; None without this loss.
    """

    def __init__(self, warn: Callable[[str], None], warmup_epochs: int, levels: tuple[float, float] | None) -> None:
        self.warn, self.warmup_epochs, self.levels = warn, warmup_epochs, levels
        self._bad: dict[str, int] = {}
        self._said: set[str] = set()

    def check(self, epoch: int, numbers: Numbers) -> None:
        """Look at an epoch.

        Args:
            epoch: from 0.
            numbers: of these, those that were measured: `simclr_loss`, its mean over the epoch; `effective_rank_z`,
                `variance_z`, `effective_rank_h` and `variance_h`.
        """
        if epoch < self.warmup_epochs:
            return
        if self.levels is not None and "simclr_loss" in numbers:
            chance, best = self.levels
            self._count(
                "chance",
                numbers["simclr_loss"] > chance - _LEAST_PROGRESS * (chance - best),
                f"simclr_loss has been at chance ({chance:.4f}) for {_IN_A_ROW} epochs after warm-up: nothing tells an "
                "image's views from other images yet; try a lower --temperature (0.1), a lower --lr, a longer "
                "--warmup-epochs, weaker augmentation (--scale 0.3 1, --view-strength 0.5), or a larger batch",
            )
        for key, name in (("z", "projections"), ("h", "representations")):
            rank, variance = (numbers.get(f"{metric}_{key}", math.nan) for metric in ("effective_rank", "variance"))
            if not math.isnan(rank):
                self._count(
                    key,
                    rank < _LEAST_RANK or variance < _LEAST_VARIANCE,
                    f"The {name} have collapsed: those of all images are almost one (effective rank {rank:.2f}, "
                    f"variance {variance:.1e}); try a lower --lr, a longer --warmup-epochs, --clip-grad 1, less "
                    "--weight-decay or --projection-norm batch, and start anew: such weights seldom recover",
                )

    def _count(self, kind: str, bad: bool, sentence: str) -> None:
        self._bad[kind] = self._bad.get(kind, 0) + 1 if bad else 0
        if self._bad[kind] >= _IN_A_ROW and kind not in self._said:
            self._said.add(kind)
            self.warn(sentence)


def make_health_check(args: Namespace, logger: logging.Logger, batches: int, contrast: bool) -> HealthCheck:
    """Return the alarm of a run; only the primary process's speaks.

    Args:
        args: the flags.
        logger: takes the sentences.
        batches: of an epoch, on each process.
        contrast: whether there is a contrastive loss.
    """

    def warn(sentence: str) -> None:
        if args.rank == 0:
            logger.warning(sentence)

    warmup = 0 if args.sched == "none" else args.warmup_epochs
    return HealthCheck(warn, warmup, contrast_levels(args, batches) if contrast else None)


def contrast_levels(args: Namespace, batches: int) -> tuple[float, float] | None:
    """Return the contrastive loss at chance and the lowest there can be: means over an epoch's images.

    None where they depend on the labels of each batch: how many images are negatives, or how much positives can differ.
    With --contrastive-batch-size the last step may contrast fewer images than the others, which is easier.
    """
    kind = KINDS[args.contrastive]
    if kind.best is None or args.mask_false_negatives:
        return None
    chunks = chunks_per_step(args)
    steps = [chunks] * (batches // chunks) + [batches % chunks] * (batches % chunks > 0)
    extra = unlabeled_per_batch(args.unlabeled_ratio, args.batch_size) if args.unlabeled_ratio else 0
    images = [step * (args.batch_size + extra) * args.world_size for step in steps]
    chance = sum(n * kind.chance(n) for n in images) / sum(images)
    best = sum(n * kind.best(n, args.temperature) for n in images) / sum(images)
    return chance, best
