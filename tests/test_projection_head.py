import pytest
import torch
from torch import nn

from timm.models.projection_head import projection_head


def layers(dim: int = 64, depth: int = 2, norm: str = "none") -> list[type[nn.Module]]:
    head = projection_head(96, dim, depth, norm)
    assert head is not None
    return [type(layer) for layer in head]


def test_the_default_is_the_head_of_the_original() -> None:
    head = projection_head(96, 64, 2, "none")
    assert head is not None
    assert layers() == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(p.shape) for p in head.parameters()] == [(96, 96), (64, 96)]  # no biases


def test_other_depths() -> None:
    assert layers(depth=1) == [nn.Linear]
    assert layers(depth=3) == [nn.Linear, nn.ReLU] * 2 + [nn.Linear]


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)])
def test_other_norms(norm: str, kind: type[nn.Module]) -> None:
    assert layers(norm=norm) == [nn.Linear, kind, nn.ReLU, nn.Linear]
    head = projection_head(96, 16, 2, norm)
    assert head is not None
    assert head(torch.randn(4, 96)).shape == (4, 16)


def test_dimension_0_is_no_head() -> None:
    assert projection_head(96, 0, 2, "none") is None
