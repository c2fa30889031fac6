"""The contrastive part of SimCLR, usable alone: it needs only torch.

    from simclr import NTXentLoss

    loss = NTXentLoss(temperature=0.5)(z_i, z_j)

`z_i` and `z_j` are the projections, [n, P], of two views of the same n images. Any batch size and floating dtype will
do; under torch.distributed the images of every process are each other's negatives, with exact gradients after the
averaging of DistributedDataParallel. `DCLLoss` is called alike, and `SupConLoss` with the images' labels, [n, A], too.
"""

from simclr.dcl import DCLLoss, dcl_chance_level, dcl_loss
from simclr.gather import gather_rows, sum_over_processes
from simclr.nt_xent import NTXentLoss, chance_level, nt_xent_loss
from simclr.sup_con import SupConLoss, sup_con_loss

__all__ = [
    "DCLLoss",
    "NTXentLoss",
    "SupConLoss",
    "chance_level",
    "dcl_chance_level",
    "dcl_loss",
    "gather_rows",
    "nt_xent_loss",
    "sum_over_processes",
    "sup_con_loss",
]
