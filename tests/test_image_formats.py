"""The allow-list of image formats: what is read, what is refused, and the reason."""

import io
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from catalog.decode import image_size, load_image, load_pixels
from catalog.image_formats import FORMATS, hint_for, image_extensions, open_image, readable_formats

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.fixture
def plugins() -> Iterator[None]:
    """Restore what a test registers with Pillow."""
    Image.init()
    opened = dict(Image.OPEN)
    readable_formats.cache_clear()
    yield
    Image.OPEN.clear()
    Image.OPEN.update(opened)
    readable_formats.cache_clear()


def reason(tmp_path: Path, content: bytes) -> str:
    """Return why a file called a.jpg with this content is not read, for its pixels and for its size."""
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    sentences = []
    for read in (load_image, load_pixels, image_size):
        with pytest.raises(OSError, match=re.escape(str(path))) as raised:
            read(path)
        sentences.append(str(raised.value).partition(f"{str(path)!r}: ")[2])
    assert len(set(sentences)) == 1
    return sentences[0]


def test_an_eps_file_called_jpg_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/started\ncat > /dev/null\n')
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=":")
    assert reason(tmp_path, EPS) == "it is EPS, a format that is not read: save it as JPEG or PNG"
    assert not (tmp_path / "started").exists()


def test_an_eps_file_inside_an_iptc_file_is_not_opened(tmp_path: Path) -> None:
    def field(tag: tuple[int, int], data: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, *tag, len(data)) + data

    wrapped = {(3, 60): b"\1\0", (3, 20): b"\0\10", (3, 30): b"\0\10", (3, 120): b"\5", (8, 10): EPS}
    content = b"".join(field(tag, data) for tag, data in wrapped.items())
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "IPTC"  # so Pillow alone would have unpacked it
    assert "not an image that Pillow knows" in reason(tmp_path, content)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xd7\xcd\xc6\x9a\0\0", "WMF"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GRIB\0\0\0\1", "GRIB"),
        (b"BUFR", "BUFR"),
        (b"icns", "ICNS"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"/* XPM */", "XPM"),
        (b"%PDF-1.7", "PDF"),
        (b'\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_what_to_do(tmp_path: Path, start: bytes, name: str) -> None:
    expected = f"it is {name}, a format that is not read: save it as JPEG or PNG"
    assert reason(tmp_path, start + bytes(64)) == expected


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("content", "package"),
    [
        (HEIC, "HEIC, a format that is not read: install pillow-heif (pip install pillow-heif)"),
        (HEIC.replace(b"ftypheic", b"ftypmif1"), "HEIC, a format that is not read: install pillow-heif"),
        (HEIC.replace(b"heic", b"avif"), "AVIF, a format that is not read: install Pillow 11.3 or newer"),
    ],
)
def test_a_format_that_needs_a_package_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, package: str
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    for name in ("AVIF", "HEIF"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    assert package in reason(tmp_path, content)


@pytest.mark.usefixtures("plugins")
def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def register() -> None:
        picture = Image.new("RGB", (3, 2), "red")
        Image.register_open("HEIF", lambda *_: picture, lambda start: start[4:12] == b"ftypheic")

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    (tmp_path / "a.heic").write_bytes(HEIC)
    assert image_size(tmp_path / "a.heic") == (3, 2)
    assert load_pixels(tmp_path / "a.heic").tolist() == [[[255, 0, 0]] * 3] * 2


@pytest.mark.parametrize(
    "start", [b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", b"FUJIFILMCCD-RAW 0201", b"IIRO\x08\0", b"IIU\0\x18\0"]
)
def test_a_raw_file_is_named_with_what_to_do(tmp_path: Path, start: bytes) -> None:
    expected = "it is a camera's raw file, a format that is not read: develop it, and save it as JPEG or PNG"
    assert reason(tmp_path, start + bytes(64)) == expected


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}])
def test_the_preview_of_a_raw_file_is_not_taken_for_the_photograph(tmp_path: Path, tags: dict[int, object]) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    content = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(content, "TIFF", tiffinfo=info)
    assert reason(tmp_path, content.getvalue()) == (
        "it is a camera's raw file, of which only a preview could be read: develop it, and save it as JPEG or PNG"
    )


def test_a_canon_raw_file_is_not_read_either(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(content, "TIFF")
    data = content.getvalue()
    assert data[:4] == b"II*\0"
    moved = int.from_bytes(data[4:8], "little")
    canon = data[:4] + len(data).to_bytes(4, "little") + b"CR\2\0" + data[12:] + data[moved:]  # the same directory
    assert "it is a camera's raw file" in reason(tmp_path, canon)


def test_real_heic_photographs_are_read_upright(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    readable_formats()
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste("red", (0, 0, 32, 16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture.save(tmp_path / "a.HEIC", format="HEIF", exif=exif.tobytes(), quality=90)
    picture.save(tmp_path / "a.jpg", exif=exif.tobytes(), quality=90)
    heic, jpeg = load_pixels(tmp_path / "a.HEIC"), load_pixels(tmp_path / "a.jpg")
    assert heic.shape == jpeg.shape == (64, 32, 3)
    assert abs(heic.astype(int) - jpeg).mean() < 8
    assert {".heic", ".heif", ".hif"} <= image_extensions()
    (tmp_path / "cut.heic").write_bytes((tmp_path / "a.HEIC").read_bytes()[:300])
    with pytest.raises(OSError, match="a damaged or unusual HEIC: replace it"):
        load_pixels(tmp_path / "cut.heic")


def test_files_left_out_of_a_folder_have_their_hints() -> None:
    assert hint_for({".heic": 3, ".svg": 1}) == ".heic is read after pip install pillow-heif"
    assert hint_for([".nef", ".hif"]) == (
        ".heic is read after pip install pillow-heif; raw files must be developed to JPEG or PNG"
    )
    assert hint_for([".txt"]) == ""


def test_a_damaged_header_is_called_damaged_and_text_no_image(tmp_path: Path) -> None:
    assert (
        reason(tmp_path, b"8BPS\0\2" + bytes(64)) == "a damaged or unusual PSD: replace it, or save it as JPEG or PNG"
    )
    for content in (b"a text", b""):
        expected = "not an image that Pillow knows: replace it, or save it as JPEG or PNG"
        assert reason(tmp_path, content) == expected


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "HEIF"])
def test_every_format_of_the_list_is_read_by_its_content(name: str) -> None:
    if name not in readable_formats():
        pytest.skip(f"this Pillow has no {name}")
    Image.init()
    content = io.BytesIO()
    if name == "PSD":  # which Pillow does not write: RGB, 2 x 2, no palette, resources or layers, uncompressed
        content.write(b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 2, 2, 8, 3) + bytes(12) + bytes(2) + bytes(12))
    else:
        Image.new("RGB", (2, 2)).save(content, name)
    content.seek(0)
    assert open_image(content).size == (2, 2)
    assert load_image(content).size == (2, 2)


def test_a_jpeg_of_several_pictures_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.mpo", save_all=True, append_images=[Image.new("RGB", (2, 2))])
    assert load_image(tmp_path / "a.mpo").size == (2, 2)


def test_the_extensions_are_those_of_the_list() -> None:
    extensions = image_extensions()
    assert {".jpg", ".jpeg", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".psd"} <= extensions
    assert not {".eps", ".ps", ".wmf", ".emf", ".fits", ".h5", ".ico", ".im", ".mpg", ".pdf", ".csv"} & extensions
