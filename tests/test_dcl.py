"""DCL: closed forms, and how it stands to NT-Xent. What every loss must hold is in test_contrastive_losses.py."""

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


def test_a_cold_perfect_match_is_far_below_zero_and_a_cold_mismatch_far_above() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert dcl_loss(z, z, 0.01).item() == pytest.approx(math.log(2) - 100, rel=1e-6)
    assert dcl_loss(z, -z, 0.01).item() == pytest.approx(math.log(2) + 100, rel=1e-6)


def test_an_anchors_nt_xent_follows_from_its_decoupled_loss() -> None:
    """exp(NT-Xent) - 1 is exp(DCL) for each anchor: here all anchors are alike."""
    angle = torch.arange(4, dtype=torch.float64) * math.pi / 2
    z_i = torch.stack([angle.cos(), angle.sin()], dim=1)
    z_j = torch.stack([(angle + 0.3).cos(), (angle + 0.3).sin()], dim=1)
    coupled, decoupled = nt_xent_loss(z_i, z_j, 0.5).item(), dcl_loss(z_i, z_j, 0.5).item()
    assert math.expm1(coupled) == pytest.approx(math.exp(decoupled), rel=1e-12)


def test_a_positive_pulls_alike_however_close_it_is() -> None:
    """What the paper is about: in NT-Xent an easy positive takes the gradient away."""
    towards = []
    for distance in (1.0, 0.1):
        z_i = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
        z_j = torch.tensor([[math.cos(distance), math.sin(distance), 0, 0], [0, 0, 0, 1.0]], dtype=torch.float64)
        gradients = [with_gradients(loss, z_i, z_j, 0.1)[1] for loss in (dcl_loss, nt_xent_loss)]
        towards.append([gradient[0, 1].item() / math.sin(distance) for gradient in gradients])
    (far, far_coupled), (near, near_coupled) = towards
    assert near == pytest.approx(far, rel=1e-9)
    assert abs(near_coupled) < 0.1 * abs(far_coupled)


def test_false_negatives_are_those_that_agree_in_all_that_is_known() -> None:
    z_i, z_j = two_views(4)
    labels = torch.tensor([[0, 1], [0, -1], [0, 2], [-1, -1]])
    alike = torch.tensor([[0], [0], [1], [2]])  # 1 also agrees with 2, which differs from 0
    both = dcl_loss(z_i, z_j, 0.5, labels)
    assert both != dcl_loss(z_i, z_j, 0.5, alike)
    pairs = torch.tensor([[5, -1, -1], [5, 6, -1], [-1, 6, -1], [-1, -1, -1]])  # 0 with 1, 1 with 2, and no others
    torch.testing.assert_close(both, dcl_loss(z_i, z_j, 0.5, pairs))


def test_masking_never_raises_the_loss() -> None:
    for seed in range(5):
        z_i, z_j = two_views(9, seed=seed)
        labels = draw_labels(9, (3, 2), 0.3, seed)
        labels[0] = -1  # keeps every anchor a negative: without any an anchor counts as 0
        assert dcl_loss(z_i, z_j, 0.5, labels) < dcl_loss(z_i, z_j, 0.5)
