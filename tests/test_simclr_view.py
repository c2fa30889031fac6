"""SimCLR's views of bytes, against torchvision's operations and its draws."""

import math
import pickle
import random
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from picture import differences, picture
from PIL import Image
from scipy import stats
from torchvision.transforms import ColorJitter, GaussianBlur, RandomResizedCrop
from torchvision.transforms.v2 import functional as torchvisions

from timm.data import simclr_view
from timm.data.resize_crop import as_bytes, as_tensor
from timm.data.simclr_view import (
    RATIO,
    SCALE,
    SimCLRView,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    blur,
    random_box,
    shift_hue,
)

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
WHOLE = {"interpolation": [BILINEAR], "scale": (1, 1), "ratio": (1, 1), "hflip": 0}  # the whole of a square image
COLORS = np.random.default_rng(0).integers(256, size=(60, 80, 3), dtype=np.uint8)  # all of them, strong ones too
LEAST = 1e-3  # the least p-value: seeds are fixed, so a test that passes once passes always


def on_bytes(operation):
    """Turn an operation on tensors [C, H, W] into one on pixels [H, W, C]."""

    def on_pixels(pixels, *args):
        return np.ascontiguousarray(as_bytes(operation(as_tensor(pixels.copy()), *args)))

    return on_pixels


THEIRS = {
    adjust_brightness: on_bytes(torchvisions.adjust_brightness),
    adjust_contrast: on_bytes(torchvisions.adjust_contrast),
    adjust_saturation: on_bytes(torchvisions.adjust_saturation),
    shift_hue: on_bytes(torchvisions.adjust_hue),
}


def their_blur(pixels, sigma, largest_radius):
    return on_bytes(torchvisions.gaussian_blur)(pixels, [2 * largest_radius + 1] * 2, [sigma, sigma])


def square(side=32, channels=3):
    return picture(side, side, channels)


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    torch.manual_seed(0)


# The operations


@pytest.mark.parametrize("operation", [adjust_brightness, adjust_contrast, adjust_saturation], ids=lambda f: f.__name__)
@pytest.mark.parametrize("factor", [0, 0.001, 0.2, 0.5, 0.93, 1, 1.07, 1.5, 1.8, 2.6])
def test_factors_do_what_torchvisions_do(operation, factor):
    for pixels in (picture(), picture(seed=1) // 2, picture(50, 40, channels=1), COLORS):
        assert differences(operation(pixels, factor), THEIRS[operation](pixels, factor)).max() <= 2


def test_however_large_a_factor_what_is_too_bright_is_white():
    pixels = picture()
    for factor in (10, 40, 300):  # where torchvision's overflow
        assert np.array_equal(adjust_brightness(pixels, factor), np.minimum(pixels.astype(int) * factor, 255))


@pytest.mark.parametrize("amount", np.linspace(-0.5, 0.5, 21).round(3).tolist())
def test_a_hue_turns_as_torchvisions_does(amount):
    for pixels in (picture(), picture(seed=1) // 2, COLORS):
        far = differences(shift_hue(pixels, amount), THEIRS[shift_hue](pixels, amount))
        assert far.max() <= 1
        assert far.mean() < 0.2


def test_a_third_of_the_circle_makes_red_green_and_green_blue():
    red, green, blue = (np.full((4, 4, 3), color, np.uint8) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200)))
    for amount in (1 / 3, -2 / 3):
        assert np.array_equal(shift_hue(red, amount), green)
        assert np.array_equal(shift_hue(green, amount), blue)
        assert np.array_equal(shift_hue(blue, amount), red)


def test_the_hue_of_every_color_may_turn_by_nothing_or_all_around():
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    for amount in (0.0, 1.0, 1e-9, -1e-9):
        assert np.array_equal(shift_hue(every, amount), every)


