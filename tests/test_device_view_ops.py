"""Views of a whole batch, against views of single images in bytes and against torchvision."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from picture import picture
from PIL.Image import Resampling
from torchvision.transforms.v2 import functional as theirs

from timm.data import device_view_ops
from timm.data.device_view_ops import PARAMETERS, BatchViews, ImageStore, encode
from timm.data.simclr_view import Drawn, SimCLRView, adjust_brightness, adjust_contrast, adjust_saturation, shift_hue

CPU = torch.device("cpu")
BILINEAR, BICUBIC = int(Resampling.BILINEAR), int(Resampling.BICUBIC)
SIZES = [(60, 80), (100, 30), (256, 200), (7, 9)]


def store_of(images):
    lengths = torch.tensor([image.shape[0] * image.shape[1] for image in images])
    pixels = torch.cat([torch.from_numpy(image).flatten(0, 1) for image in images])
    return ImageStore(pixels, lengths.cumsum(0) - lengths, torch.tensor([image.shape[:2] for image in images]))


def make(images, drawn, size, rows=None):
    """Return the views that were drawn for some images, [M, C, H, W]."""
    rows = torch.arange(len(images)) if rows is None else rows
    parameters = torch.tensor([encode(one) for one in drawn])
    assert parameters.shape == (len(rows), PARAMETERS)
    return BatchViews(size, [BILINEAR, BICUBIC], CPU)(store_of(images), rows, parameters)


def whole(image, interpolation=BILINEAR, **rest):
    """Return what is drawn to do something with a whole image."""
    return Drawn((0, 0, *image.shape[:2]), interpolation, **rest)


def of_bytes(images):
    return torch.stack([torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in images]).float()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "policy", [{}, {"keep_color": True}, {"strength": 0.5, "vflip": 0.5}, {"distort": False}], ids=str
)
def test_the_same_draws_give_the_views_that_bytes_give(policy, channels):
    random.seed(0)
    torch.manual_seed(0)
    images = [picture(*size, channels) for size in SIZES]
    view = SimCLRView((48, 40), interpolation=[BILINEAR, BICUBIC], **policy)
    rows = torch.randint(len(images), (200,))
    drawn = [view.draw(*images[row].shape[:2]) for row in rows.tolist()]
    ours = make(images, drawn, view.size, rows)
    expected = of_bytes([view.make(images[row], one) for row, one in zip(rows.tolist(), drawn, strict=True)])
    far = (ours - expected).abs()
    assert far.mean() < 0.5  # the rounding of a byte is a quarter on average, and jitters enlarge it
    assert far.flatten().kthvalue(int(0.999 * far.numel())).values < 4
    assert ours.min() > -0.01
    assert ours.max() < 255.01


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (300, 20), (5, 260)], ids=str)
def test_a_crop_is_resized_as_torch_resizes_it_with_antialiasing(mode, size):
    image = picture(120, 97)
    top, left, height, width = box = 11, 5, 83, 61
    number = {"bilinear": BILINEAR, "bicubic": BICUBIC}[mode]
    ours = make([image], [Drawn(box, number)], size)
    crop = of_bytes([image])[:, :, top : top + height, left : left + width]
    expected = F.interpolate(crop, size, mode=mode, antialias=True).clamp(0, 255)
    far = (ours - expected).abs()
    # torch clips a bicubic overshoot at the end alone, bytes and we after either pass.
    assert far.mean() < 0.05
    assert far.max() < (1e-2 if mode == "bilinear" else 20)


def test_flips_mirror_the_view_and_nothing_else():
    image = picture(50, 60)
    plain = make([image], [whole(image)], (20, 30))
    for hflip, vflip, axes in [(True, False, [3]), (False, True, [2]), (True, True, [2, 3])]:
        flipped = make([image], [whole(image, hflip=hflip, vflip=vflip)], (20, 30))
        torch.testing.assert_close(flipped, plain.flip(axes))


@pytest.mark.parametrize(
    ("operation", "expected", "amounts"),
    [
        (adjust_brightness, theirs.adjust_brightness, (0.0, 0.3, 1.7)),
        (adjust_contrast, theirs.adjust_contrast, (0.0, 0.3, 1.7)),
        (adjust_saturation, theirs.adjust_saturation, (0.0, 0.3, 1.7)),
        (shift_hue, theirs.adjust_hue, (-0.5, -0.17, 0.2)),
    ],
)
def test_each_jitter_gives_what_torchvisions_gives_for_floats(operation, expected, amounts):
    image = picture(24, 24)
    for amount in amounts:
        ours = make([image], [whole(image, jitters=((operation, amount),))], (24, 24))
        # torchvision weighs red by 0.2989 and blue by 0.114; we and OpenCV by 0.299 and 0.114.
        torch.testing.assert_close(ours / 255, expected(of_bytes([image]) / 255, amount), atol=2e-4, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.3, 2.0])
def test_a_blur_is_a_gaussian_with_a_mirrored_border(sigma):
    image = picture(60, 60)
    ours = make([image], [whole(image, sigma=sigma)], (60, 60))
    radius = 3
    expected = theirs.gaussian_blur(of_bytes([image]), [2 * radius + 1] * 2, [sigma] * 2)
    torch.testing.assert_close(ours, expected, atol=0.02, rtol=0)


def test_each_view_has_its_own_parameters_in_its_own_order():
    image = picture(24, 24)
    many = [((adjust_brightness, 1.6), (shift_hue, 0.2)), ((shift_hue, 0.2), (adjust_brightness, 1.6)), ()]
    drawn = [whole(image, jitters=jitters, gray=index == 2) for index, jitters in enumerate(many)]
    together = make([image], drawn, (24, 24), torch.zeros(3, dtype=torch.int64))
    for index, one in enumerate(drawn):
        torch.testing.assert_close(together[index], make([image], [one], (24, 24))[0])
    assert (together[0] - together[1]).abs().max() > 1, "the order must make a difference"
    assert (together[2].amax(0) - together[2].amin(0)).max() < 1e-3


def test_a_batch_that_is_made_in_parts_is_the_same(monkeypatch):
    random.seed(3)
    images = [picture(*size) for size in SIZES]
    view = SimCLRView((16, 16), interpolation=[BILINEAR, BICUBIC])
    drawn = [view.draw(*image.shape[:2]) for image in images]
    expected = make(images, drawn, view.size)
    monkeypatch.setattr(device_view_ops, "_ELEMENTS", 1)
    torch.testing.assert_close(make(images, drawn, view.size), expected, atol=1e-3, rtol=0)
