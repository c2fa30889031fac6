"""Grad-CAM equals the paper's formula with finite differences, and moves with the attribute."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from serving.grad_cam import grad_cam
from serving.loading import EvaluationModel
from timm.models.multi_label import MultiLabelModel, create_multi_label_model

SPACE = LabelSpace({"color": ("blue", "red"), "shape": ("disc", "square", "star")})
CLASSES = [("color", 0), ("color", 1), ("shape", 2)]


class TwoRegions(nn.Module):
    """A backbone whose channels are the image's, pooled by the mean."""

    def __init__(self, channels_last: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.stage = nn.Identity()
        self.feature_info = [{"module": "stage", "num_chs": 3}]
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Tensor:
        images = self.scale * images
        features = self.stage(images.permute(0, 2, 3, 1) if self.channels_last else images)
        return features.mean(dim=(1, 2) if self.channels_last else (2, 3))


def ready(model: MultiLabelModel, size: tuple[int, int, int] = (3, 8, 8)) -> EvaluationModel:
    model.eval()
    config = {"input_size": list(size)}
    dtype = next(model.parameters()).dtype
    return EvaluationModel(model, model, config, torch.device("cpu"), dtype, nullcontext, False)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_map_moves_with_the_attribute(channels_last: bool) -> None:
    model = MultiLabelModel(TwoRegions(channels_last), SPACE, projection_dim=0, image_size=(3, 8, 6))
    color, shape = model.heads
    with torch.no_grad():
        for head in (color, shape):
            head.weight.zero_()
        color.weight[1, 0] = shape.weight[2, 1] = 1.0
        color.weight[0, 0] = -1.0  # what speaks for red speaks against blue
    image = torch.zeros(1, 3, 8, 6)
    image[0, 0, :, :2] = 5.0
    image[0, 1, 6:, 4:] = 3.0
    blue, red, star = grad_cam(ready(model), image, CLASSES)
    cells = 8 * 6
    np.testing.assert_allclose(red, image[0, 0] / cells, rtol=1e-6)  # the mean's gradient, times the activation
    np.testing.assert_allclose(star, image[0, 1] / cells, rtol=1e-6)
    assert not blue.any()


def test_the_map_is_the_papers_formula_with_finite_differences() -> None:
    torch.manual_seed(0)
    model = create_multi_label_model("test_resnet", SPACE, image_size=(3, 64, 64)).double().eval()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    found = grad_cam(ready(model), image, CLASSES, least=1)

    with torch.no_grad():
        features = model.backbone.forward_features(image)
        _, channels, height, width = features.shape
        step, gradient = 1e-6, np.zeros((len(CLASSES), channels, height, width))
        moved = features.repeat(channels * height * width, 1, 1, 1).reshape(-1, features.numel())
        logits = []
        for sign in (1, -1):
            shifted = (moved + sign * step * torch.eye(features.numel())).reshape(-1, *features.shape[1:])
            outputs = model.forward_heads(model.backbone.forward_head(shifted))
            logits.append(np.stack([outputs[name][:, code].numpy() for name, code in CLASSES]))
        gradient = ((logits[0] - logits[1]) / (2 * step)).reshape(gradient.shape)
    expected = np.zeros((len(CLASSES), height, width))
    for one in range(len(CLASSES)):
        for channel in range(channels):
            alpha = gradient[one, channel].sum() / (height * width)
            expected[one] += alpha * features[0, channel].numpy()
    assert (expected > 0).any()
    np.testing.assert_allclose(found, expected.clip(min=0), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("arch", "side", "cells"), [("test_efficientnet", 64, 4), ("test_vit", 64, 4)])
def test_small_images_and_transformers_have_a_map_too(arch: str, side: int, cells: int) -> None:
    torch.manual_seed(0)
    model = create_multi_label_model(arch, SPACE, image_size=(3, side, side))
    with torch.no_grad():
        for head in model.heads:
            head.weight.normal_()
    found = grad_cam(ready(model), torch.randn(1, 3, side, side), [*CLASSES, ("shape", 0), ("shape", 1)])
    assert found.shape == (5, cells, cells)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert found.any(axis=(1, 2)).sum() >= 2
    assert model.backbone.training is False
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_backbone_without_a_map_is_refused_with_a_reason() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    model = MultiLabelModel(backbone, SPACE, projection_dim=0, image_size=(3, 8, 8))
    with pytest.raises(UsageError, match="Sequential keeps no map of the image's regions"):
        grad_cam(ready(model), torch.zeros(1, 3, 8, 8), CLASSES)
