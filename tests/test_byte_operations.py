"""The operations of timm's policies on bytes, against timm's own on Pillow images."""

import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture import differences, picture
from PIL import Image

from catalog.decode import as_image
from timm.data import auto_augment
from timm.data.byte_operations import (
    _OPERATIONS,
    allow_black,
    posterize_or_black,
    sharpen,
    translate,
    use_opencv_operations,
    warp,
)

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
COLOR, GRAY = (124, 116, 104), (120,)  # what fills a picture of three channels, and of one
TRANSLATIONS = ["TranslateX", "TranslateY", "TranslateXRel", "TranslateYRel"]
AFFINE = {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30}  # with timm's largest amounts
SHARPNESS = ["Sharpness", "SharpnessIncreasing"]
POLICIES = {
    "rand-m9": auto_augment.rand_augment_transform,
    "rand-m9-mstd0.5-inc1": auto_augment.rand_augment_transform,
    "rand-m7-n4-p1-mstd101": auto_augment.rand_augment_transform,
    "rand-m9-tweights": auto_augment.rand_augment_transform,
    "rand-m9-t3a": auto_augment.rand_augment_transform,
    "augmix-m5-w4-d2": auto_augment.augment_and_mix_transform,
    "augmix-m3-b1": auto_augment.augment_and_mix_transform,
    "v0": auto_augment.auto_augment_transform,
    "v0r-mstd0.5": auto_augment.auto_augment_transform,
    "original": auto_augment.auto_augment_transform,
    "originalr": auto_augment.auto_augment_transform,
    "3a": auto_augment.auto_augment_transform,
}


def images():
    """Yield images in color and gray, upright and lying, each with the color that fills it."""
    for height, width in ((97, 120), (64, 33)):
        yield as_image(picture(height, width)), COLOR
        yield as_image(picture(height, width, channels=1)), GRAY


def both(name, image, amount, **kwargs):
    """Return the results of our operation and of timm's for an image."""
    return _OPERATIONS[name](image, amount, **kwargs), auto_augment.NAME_TO_OP[name](image, amount, **kwargs)


def assert_close(name, image, amount, most, **kwargs):
    ours, timms = both(name, image, amount, **kwargs)
    assert ours.mode == timms.mode
    assert differences(ours, timms).max() <= most


def sources(name, image, amount):
    """Return where each pixel's middle comes from, x and y in pixels from the image's corner, [H, W] each."""
    y, x = np.mgrid[: image.height, : image.width] + 0.5
    if name == "ShearX":
        return x + amount * y, y
    if name == "ShearY":
        return x, y + amount * x
    middle = complex(image.width, image.height) / 2
    turned = middle + (x + 1j * y - middle) * np.exp(-1j * np.radians(-amount))
    return turned.real, turned.imag


def regions(name, image, amount):
    """Return which pixels come from the image, and which come from more than a pixel inside its border."""
    inside, far = True, True
    for position, length in zip(sources(name, image, amount), image.size, strict=True):
        inside = inside & (position >= 0) & (position < length)
        far = far & (np.minimum(abs(position), abs(position - length)) > 1)
    return inside, far


# The operations


@pytest.mark.parametrize("resample", [BILINEAR, BICUBIC])
@pytest.mark.parametrize("name", TRANSLATIONS)
@settings(max_examples=60)
@given(share=st.floats(-1.3, 1.3) | st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.5, 1e-9, -1e-9, -1e-17]))
def test_translations_are_timms_to_one_level_also_at_the_border(name, resample, share):
    for image, fill in images():
        amount = share if name.endswith("Rel") else share * 120
        assert_close(name, image, amount, 1, resample=resample, fillcolor=fill)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("resample", [BILINEAR, BICUBIC])
def test_whole_pixels_are_moved_unchanged(axis, resample):
    pixels = picture()
    moved = translate(pixels, 7.0, axis, resample, COLOR)
    kept, source = (moved[:-7], pixels[7:]) if axis == 0 else (moved[:, :-7], pixels[:, 7:])
    free = moved[-7:] if axis == 0 else moved[:, -7:]
    assert np.array_equal(kept, source)
    assert (free == COLOR).all()


