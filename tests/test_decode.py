"""Decoding of image files in every format, mode and orientation, and of damaged ones."""

import contextlib
import io
import os
import re
import struct
import tracemalloc
import warnings

import numpy as np
import PIL
import pytest
from drawn_photograph import photograph
from packaging.version import Version
from PIL import Image, ImageChops, ImageFile, PngImagePlugin

import catalog.decode as decoding
import catalog.image_formats as formats
from catalog.decode import image_size, load_image, load_pixels

UPRIGHT_TO_STORED = {  # the inverse of the turn that each orientation asks for
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def colors(height=6, width=4):
    return Image.fromarray(np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8))


def saved(path, image, **options):
    image.save(path, **options)
    return path


def pixels(path, channels=3):
    image = load_image(path, channels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    return np.asarray(image)


def test_an_rgb_image_is_unchanged(tmp_path):
    assert np.array_equal(pixels(saved(tmp_path / "a.png", colors())), np.asarray(colors()))


def test_a_plain_jpeg_is_decoded_without_a_copy(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.jpg", colors())
    for copying in ("convert", "copy", "transpose"):
        monkeypatch.setattr(Image.Image, copying, lambda *_, **__: pytest.fail("copied"))
    assert load_image(path).size == (4, 6)


def test_an_open_file_is_read_and_left_open(tmp_path):
    with saved(tmp_path / "a.png", colors()).open("rb") as file:
        assert np.array_equal(pixels(file), np.asarray(colors()))
        assert not file.closed
    assert pixels(str(tmp_path / "a.png")).shape == (6, 4, 3)


@pytest.mark.parametrize(
    ("extension", "modes"),
    [
        ("png", "1 L LA P RGB RGBA I;16"),
        ("jpg", "1 L RGB CMYK YCbCr"),
        ("tif", "1 L LA P PA RGB RGBA RGBX I;16 I F CMYK YCbCr LAB"),
        ("gif", "1 L P RGB RGBA"),
        ("webp", "L RGB RGBA"),
    ],
)
def test_every_mode_of_every_format_is_converted(tmp_path, extension, modes):
    for mode in modes.split():
        path = saved(tmp_path / f"a.{extension}", Image.new(mode, (5, 7)))
        if (extension, mode) == ("tif", "YCbCr") and Version(PIL.__version__) < Version("13"):
            continue  # such a Pillow cannot read what it has written
        assert pixels(path, 3).shape == (7, 5, 3)
        assert pixels(path, 1).shape == (7, 5)


def test_gray_becomes_equal_channels(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RAMP))
    assert np.array_equal(pixels(path), np.stack([RAMP] * 3, axis=-1))
    assert np.array_equal(pixels(path, 1), RAMP)


def test_one_bit_images_become_black_and_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[True, False]])))
    assert pixels(path).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_a_16_bit_ramp_becomes_the_8_bit_ramp(tmp_path, extension):
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(RAMP.astype(np.uint16) * 257))
    assert np.array_equal(pixels(path, 1), RAMP)
    assert np.array_equal(pixels(path), np.stack([RAMP] * 3, axis=-1))


def test_a_big_endian_16_bit_ramp_becomes_the_8_bit_ramp(tmp_path):
    ramp = (RAMP.astype(np.uint16) * 257).astype(">u2")
    path = saved(tmp_path / "a.tif", Image.frombytes("I;16B", (16, 16), ramp.tobytes()))
    with Image.open(path) as image:
        assert image.mode == "I;16B"
    assert np.array_equal(pixels(path, 1), RAMP)


def test_a_16_bit_ramp_stored_in_32_bits_becomes_the_8_bit_ramp(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + (RAMP.astype(np.uint16) * 257).astype(">u2").tobytes())
    assert np.array_equal(pixels(tmp_path / "a.pgm", 1), RAMP)


def test_a_32_bit_ramp_beyond_16_bits_is_scaled_to_its_own_range(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(RAMP.astype(np.int32) * 2**20))
    assert np.array_equal(pixels(path, 1), RAMP)
    path = saved(tmp_path / "b.tif", Image.fromarray((RAMP.astype(np.int32) - 128) * 1000))
    assert np.array_equal(pixels(path, 1), RAMP)


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 257.0, 1e6])
def test_a_floating_point_ramp_becomes_the_8_bit_ramp(tmp_path, scale):
    path = saved(tmp_path / "a.tif", Image.fromarray(RAMP.astype(np.float32) * np.float32(scale)))
    assert np.array_equal(pixels(path, 1), RAMP)


