"""SupCon: the paper's loss for one attribute, and the weights of positives for several.

Properties of all losses: test_contrastive_losses.py.
"""

import math

import pytest
import torch
from contrastive_oracle import UNKNOWN, plain_l_out, two_views, with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr import nt_xent_loss, sup_con_loss


@settings(max_examples=30)
@given(
    classes=st.lists(st.integers(0, 3), min_size=2, max_size=7),
    temperature=st.floats(0.05, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_with_one_attribute_and_no_blanks_it_is_l_out_of_the_paper(classes, temperature, seed) -> None:
    z_i, z_j = two_views(len(classes), 4, seed)
    found = with_gradients(sup_con_loss, z_i, z_j, torch.tensor(classes)[:, None], temperature)
    expected = with_gradients(plain_l_out, z_i, z_j, temperature, classes)
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-9, atol=1e-9)


def test_repeating_an_attribute_changes_nothing() -> None:
    z_i, z_j = two_views(6)
    labels = torch.tensor([0, 1, 0, 2, 1, 0])[:, None]
    once, thrice = (sup_con_loss(z_i, z_j, labels.expand(-1, times), 0.2) for times in (1, 3))
    torch.testing.assert_close(thrice, once, rtol=1e-14, atol=0)


def test_an_attribute_known_in_only_one_image_changes_nothing() -> None:
    z_i, z_j = two_views(5)
    labels = torch.tensor([[0], [1], [0], [1], [0]])
    extra = torch.tensor([[UNKNOWN], [3], [UNKNOWN], [UNKNOWN], [UNKNOWN]])
    both = sup_con_loss(z_i, z_j, torch.cat([labels, extra], dim=1), 0.2)
    torch.testing.assert_close(both, sup_con_loss(z_i, z_j, labels, 0.2), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("labels", "weight"),
    [
        ([[0, 0, 0], [0, 0, 0]], 1),
        ([[0, 0, 0], [0, 0, 1]], 2 / 3),
        ([[0, 0, 0], [0, 1, 1]], 1 / 3),
        ([[0, 0, 0], [1, 1, 1]], 0),
        ([[0, 0, -1], [0, 1, 1]], 1 / 2),
        ([[0, -1, -1], [0, 1, 1]], 1),
        ([[0, -1, -1], [-1, 1, 1]], 0),
        ([[-1, -1, -1], [-1, -1, -1]], 0),
    ],
    ids=str,
)
def test_another_image_weighs_its_share_of_equal_labels_among_the_labels_known_in_both(labels, weight) -> None:
    """The views of an image have similarity 1, and views of different images 0."""
    z = torch.eye(2, dtype=torch.float64)
    expected = math.log(math.exp(2) + 2) - 2 / (1 + 2 * weight)
    assert sup_con_loss(z, z, torch.tensor(labels), 0.5).item() == pytest.approx(expected, rel=1e-14)


def test_images_of_one_class_attract_each_other_where_nt_xent_repels() -> None:
    z_i, _ = two_views(4)
    moved = z_i.clone()
    moved[0] = z_i[1]
    for classes, closer_is_better in (([0, 0, 1, 2], True), ([0, 3, 1, 2], False)):
        labels = torch.tensor(classes)[:, None]
        at = [sup_con_loss(z, z, labels, 0.5).item() for z in (z_i, moved)]
        assert (at[1] < at[0]) == closer_is_better
    assert nt_xent_loss(moved, moved, 0.5) > nt_xent_loss(z_i, z_i, 0.5)
