"""timm's transforms of pixels, against themselves on Pillow images with the same draws."""

import pickle
import random

import numpy as np
import pytest
import torch
from picture import picture
from scipy import stats
from torchvision.transforms import Compose
from torchvision.transforms.functional import pil_to_tensor

from catalog.decode import as_image
from timm.data import byte_transforms as module
from timm.data import create_transform
from timm.data.auto_augment import NAME_TO_OP
from timm.data.byte_operations import allow_black
from timm.data.byte_transforms import RandomCrop, from_pixels
from timm.data.resize_crop import as_tensor
from timm.data.simclr_view import SimCLRView
from timm.data.transforms import RandomResizedCropAndInterpolation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREFETCHED = {"is_training": True, "use_prefetcher": True}
TRAINING = [
    {},
    {"interpolation": "random"},
    {"interpolation": "bicubic", "scale": (0.3, 0.9), "ratio": (0.5, 2.0)},
    {"interpolation": "lanczos"},
    {"vflip": 0.5, "color_jitter": (0.4, 0.4, 0.4, 0.1), "color_jitter_prob": 0.8},
    {"color_jitter": None, "grayscale_prob": 0.5, "gaussian_blur_prob": 0.5},
    {"train_crop_mode": "rkrc"},
    {"train_crop_mode": "rkrr", "interpolation": "random"},
    {"no_aug": True},
    {"auto_augment": "rand-m9-mstd0.5", "interpolation": "random"},
    {"auto_augment": "rand-m9-inc1", "interpolation": "bilinear"},
    {"auto_augment": "augmix-m3-w2"},
    {"auto_augment": "v0", "interpolation": "bilinear"},
    {"auto_augment": "3a"},
]


@pytest.fixture(autouse=True)
def policies_that_do_not_fail():
    allow_black()


def seed(number):
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - timm draws from it
    torch.manual_seed(number)


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def levels(tensor, channels=3):
    """Return a transform's result in levels of 255."""
    if tensor.dtype == torch.uint8:
        return tensor.double()
    mean, std = (torch.tensor(values[:channels]).view(-1, 1, 1) for values in (MEAN, STD))
    return ((tensor * std + mean) * 255).double()


def assert_alike(ours, timms, pixels, draws, channels=3, most=4.0):
    """Compare a transform of pixels with one of images for several seeds."""
    means = []
    for number in range(draws):
        seed(number)
        expected = timms(as_image(pixels))
        expected_states = states()
        seed(number)
        found = ours(pixels)
        assert states() == expected_states, "not the same draws"
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        means.append((levels(found, channels) - levels(expected, channels)).abs().mean().item())
    assert np.median(means) < 1
    assert max(means) < most  # where a threshold enlarges a level; other draws would be off by tens


# timm's transforms


@pytest.mark.parametrize("prefetched", [True, False])
@pytest.mark.parametrize("options", TRAINING, ids=str)
def test_training_gives_what_timm_gives_of_the_image(options, prefetched):
    options = {"is_training": True, "use_prefetcher": prefetched, "mean": MEAN, "std": STD, **options}
    timms = create_transform((3, 40, 32), **options)
    assert_alike(from_pixels(create_transform((3, 40, 32), **options)), timms, picture(), 12)


@pytest.mark.parametrize("policy", [None, "rand-m9-mstd0.5", "v0"])
def test_gray_pixels_give_what_timm_gives_of_the_gray_image(policy):
    options = {**PREFETCHED, "mean": MEAN[:1], "std": STD[:1], "auto_augment": policy, "interpolation": "bilinear"}
    timms = create_transform((1, 40, 32), **options)
    assert_alike(from_pixels(create_transform((1, 40, 32), **options)), timms, picture(channels=1), 12, 1)


@pytest.mark.parametrize("prefetched", [True, False])
@pytest.mark.parametrize("crop", ["center", "squash", "border"])
def test_evaluation_is_timms_to_the_bit(crop, prefetched):
    transform = create_transform((3, 40, 40), use_prefetcher=prefetched, crop_mode=crop, crop_pct=0.9)
    expected = transform(as_image(picture()))
    assert torch.equal(from_pixels(transform)(picture()), expected)


def test_any_other_transform_is_given_the_image():
    assert torch.equal(from_pixels(pil_to_tensor)(picture()), pil_to_tensor(as_image(picture())))


@pytest.mark.parametrize("prefetched", [True, False])
def test_of_augmixs_splits_only_the_first_takes_pixels(prefetched):
    options = {"is_training": True, "use_prefetcher": prefetched, "mean": MEAN, "std": STD, "separate": True}
    options |= {"auto_augment": "augmix-m5-w2", "interpolation": "random"}
    timms = create_transform((3, 40, 32), **options)
    crop, augment, finish = from_pixels(create_transform((3, 40, 32), **options))

    assert_alike(Compose([crop, finish]), Compose([timms[0], timms[2]]), picture(), 12)
    assert_alike(Compose([crop, augment, finish]), Compose(timms), picture(), 12)


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("policy", ["augmix-m5", "rand-m9", "original"])
def test_the_slow_operations_of_policies_are_quickened(policy, separate):
    transform = create_transform((3, 40, 32), **PREFETCHED, auto_augment=policy, separate=separate)
    made = from_pixels(transform)
    steps = [step for part in made for step in part.transforms] if separate else made.transforms
    (policy,) = (step for step in steps if hasattr(step, "ops") or hasattr(step, "policy"))
    operations = [op for group in getattr(policy, "policy", None) or [policy.ops] for op in group]
    assert all(op.aug_fn is not NAME_TO_OP[op.name] for op in operations if op.name in ("Rotate", "ShearX"))


