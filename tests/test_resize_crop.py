"""Decoding and resizing arrays of bytes, against Pillow and `load_image`."""

import io
import random

import cv2
import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture import differences, picture
from PIL import Image, ImageCms

from catalog import decode as decoding
from catalog.decode import as_image, as_pixels, load_image, load_pixels
from timm.data.resize_crop import as_bytes, as_tensor, resize_crop

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
EXACT = [Image.Resampling.NEAREST, Image.Resampling.BOX, Image.Resampling.HAMMING, Image.Resampling.LANCZOS]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = SRGB * 30  # more than one segment


def xmp(orientation):
    return b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/>' % orientation


def exif(orientation):
    metadata = Image.Exif()
    metadata[0x0112] = orientation
    return metadata


def outcome(read, path, channels):
    """Return the shape and pixels of a file, or the error."""
    try:
        pixels = read(path, channels)
    except Exception as error:
        return type(error), str(error)
    return pixels.shape, pixels.tobytes()


def through_pillow(path, channels):
    return as_pixels(load_image(path, channels))


def assert_read_alike(path):
    """Compare with load_image in color and gray; return the result in color."""
    for channels in (1, 3):
        expected = outcome(through_pillow, path, channels)
        assert outcome(load_pixels, path, channels) == expected
    return expected


@pytest.fixture
def quickly_decoded(monkeypatch):
    """How many files were decoded without Pillow."""
    calls = []
    decode = decoding.simplejpeg.decode_jpeg
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", lambda data: calls.append(1) or decode(data))
    return calls


# Reading files


@pytest.mark.parametrize("size", [(64, 80), (61, 83), (1, 1), (1, 9), (17, 2)], ids=str)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_color_jpegs_are_read_as_pillow_reads_them(tmp_path, quickly_decoded, subsampling, progressive, size):
    for quality in (30, 92):
        path = tmp_path / f"{quality}.jpg"
        as_image(picture(*size)).save(path, subsampling=subsampling, progressive=progressive, quality=quality)
        assert_read_alike(path)
    assert len(quickly_decoded) == 2


@pytest.mark.parametrize("sampling", ["411", "440", "420", "422", "444"])
def test_also_subsamplings_that_pillow_does_not_write(tmp_path, quickly_decoded, sampling):
    factors = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    written, content = cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors])
    assert written
    (tmp_path / "a.jpg").write_bytes(content.tobytes())
    assert_read_alike(tmp_path / "a.jpg")
    assert quickly_decoded


@pytest.mark.parametrize("options", [{"icc_profile": WIDE}, {"comment": b"Exif"}, {"dpi": (72, 72)}, {"xmp": b"<x/>"}])
def test_metadata_that_turn_nothing_keep_the_quick_way(tmp_path, quickly_decoded, options):
    as_image(picture()).save(tmp_path / "a.jpg", **options)
    assert_read_alike(tmp_path / "a.jpg")
    assert quickly_decoded


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["exif", "xmp", "both"])
def test_jpegs_are_turned_upright(tmp_path, kind, orientation):
    options = {"exif": {"exif": exif(orientation)}, "xmp": {"xmp": xmp(orientation)}}
    options["both"] = {"exif": exif(orientation), "xmp": xmp(3)}
    as_image(picture(40, 60)).save(tmp_path / "a.jpg", **options[kind])
    (height, width, _), _ = assert_read_alike(tmp_path / "a.jpg")
    assert (height, width) == ((60, 40) if orientation > 4 else (40, 60))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *[("a.jpg", mode) for mode in ("L", "CMYK", "1")],
        *[("a.png", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "I;16", "1")],
        *[("a.webp", mode) for mode in ("RGB", "RGBA")],
        *[(name, mode) for name in ("a.gif", "a.bmp", "a.tif") for mode in ("L", "P")],
        ("a.ppm", "RGB"),
    ],
)
def test_every_other_kind_is_read_by_pillow(tmp_path, quickly_decoded, name, mode):
    image = as_image(picture(channels=1)) if mode in ("I;16", "L", "LA") else as_image(picture())
    image.convert(mode).save(tmp_path / name)
    assert isinstance(assert_read_alike(tmp_path / name)[0], tuple)
    assert not quickly_decoded


def test_a_jpeg_that_says_it_is_rgb_is_not_taken_for_ycbcr(tmp_path):
    as_image(picture()).save(tmp_path / "a.jpg", keep_rgb=True)
    assert_read_alike(tmp_path / "a.jpg")


def test_the_name_says_nothing_of_the_kind(tmp_path):
    as_image(picture()).save(tmp_path / "a.jpg", format="png")
    as_image(picture()).save(tmp_path / "b.png", format="jpeg")
    assert_read_alike(tmp_path / "a.jpg")
    assert_read_alike(tmp_path / "b.png")
    assert_read_alike(str(tmp_path / "b.png"))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_ends_as_with_pillow_wherever_it_is_cut(tmp_path, progressive):
    whole = io.BytesIO()
    as_image(picture(40, 50)).save(whole, "jpeg", progressive=progressive)
    content, path = whole.getvalue(), tmp_path / "a.jpg"
    outcomes = set()
    for length in [*range(0, len(content), 23), *range(len(content) - 6, len(content) + 1)]:
        path.write_bytes(content[:length])
        kind, said = assert_read_alike(path)
        outcomes.add(kind)
        if kind is OSError:
            assert "a.jpg" in said
    assert outcomes == {OSError, (40, 50, 3)}


def test_a_damaged_jpeg_ends_as_with_pillow(tmp_path):
    whole = io.BytesIO()
    as_image(picture(40, 50)).save(whole, "jpeg")
    content, path, chance = whole.getvalue(), tmp_path / "a.jpg", random.Random(0)
    outcomes = []
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        outcomes.append(assert_read_alike(path)[0])
    assert 20 < outcomes.count(OSError) < 140


