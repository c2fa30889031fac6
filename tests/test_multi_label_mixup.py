"""Mixing images and the labels of several attributes, some of them blank."""

import numpy as np
import pytest
import torch

from catalog.label_space import UNKNOWN, LabelSpace
from timm.data import Mixup
from timm.data.multi_label_mixup import MultiLabelMixup

SPACE = LabelSpace.numbered({"gender": 3, "color": 4})
OPTIONS = {"mixup_alpha": 0.8, "cutmix_alpha": 0.0, "prob": 1.0, "switch_prob": 0.5, "mode": "batch"}


def _seed() -> None:
    np.random.seed(0)  # noqa: NPY002  timm draws from the global generator


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_each_attribute_is_mixed_as_timm_mixes_a_single_one(mode: str, alphas: tuple[float, float]) -> None:
    target = torch.tensor([[0, 3], [1, 2], [2, 1], [0, 0]])
    options = OPTIONS | {"mode": mode, "mixup_alpha": alphas[0], "cutmix_alpha": alphas[1]}
    images = torch.rand(4, 3, 8, 8)
    _seed()
    mine, soft = MultiLabelMixup(SPACE, **options)(images.clone(), target)
    for index, k in enumerate(SPACE.num_classes.values()):
        _seed()
        expected, labels = Mixup(num_classes=k, label_smoothing=0.0, **options)(images.clone(), target[:, index])
        torch.testing.assert_close(mine, expected)
        torch.testing.assert_close(soft[index], labels)


def test_a_blank_cell_gives_no_mass_and_its_partner_keeps_its_share() -> None:
    target = torch.tensor([[0, UNKNOWN], [1, UNKNOWN], [2, 1], [UNKNOWN, 0]])
    _seed()
    _, (gender, color) = MultiLabelMixup(SPACE, **OPTIONS)(torch.rand(4, 3, 8, 8), target)
    share = gender[1, 1].item()  # row 1 itself; row 2 is its partner
    assert 0 < share < 1
    assert gender[0].tolist() == pytest.approx([share, 0, 0])  # its partner, row 3, is blank
    assert gender[3].tolist() == pytest.approx([1 - share, 0, 0])
    assert color[1].tolist() == pytest.approx([0, 1 - share, 0, 0])
    assert color[0].tolist() == pytest.approx([1 - share, 0, 0, 0])


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_images_without_a_label_are_left_out_and_the_others_are_mixed_with_one_another(mode: str) -> None:
    space = LabelSpace.numbered({"number": 6})
    target = torch.tensor([[0], [1], [UNKNOWN], [2], [3], [4], [UNKNOWN], [5], [UNKNOWN]])
    images, labeled = torch.rand(9, 3, 8, 8), target[:, 0] >= 0
    _seed()
    mixed, (soft,) = MultiLabelMixup(space, **OPTIONS | {"mode": mode})(images.clone(), target)
    assert torch.equal(mixed[~labeled], images[~labeled])
    assert not soft[~labeled].any()
    assert ((soft[labeled] > 0).sum(1) == 2).all()
    torch.testing.assert_close(soft[labeled].sum(1), torch.ones(6))
    torch.testing.assert_close(mixed[labeled], torch.einsum("nk,kchw->nchw", soft[labeled], images[labeled]))


def test_of_an_odd_number_with_a_label_one_is_mixed_with_an_image_without() -> None:
    space = LabelSpace.numbered({"number": 3})
    images = torch.rand(6, 3, 8, 8)
    target = torch.tensor([[UNKNOWN], [0], [1], [2], [UNKNOWN], [UNKNOWN]])
    _seed()
    mixed, (soft,) = MultiLabelMixup(space, **OPTIONS | {"mode": "elem"})(images.clone(), target)
    assert torch.equal(mixed[4:], images[4:])
    assert (soft[2] > 0).sum() == 2
    assert 0 < soft[3].sum() < 1
    assert 0 < soft[0].sum() < 1  # the image without a label that took part


def test_a_batch_without_a_label_is_not_mixed() -> None:
    images, target = torch.rand(4, 3, 8, 8), torch.full((4, 2), UNKNOWN)
    mixed, soft = MultiLabelMixup(SPACE, **OPTIONS)(images.clone(), target)
    assert torch.equal(mixed, images)
    assert not any(each.any() for each in soft)


def test_switched_off_it_leaves_images_alone_and_targets_one_hot() -> None:
    mixup = MultiLabelMixup(SPACE, **OPTIONS)
    mixup.set_enabled(False)
    images = torch.rand(2, 3, 8, 8)
    mixed, (gender, _) = mixup(images.clone(), torch.tensor([[2, 0], [UNKNOWN, 1]]))
    assert torch.equal(mixed, images)
    assert gender.tolist() == [[0, 0, 1], [0, 0, 0]]
