"""The contrastive part of SimCLR, usable alone: it needs only torch.

    from simclr import NTXentLoss

    loss = NTXentLoss(temperature=0.5)(z_i, z_j)

`z_i` and `z_j` are the projections, [n, P], of two views of the same n images. Any batch size and floating dtype will
do; under torch.distributed the images of every process are each other's negatives, with exact gradients after the
averaging of DistributedDataParallel. `DCLLoss` is called alike, and `SupConLoss` with the images' labels, [n, A], too.
"""

from simclr.dcl import DCLLoss, dcl_best_level, dcl_chance_level, dcl_loss
from simclr.effective_rank import effective_rank, unit_variance
from simclr.gather import gather_rows, sum_over_processes
from simclr.nt_xent import NTXentLoss, best_level, chance_level, nt_xent_loss
from simclr.projection_meter import PROJECTION_METRICS, ProjectionMeter
from simclr.sup_con import SupConLoss, sup_con_loss

__all__ = [
    "PROJECTION_METRICS",
    "DCLLoss",
    "NTXentLoss",
    "ProjectionMeter",
    "SupConLoss",
    "best_level",
    "chance_level",
    "dcl_best_level",
    "dcl_chance_level",
    "dcl_loss",
    "effective_rank",
    "gather_rows",
    "nt_xent_loss",
    "sum_over_processes",
    "sup_con_loss",
    "unit_variance",
]