def test_random_erasing_erases_as_much_as_timms():
    options = {"is_training": True, "re_prob": 1.0, "re_mode": "const", "mean": MEAN, "std": STD}
    timms = create_transform((3, 40, 32), **options)
    assert_alike(from_pixels(create_transform((3, 40, 32), **options)), timms, picture(), 12)


def test_the_input_stays_as_it_was():
    pixels = picture()
    pixels.flags.writeable = False
    for options in TRAINING:
        from_pixels(create_transform((3, 24, 24), **{**PREFETCHED, **options}))(pixels)
    assert np.array_equal(pixels, picture())


@pytest.mark.parametrize("options", TRAINING, ids=str)
def test_a_transform_can_be_sent_to_a_worker(options):
    transform = from_pixels(create_transform((3, 24, 24), **{**PREFETCHED, **options}))
    sent = pickle.loads(pickle.dumps(transform))
    for number in range(3):
        seed(number)
        expected = transform(picture())
        seed(number)
        assert torch.equal(sent(picture()), expected)
    assert repr(sent) == repr(transform)


# The random crop


def boxes(crop, pixels, draws, monkeypatch):
    """Draws crops, and returns their boxes and interpolations."""
    drawn = []

    def record(pixels, box, size, interpolation):
        drawn.append((*box, int(interpolation)))
        return np.zeros((*size, pixels.shape[2]), np.uint8)

    monkeypatch.setattr(module, "resize_crop", record)
    for _ in range(draws):
        crop(pixels)
    monkeypatch.undo()
    return np.array(drawn)


@pytest.mark.parametrize("interpolation", ["bilinear", "random"])
@pytest.mark.parametrize(
    ("shape", "scale", "ratio"),
    [((97, 120), (0.08, 1.0), (0.75, 4 / 3)), ((200, 60), (0.3, 1.0), (0.75, 4 / 3)), ((50, 50), (2, 3), (0.9, 1.1))],
    ids=str,
)
def test_boxes_are_timms_for_the_same_seed_and_by_their_distribution(monkeypatch, shape, scale, ratio, interpolation):
    timms = RandomResizedCropAndInterpolation((20, 24), scale, ratio, interpolation)
    crop = RandomCrop(timms)
    pixels = np.zeros((*shape, 3), np.uint8)
    image = as_image(pixels)
    random.seed(1)
    ours = boxes(crop, pixels, 2000, monkeypatch)
    random.seed(1)
    for box in ours[:300]:
        assert tuple(box[:4]) == timms.get_params(image, scale, ratio)
        if interpolation == "random":
            random.choice(crop.interpolation)
    random.seed(2)
    others = np.array([timms.get_params(image, scale, ratio) for _ in range(2000)])
    for feature in (lambda b: b[0], lambda b: b[1], lambda b: b[2], lambda b: b[3], lambda b: b[2] * b[3]):
        assert stats.ks_2samp(feature(ours.T), feature(others.T)).pvalue > 1e-3
    assert set(ours[:, 4]) == ({2, 3} if interpolation == "random" else {2})


def test_a_crop_too_thin_for_timm_has_a_pixel():
    crop = RandomCrop(RandomResizedCropAndInterpolation((4, 4), (0.01, 0.02), (20.0, 30.0)))
    assert {crop(picture(3, 40)).size for _ in range(50)} == {(4, 4)}


def test_its_description_tells_what_it_does():
    text = repr(RandomCrop(RandomResizedCropAndInterpolation((20, 24), (0.5, 1.0), (0.9, 1.1), "random")))
    for part in ("size=(20, 24)", "scale=(0.5, 1.0)", "ratio=(0.9, 1.1)", "BILINEAR", "BICUBIC"):
        assert part in text


# A view instead of the augmentation


def view():
    return SimCLRView((40, 32), interpolation=[2])


@pytest.mark.parametrize("options", [{}, {"no_aug": True}, {"auto_augment": "v0"}, {"vflip": 1.0}], ids=str)
def test_a_view_takes_the_place_of_the_augmentation(options):
    transform = from_pixels(create_transform((3, 40, 32), **{**PREFETCHED, **options}), view())
    seed(0)
    found = transform(picture())
    assert found.dtype == torch.uint8
    seed(0)
    assert torch.equal(found, as_tensor(view()(picture())))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_normalized_where_no_prefetcher_does_it(channels):
    mean, std = MEAN[:channels], STD[:channels]
    transform = from_pixels(create_transform((channels, 40, 32), is_training=True, mean=mean, std=std), view())
    seed(0)
    found = transform(picture(channels=channels))
    assert found.dtype == torch.float32
    assert found.shape == (channels, 40, 32)
    seed(0)
    expected = as_tensor(view()(picture(channels=channels))).double()
    torch.testing.assert_close(levels(found, channels), expected, rtol=0, atol=1e-3)


def test_a_view_is_erased_in_after_it_was_normalized():
    options = {"is_training": True, "re_prob": 1.0, "mean": MEAN, "std": STD}
    transform = from_pixels(create_transform((3, 40, 32), **options), view())
    seed(0)
    erased = (transform(picture()) == 0).all(dim=0)
    assert 0.02 <= erased.float().mean() < 0.5


def test_a_view_and_augmixs_splits_do_not_go_together():
    splits = create_transform((3, 40, 32), **PREFETCHED, auto_augment="augmix-m3", separate=True)
    with pytest.raises(ValueError, match="expected a transform in one part"):
        from_pixels(splits, view())


def test_a_transform_with_a_view_can_be_sent_to_a_worker():
    transform = from_pixels(create_transform((3, 40, 32), **PREFETCHED), view())
    seed(3)
    expected = transform(picture())
    seed(3)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(picture()), expected)