@pytest.mark.parametrize("side", [24, 32, 96, 224])
@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5, 1.0, 1.5, 2.0])
def test_a_blur_is_torchvisions_with_a_kernel_of_a_tenth_of_the_side(side, sigma):
    radius = SimCLRView((side, side), interpolation=[BILINEAR]).largest_radius
    assert abs(2 * radius + 1 - side / 10) <= 1.5
    for pixels in (square(side), square(side, channels=1), np.full((side, side, 3), 255, np.uint8)):
        assert differences(blur(pixels, sigma, radius), their_blur(pixels, sigma, radius)).max() <= 1


def test_a_blur_of_nothing_but_white_is_white():
    white = np.full((30, 30, 3), 255, np.uint8)
    for sigma in np.linspace(0.1, 2, 60):
        assert blur(white, sigma, 11).min() == 255


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (3, 2, 1), (5, 5, 3)], ids=str)
def test_operations_take_the_smallest_images(shape):
    pixels = picture(*shape)
    for operation, timms in THEIRS.items():
        assert differences(operation(pixels, 0.4), timms(pixels, 0.4)).max() <= 2
    assert blur(pixels, 2.0, 11).shape == shape


@pytest.mark.parametrize("channels", [1, 3])
def test_operations_leave_their_input_as_it_was(channels):
    pixels = picture(channels=channels)
    pixels.flags.writeable = False
    for operation in THEIRS:
        assert operation(pixels, 0.3).shape == pixels.shape
    assert blur(pixels, 1.0, 3).shape == pixels.shape
    assert np.array_equal(pixels, picture(channels=channels))


def test_a_gray_image_has_no_color_to_change():
    gray = picture(channels=1)
    assert np.array_equal(adjust_saturation(gray, 0.2), gray)
    assert np.array_equal(shift_hue(gray, 0.2), gray)


def test_what_is_clipped_is_lost_to_the_next_operation():
    pixels = picture()
    dimmed = adjust_brightness(adjust_brightness(pixels, 1.8), 1 / 1.8)
    timms = THEIRS[adjust_brightness](THEIRS[adjust_brightness](pixels, 1.8), 1 / 1.8)
    assert differences(dimmed, timms).max() <= 2
    assert differences(dimmed, pixels).max() > 100


@pytest.mark.parametrize("factors", [(1.8, 1.7, 1.8, 0.2), (0.3, 1.8, 1.5, -0.15), (1.5, 0.3, 0.2, 0.1)], ids=str)
def test_in_each_order_the_four_jitters_give_what_torchvisions_give(factors):
    pixels = picture(40, 50)
    results = set()
    for order in permutations(zip(THEIRS, factors, strict=True)):
        ours = timms = pixels
        for operation, factor in order:
            ours, timms = operation(ours, factor), THEIRS[operation](timms, factor)
        far = differences(ours, timms)  # torchvision rounds down, which the steps that follow enlarge
        assert far.mean() < 4
        assert np.quantile(far, 0.999) <= 10
        results.add(ours.tobytes())
    assert len(results) > 12, "the order must make a difference"


# The view


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("keep_color", [False, True])
def test_a_view_is_what_torchvision_makes_of_the_same_draws(monkeypatch, keep_color, channels):
    pixels = picture(channels=channels)
    settings = {"interpolation": [BILINEAR, BICUBIC], "keep_color": keep_color, "strength": 0.5, "vflip": 0.3}
    view = SimCLRView((48, 40), **settings)
    ours = [view(pixels) for random_seed in range(30) if not random.seed(random_seed)]
    view.jitters = [(THEIRS[operation], low, high) for operation, low, high in view.jitters]
    monkeypatch.setattr(simclr_view, "adjust_saturation", THEIRS[adjust_saturation])
    monkeypatch.setattr(simclr_view, "blur", their_blur)
    for random_seed, made in enumerate(ours):
        random.seed(random_seed)
        far = differences(made, view(pixels))
        assert far.mean() < 4
        assert np.quantile(far, 0.995) <= 8
    assert len({made.tobytes() for made in ours}) == 30


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(20, 30), (1, 1), (97, 120), (200, 7)], ids=str)
def test_a_view_has_its_size_and_memory_of_its_own(size, channels):
    pixels = picture(channels=channels)
    pixels.flags.writeable = False
    view = SimCLRView(size, interpolation=[BILINEAR, BICUBIC], scale=(0.3, 1.0), vflip=0.5)
    for _ in range(30):
        made = view(pixels)
        assert made.shape == (*size, channels)
        assert made.dtype == np.uint8
        assert made.flags.writeable
        assert not np.shares_memory(made, pixels)
    assert np.array_equal(pixels, picture(channels=channels))


