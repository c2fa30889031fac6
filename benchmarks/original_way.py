"""The original repository's training step and scoring, written as a plain baseline.

It passes each view through the backbone separately, computes cosine similarity by broadcasting an N x N x D tensor and
keeps channels first in memory. Scoring makes two views of each image and discards one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm.models import create_model


class OriginalModel(nn.Module):
    """A backbone with one head for each attribute and a projection head, called with one view.

    Args:
        name: timm's name of the architecture.
        classes: number of classes of each attribute.
    """

    def __init__(self, name: str, classes: dict[str, int]) -> None:
        super().__init__()
        self.backbone = create_model(name, num_classes=0)
        width = int(self.backbone.num_features)  # type: ignore[arg-type]  # torch knows no types of attributes
        self.heads = nn.ModuleDict({attribute: nn.Linear(width, count) for attribute, count in classes.items()})
        self.projection = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, 64, bias=False)
        )

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the logits by attribute and the projections of one view [B, C, H, W]."""
        features = self.backbone(images)
        return {attribute: head(features) for attribute, head in self.heads.items()}, self.projection(features)


def broadcast_nt_xent(z_i: Tensor, z_j: Tensor, temperature: float = 0.5) -> Tensor:
    """Return NT-Xent of projections [n, P], with all cosine similarities by broadcasting."""
    n = len(z_i)
    z = torch.cat([z_i, z_j])
    similarity = F.cosine_similarity(z[:, None], z[None], dim=2) / temperature
    positives = torch.cat([similarity.diagonal(n), similarity.diagonal(-n)])[:, None]
    mask = ~torch.eye(2 * n, dtype=torch.bool, device=z.device)
    rows = torch.arange(2 * n, device=z.device)
    mask[rows, rows.roll(n)] = False
    logits = torch.cat([positives, similarity[mask].view(2 * n, -1)], dim=1)
    return F.cross_entropy(logits, torch.zeros(2 * n, dtype=torch.int64, device=z.device), reduction="sum") / (2 * n)


def loss_of_a_step(model: OriginalModel, views: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Return the joint loss of two views [B, C, H, W] and targets [B, A], with one backbone pass for each view."""
    logits, z_i = model(views[0])
    _, z_j = model(views[1])
    classification = sum(F.cross_entropy(values, target[:, k]) for k, values in enumerate(logits.values()))
    return 0.9 * classification + 0.1 * broadcast_nt_xent(z_i.float(), z_j.float())
