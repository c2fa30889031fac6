"""A data folder of tiny pictures and a checkpoint of a tiny model, for tests of scripts that read both."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from catalog.label_space import LabelSpace
from timm.data.preprocessing import resolve_preprocessing
from timm.models.multi_label import MultiLabelModel, create_multi_label_model

CLASSES = {"color": ("blue", "green", "red"), "size": ("L", "M", "S", "XL", "XS", "XXL")}
ROWS = 23  # odd, so that two processes get shares of different sizes


def make_data(folder: Path, rows: int = ROWS, split: str = "val") -> Path:
    """Write pictures of noise, and their table with a blank cell here and there; return the folder."""
    rng = np.random.default_rng(rows)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_path", *CLASSES])
        for row in range(rows):
            path = f"images/{split}-{row}.png"
            low, high = sorted(rng.integers(0, 256, 2))
            pixels = rng.integers(low, high + 1, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / path)
            labels = [names[int(rng.integers(len(names)))] for names in CLASSES.values()]
            writer.writerow([path, *("" if rng.random() < 0.15 else label for label in labels)])
    return folder


def make_model(arch: str = "test_efficientnet", size: int = 32, seed: int = 0) -> MultiLabelModel:
    """Return an untrained model whose predictions differ between images."""
    torch.manual_seed(seed)
    model = create_multi_label_model(arch, LabelSpace(CLASSES), image_size=(3, size, size), projection_dim=8)
    model.config["data_config"] = resolve_preprocessing(
        model.pretrained_cfg, {"input_size": model.config["image_size"], "crop_pct": 1.0}
    )
    # New heads give nearly equal logits for every image; larger weights around the mean spread the classes.
    images = [noise(low, high, size) for low in (-2.0, -1.0, 0.0) for high in (0.5, 1.0, 2.0)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # one training batch then sets the statistics
        model.train()(torch.cat(images))
        features = model.eval().forward_features(torch.cat(images))
        for head in model.heads:
            assert isinstance(head, torch.nn.Linear)
            head.weight.normal_(std=0.5)
            head.bias.copy_(-(features.mean(0) @ head.weight.T))
    return model


def noise(low: float, high: float, size: int) -> torch.Tensor:
    """Return a normalized picture of noise in a range."""
    return low + (high - low) * torch.rand(1, 3, size, size)


def save_checkpoint(path: Path, model: MultiLabelModel, **entries: Any) -> Path:
    """Write the entries of a checkpoint that readers need."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "epoch": 3,
        "arch": model.config["arch"],
        "state_dict": model.state_dict(),
        "multi_label": model.config,
        "args": {"attribute_weights": {}},
    }
    torch.save(state | entries, path)
    return path