def test_the_calmest_view_of_a_whole_image_is_a_copy_of_it(monkeypatch):
    for name in ("_JITTER_PROB", "_GRAY_PROB", "_BLUR_PROB"):
        monkeypatch.setattr(simclr_view, name, 0)
    pixels = square()
    made = SimCLRView((32, 32), **WHOLE)(pixels)
    assert np.array_equal(made, pixels)
    made[:] = 0
    assert np.array_equal(pixels, square())


def test_a_view_follows_from_the_seed():
    view = SimCLRView((32, 32), interpolation=[BILINEAR, BICUBIC])
    random.seed(5)
    first = [view(picture()) for _ in range(5)]
    random.seed(5)
    assert all(np.array_equal(made, view(picture())) for made in first)
    random.seed(6)
    assert not np.array_equal(first[0], view(picture()))


def test_a_view_can_be_sent_to_a_worker():
    view = SimCLRView((32, 32), interpolation=[BILINEAR, BICUBIC], strength=0.5)
    sent = pickle.loads(pickle.dumps(view))
    random.seed(1)
    made = view(picture())
    random.seed(1)
    assert np.array_equal(sent(picture()), made)
    assert repr(sent) == repr(view)


def test_its_description_tells_the_ranges():
    text = repr(SimCLRView((32, 24), interpolation=[BILINEAR], strength=0.5))
    assert "size=(32, 24)" in text
    assert "adjust_brightness 0.6..1.4" in text
    assert "shift_hue -0.1..0.1" in text
    assert "hue" not in repr(SimCLRView((32, 24), interpolation=[BILINEAR], keep_color=True))


def test_both_flips_turn_the_image():
    pixels = square()
    for hflip, vflip, expected in ((1, 0, pixels[:, ::-1]), (0, 1, pixels[::-1]), (1, 1, pixels[::-1, ::-1])):
        view = SimCLRView((32, 32), **{**WHOLE, "hflip": hflip}, vflip=vflip, strength=0, keep_color=True)
        turned = [np.array_equal(view(pixels), expected) for _ in range(20)]
        assert 0 < sum(turned) < 20, "the others are blurred"


# What is drawn


def parameters(view, draws):
    """Make views of a tiny image; return the operations of each with their arguments, in order."""
    made = []

    def recorder(operation):
        return lambda pixels, amount: made[-1].append((operation.__name__, amount)) or pixels

    view.jitters = [(recorder(operation), low, high) for operation, low, high in view.jitters]
    for _ in range(draws):
        made.append([])
        view(np.zeros((2, 2, 3), np.uint8))
    return [jitters for jitters in made if jitters]


@pytest.mark.parametrize("strength", [0.5, 1, 3])
def test_jitters_are_drawn_as_torchvision_draws_them_in_any_order(strength):
    drawn = parameters(SimCLRView((2, 2), interpolation=[BILINEAR], strength=strength), 6000)
    limits = 0.8 * strength, 0.8 * strength, 0.8 * strength, min(0.5, 0.2 * strength)
    jitter = ColorJitter(*limits)
    timms = [
        ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(3000)
    ]
    names = [operation.__name__ for operation in THEIRS]
    for position, name in enumerate(names):
        ours = [dict(jitters)[name] for jitters in drawn]
        assert stats.ks_2samp(ours, [draw[1 + position] for draw in timms]).pvalue > LEAST
    orders = Counter(tuple(name for name, _ in jitters) for jitters in drawn)
    assert set(orders) == set(permutations(names))
    assert stats.chisquare(list(orders.values())).pvalue > LEAST
    for first, second in ((0, 1), (2, 3)):  # each on its own
        pair = [(dict(jitters)[names[first]], dict(jitters)[names[second]]) for jitters in drawn]
        assert stats.spearmanr(pair).pvalue > LEAST


