"""A checkpoint in the original's format, made from one of our models, for tests that read such files."""

from argparse import Namespace

import torch

# The original's backbone is a flat list of layers; a block keeps its names below its index.
_FLAT = {"conv_stem": "0", "bn1": "1", "blocks": "3", "conv_head": "4", "bn2": "5"}


def save_as_original(model, path):
    """Write a MultiLabelModel around timm's test_efficientnet under the original's names."""
    weights = {}
    for name, value in model.backbone.state_dict().items():
        layer, _, rest = name.partition(".")
        weights[f"base_model.{_FLAT[layer]}.{rest}"] = value
    for attribute, head in zip(model.label_space.attributes, model.heads, strict=True):
        weights |= {f"{attribute}.1.{name}": value for name, value in head.state_dict().items()}
    weights |= {f"projector.{name}": value for name, value in model.projector.state_dict().items()}
    torch.save(
        {
            "epoch": 3,
            "arch": "test_efficientnet",
            "state_dict": weights,
            "optimizer": {},
            "version": 2,
            "args": Namespace(model="test_efficientnet", batch_size=32),
            "metric": 84.84,
        },
        path,
    )