def test_garbage_around_a_jpeg_changes_nothing(tmp_path):
    whole = io.BytesIO()
    as_image(picture()).save(whole, "jpeg")
    for content in (whole.getvalue() + b"more", whole.getvalue() + whole.getvalue(), b"x" + whole.getvalue(), b""):
        (tmp_path / "a.jpg").write_bytes(content)
        assert_read_alike(tmp_path / "a.jpg")


def test_a_jpeg_that_claims_to_be_huge_takes_no_memory(tmp_path, quickly_decoded):
    whole = io.BytesIO()
    as_image(picture()).save(whole, "jpeg")
    content = bytearray(whole.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500 pixels
    (tmp_path / "bomb.jpg").write_bytes(content)
    assert "decompression bomb" in assert_read_alike(tmp_path / "bomb.jpg")[1]
    assert not quickly_decoded


def test_what_is_no_file_is_an_os_error_that_names_it(tmp_path):
    for name in ("missing.jpg", ".", "nul\0.jpg", "\ud800.jpg"):
        kind, said = assert_read_alike(f"{tmp_path}/{name}")
        assert issubclass(kind, OSError)
        assert repr(name)[1:-1] in said or name == "."


def test_only_one_or_three_channels_are_known(tmp_path):
    as_image(picture()).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="channels"):
        load_pixels(tmp_path / "a.jpg", 4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_what_is_read_may_be_written_to(tmp_path, name, channels):
    as_image(picture()).save(tmp_path / name)
    pixels = load_pixels(tmp_path / name, channels)
    assert pixels.shape == (97, 120, channels)
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


# From one form to another


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_survive_the_way_to_pillow_and_back_as_copies(channels):
    pixels = picture(channels=channels)
    image = as_image(pixels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    back = as_pixels(image)
    pixels[:] = 7
    assert np.array_equal(as_pixels(image), picture(channels=channels))
    assert np.array_equal(back, picture(channels=channels))
    back[:] = 7
    assert np.array_equal(as_pixels(image), picture(channels=channels))


@pytest.mark.parametrize("channels", [1, 3])
def test_tensors_of_pixels_are_the_same_memory(channels):
    pixels = picture(9, 7, channels)
    tensor = as_tensor(pixels)
    assert tensor.shape == (channels, 9, 7)
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor[0].numpy(), pixels[:, :, 0])
    tensor[0, 2, 3] = 255 - tensor[0, 2, 3]
    assert pixels[2, 3, 0] == tensor[0, 2, 3]
    assert np.shares_memory(as_bytes(tensor), pixels)
    assert np.array_equal(as_bytes(tensor), pixels)


# Resizing


def pillows(pixels, box, size, interpolation):
    top, left, height, width = box
    crop = as_image(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
    return as_pixels(crop.resize((size[1], size[0]), interpolation))


@st.composite
def crops(draw):
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    box = draw(st.integers(0, height - h)), draw(st.integers(0, width - w)), h, w
    size = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    return picture(height, width, draw(st.sampled_from([1, 3])), draw(st.integers(0, 3))), box, size


@settings(max_examples=200)
@given(crop=crops())
def test_a_bilinear_crop_is_pillows_to_one_level(crop):
    assert differences(resize_crop(*crop, BILINEAR), pillows(*crop, BILINEAR)).max() <= 1


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="an older Pillow resizes in another order")
@settings(max_examples=300)
@given(crop=crops(), black_and_white=st.booleans())
def test_a_bicubic_crop_is_pillows_to_two_levels(crop, black_and_white):
    pixels, *rest = crop
    if black_and_white:  # overshoots at every edge, which are clipped between the passes
        pixels = np.random.default_rng(0).integers(0, 2, pixels.shape, dtype=np.uint8) * np.uint8(255)
    assert differences(resize_crop(pixels, *rest, BICUBIC), pillows(pixels, *rest, BICUBIC)).max() <= 2


@pytest.mark.parametrize("interpolation", EXACT)
@settings(max_examples=40)
@given(crop=crops())
def test_what_is_left_to_pillow_is_pillows(interpolation, crop):
    assert np.array_equal(resize_crop(*crop, interpolation), pillows(*crop, interpolation))


@pytest.mark.parametrize("interpolation", list(Image.Resampling))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(30, 40), (97, 120), (200, 200), (50, 200), (1, 1)], ids=str)
def test_a_crop_is_contiguous_memory_of_its_own_whatever_the_image(size, channels, interpolation):
    pixels = picture(channels=channels)
    locked = picture(channels=channels)
    locked.flags.writeable = False
    strided = np.repeat(picture(channels=channels), 2, axis=1)[:, ::2]
    for box in ((0, 0, 97, 120), (7, 8, 80, 50), (96, 119, 1, 1)):
        resized = resize_crop(pixels, box, size, interpolation)
        assert resized.shape == (*size, channels)
        assert resized.flags.c_contiguous
        assert resized.flags.writeable
        assert not np.shares_memory(resized, pixels)
        assert np.array_equal(resize_crop(locked, box, size, interpolation), resized)
        assert np.array_equal(resize_crop(strided, box, size, interpolation), resized)
    assert np.array_equal(pixels, picture(channels=channels))


@pytest.mark.parametrize("interpolation", list(Image.Resampling))
def test_a_crop_in_its_own_size_is_unchanged(interpolation):
    pixels = picture()
    assert np.array_equal(resize_crop(pixels, (10, 20, 31, 43), (31, 43), interpolation), pixels[10:41, 20:63])
