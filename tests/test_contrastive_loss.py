"""The contrastive losses by name; the losses themselves are tested in test_contrastive_losses.py."""

import pytest
import torch
from contrastive_oracle import draw_labels, two_views

from options.train_losses import CONTRASTIVE
from simclr import dcl_loss, nt_xent_loss, sup_con_loss
from timm.task.contrastive_loss import KINDS, ContrastiveLoss, reads_labels

EXPECTED = {
    ("ntxent", False): lambda z, t, labels: nt_xent_loss(*z, t),
    ("ntxent", True): lambda z, t, labels: nt_xent_loss(*z, t, labels),
    ("dcl", False): lambda z, t, labels: dcl_loss(*z, t),
    ("dcl", True): lambda z, t, labels: dcl_loss(*z, t, labels),
    ("supcon", False): lambda z, t, labels: sup_con_loss(*z, labels, t),
}


def test_the_command_line_offers_these_names() -> None:
    assert [*KINDS, "none"] == CONTRASTIVE
    assert {name for name, _ in EXPECTED} == set(KINDS)


@pytest.mark.parametrize(("name", "masked"), EXPECTED)
def test_a_name_makes_its_loss_which_reads_labels_only_if_required(name: str, masked: bool) -> None:
    z, labels = two_views(7), draw_labels(7)
    loss = ContrastiveLoss(name, 0.2, masked)
    expected = EXPECTED[name, masked](z, 0.2, labels)
    torch.testing.assert_close(loss(*z, labels), expected, rtol=0, atol=0)
    assert loss.reads_labels == reads_labels(name, masked) == (masked or name == "supcon")
    if not loss.reads_labels:
        assert loss(*z) == expected
    assert not list(loss.parameters())


def test_none_reads_no_labels() -> None:
    assert not reads_labels("none", False)


def test_supcon_has_no_false_negatives_to_mask() -> None:
    with pytest.raises(ValueError, match="supcon has no false negatives to mask"):
        ContrastiveLoss("supcon", 0.5, mask_false_negatives=True)


@pytest.mark.parametrize("images", [2, 64])
@pytest.mark.parametrize(("name", "masked"), EXPECTED)
def test_the_stated_chance_level_is_the_loss_of_equal_projections(name: str, masked: bool, images: int) -> None:
    same = torch.ones(2, images, 4)
    loss = ContrastiveLoss(name, 0.5, masked)
    classes = torch.arange(images)[:, None] if masked else draw_labels(images)
    sentence = loss.at_chance(images)
    assert f" = {loss(*same, classes).item():.4f} for N = {images} images" in sentence
    assert ("at most" in sentence) == masked