def test_color_is_kept_by_leaving_saturation_and_hue_out():
    drawn = parameters(SimCLRView((2, 2), interpolation=[BILINEAR], keep_color=True), 2000)
    orders = Counter(tuple(name for name, _ in jitters) for jitters in drawn)
    assert set(orders) == set(permutations(["adjust_brightness", "adjust_contrast"]))
    assert stats.chisquare(list(orders.values())).pvalue > LEAST


def test_each_part_comes_as_often_as_in_the_paper(monkeypatch):
    seen = Counter()
    sigmas = []
    draws = 4000
    view = SimCLRView((2, 2), interpolation=[BILINEAR, BICUBIC])
    resized = simclr_view.resize_crop

    def resize(*args):
        seen["interpolation", args[-1]] += 1
        return resized(*args)

    def desaturate(pixels, factor):
        seen["gray", factor] += 1
        return pixels

    monkeypatch.setattr(simclr_view, "resize_crop", resize)
    monkeypatch.setattr(simclr_view, "adjust_saturation", desaturate)
    monkeypatch.setattr(simclr_view, "blur", lambda pixels, sigma, _: sigmas.append(sigma) or pixels)
    jittered = len(parameters(view, draws))
    for count, probability in ((jittered, 0.8), (seen["gray", 0.0], 0.2), (len(sigmas), 0.5)):
        assert stats.binomtest(count, draws, probability).pvalue > LEAST
    assert stats.binomtest(seen["interpolation", BICUBIC], draws, 0.5).pvalue > LEAST
    assert seen["interpolation", BILINEAR] + seen["interpolation", BICUBIC] == draws
    timms = [GaussianBlur.get_params(0.1, 2.0) for _ in range(3000)]
    assert stats.ks_2samp(sigmas, timms).pvalue > LEAST


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_flips_come_as_often_as_asked(monkeypatch, probability):
    monkeypatch.setattr(simclr_view, "_BLUR_PROB", 0)
    corners = np.zeros((4, 4, 3), np.uint8)
    corners[0, 0], corners[0, 3] = 200, 100
    settings = {**WHOLE, "hflip": probability}
    view = SimCLRView((4, 4), **settings, vflip=1 - probability, strength=0, keep_color=True)
    made = [view(corners) for _ in range(1500)]
    mirrored = sum(int(max(image[0, 3, 0], image[3, 3, 0])) == 200 for image in made)
    overturned = sum(int(image[3].max()) == 200 for image in made)
    assert stats.binomtest(mirrored, 1500, probability).pvalue > LEAST
    assert stats.binomtest(overturned, 1500, 1 - probability).pvalue > LEAST


@pytest.mark.parametrize(
    ("shape", "scale", "ratio"),
    [
        ((97, 120), SCALE, RATIO),
        ((400, 100), (0.2, 1.0), RATIO),  # most draws do not fit
        ((60, 300), (0.5, 1.0), (0.9, 1.1)),  # hardly any does
        ((224, 224), (0.08, 0.3), (0.5, 3.0)),
    ],
    ids=str,
)
def test_crops_are_drawn_as_torchvision_draws_them(shape, scale, ratio):
    ours = np.array([random_box(*shape, scale, ratio) for _ in range(4000)])
    image = torch.empty(3, *shape)
    timms = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(4000)])

    def features(boxes):
        top, left, height, width = boxes.T.astype(float)
        return top, left, height, width, height * width, width / height, top + height, left + width

    for feature, expected in zip(features(ours), features(timms), strict=True):
        assert stats.ks_2samp(feature, expected).pvalue > LEAST
    assert (ours[:, 0] + ours[:, 2]).max() <= shape[0]
    assert (ours[:, 1] + ours[:, 3]).max() <= shape[1]


