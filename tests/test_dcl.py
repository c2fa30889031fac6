"""DCL: closed forms, and its relation to NT-Xent. Properties of all losses: test_contrastive_losses.py."""

import math

import pytest
import torch
from contrastive_oracle import draw_labels, two_views, with_gradients

from simclr import dcl_chance_level, dcl_loss, nt_xent_loss


def test_orthogonal_images_give_the_closed_form() -> None:
    z = torch.eye(4, dtype=torch.float64)  # each anchor: its positive at similarity 1, six negatives at 0
    assert dcl_loss(z, z, 0.5).item() == pytest.approx(-2 + math.log(6), rel=1e-14)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_the_chance_level_is_the_logarithm_of_the_negatives(n: int) -> None:
    assert dcl_chance_level(n) == pytest.approx(math.log(2 * n - 2), rel=1e-15)


def test_at_a_low_temperature_equal_views_cost_far_below_zero_and_opposite_views_far_above() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert dcl_loss(z, z, 0.01).item() == pytest.approx(math.log(2) - 100, rel=1e-6)
    assert dcl_loss(z, -z, 0.01).item() == pytest.approx(math.log(2) + 100, rel=1e-6)


def test_an_anchors_nt_xent_follows_from_its_decoupled_loss() -> None:
    """For each anchor exp(NT-Xent) - 1 = exp(DCL); here all anchors have the same loss."""
    angle = torch.arange(4, dtype=torch.float64) * math.pi / 2
    z_i = torch.stack([angle.cos(), angle.sin()], dim=1)
    z_j = torch.stack([(angle + 0.3).cos(), (angle + 0.3).sin()], dim=1)
    coupled, decoupled = nt_xent_loss(z_i, z_j, 0.5).item(), dcl_loss(z_i, z_j, 0.5).item()
    assert math.expm1(coupled) == pytest.approx(math.exp(decoupled), rel=1e-12)


def test_the_pull_of_a_positive_does_not_depend_on_its_distance() -> None:
    """The paper's point: in NT-Xent a close positive reduces the gradient."""
    towards = []
    for distance in (1.0, 0.1):
        z_i = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
        z_j = torch.tensor([[math.cos(distance), math.sin(distance), 0, 0], [0, 0, 0, 1.0]], dtype=torch.float64)
        gradients = [with_gradients(loss, z_i, z_j, 0.1)[1] for loss in (dcl_loss, nt_xent_loss)]
        towards.append([gradient[0, 1].item() / math.sin(distance) for gradient in gradients])
    (far, far_coupled), (near, near_coupled) = towards
    assert near == pytest.approx(far, rel=1e-9)
    assert abs(near_coupled) < 0.1 * abs(far_coupled)


def test_false_negatives_agree_in_all_labels_known_in_both() -> None:
    z_i, z_j = two_views(4)
    labels = torch.tensor([[0, 1], [0, -1], [0, 2], [-1, -1]])
    coarse = torch.tensor([[0], [0], [1], [2]])  # 1 also agrees with 2, which differs from 0
    both = dcl_loss(z_i, z_j, 0.5, labels)
    assert both != dcl_loss(z_i, z_j, 0.5, coarse)
    pairs = torch.tensor([[5, -1, -1], [5, 6, -1], [-1, 6, -1], [-1, -1, -1]])  # only 0 and 1 agree, and 1 and 2
    torch.testing.assert_close(both, dcl_loss(z_i, z_j, 0.5, pairs))


def test_masking_never_raises_the_loss() -> None:
    for seed in range(5):
        z_i, z_j = two_views(9, seed=seed)
        labels = draw_labels(9, (3, 2), 0.3, seed)
        labels[0] = -1  # leaves every anchor a negative; without one its loss would be 0
        assert dcl_loss(z_i, z_j, 0.5, labels) < dcl_loss(z_i, z_j, 0.5)
