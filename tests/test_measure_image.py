"""What is measured of an image file: size, hashes, color, brightness, sharpness; or why it cannot be read."""

import math

import numpy as np
import pytest
from drawn_photograph import photograph
from PIL import Image, ImageEnhance, ImageFilter

from catalog.measure_image import full_pixel_hash, measure_image


def save(tmp_path, image, name="a.png", **settings):
    image.save(tmp_path / name, **settings)
    return str(tmp_path / name)


def test_a_sharp_colorful_image_has_no_remarkable_value(tmp_path):
    one = measure_image(save(tmp_path, photograph(0), "a.jpg"))
    assert one.error == ""
    assert one.size == (240, 320)
    assert one.chroma > 50
    assert one.bright > 100
    assert one.spread > 20
    assert one.sharpness > 0.4


@pytest.mark.parametrize("radius", [2, 4, 8])
def test_blur_of_any_strength_lowers_sharpness_below_the_limit(tmp_path, radius):
    blurred = photograph(0).filter(ImageFilter.GaussianBlur(radius))
    assert measure_image(save(tmp_path, blurred, "a.jpg", quality=80)).sharpness < 0.2


def test_brightness_and_color_are_measured(tmp_path):
    dark = ImageEnhance.Brightness(photograph(0)).enhance(0.15)
    assert measure_image(save(tmp_path, dark)).bright < 60
    assert measure_image(save(tmp_path, photograph(0).convert("L"), "gray.jpg")).chroma == 0
    white = measure_image(save(tmp_path, Image.new("RGB", (200, 200), "white"), "white.png"))
    assert white.spread == 0
    assert math.isnan(white.sharpness)


def test_a_tiny_image_has_a_size_and_no_sharpness(tmp_path):
    one = measure_image(save(tmp_path, photograph(0).resize((5, 9))))
    assert one.size == (5, 9)
    assert math.isnan(one.sharpness)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (2000, 70)])
def test_any_shape_is_measured(tmp_path, size):
    assert measure_image(save(tmp_path, photograph(0).resize(size))).size == size


def test_a_large_jpeg_is_decoded_to_a_fraction(tmp_path):
    large = photograph(0, 1200, 1600)
    one = measure_image(save(tmp_path, large, "a.jpg"))
    assert (one.size, one.reduced) == ((1200, 1600), True)
    assert not measure_image(save(tmp_path, large, "a.bmp")).reduced
    turned = Image.Exif()
    turned[274] = 6
    assert measure_image(save(tmp_path, large, "turned.jpg", exif=turned)).reduced


def test_pixels_have_one_hash_in_every_lossless_format(tmp_path):
    image = photograph(0)
    first, second = (measure_image(save(tmp_path, image, name)) for name in ("a.png", "a.bmp"))
    assert first.pixels == second.pixels == full_pixel_hash(str(tmp_path / "a.bmp"))
    assert first.content != second.content
    pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    assert measure_image(save(tmp_path, Image.fromarray(pixels), "b.png")).pixels != first.pixels
    turned = Image.fromarray(np.asarray(image).reshape(240, 320, 3))  # the same bytes in another shape
    assert measure_image(save(tmp_path, turned, "c.png")).pixels != first.pixels


def test_an_unreadable_file_says_why_without_its_path(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    whole = save(tmp_path, photograph(0, 1200, 1600), "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "folder").mkdir()
    assert measure_image(whole).error == ""
    errors = [measure_image(str(tmp_path / name)).error for name in ("text.jpg", "cut.jpg", "none.jpg", "folder")]
    assert "not an image that Pillow knows" in errors[0]
    assert "truncated" in errors[1]
    assert errors[2] == "there is no such file"
    assert "folder" in errors[3]
    assert not any(str(tmp_path) in error for error in errors)
    assert measure_image("a\0b").error
    assert full_pixel_hash(str(tmp_path / "none.jpg")) == b""
