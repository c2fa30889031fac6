"""Flags of train.py that change what the model sees: preprocessing, augmentation, mixing.

Most tests use pictures whose color encodes the place (flag_effects.draw_ramps): red rises from 0 to 255 from left to
right, green from top to bottom.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from drawn_photograph import photograph
from flag_effects import Prepare, batch_of, draw_ramps, images_of, loop_through, model_of, shows
from flag_effects import prepare as make_ready
from table_files import write_table
from torch import Tensor

import train
from runtime.errors import UsageError
from runtime.random_state import seed_all

# One view: the whole picture, resized to 32 x 32, without anything random.
WHOLE = ["-wls", 0, "--scale", 1, 1, "--ratio", 4 / 3, 4 / 3, "--hflip", 0, "--color-jitter", 0]
WHOLE = [*WHOLE, "--train-interpolation", "bilinear"]
BORDER = 4  # resizing may shorten each end of a ramp by this much, on a scale of 255


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_ramps(tmp_path_factory.mktemp("ramps") / "data")


@pytest.fixture
def prepare(data: Path, tmp_path: Path) -> Prepare:
    return partial(make_ready, data, tmp_path)


def span(images: Tensor, channel: int) -> tuple[float, float]:
    """Return the least and the largest value of a channel, means over the images [B, C, H, W]."""
    values = images[:, channel].flatten(1)
    return values.amin(1).mean().item(), values.amax(1).mean().item()


def share(images: Tensor, channel: int) -> float:
    """Return the visible share of a ramp."""
    low, high = span(images, channel)
    return (high - low) / 255


# Preprocessing


@shows("img_size", "input_size")
def test_images_have_the_size_and_the_channels_asked_for(prepare: Prepare) -> None:
    for words, shape in (
        ([], (3, 32, 32)),
        (["--img-size", 48], (3, 48, 48)),
        (["--input-size", 1, 24, 40], (1, 24, 40)),
    ):
        run = prepare(*words)
        assert images_of(run).shape[1:] == images_of(run, "eval_loader").shape[1:] == shape
        assert model_of(run).backbone.conv_stem.in_channels == shape[0]


@shows("crop_pct")
def test_scored_images_are_cropped_to_a_share(prepare: Prepare) -> None:
    for percent, shown in (1, 1), (0.5, 0.5):
        images = images_of(prepare("--crop-pct", percent), "eval_loader")
        assert share(images, 1) == pytest.approx(shown, abs=0.05)  # the height; the width loses more
        assert share(images, 0) == pytest.approx(shown * 3 / 4, abs=0.05)


@shows("crop_mode")
def test_scored_images_are_cropped_squeezed_or_padded(prepare: Prepare) -> None:
    def scored(mode: str) -> Tensor:
        return images_of(prepare("--crop-pct", 1, "--crop-mode", mode, "--mean", 0.5), "eval_loader")

    center, squash, border = scored("center"), scored("squash"), scored("border")
    assert [share(images, 0) for images in (center, squash, border)] == pytest.approx([0.75, 1, 1], abs=0.05)
    assert [share(images, 1) for images in (center, squash, border)] == pytest.approx([1, 1, 1], abs=0.05)
    bars = [(images[0, :, row].std(dim=1) < 1).all().item() for images in (center, squash, border) for row in (1, -2)]
    assert bars == [False, False, False, False, True, True]
    assert border[0, :, 1].mean() == pytest.approx(127.5, abs=1)  # the mean


@shows("mean", "std")
def test_the_mean_is_subtracted_and_the_deviation_divided_by(prepare: Prepare) -> None:
    def raw(*words: object) -> Tensor:
        return batch_of(prepare(*WHOLE, *words))[0]

    images = raw("--mean", 0, "--std", 1)
    assert images.min() >= 0
    assert images.max() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(raw("--mean", 0.25, "--std", 1), images - 0.25)
    torch.testing.assert_close(raw("--mean", 0, "--std", 0.5), images / 0.5)
    each = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(raw("--mean", 0.1, 0.2, 0.3, "--std", 1, 1, 1), images - each)


@shows("interpolation", "train_interpolation")
def test_scored_and_trained_images_are_resized_as_asked(prepare: Prepare) -> None:
    def made(images: Tensor) -> bool:
        """Return whether resizing made values of blue that the picture does not have."""
        return set(images[:, 2].round().unique().tolist()) != {50.0, 200.0}

    for training in (False, True):
        for method in ("nearest", "bilinear"):
            flags = [*WHOLE, "--crop-pct", 0.9]
            flags += ["--train-interpolation" if training else "--interpolation", method]
            run = prepare(*flags)
            assert made(images_of(run, "train_loader" if training else "eval_loader")) == (method != "nearest")
            assert made(images_of(run, "eval_loader" if training else "train_loader"))
            if training:
                light = images_of(prepare(*flags, "--classify-view", "weak", "-wls", 0.5)).chunk(3)[0]
                assert made(light) == (method != "nearest")


# Views


@shows("classify_view")
def test_the_heads_read_the_views_asked_for(prepare: Prepare) -> None:
    choices = {"first": (2, [0]), "both": (2, [0, 1]), "weak": (3, [0]), None: (2, [0, 1])}
    for choice, (views, read) in choices.items():
        asked = ["--classify-view", choice] if choice else []
        run = prepare(*asked, "--color-jitter", 0.9, "--train-interpolation", "bilinear")
        images, target = batch_of(run)
        logits = model_of(run)(images)[0]["color"].chunk(views)
        torch.testing.assert_close(run.task(images, target)["output"]["color"], torch.cat([logits[v] for v in read]))
        blues = [view[:, 2] for view in images_of(run).chunk(views)]  # 50-200 in the picture
        shaken = [blue.min().item() < 45 or blue.max().item() > 205 for blue in blues]
        assert shaken == [choice != "weak", *[True] * (views - 1)]


# Augmentation


@shows("no_aug")
def test_without_augmentation_images_are_only_resized(prepare: Prepare) -> None:
    plain = images_of(prepare("-wls", 0, "--no-aug"))
    assert (plain == plain[0]).all()
    assert share(plain, 0) > 0.95
    assert share(plain, 1) > 0.95
    assert not (images_of(prepare("-wls", 0)) == plain[0]).flatten(1).all(dim=1).any()
    assert torch.equal(images_of(prepare("-wls", 0, "--no-aug", "--classify-view", "weak")), plain)


@shows("train_crop_mode")
def test_a_training_crop_may_keep_the_ratio(prepare: Prepare) -> None:
    def seen(*words: object) -> tuple[float, float, int]:
        """Return the visible shares of width and height, and the number of different crops."""
        images = images_of(prepare(*WHOLE, *words))
        return share(images, 0), share(images, 1), len(images[:, 0].flatten(1).unique(dim=0))

    kept = ["--ratio", 1, 1]
    assert seen() == seen("--train-crop-mode", "rrc") == (pytest.approx(1, abs=0.05), pytest.approx(1, abs=0.05), 1)
    middle = seen("--train-crop-mode", "rkrc", *kept)
    assert middle == (pytest.approx(0.75, abs=0.05), pytest.approx(1, abs=0.05), 1)
    assert seen("--train-crop-mode", "rkrr", *kept)[2] > 1


@shows("scale", "ratio")
def test_crops_have_the_size_and_the_ratio_asked_for(prepare: Prepare) -> None:
    quarter = images_of(prepare(*WHOLE, "--scale", 0.25, 0.25))
    assert share(quarter, 0) == pytest.approx(1 / 2, abs=0.05)
    assert share(quarter, 1) == pytest.approx(1 / 2, abs=0.05)
    tall = images_of(prepare(*WHOLE, "--scale", 0.25, 0.25, "--ratio", 1 / 2, 1 / 2))  # 20 x 39 pixels of 64 x 48
    assert share(tall, 0) == pytest.approx(20 / 64, abs=0.05)
    assert share(tall, 1) == pytest.approx(39 / 48, abs=0.05)


@shows("hflip", "vflip")
def test_images_are_flipped(prepare: Prepare) -> None:
    plain = images_of(prepare(*WHOLE))
    assert torch.equal(images_of(prepare(*WHOLE, "--hflip", 1)), plain.flip(-1))
    assert torch.equal(images_of(prepare(*WHOLE, "--vflip", 1)), plain.flip(-2))
    assert not torch.equal(plain, plain.flip(-1))
    assert not torch.equal(plain, plain.flip(-2))


@shows("color_jitter", "color_jitter_prob")
def test_colors_are_jittered(prepare: Prepare) -> None:
    plain = images_of(prepare(*WHOLE))

    def shaken(*words: object) -> Tensor:
        """Return for each image whether its colors have changed."""
        return (images_of(prepare(*WHOLE, *words)) - plain).abs().flatten(1).amax(1) > 2

    assert shaken("--color-jitter", 0.9).all()
    assert not shaken("--color-jitter", 0.9, "--color-jitter-prob", 0).any()
    some = shaken("--color-jitter", 0.9, "--color-jitter-prob", 0.5)
    assert some.any()
    assert not some.all()
    bright = images_of(prepare(*WHOLE, "--color-jitter", 0.5, 0, 0))  # one factor for the whole image
    dark = plain[0] < 125
    factors = (bright / plain.clamp(min=1))[:, (plain[0] > 40) & dark]
    assert (factors.std(dim=1) < 0.02).all()
    assert factors.mean(dim=1).std() > 0.05
    turned = images_of(prepare(*WHOLE, "--color-jitter", 0, 0, 0, 0.5))
    assert (turned.amax(1) - plain.amax(1)).abs().max() < 5  # a change of hue keeps the brightness
    assert (turned - plain).abs().amax() > 50


@shows("views", "view_strength")
def test_the_strength_of_simclrs_views_is_chosen(prepare: Prepare) -> None:
    def spread(*words: object) -> tuple[float, float]:
        """Return how far blue varies over pictures, and the share of gray pictures."""
        run = prepare("-b", 16, "--train-interpolation", "bilinear", *words)
        images = torch.cat([images_of(run) for _ in range(4)])
        gray = (images.amax(dim=1) - images.amin(dim=1)).amax(dim=(1, 2)) < 2
        return images[:, 2].mean(dim=(1, 2)).std().item(), gray.float().mean().item()

    calm, _ = spread("--views", "simclr", "--view-strength", 0.01)
    wild, some_gray = spread("--views", "simclr")
    kept, no_gray = spread("--views", "simclr-keepcolor")
    assert calm < wild
    assert calm < kept
    assert some_gray > 0.05
    assert no_gray == 0


@shows("augment_on")
def test_views_made_on_the_device_equal_those_of_the_workers(prepare: Prepare) -> None:
    words = ["--views", "simclr", "-wls", 1]
    there = images_of(prepare(*words, "--augment-on", "device"))
    here = images_of(prepare(*words))
    assert there.shape == here.shape
    assert (there - here).abs().mean() < 1  # on a scale of 255; bytes are rounded after each operation
    assert not torch.equal(there, here)
    resident = images_of(prepare(*words, "--augment-on", "device", "--cache", "device"))
    assert torch.equal(there, resident)


@shows("decode")
@pytest.mark.parametrize("views", [[], ["--views", "simclr", "-wls", 1]])
def test_reduced_decoding_changes_views_by_a_level_or_two_and_leaves_scoring(
    tmp_path: Path, views: list[object]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(8):
        photograph(index, 300, 200).save(folder / f"{index}.jpg")
    rows = [{"image_path": f"{index}.jpg", "color": "red" if index % 2 else "blue"} for index in range(8)]
    for split in ("train", "val"):
        write_table(folder / f"{split}.csv", rows)
    words = ["--scale", 0.8, 1, "--color-jitter", 0, "--train-interpolation", "bilinear", "--knn-interval", 1]
    words = [*(views or words), "-b", 8]
    full, reduced = (
        make_ready(folder, tmp_path / decode, *words, "--decode", decode) for decode in ("full", "reduced")
    )
    difference = (images_of(full) - images_of(reduced)).abs().mean()
    assert 0 < difference < 5
    for loader in ("eval_loader", "index_loader"):
        assert torch.equal(images_of(full, loader), images_of(reduced, loader))


@shows("grayscale_prob", "gaussian_blur_prob")
def test_colors_and_sharpness_are_lost(prepare: Prepare) -> None:
    plain = images_of(prepare(*WHOLE))
    gray = images_of(prepare(*WHOLE, "--grayscale-prob", 1))
    assert torch.equal(gray[:, 0], gray[:, 1])
    assert torch.equal(gray[:, 0], gray[:, 2])
    assert not torch.equal(plain[:, 0], plain[:, 1])
    blurred = images_of(prepare(*WHOLE, "--gaussian-blur-prob", 1, "--color-jitter", 0))
    deviations = blurred[:, 2].std(dim=(1, 2)) / plain[:, 2].std(dim=(1, 2))  # contrast of the stripes
    assert deviations.max() <= 1  # the width of the blur is random and may be 0
    assert deviations.mean() < 0.7


@shows("aa")
@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "augmix-m5", "v0", "original", "3a"])
def test_policies_change_images(prepare: Prepare, policy: str) -> None:
    plain = images_of(prepare(*WHOLE))
    changed = (images_of(prepare(*WHOLE, "--aa", policy, "-b", 16)) - plain[0]).abs().flatten(1).amax(1) > 2
    assert changed.any()


@pytest.mark.parametrize("policy", ["rand-m10-n15-p1.0-inc1", "rand-m0-n15-p1.0", "v0"])
def test_policies_that_leave_no_bit_of_a_color_do_not_fail(prepare: Prepare, policy: str) -> None:
    run = prepare(*WHOLE, "--aa", policy, "-b", 16)
    assert [len(images_of(run, seed=seed)) for seed in range(6)] == [16] * 6


@shows("aug_splits", "jsd")
def test_splits_are_one_clean_image_and_augmented_ones_that_should_agree(prepare: Prepare) -> None:
    splits = [*WHOLE, "--color-jitter", 0.9, "--aug-splits", 3]
    clean, *changed = images_of(prepare(*splits)).chunk(3)
    assert torch.equal(clean, images_of(prepare(*WHOLE)))
    assert all((view - clean).abs().amax() > 5 for view in changed)
    for words, weight in ([], None), (["--jsd"], 12):
        run = prepare(*splits, "--smoothing", 0, *words)
        images, target = batch_of(run)
        result = run.task(images, target)
        logits = result["output"]["color"]
        assert len(logits) == 24
        expected = F.cross_entropy(logits, target[:, 0].repeat(3))
        if weight:
            chances = logits.softmax(dim=1).chunk(3)
            mean = sum(chances) / 3
            divergence = sum((p * (p / mean).log()).sum(dim=1).mean() for p in chances) / 3
            expected = F.cross_entropy(logits[:8], target[:, 0]) + weight * divergence
        torch.testing.assert_close(result["color_loss"], expected.detach())


def erased(prepare: Prepare, *words: object) -> tuple[Tensor, Tensor]:
    """Return a batch as the model sees it, and a mask [B, H, W] of the erased pixels."""
    plain, _ = batch_of(prepare(*WHOLE))
    images, _ = batch_of(prepare(*WHOLE, *words))
    return images, (images != plain).any(dim=1)


@shows("reprob", "remode")
def test_rectangles_are_erased(prepare: Prepare) -> None:
    assert not erased(prepare)[1].any()
    for mode in ([], ["--remode", "rand"], ["--remode", "pixel"]):
        images, holes = erased(prepare, "--reprob", 1, *mode)
        assert holes.flatten(1).any(dim=1).all()
        for image, hole in zip(images, holes, strict=True):
            colors = image[:, hole].unique(dim=1).shape[1]
            assert (colors == 1) == (mode != ["--remode", "pixel"])
            assert (image[:, hole] == 0).all() == (mode == [])
    some = erased(prepare, "--reprob", 0.5)[1].flatten(1).any(dim=1)
    assert some.any()
    assert not some.all()
    alone, _ = erased(prepare, "--reprob", 1, "--no-prefetcher")
    assert (alone == 0).all(dim=1).flatten(1).any(dim=1).all()


@shows("recount")
def test_several_rectangles_are_erased(prepare: Prepare) -> None:
    for words, most in ([], 1), (["--recount", 3], 3):
        images, holes = erased(prepare, "--reprob", 1, "--remode", "rand", *words)
        colors = [image[:, hole].unique(dim=1).shape[1] for image, hole in zip(images, holes, strict=True)]
        assert max(colors) == most


@shows("resplit")
def test_part_of_a_batch_is_not_erased(prepare: Prepare) -> None:
    for words, whole in ([], 0), (["--resplit"], 4):
        holes = erased(prepare, "--reprob", 1, *words)[1].flatten(1).any(dim=1)
        assert holes.tolist() == [False] * whole + [True] * (8 - whole)
    first, second = batch_of(prepare(*WHOLE, "-wls", 1, "--reprob", 1, "--resplit"))[0].chunk(2)
    assert torch.equal(first, batch_of(prepare(*WHOLE))[0])
    assert not torch.equal(second, first)


# Mixing


class Mixed:
    """A batch before and after the task mixed it, and the soft targets of the colors."""

    def __init__(self, run: train.Run, seed: int = 0) -> None:
        images, target = batch_of(run)
        torch.manual_seed(0)
        images.copy_(torch.rand_like(images))  # noise shows the share of each image in the mixture
        self.before = images.clone()
        seed_all(seed)
        (self.colors, _), self.labels = run.task._mix(images, target), target[:, 0]
        self.after = images

    def shares(self) -> list[float]:
        """Return the share of itself that each image kept in a blend; NaN where it is not a blend."""
        other = self.before.flip(0)
        shares = ((self.after - other) / (self.before - other)).flatten(1)
        return [row.median().item() if row.std() < 1e-2 else float("nan") for row in shares]

    def pasted(self) -> Tensor:
        """Return a mask [B, H, W] of the pixels that come from the other image."""
        return (self.after == self.before.flip(0)).all(dim=1) & (self.after != self.before).any(dim=1)


@shows("mixup")
def test_mixup_blends_images_and_labels_by_the_same_share(prepare: Prepare) -> None:
    run = prepare(*WHOLE, "--mixup", 1)
    mixed = Mixed(run)
    (share,) = {round(share, 3) for share in mixed.shares()}
    assert 0 < share < 1
    one_hot = F.one_hot(mixed.labels, 2).float()
    expected = share * one_hot + (1 - share) * one_hot.flip(0)
    torch.testing.assert_close(mixed.colors, expected, atol=1e-3, rtol=0)
    images, target = batch_of(run)
    before = images.clone()
    assert run.task(images, target)["loss"].isfinite()
    assert not torch.equal(images, before)
    assert prepare(*WHOLE).task.mixup is None


@shows("cutmix")
def test_cutmix_pastes_images_and_labels_by_the_same_share(prepare: Prepare) -> None:
    mixed = Mixed(prepare(*WHOLE, "--cutmix", 1))
    holes = mixed.pasted()
    share = holes[0].float().mean().item()
    assert 0 < share < 1
    assert torch.equal(
        mixed.after[~holes.unsqueeze(1).expand_as(mixed.after)],
        mixed.before[~holes.unsqueeze(1).expand_as(mixed.after)],
    )
    one_hot = F.one_hot(mixed.labels, 2).float()
    torch.testing.assert_close(mixed.colors, (1 - share) * one_hot + share * one_hot.flip(0))


@shows("cutmix_minmax")
def test_cutmix_pastes_between_shares_of_the_side(prepare: Prepare) -> None:
    run = prepare(*WHOLE, "--cutmix-minmax", 0.25, 0.5)
    for seed in range(5):
        hole = Mixed(run, seed).pasted()[0]
        assert 8 <= hole.any(dim=0).sum() <= 16
        assert 8 <= hole.any(dim=1).sum() <= 16
    with pytest.raises(UsageError, match=r"--cutmix-minmax 0.5 0.5: both are the same number of pixels"):
        prepare("--cutmix-minmax", 0.5, 0.5)


@shows("mixup_prob", "mixup_switch_prob")
def test_batches_are_mixed_with_the_probabilities_asked_for(prepare: Prepare) -> None:
    def mixed(*words: object) -> Iterator[str]:
        run = prepare(*WHOLE, "--mixup", 1, "--cutmix", 1, *words)
        for seed in range(8):
            result = Mixed(run, seed)
            same = torch.equal(result.before, result.after)
            yield "neither" if same else "cutmix" if result.pasted().any() else "mixup"

    assert set(mixed()) == {"mixup", "cutmix"}
    assert set(mixed("--mixup-switch-prob", 0)) == {"mixup"}
    assert set(mixed("--mixup-switch-prob", 1)) == {"cutmix"}
    assert set(mixed("--mixup-prob", 0)) == {"neither"}
    assert set(mixed("--mixup-prob", 0.5)) > {"neither"}


@shows("mixup_mode")
def test_a_batch_a_pair_or_an_image_shares_one_mixture(prepare: Prepare) -> None:
    def different(mode: str) -> list[float]:
        shares = Mixed(prepare(*WHOLE, "--mixup", 1, "--mixup-mode", mode)).shares()
        return [round(share, 2) for share in shares]

    assert len(set(different("batch"))) == 1
    pairs, images = different("pair"), different("elem")
    assert pairs[:4] == pairs[:3:-1]
    assert len(set(pairs)) > 1
    assert images[:4] != images[:3:-1]


@shows("mixup_off_epoch")
def test_mixing_stops_at_an_epoch(prepare: Prepare) -> None:
    for words, epochs in ([], [True, True]), (["--mixup-off-epoch", 1], [True, False]):
        run = prepare(*WHOLE, "-b", 16, "--epochs", 2, "--mixup", 1, *words)  # one batch an epoch
        batches = loop_through(run)
        assert [not torch.equal(before, after) for before, after in batches] == epochs
