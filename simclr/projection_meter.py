"""What the projections of training batches look like: what the loss alone does not tell.

- Wang & Isola, 2020, https://arxiv.org/abs/2005.10242 (alignment and uniformity)
- Roy & Vetterli, 2007 (effective rank; see `simclr.effective_rank`)

All is of projections scaled to length 1, which is how NT-Xent sees them, and of the joint batch of every process. Each
process looks at its own images as anchors, at most `ANCHORS` of them a batch, against everyone's; the matrix of
similarities is made in blocks. Sums stay on the device: nothing waits for it before `compute`.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from simclr.effective_rank import effective_rank_of_moments
from simclr.gather import gather_rows, rank, row_counts

ANCHORS = 512  # images a batch and process: of larger batches a sample is as good
BLOCK = 2**21  # similarities at a time, 8 MiB in float32

PROJECTION_METRICS = (
    "alignment",
    "uniformity",
    "effective_rank_z",
    "variance_z",
    "contrastive_top1",
    "false_negatives",
)


class ProjectionMeter:
    """Measures the projections of batches.

    Example:
        >>> meter = ProjectionMeter()
        >>> meter.update(torch.eye(4).repeat(2, 1, 1))
        >>> meter.compute()["contrastive_top1"]
        100.0
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None  # of squared distances, of exponentials, hits, pairs that agree, known pairs
        self.moments = torch.empty(0)  # of the units with a column of ones [P + 1, P + 1]
        self.images = 0
        self.pairs = 0

    @torch.no_grad()
    def update(self, views: Tensor, labels: Tensor | None = None) -> None:
        """Adds a batch. With several processes each makes the call.

        Args:
            views: projections of both views of this process's images [2, n, P], any floating dtype; n may differ
                between processes and may be 0.
            labels: int64 [n, A] the images' classes, negative where unknown; None where nothing is known of any.
        """
        exact = torch.float32 if views.device.type == "mps" else torch.float64  # mps has no float64
        units = F.normalize(views.detach().to(exact), dim=2, eps=1e-30).float()  # rows of zeros stay
        joined = torch.cat([units[0], units[1]], dim=1)  # [n, 2P], so that both views of an image travel together
        counts = row_counts(joined)
        everyones = torch.stack(gather_rows(joined, counts).chunk(2, dim=1))  # [2, N, P]
        everyones_labels = gather_rows(labels, counts) if labels is not None and labels.shape[1] else None  # [N, A]
        first, total = sum(counts[: rank()]), sum(counts)
        anchors = min(views.shape[1], ANCHORS)
        sums = torch.zeros(5, dtype=exact, device=views.device)
        size = max(1, BLOCK // max(total, 1))
        for start in range(0, anchors, size):
            own = slice(first + start, first + min(start + size, anchors))
            sums[:3] += _compare(everyones, own)
            if everyones_labels is not None:
                sums[3:] += _count_agreeing(everyones_labels, own)
        measured = units[:, :anchors].flatten(0, 1).to(exact)
        measured = torch.cat([measured, measured.new_ones(len(measured), 1)], dim=1)
        moments = measured.T @ measured
        self.sums, self.moments = (sums, moments) if self.sums is None else (self.sums + sums, self.moments + moments)
        self.images += anchors
        self.pairs += anchors * (total - 1)

    def compute(self) -> dict[str, float]:
        """Returns the metrics of all batches of all processes; the same on each, which must all make the call.

        Returns:
            By the names of `PROJECTION_METRICS`, NaN where there is nothing to tell it from:
            - alignment: mean squared distance of an image's two views, 0-4; lower is better.
            - uniformity: log of the mean of exp(-2 * squared distance) over pairs of different images, of one view;
              -4 where all are apart as on a sphere of many dimensions, 0 where all are one; lower is better.
            - effective_rank_z: 1 to P.
            - variance_z: mean squared distance of projections from their mean, 0-1.
            - contrastive_top1: percent of the anchors whose positive is more similar than each of their negatives.
            - false_negatives: percent of the pairs of different images, of those with an attribute known in both, whose
              labels are the same wherever both are known.
        """
        if self.sums is None:
            return dict.fromkeys(PROJECTION_METRICS, math.nan)
        counted = self.sums.new_tensor([self.images, self.pairs])
        joint = torch.cat([counted, self.sums, self.moments.flatten()])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(joint)
        images, pairs, distances, exponentials, hits, agreeing, known = joint[:7].tolist()
        moments = joint[7:].view(self.moments.shape).cpu().double()
        rows = 2 * images
        spread = moments[:-1, :-1].trace() / rows - (moments[-1, :-1] / rows).square().sum()
        uniformity = _share(exponentials, 2 * pairs)
        return {
            "alignment": _share(distances, images),
            "uniformity": math.log(uniformity) if uniformity > 0 else math.nan,
            "effective_rank_z": effective_rank_of_moments(moments[:-1, :-1]),
            "variance_z": max(float(spread), 0.0),
            "contrastive_top1": 100 * _share(hits, rows),
            "false_negatives": 100 * _share(agreeing, known),
        }


def _compare(units: Tensor, own: slice) -> Tensor:
    """Returns three sums over both views of some images: squared distances, exponentials, anchors that are right.

    Args:
        units: everyone's [2, N, P].
        own: which images are the anchors.
    """
    distances = (units[0, own] - units[1, own]).square().sum()
    exponentials, hits = torch.zeros_like(distances), torch.zeros_like(distances)
    for view, other in ((units[0], units[1]), (units[1], units[0])):
        same, cross = view[own] @ view.T, view[own] @ other.T  # [b, N]
        positives = cross.diagonal(own.start).clone()
        for block in (same, cross):
            block.diagonal(own.start).fill_(-math.inf)  # oneself, and the positive: what is left are negatives
        # Of units the squared distance is 2 - 2 * similarity. A tie is wrong: where all are equal, none is told apart.
        exponentials += (4 * same - 4).exp().sum()
        hits += (positives > torch.maximum(same.amax(dim=1), cross.amax(dim=1))).sum()
    return torch.stack([distances, exponentials, hits])


def _count_agreeing(labels: Tensor, own: slice) -> Tensor:
    """Returns how many pairs of different images agree wherever both are known, and how many have anything known.

    Args:
        labels: everyone's [N, A], negative where unknown.
        own: which images come first in the pairs.
    """
    agreeing = labels.new_ones(own.stop - own.start, len(labels), dtype=torch.bool)  # [b, N]
    known = torch.zeros_like(agreeing)
    for column in labels.unbind(dim=1):
        both = (column[own, None] >= 0) & (column >= 0)
        known |= both
        agreeing &= ~both | (column[own, None] == column)
    known.diagonal(own.start).fill_(False)
    return torch.stack([(agreeing & known).sum(), known.sum()])


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