def test_floats_that_are_not_numbers_are_black(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[np.nan, np.inf, 1.0]], dtype=np.float32)))
    assert pixels(path, 1).tolist() == [[0, 0, 255]]


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_transparent_parts_are_white(tmp_path, extension):
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = [0, 128, 255]
    options = {"lossless": True, "exact": True} if extension == "webp" else {}
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(rgba), **options)
    assert pixels(path)[0, :, 0].tolist() == [255, 127, 0]
    assert pixels(path, 1)[0].tolist() == [255, 127, 0]


def test_transparent_gray_is_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[[9, 0], [9, 255]]], dtype=np.uint8), "LA"))
    assert pixels(path)[0, :, 0].tolist() == [255, 9]


def palette_image():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


def test_palette_indices_become_colors(tmp_path):
    for extension in ("png", "gif"):
        path = saved(tmp_path / f"a.{extension}", palette_image())
        assert pixels(path).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
def test_transparent_palette_colors_become_white(tmp_path, transparency):
    path = saved(tmp_path / "a.png", palette_image(), transparency=transparency)
    assert pixels(path).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "color", "key"), [("RGB", (1, 2, 3), (1, 2, 3)), ("L", 7, 7), ("1", 0, 0)])
def test_a_transparent_color_becomes_white(tmp_path, mode, color, key):
    path = saved(tmp_path / "a.png", Image.new(mode, (1, 1), color), transparency=key)
    assert pixels(path).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_cmyk_red_is_red(tmp_path, extension):
    red = pixels(saved(tmp_path / f"a.{extension}", Image.new("CMYK", (8, 8), (0, 255, 255, 0))))[0, 0].astype(int)
    assert np.abs(red - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_exif_orientation_gives_the_same_upright_image(tmp_path, extension, orientation, mode):
    upright = colors(32, 48).resize((48, 32)).convert(mode)
    upright.paste(0, (0, 0, 16, 8))
    turn = UPRIGHT_TO_STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(extension, {})
    path = saved(
        tmp_path / f"a.{extension}", upright if turn is None else upright.transpose(turn), exif=exif, **options
    )
    loaded = load_image(path)
    assert loaded.size == (48, 32)
    assert max(high for _, high in ImageChops.difference(loaded, upright.convert("RGB")).getextrema()) <= 4


def test_damaged_exif_leaves_the_image_readable_and_does_not_warn(tmp_path):
    good = Image.Exif()
    good[0x0112], good[0x010E] = 6, "a description"
    exif = good.tobytes()
    for damaged in (exif[:20], b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0nonsense", exif[:-8]):
        path = saved(tmp_path / "a.jpg", colors(), exif=damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_image(path).mode == "RGB"


@pytest.mark.parametrize("extension", ["gif", "png", "webp", "tif"])
def test_the_first_frame_counts(tmp_path, extension):
    frames = [Image.new("RGB", (4, 4), color) for color in ("black", "white")]
    path = saved(tmp_path / f"a.{extension}", frames[0], save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels(path), np.zeros((4, 4, 3)))


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "tif", "webp", "bmp", "ppm"])
def test_a_truncated_image_is_an_os_error_that_names_the_file_wherever_it_is_cut(tmp_path, extension):
    content = saved(tmp_path / f"whole.{extension}", colors(24, 24)).read_bytes()
    path = tmp_path / f"cut.{extension}"
    for size in range(0, len(content) // 2, max(1, len(content) // 40)):
        path.write_bytes(content[:size])
        with pytest.raises(OSError, match=re.escape(str(path))):
            load_image(path)


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_a_damaged_image_is_decoded_or_raises_an_os_error_and_never_warns(tmp_path, extension):
    content = bytearray(saved(tmp_path / f"whole.{extension}", colors(24, 24)).read_bytes())
    path = tmp_path / f"damaged.{extension}"
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for position in random.integers(len(content), size=6):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(OSError):
            load_image(path)


def test_a_file_that_is_not_an_image_is_an_os_error_that_names_it(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    for path in (tmp_path / "text.jpg", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(OSError, match=re.escape(str(path))):
            load_image(path)
    with pytest.raises(OSError, match="cannot read image"):
        load_image("a\0b.jpg")
    with pytest.raises(OSError, match="not an image"):
        load_image(io.BytesIO(b"nonsense"))


def bomb(path, width, height, bits=8, colors=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", PngImagePlugin._crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    return path


def test_a_decompression_bomb_is_an_os_error(tmp_path):
    path = bomb(tmp_path / "bomb.png", 30_000, 30_000)
    for read in (load_image, load_pixels, image_size):
        with pytest.raises(OSError, match=r"bomb\.png.*900000000 pixels.*, more than the 1,280 MiB allowed: "):
            read(path)


@pytest.mark.parametrize(
    ("side", "bits", "colors", "mode", "size"),
    [
        (13_000, 8, 2, "RGB", "1,289 MiB"),
        (13_000, 16, 2, "RGB", "1,289 MiB"),
        (13_000, 16, 0, "I;16", "1,289 MiB"),
        (13_000, 16, 6, "RGBA", "1,289 MiB"),
        (13_000, 8, 4, "LA", "1,289 MiB"),
        (13_000, 8, 3, "P", "1,289 MiB"),
        (13_000, 8, 0, "L", "1,289 MiB"),
        (13_000, 1, 0, "1", "1,289 MiB"),
    ],
)
def test_an_image_is_refused_for_its_bytes_before_it_is_decoded(tmp_path, side, bits, colors, mode, size):
    path = bomb(tmp_path / "a.png", side, side, bits, colors)
    sentence = (
        f"decoding its {side} x {side} pixels of mode {mode} takes {size}, more than the 1,280 MiB allowed: shrink it, "
        "or set the environment variable SIMCLR_MAX_IMAGE_MIB=1290"
    )
    for read in (load_image, load_pixels, image_size):
        with pytest.raises(OSError, match=re.escape(f"{str(path)!r}: {sentence}")):
            read(path)
    smaller = bomb(tmp_path / "b.png", side - 200, side - 200, bits, colors)
    assert image_size(smaller) == (side - 200, side - 200)


def test_floats_are_refused_for_their_bytes(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.tif", Image.new("F", (6, 4)))
    needed = 6 * 4 * 8 + path.stat().st_size  # the decoder holds the file too
    monkeypatch.setattr(formats, "MAX_DECODED_BYTES", needed)
    assert load_image(path).size == (6, 4)
    monkeypatch.setattr(formats, "MAX_DECODED_BYTES", needed - 1)
    with pytest.raises(OSError, match="its 6 x 4 pixels of mode F take"):
        load_image(path)


def test_a_jpeg_is_refused_for_its_bytes_even_without_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    content = saved(tmp_path / "a.jpg", colors(height=24, width=24)).read_bytes()
    content = content.replace(struct.pack(">HH", 24, 24), struct.pack(">HH", 13_000, 13_000))
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (load_pixels, image_size):
        with pytest.raises(OSError, match=r"its 13000 x 13000 pixels of mode RGB takes 1,612 MiB, more than"):
            read(tmp_path / "a.jpg")


def test_a_photograph_of_100_megapixels_is_allowed_and_a_webp_of_60_is_not():
    for name in ("JPEG", "PNG", "TIFF", "BMP"):
        assert formats.decoded_bytes(12_000, 8_400, "RGB", name, stored=3) < formats.MAX_DECODED_BYTES
    assert formats.decoded_bytes(9_000, 7_000, "RGB", "WEBP") > formats.MAX_DECODED_BYTES


def test_an_environment_variable_raises_the_bound(tmp_path, monkeypatch):
    path = bomb(tmp_path / "a.png", 20_000, 20_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("SIMCLR_MAX_IMAGE_MIB", "3051")
    with pytest.raises(
        OSError,
        match=r"takes 3,052 MiB, more than the 3,051 MiB .* or set the environment variable SIMCLR_MAX_IMAGE_MIB=3052",
    ):
        image_size(path)
    monkeypatch.setenv("SIMCLR_MAX_IMAGE_MIB", "3052")
    assert image_size(path) == (20_000, 20_000)
    for wrong in ("-1", "2G", "1e9", "9" * 5000):
        monkeypatch.setenv("SIMCLR_MAX_IMAGE_MIB", wrong)
        with pytest.raises(OSError, match="is not a whole number of MiB below 10,000,000: correct it, or unset it"):
            image_size(path)


def test_a_huge_file_is_refused_without_being_read(tmp_path):
    path = saved(tmp_path / "a.webp", colors())
    os.truncate(path, 1 << 40)
    for read in (load_image, load_pixels, image_size):
        with pytest.raises(OSError, match=r"its file has 1,048,576 MiB, more than the 1,280 MiB allowed: shrink it"):
            read(path)


def test_a_tiff_is_refused_for_the_bytes_of_its_strip(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.tif", Image.new("RGB", (6, 4)))
    content = path.read_bytes()
    monkeypatch.setattr(formats, "MAX_DECODED_BYTES", 6 * 4 * 8 + len(content))
    assert load_image(path).size == (6, 4)
    assert formats.decoded_bytes(6, 4, "RGBA", "TIFF", stored=8) == 6 * 4 * 12


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "LAB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_image_is_converted_strip_by_strip_to_the_same_pixels(tmp_path, monkeypatch, mode, channels):
    extension = "tif" if mode in ("CMYK", "I", "F", "LAB") else "png"
    random = np.random.default_rng(0)
    if mode[0] in "IF":
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(random.integers(0, 3000, (40, 30)).astype(dtype))
    else:
        image = Image.fromarray(random.integers(0, 256, (40, 30, 4), dtype=np.uint8), "RGBA")
        image = image if mode == "RGBA" else image.convert("L" if mode in ("1",) else "RGB").convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    path = saved(tmp_path / f"a.{extension}", image, **options)
    whole = pixels(path, channels)
    monkeypatch.setattr(decoding, "_STRIP", 7 * 30)
    assert np.array_equal(pixels(path, channels), whole)
    assert np.array_equal(load_pixels(path, channels), whole.reshape(40, 30, channels))


def test_a_large_gray_image_is_scaled_in_strips(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(2**16, size=(1500, 1000), dtype=np.uint16)
    path = saved(tmp_path / "a.tif", Image.fromarray(values))
    whole = pixels(path, 1)
    monkeypatch.setattr(decoding, "_STRIP", 1 << 16)
    tracemalloc.start()
    try:
        assert np.array_equal(pixels(path, 1), whole)
        assert tracemalloc.get_traced_memory()[1] < values.size * 8  # less than one copy of all pixels in float64
    finally:
        tracemalloc.stop()


def test_a_large_image_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 20
    )  # Pillow warns above 20 pixels and raises above 40; the image has 24
    assert load_image(saved(tmp_path / "a.png", colors())).size == (4, 6)


def test_only_one_or_three_channels_are_accepted(tmp_path):
    with pytest.raises(ValueError, match="channels"):
        load_image(saved(tmp_path / "a.png", colors()), 4)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tif", "a.bmp"])
def test_the_size_is_read_from_the_header_without_the_pixels(tmp_path, monkeypatch, name):
    path = saved(tmp_path / name, colors(height=50, width=40))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    assert image_size(path) == (40, 50)


def test_only_a_file_without_an_image_header_has_no_size(tmp_path):
    path = saved(tmp_path / "a.png", colors(height=50, width=40))
    path.write_bytes(path.read_bytes()[:100])
    assert image_size(path) == (40, 50)
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(OSError, match=r"cannot read the header of image .*a\.png"):
        image_size(path)
    with pytest.raises(OSError, match=r"b\.png"):
        image_size(tmp_path / "b.png")


def test_a_large_jpeg_is_decoded_to_a_fraction_that_has_the_pixels_asked_for(tmp_path):
    image = photograph(0, 900, 600)
    turned = Image.Exif()
    turned[274] = 6  # decoded by Pillow, while the first file is decoded by libjpeg-turbo
    image.save(tmp_path / "a.jpg")
    image.save(tmp_path / "turned.jpg", exif=turned)
    image.save(tmp_path / "a.png")
    shapes = [load_pixels(tmp_path / name, shorter_side=150).shape for name in ("a.jpg", "turned.jpg", "a.png")]
    assert shapes == [(150, 225, 3), (225, 150, 3), (600, 900, 3)]
    assert load_image(tmp_path / "a.jpg", shorter_side=290).size == (450, 300)
    assert load_pixels(tmp_path / "a.jpg", shorter_side=2000).shape == (600, 900, 3)
    reduced = load_pixels(tmp_path / "a.jpg", shorter_side=150).astype(float)
    whole = load_pixels(tmp_path / "a.jpg").reshape(150, 4, 225, 4, 3).mean((1, 3))
    assert np.abs(reduced - whole).mean() < 3
