import io
import zlib

import numpy as np
import pytest
from PIL import Image

from catalog import upload
from catalog.data_error import DataError
from catalog.upload import read_upload

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%touch /tmp/x) (w) file\n"


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def huge_png(side: int) -> bytes:
    """Return the first chunks of a PNG that says it has side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return len(content).to_bytes(4, "big") + whole + zlib.crc32(whole).to_bytes(4, "big")

    size = side.to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_formats_of_the_list_are_read_whatever_the_name(form: str) -> None:
    image = read_upload(encoded(Image.new("RGB", (30, 20), (250, 10, 20)), form))
    assert (image.mode, image.size) == ("RGB", (30, 20))
    assert np.abs(np.asarray(image, int) - (250, 10, 20)).max() < 12


def test_an_image_is_upright_and_may_be_gray() -> None:
    exif = Image.Exif()
    exif[274] = 6
    content = encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    assert read_upload(content).size == (20, 30)
    assert read_upload(content, channels=1).mode == "L"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the image is empty"),
        (EPS, "it is EPS, a format that is not read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is SVG"),
        (b"GIF89a", "this cannot be read as an image"),
        (encoded(Image.new("RGB", (300, 300)))[:200], "this cannot be read as an image"),
        (b"no image at all", "not an image that Pillow knows"),
        (huge_png(60_000), "more than the 100 million pixels that are read: shrink it"),
        (huge_png(11_000), "11,000 x 11,000 pixels, more than the 100 million"),
        (bytes(upload.MOST_BYTES + 1), "more than the 32 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_one_sentence(content: bytes, words: str) -> None:
    with pytest.raises(DataError) as error:
        read_upload(content)
    assert words in str(error.value)
    assert "0x" not in str(error.value)
    assert "\n" not in str(error.value)
