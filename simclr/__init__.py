"""The contrastive losses of SimCLR and its successors. This package needs only torch.

    from simclr import NTXentLoss

    loss = NTXentLoss(temperature=0.5)(z_i, z_j)

`z_i` and `z_j` are the projections, [n, P], of two views of the same n images. Any n and any floating dtype work. Under
torch.distributed the images of all processes are each other's negatives. After DistributedDataParallel has averaged
the gradients, they equal the gradients of one process with the joint batch.

    NTXentLoss()(z_i, z_j)             SimCLR
    DCLLoss()(z_i, z_j)                decoupled: the positive is not in the denominator
    SupConLoss()(z_i, z_j, labels)     supervised: images that share labels are positives, by labels [n, A]

`NTXentLoss` and `DCLLoss` also accept `labels`, which then exclude false negatives.
"""

from simclr.collectives import gather_rows, sum_over_processes
from simclr.dcl import DCLLoss, dcl_best_level, dcl_chance_level, dcl_loss
from simclr.effective_rank import effective_rank, unit_variance
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