@pytest.mark.parametrize("name", SHARPNESS)
@pytest.mark.parametrize("factor", [0, 0.1, 0.73, 1.0, 1.3, 1.9, 2.8])
def test_sharpness_is_timms_to_one_level(name, factor):
    for image, fill in images():
        assert_close(name, image, factor, 1, resample=BILINEAR, fillcolor=fill)


@pytest.mark.parametrize("share", [1, 0.6, 0.043, -0.043, -0.5, -1])
@pytest.mark.parametrize("name", AFFINE)
def test_bilinear_shears_and_rotations_are_timms_but_for_the_border_of_the_fill(name, share):
    amount = share * AFFINE[name]
    for image, fill in images():
        ours, timms = both(name, image, amount, resample=BILINEAR, fillcolor=fill)
        assert ours.mode == timms.mode
        inside, away = regions(name, image, amount)
        far = differences(ours, timms)[away]
        assert len(far) > 0.75 * image.width * image.height
        assert far.mean() < 0.5
        assert (far > 2).mean() < 0.01
        assert far.max() <= 12  # a 32nd of a pixel at an edge from black to white
        # At the border a value lies between timm's and the fill, not beyond.
        blended, expected = np.asarray(ours)[inside].astype(int), np.asarray(timms)[inside].astype(int)
        assert (blended >= np.minimum(expected, fill) - 12).all()
        assert (blended <= np.maximum(expected, fill) + 12).all()


@pytest.mark.parametrize("name", AFFINE)
def test_a_shear_or_rotation_by_nothing_changes_nothing(name):
    for image, fill in images():
        assert_close(name, image, 0, 0, resample=BILINEAR, fillcolor=fill)


@pytest.mark.parametrize("degrees", [90, 180, -90, 45, 360])
def test_also_large_turns_are_timms(degrees):
    image = as_image(picture(64, 64))
    ours, timms = both("Rotate", image, degrees, resample=BILINEAR, fillcolor=COLOR)
    far = differences(ours, timms)[regions("Rotate", image, degrees)[1]]
    assert far.mean() < 0.5
    assert far.max() <= (12 if degrees == 45 else 0)


@pytest.mark.parametrize("resample", [BICUBIC, Image.Resampling.NEAREST])
@pytest.mark.parametrize("name", AFFINE)
def test_shears_and_rotations_that_are_not_bilinear_are_timms_own(name, resample):
    for image, fill in images():
        assert_close(name, image, 0.7 * AFFINE[name], 0, resample=resample, fillcolor=fill)


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_translations_by_nearest_pixels_are_timms_own(name):
    for image, fill in images():
        assert_close(name, image, 0.13, 0, resample=Image.Resampling.NEAREST, fillcolor=fill)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5), (5, 1), (3, 3), (2, 7)], ids=str)
def test_operations_take_the_smallest_images(size):
    image = as_image(picture(*size))
    for name in [*TRANSLATIONS, *SHARPNESS]:
        for amount in (-0.3, 0.3, 1.7):
            assert_close(
                name, image, abs(amount) if name in SHARPNESS else amount, 1, resample=BICUBIC, fillcolor=COLOR
            )
    for name, most in AFFINE.items():
        ours, timms = both(name, image, most, resample=BILINEAR, fillcolor=COLOR)
        assert ours.size == timms.size == image.size


