"""Hostile images: damaged files of every format, odd modes and sizes, wrong endings, and things that are no file."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from hostile.case import CATALOG, Case, copy_data, link_checkpoint, link_index, on_data
from hostile.odd import TEXTS, damaged
from hostile.tables import THINGS

# a format, and the modes that it can be written in
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "GIF": ("1", "L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "YCbCr"),
    "PPM": ("1", "L", "RGB", "F"),
    "TGA": ("L", "LA", "P", "RGB", "RGBA"),
    "ICO": ("RGBA",),
    "ICNS": ("RGBA",),
    "EPS": ("L", "RGB", "CMYK"),
    "PDF": ("L", "RGB"),
    "PCX": ("L", "P", "RGB"),
    "SGI": ("L", "RGB"),
    "DDS": ("RGB", "RGBA"),
    "IM": ("L", "RGB"),
    "SPIDER": ("F",),
    "MSP": ("1",),
    "XBM": ("1",),
    "QOI": ("RGB",),
}
SIZES = ((8, 8), (1, 1), (1, 3000), (3000, 1), (2, 2), (33, 31), (640, 480))
ENDINGS = (
    "png",
    "jpg",
    "jpeg",
    "JPG",
    "gif",
    "tif",
    "webp",
    "bmp",
    "avif",
    "heic",
    "jp2",
    "ppm",
    "psd",
    "tga",
    "svg",
    "txt",
    "",
)


def make(rng: random.Random, place: Path, sound: Path) -> Case:
    """Return a command on a few hostile images among sound ones."""
    data, checkpoint = copy_data(sound, place), link_checkpoint(sound, place)
    link_index(sound, place)
    (data / "images").unlink()
    folder = data / "images"
    folder.mkdir()
    names, abouts = [], []
    for number in range(12):
        if rng.random() < 0.6:
            name, about = _hostile(folder, number, rng)
            abouts.append(about)
        else:
            name = f"{number}.png"
            (folder / name).symlink_to(sound / "data" / "images" / name)
        names.append(name)
    command = rng.choice(
        ("inference.py", "inference.py", "inference.py", "train.py", "validate.py", "refit.py", *CATALOG)
    )
    for table, part in (("train", names), ("val", names[:6])):
        rows = [
            f'"images/{name}",{"blue" if i % 2 else "red"},,new\n' for i, name in enumerate(part) if '"' not in name
        ]
        content = "image_path,color,shape,tags\n" + "".join(rows)
        (data / f"{table}.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    words = on_data(command, "in/data", checkpoint)
    if command in ("audit.py", "embed.py", "search.py") and rng.random() < 0.5:
        words[1] = "in/data/images"
    if command == "inference.py":
        words[1] = "in/data/images" if rng.random() < 0.8 else "in/data/train.csv"
    if command in ("train.py", "refit.py", "validate.py", "report.py") and rng.random() < 0.7:
        words += ["--max-unreadable", "1"]
    if command == "train.py" and rng.random() < 0.5:
        words += rng.choice(MORE)
    return Case(words, "; ".join(abouts), powerless=rng.random() < 0.05)


MORE = (
    ["--unlabeled", "in/data/images"],
    ["--unlabeled", "in/data/images/*", "--unlabeled-ratio", "1"],
    ["--cache-images", "ram"],
    ["--input-size", "1", "32", "32"],
    ["--views", "simclr"],
)


def _hostile(folder: Path, number: int, rng: random.Random) -> tuple[str, str]:
    """Write a hostile file; return its name and what it is."""
    way = rng.choice((_damaged, _damaged, _damaged, _odd, _odd, _renamed, _special, _special, _thing, _named))
    name = f"{number}.{rng.choice(ENDINGS)}" if way is not _damaged else f"{number}.{rng.choice(ENDINGS[:8])}"
    return way(folder, name, rng)


def _picture(rng: random.Random, formats: tuple[str, ...] = tuple(FORMATS)) -> tuple[bytes, str]:
    """Return a picture of a random format, mode and size, with odd metadata, and what it is."""
    kind = rng.choice(formats)
    mode, size = rng.choice(FORMATS[kind]), rng.choice(SIZES)
    pixels = size[0] * size[1]
    if mode in ("LAB", "I;16"):
        picture = Image.frombytes(mode, size, rng.randbytes(pixels * (3 if mode == "LAB" else 2)))
    else:
        picture = Image.frombytes("RGB", size, rng.randbytes(3 * pixels)).convert(mode)
    options = dict(rng.choice(OPTIONS))
    if options.get("save_all"):
        options["append_images"] = [picture.copy()] * 3
    out = io.BytesIO()
    try:
        picture.save(out, kind, **options)
    except Exception:  # this build cannot write it
        Image.new("RGB", size).save(out, "PNG")
    return out.getvalue(), f"{kind} {mode} {size} {sorted(options)}"


OPTIONS = (
    {},
    {},
    {"exif": b"Exif\0\0MM\0*" + bytes([0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 9, 0, 0])},
    {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"},
    {"exif": b"x" * 60000},
    {"icc_profile": b"no profile" * 50},
    {"save_all": True, "duration": 1},
    {"compression": "tiff_lzw"},
    {"compression": "tiff_adobe_deflate", "bigtiff": True},
    {"compression": "group4"},
    {"progressive": True, "quality": 1},
    {"transparency": 0},
    {"dpi": (0, 0)},
)


def _damaged(folder: Path, name: str, rng: random.Random) -> tuple[str, str]:
    content, about = _picture(rng, ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "TGA"))
    (folder / name).write_bytes(damaged(content, rng))
    return name, f"damaged {about}"


def _odd(folder: Path, name: str, rng: random.Random) -> tuple[str, str]:
    content, about = _picture(rng)
    (folder / name).write_bytes(content)
    return name, about


def _renamed(folder: Path, name: str, rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(list(CONTENTS))
    (folder / name).write_bytes(CONTENTS[kind]())
    return name, f"{kind} called {name}"


class _Code:
    """An object whose unpickling would make a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch canary-image",)


CONTENTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a zero": lambda: b"\0",
    "zeros": lambda: bytes(5000),
    "a text": lambda: b"no picture\n",
    "a page": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
    "a drawing": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary-ps) (w) file closefile\n",
    "a PDF": lambda: b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
    "a pickle": lambda: pickle.dumps(_Code()),
    "NumPy's": lambda: (
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n" + pickle.dumps(_Code())
    ),
    "IPTC": lambda: b"\x1c\x03\x3c\x00\x02\x01\x01\x1c\x08\x0a\x00\x04%!PS",
    "FITS": lambda: b"SIMPLE  =                    T".ljust(2880),
    "HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(500),
    "an archive": lambda: b"PK\x03\x04" + bytes(100),
    "JPEG XL": lambda: b"\xff\x0a" + bytes(50),
    "HEIF": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
    "WMF": lambda: b"\xd7\xcd\xc6\x9a" + bytes(80),
    "MPO": lambda: b"\xff\xd8\xff\xe2\x00\x10MPF\0MM\0*\0\0\0\x08" + bytes(50),
    "a playlist": lambda: b"#EXTM3U\nfile:///etc/passwd\n",
}


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2, body: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    rows = _chunk(b"IDAT", zlib.compress(body or bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(chunks) + rows + _chunk(b"IEND", b"")


SPECIALS: dict[str, Callable[[], bytes]] = {
    "a header of 60,000 x 60,000": lambda: _png(60_000, 60_000),
    "a header of 2^31 - 1": lambda: _png(2**31 - 1, 2**31 - 1),
    "a header of 2^31 x 1": lambda: _png(2**31, 1),
    "a header of 0 x 0": lambda: _png(0, 0),
    "a depth of 3": lambda: _png(8, 8, depth=3),
    "a color type of 7": lambda: _png(8, 8, color=7),
    "no palette": lambda: _png(8, 8, color=3),
    "a text that unpacks to 64 MB": lambda: _png(8, 8, _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(64 << 20)))),
    "a profile that unpacks to 64 MB": lambda: _png(8, 8, _chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(64 << 20)))),
    "10,000 texts": lambda: _png(8, 8, _chunk(b"tEXt", b"k\0v") * 10_000),
    "pixels that unpack to 64 MB": lambda: _png(8, 8, body=bytes(64 << 20)),
    "12,000 x 12,000 in one color": lambda: _png(12_000, 12_000, depth=1, color=0, body=bytes(12_000 * 1501)),
    "a GIF of 65,535 x 65,535": lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
    "a BMP of negative size": lambda: _bmp(-8, -(2**31), 24, 0),
    "a BMP of many colors": lambda: _bmp(8, 8, 8, 2**31),
    "a PPM of a huge size": lambda: b"P6 999999999 999999999 255\n",
    "a PPM of a huge value": lambda: b"P6 2 2 " + b"9" * 5000 + b"\n" + bytes(12),
    "a TIFF that points at itself": lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "a TIFF of a huge strip": lambda: _tiff(8, offset=2**31, rows=2**32 - 1, length=2**32 - 1),
    "a TIFF of a huge side": lambda: _tiff(2**31),
    "a JPEG of 65,535 x 65,535": lambda: b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x22\0\xff\xd9",
    "a JPEG without end": lambda: b"\xff\xd8" + b"\xff\xe0\0\x02" * 50_000,
    "a PSD of a huge size": lambda: b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 2**31, 2**31, 8, 3) + bytes(12),
    "a TGA of 65,535 x 65,535": lambda: bytes([0, 0, 10]) + bytes(9) + b"\xff\xff\xff\xff\x20\0",
    "a WEBP of a wrong length": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff" + bytes(40),
}  # fmt: skip


def _bmp(width: int, height: int, bits: int, colors: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, bits, 0, 0, 0, 0, colors, 0)


def _tiff(side: int, offset: int = 8, rows: int = 1, length: int = 1) -> bytes:
    tags = {256: side, 257: side, 258: 8, 262: 1, 273: offset, 278: rows, 279: length}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def _special(folder: Path, name: str, rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(list(SPECIALS))
    (folder / name).write_bytes(SPECIALS[kind]())
    return name, kind


def _thing(folder: Path, name: str, rng: random.Random) -> tuple[str, str]:
    kind = rng.choice([kind for kind in THINGS if kind not in ("two tables", "a folder of files", "a picture")])
    THINGS[kind](folder / name)
    return name, f"{kind} called {name}"


def _named(folder: Path, name: str, rng: random.Random) -> tuple[str, str]:
    """Give a sound picture an odd name, or take everybody's right to read it."""
    texts = [text for text in (*TEXTS, "\udcff", "a\nb") if text.strip(".") and "/" not in text and "\0" not in text]
    odd = rng.choice([text for text in texts if len(os.fsencode(text)) < 200 and "'" not in text])
    name = f"{odd}{name}"
    path = folder / name
    path.write_bytes(_png(8, 8, body=bytes(8 * 25)))
    path.chmod(rng.choice((0o644, 0o000)))
    return name, f"a picture called {name!a}"
