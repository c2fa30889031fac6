"""Metrics of the projections of training batches, which reveal collapse and false negatives that the loss hides.

- Understanding contrastive representation learning, Wang & Isola, 2020, https://arxiv.org/abs/2005.10242 (alignment and
  uniformity, section 4.1)
- The effective rank, Roy & Vetterli, EUSIPCO 2007 (see `simclr.effective_rank`)

All metrics are of projections scaled to length 1, as NT-Xent sees them, and of the joint batch of all processes. Each
process compares its own images, at most `MAX_ANCHORS` a batch, with the images of all processes. Similarities are
computed in blocks. Sums stay on the device: only `row_counts` (several processes on a GPU) and `compute` synchronize.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from simclr.collectives import gather_rows, rank, row_counts, world_size
from simclr.effective_rank import effective_rank_of_moments

MAX_ANCHORS = 512  # images a batch and process; a sample of a larger batch estimates the same metrics
BLOCK_ENTRIES = 2**21  # similarities a block, 8 MiB in float32

PROJECTION_METRICS = (
    "alignment",
    "uniformity",
    "effective_rank_z",
    "variance_z",
    "contrastive_top1",
    "false_negatives",
)


class ProjectionMeter:
    """Accumulates metrics of projections over batches and processes.

    Example:
        >>> import torch
        >>> from simclr import ProjectionMeter
        >>> meter = ProjectionMeter()
        >>> meter.update(torch.eye(4).repeat(2, 1, 1))  # two equal views of four orthogonal images
        >>> meter.compute()["contrastive_top1"]
        100.0
    """

    def __init__(self) -> None:
        # squared distances, exponentials, correct anchors, pairs with equal labels, pairs with known labels
        self.sums: Tensor | None = None  # [5]
        self.moments = torch.empty(0)  # second moments of the unit rows with a column of ones, [P + 1, P + 1]
        self.images = 0
        self.pairs = 0

    @torch.no_grad()
    def update(self, views: Tensor, labels: Tensor | None = None) -> None:
        """Add a batch. Under torch.distributed every process must make this call.

        Args:
            views: projections of both views of this process's images, [2, n, P], any floating dtype; n may differ
                between processes and may be 0.
            labels: class indices of the images, int64 [n, A], negative where unknown; None on every process if no
                label is known.
        """
        # gather both views of all processes' images
        exact = torch.float32 if views.device.type == "mps" else torch.float64  # mps has no float64
        units = F.normalize(views.detach().to(exact), dim=2, eps=1e-30).float()  # [2, n, P]; rows of zeros stay zero
        joined = torch.cat([units[0], units[1]], dim=1)  # [n, 2P], which keeps the two views of an image together
        counts = row_counts(joined)
        joint_units = torch.stack(gather_rows(joined, counts).chunk(2, dim=1))  # [2, N, P]
        joint_labels = gather_rows(labels, counts) if labels is not None and labels.shape[1] else None  # [N, A]
        # compare the local anchors with all images, a block at a time
        first, total = sum(counts[: rank()]), sum(counts)
        anchors = min(views.shape[1], MAX_ANCHORS)
        sums = torch.zeros(5, dtype=exact, device=views.device)
        size = max(1, BLOCK_ENTRIES // max(total, 1))
        for start in range(0, anchors, size):
            rows = slice(first + start, first + min(start + size, anchors))
            sums[:3] += _compare_units(joint_units, rows)
            if joint_labels is not None:
                sums[3:] += _count_equal_labels(joint_labels, rows)
        # second moments of the local anchors
        measured = units[:, :anchors].flatten(0, 1).to(exact)
        measured = torch.cat([measured, measured.new_ones(len(measured), 1)], dim=1)  # [2 * anchors, P + 1]
        moments = measured.T @ measured
        self.sums, self.moments = (sums, moments) if self.sums is None else (self.sums + sums, self.moments + moments)
        self.images += anchors
        self.pairs += anchors * (total - 1)

    def compute(self) -> dict[str, float]:
        """Return the metrics over all batches and processes.

        Under torch.distributed every process must make this call, and all get the same result.

        Returns:
            A value for each name in `PROJECTION_METRICS`, NaN where nothing was measured:
            - alignment: mean squared distance between the two views of an image, 0-4; lower is better.
            - uniformity: log of the mean of exp(-2 * squared distance) over pairs of the same view of different images.
              It is 0 when all projections are equal, and about -4 when they are uniform on a sphere of high dimension;
              lower is better.
            - effective_rank_z: effective rank of the projections, 1 to P.
            - variance_z: mean squared distance of the projections from their mean, 0-1.
            - contrastive_top1: percentage of anchors whose positive is more similar than all of their negatives.
            - false_negatives: percentage of pairs of different images whose known labels are all equal, among the pairs
              with at least one attribute known in both.
        """
        if self.sums is None:
            return dict.fromkeys(PROJECTION_METRICS, math.nan)
        counted = self.sums.new_tensor([self.images, self.pairs])
        joint = torch.cat([counted, self.sums, self.moments.flatten()])
        if world_size() > 1:
            dist.all_reduce(joint)
        images, pairs, distances, exponentials, hits, equal, known = joint[:7].tolist()
        moments = joint[7:].view(self.moments.shape).cpu().double()
        rows = 2 * images
        # mean squared length minus the squared length of the mean
        variance = moments[:-1, :-1].trace() / rows - (moments[-1, :-1] / rows).square().sum()
        uniformity = _ratio(exponentials, 2 * pairs)
        return {
            "alignment": _ratio(distances, images),
            "uniformity": math.log(uniformity) if uniformity > 0 else math.nan,
            "effective_rank_z": effective_rank_of_moments(moments[:-1, :-1]),
            "variance_z": max(float(variance), 0.0),
            "contrastive_top1": 100 * _ratio(hits, rows),
            "false_negatives": 100 * _ratio(equal, known),
        }


def _compare_units(units: Tensor, rows: slice) -> Tensor:
    """Return three sums over both views of some images, [3]: squared distances, exponentials, and correct anchors.

    Args:
        units: unit projections of the images of all processes, [2, N, P].
        rows: range of the b images whose views are the anchors.
    """
    distances = (units[0, rows] - units[1, rows]).square().sum()
    exponentials, hits = torch.zeros_like(distances), torch.zeros_like(distances)
    for view, other in ((units[0], units[1]), (units[1], units[0])):
        same, cross = view[rows] @ view.T, view[rows] @ other.T  # [b, N]
        positives = cross.diagonal(rows.start).clone()  # [b]
        for block in (same, cross):
            block.diagonal(rows.start).fill_(-math.inf)  # excludes the anchor itself and its positive
        # The squared distance of unit vectors is 2 - 2 * similarity.
        exponentials += (4 * same - 4).exp().sum()
        # A tie counts as wrong, so collapsed projections score 0.
        hits += (positives > torch.maximum(same.amax(dim=1), cross.amax(dim=1))).sum()
    return torch.stack([distances, exponentials, hits])


def _count_equal_labels(labels: Tensor, rows: slice) -> Tensor:
    """Count pairs of different images, [2]: pairs whose known labels are all equal, and pairs with a known label.

    A label is known for a pair if it is known in both images.

    Args:
        labels: class indices of the images of all processes, [N, A], negative where unknown.
        rows: range of the b images that come first in the pairs.
    """
    equal = labels.new_ones(rows.stop - rows.start, len(labels), dtype=torch.bool)  # [b, N]
    known = torch.zeros_like(equal)  # [b, N]
    for column in labels.unbind(dim=1):
        both = (column[rows, None] >= 0) & (column >= 0)
        known |= both
        equal &= ~both | (column[rows, None] == column)
    known.diagonal(rows.start).fill_(False)
    return torch.stack([(equal & known).sum(), known.sum()])


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