def test_several_resamplings_are_chosen_from_as_timm_does():
    for image, fill in images():
        for name, amount in {**AFFINE, "TranslateX": 5.4, "TranslateYRel": 0.213}.items():
            for seed in range(8):
                random.seed(seed)
                chosen = random.choice((BILINEAR, BICUBIC))
                state = random.getstate()
                expected = _OPERATIONS[name](image, amount, resample=chosen, fillcolor=fill)
                random.seed(seed)
                found = _OPERATIONS[name](image, amount, resample=(BILINEAR, BICUBIC), fillcolor=fill)
                assert random.getstate() == state
                assert np.array_equal(found, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_operations_leave_their_input_as_it_was(channels):
    pixels = picture(channels=channels)
    fill = GRAY if channels == 1 else COLOR
    pixels.flags.writeable = False
    made = [
        warp(pixels, (1, 0, 0, 0, 1, 0), fill),
        translate(pixels, 0.0, 1, BILINEAR, fill),
        translate(pixels, 2.3, 0, BICUBIC, fill),
        sharpen(pixels, 1.0),
    ]
    for result in made:
        assert result.shape == pixels.shape
        assert not np.shares_memory(result, pixels)
    assert np.array_equal(made[0], pixels)
    assert np.array_equal(made[1], pixels)
    assert np.array_equal(made[3], pixels)


# The policies


@pytest.fixture(autouse=True)
def policies_that_do_not_fail():
    allow_black()


def operations(policy):
    return [op for group in getattr(policy, "policy", None) or [policy.ops] for op in group]


def made_with(policy, image, seed):
    """Return a policy's result for an image, the operations it drew with their levels, and the random state after."""
    drawn = []
    for op in operations(policy):

        def spy(image, *args, made=op.aug_fn, name=op.name, **kwargs):
            drawn.append((name, args))
            return made(image, *args, **kwargs)

        op.aug_fn = spy
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - timm draws from it
    result = policy(image)
    return result, drawn, (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


@pytest.mark.parametrize("name", POLICIES)
def test_a_quickened_policy_draws_what_it_drew_and_makes_almost_the_same(name):
    means = []
    image = as_image(picture(64, 72))
    for seed in range(40):
        timms, ours = (POLICIES[name](name, {"translate_const": 30, "img_mean": COLOR}) for _ in range(2))
        use_opencv_operations(ours)
        expected, expected_draws, expected_state = made_with(timms, image, seed)
        found, draws, state = made_with(ours, image, seed)
        assert draws == expected_draws
        assert state == expected_state
        means.append(differences(found, expected).mean())
    assert np.median(means) < 0.5
    assert max(means) < 4  # where thresholds follow, which enlarge a level; another draw would be off by tens


@pytest.mark.parametrize("name", POLICIES)
def test_quickening_reaches_every_operation_that_has_a_faster_one(name):
    policy = POLICIES[name](name, {"translate_const": 30, "img_mean": COLOR})
    use_opencv_operations(policy)
    use_opencv_operations(policy)  # twice is once
    for op in operations(policy):
        assert op.aug_fn is _OPERATIONS.get(op.name, auto_augment.NAME_TO_OP[op.name])
    if "3a" not in name:  # whose operations are quick
        assert {op.name for op in operations(policy)} & set(_OPERATIONS)


def test_every_operation_is_one_that_timm_has():
    assert set(_OPERATIONS) <= set(auto_augment.NAME_TO_OP)
    policy = auto_augment.rand_augment_transform("rand-m9", {"translate_const": 30, "img_mean": COLOR})
    use_opencv_operations(policy)
    assert auto_augment.NAME_TO_OP["Rotate"] is auto_augment.rotate, "timm's own must stay what they are"


def test_what_is_no_policy_is_left_alone():
    use_opencv_operations(lambda image: image)
    use_opencv_operations(Image.new("RGB", (2, 2)))


@pytest.mark.parametrize("name", POLICIES)
def test_a_quickened_policy_can_be_sent_to_a_worker(name):
    policy = POLICIES[name](name, {"translate_const": 30, "img_mean": COLOR})
    use_opencv_operations(policy)
    sent = pickle.loads(pickle.dumps(policy))
    image = as_image(picture(40, 40))
    for seed in range(5):
        expected, *_ = made_with(policy, image, seed)
        found, *_ = made_with(sent, image, seed)
        assert np.array_equal(found, expected)


# Posterizing

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("bits", range(-2, 10))
def test_posterizing_keeps_the_leading_bits_of_a_color(bits):
    for pixels in (PIXELS, PIXELS[..., 0]):
        image = posterize_or_black(Image.fromarray(pixels), bits)
        mask = 256 - 2 ** (8 - min(max(bits, 0), 8))
        np.testing.assert_array_equal(np.array(image), pixels & mask)


@pytest.mark.parametrize(("name", "magnitude"), [("Posterize", 0), ("PosterizeIncreasing", 10)])
def test_timms_operations_posterize_down_to_black(name, magnitude):
    image = auto_augment.AugmentOp(name, prob=1.0, magnitude=magnitude)(Image.fromarray(PIXELS))
    assert not np.array(image).any()