def test_where_no_draw_fits_the_middle_is_kept_as_torchvision_keeps_it():
    never = 30.0, 40.0  # times the image's area
    for height in (1, 2, 3, 7, 20, 33, 100):
        for width in (1, 2, 3, 7, 20, 33, 100):
            timms = RandomResizedCrop.get_params(torch.empty(3, height, width), list(never), list(RATIO))
            assert random_box(height, width, never, RATIO) == timms


# Strength and color


@pytest.mark.parametrize("channels", [1, 3])
def test_without_strength_nothing_is_jittered(monkeypatch, channels):
    for name in ("_GRAY_PROB", "_BLUR_PROB"):
        monkeypatch.setattr(simclr_view, name, 0)
    pixels = square(channels=channels)
    for strength, most in ((0, 0), (1e-6, 0), (0.001, 2)):
        view = SimCLRView((32, 32), **WHOLE, strength=strength)
        assert max(differences(view(pixels), pixels).max() for _ in range(50)) <= most


def test_the_stronger_the_further_from_the_image(monkeypatch):
    for name in ("_GRAY_PROB", "_BLUR_PROB"):
        monkeypatch.setattr(simclr_view, name, 0)
    pixels = square()
    means = []
    for strength in (0.1, 0.3, 1.0):
        view = SimCLRView((32, 32), **WHOLE, strength=strength)
        means.append(np.mean([differences(view(pixels), pixels).mean() for _ in range(200)]))
    assert 2 * means[0] < means[1] < means[2] / 1.5


def test_keeping_color_a_gray_picture_stays_gray_and_no_channel_overtakes_another(monkeypatch):
    view = SimCLRView((32, 32), **WHOLE, keep_color=True)
    gray = np.repeat(square(channels=1), 3, axis=2)
    for _ in range(100):
        assert (np.ptp(view(gray), axis=2) == 0).all()
    monkeypatch.setattr(simclr_view, "_BLUR_PROB", 0)  # which mixes neighbors' colors
    pixels = square()
    order = np.sign(np.diff(pixels[:, :, [0, 1, 2, 0]].astype(int), axis=2))
    for _ in range(100):
        changed = np.sign(np.diff(view(pixels)[:, :, [0, 1, 2, 0]].astype(int), axis=2))
        assert (changed * order >= 0).all()  # equal only where rounded or clipped


def test_keeping_color_the_hue_is_kept_where_nothing_is_clipped(monkeypatch):
    monkeypatch.setattr(simclr_view, "_BLUR_PROB", 0)
    pixels = square() // 3 + 50  # at this strength between 0 and 255 for any draw

    def hue(image):
        """Return a point in the plane of the color wheel: angle is hue, distance from 0 is chroma in levels."""
        red, green, blue = np.moveaxis(image.astype(float), 2, 0)
        return (2 * red - green - blue) / 2 + 1j * (green - blue) * math.sqrt(3) / 2

    view = SimCLRView((32, 32), **WHOLE, keep_color=True, strength=0.5)
    for _ in range(60):
        made = view(pixels)
        colorful = abs(hue(made)) > 25
        turned = np.angle(hue(made)[colorful] / hue(pixels)[colorful])
        assert colorful.any()
        assert np.abs(turned).max() < math.radians(6)  # two roundings


def test_not_keeping_color_it_is_changed_and_sometimes_lost(monkeypatch):
    monkeypatch.setattr(simclr_view, "_BLUR_PROB", 0)
    made = [SimCLRView((32, 32), **WHOLE)(square()) for _ in range(100)]
    gray = sum(int(np.ptp(view, axis=2).max()) == 0 for view in made)
    assert 5 <= gray <= 40
