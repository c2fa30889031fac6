"""One pass over a split: representations, logits, targets, and a small picture of some images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from reports.run_results import ImageMap, Ints
from runtime.progress import progress_bar
from serving.loading import EvaluationModel, make_loader
from timm.data.two_view_dataset import TwoViewDataset

_OVERSAMPLING, _ITERATIONS = 6, 8  # precision of the principal components


class SplitOutputs(NamedTuple):
    """What a model makes of a split's images, on the CPU.

    Attributes:
        h: representations, float32 [N, D].
        logits: logits by attribute, float32 [N, K].
        target: int64 [N, C]; unknown for an unreadable image.
        tiles: small pictures of the chosen images, uint8 [m, side, side, 3].
    """

    h: Tensor
    logits: dict[str, Tensor]
    target: Tensor
    tiles: npt.NDArray[np.uint8]


@torch.inference_mode()
def split_outputs(
    ready: EvaluationModel,
    dataset: TwoViewDataset,
    *,
    tta: int,
    loading: Mapping[str, Any],
    pictured: Ints,
    side: int,
) -> SplitOutputs:
    """Return what a model makes of a dataset's images, from one pass over them.

    Args:
        ready: the model.
        dataset: the images and targets.
        tta: 2 averages the representations of an image and its mirror image, and so its logits.
        loading: arguments of `make_loader` besides the model and the dataset, for a single process.
        pictured: the rows to picture, ascending.
        side: pixels of a small picture's side.
    """
    model = ready.network
    representations, outputs, targets, tiles = [], [], [], []
    start = 0
    loader = make_loader(ready, dataset, **loading)
    with progress_bar(len(dataset), f"Reading {dataset.table.path.name}", "image") as bar:
        for images, target in loader:
            moved = ready.to_device(images)
            with ready.autocast():
                h = model.forward_features(moved)
                if tta == 2:
                    h = (h + model.forward_features(moved.flip(-1))) / 2
                logits = model.forward_heads(h) if len(model.label_space) else {}
            representations.append(h.float().cpu())
            outputs.append({name: values.float().cpu() for name, values in logits.items()})
            targets.append(target.cpu())
            first, last = np.searchsorted(pictured, [start, start + len(target)])
            if last > first:
                tiles.append(_tiles(images[torch.from_numpy(pictured[first:last] - start)], ready.data_config, side))
            start += len(target)
            bar.update(len(target))
    names = model.label_space.attributes
    return SplitOutputs(
        torch.cat(representations),
        {name: torch.cat([one[name] for one in outputs]) for name in names},
        torch.cat(targets),
        np.concatenate([np.zeros((0, side, side, 3), np.uint8), *tiles]),
    )


def _tiles(images: Tensor, data_config: Mapping[str, Any], side: int) -> npt.NDArray[np.uint8]:
    """Return normalized images [B, C, H, W] as small pictures, uint8 [B, side, side, 3]."""
    mean, std = (torch.tensor(data_config[key], device=images.device).view(-1, 1, 1) for key in ("mean", "std"))
    small = F.interpolate(images.float(), (side, side), mode="area") * std + mean
    pixels = small.expand(-1, 3, -1, -1).clamp(0, 1).mul(255).round().to(torch.uint8)
    shown: npt.NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return shown


def image_map(outputs: SplitOutputs, rows: Ints) -> ImageMap | None:
    """Return the images that were pictured on the plane of their first two principal components.

    The representations are scaled to length 1 first, so that distances follow the cosine similarity, by which nearest
    neighbors are found.

    Args:
        outputs: the result of `split_outputs`.
        rows: the rows that were pictured.
    """
    h = F.normalize(outputs.h[torch.from_numpy(rows)].double(), dim=1)
    kept = h.isfinite().all(dim=1)
    h, rows, tiles = h[kept], rows[kept.numpy()], outputs.tiles[kept.numpy()]
    if len(h) < 2 or h.shape[1] < 2:
        return None
    centered = h - h.mean(dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = min(2 + _OVERSAMPLING, *h.shape)
        _, _, directions = torch.pca_lowrank(centered, q=size, center=False, niter=_ITERATIONS)
    signs = directions[:, :2].sum(dim=0).sign()  # the solver's are arbitrary
    places = centered @ (directions[:, :2] * torch.where(signs == 0, 1.0, signs))
    total = float(centered.square().sum())
    explained = float(places.square().sum()) / total if total else 0.0
    return ImageMap(rows, places.numpy(), explained, tiles)
