"""Odd values and damaged bytes, for every kind of input."""

from __future__ import annotations

import random
from collections.abc import Callable

NUMBERS = (
    "0", "-1", "1", "2", "3", "-0", "+1", "007", "1_000", "1e3", "1e-320", "1e308", "1e400", "-1e400", "nan", "inf",
    "-inf", "NaN", "0x10", "0b1", "1.0", "1.", ".5", "-.5", "1/2", "1,5", "½", "٣", "１", "2147483647", "2147483648",
    "-2147483649", "9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 40, "9" * 5000, "1j",
    "True", "None",
)  # fmt: skip
TEXTS = (
    "", " ", "  x  ", "\t", "\u00a0", "\u200b", "\ufeff", "\u202eabc", "e\u0301", "é", "漢字", "😀", "İ", "ß",
    "\x1b[31m", "\x1b]0;title\x07", "\x7f", "\x85", "\u2028", "a\nb", "a\r\nb", "a\rb", "=1+1", "@x", "-x", "--lr",
    "|", "a|", "a||b", "..", ".", "/", "~", "a/b", "../../x", "con", "null", "NULL", "none", "None", "N/A", "true",
    "unknown", "%s", "{}", "{0.__class__}", "$HOME", "`id`", "$(touch canary)", "';drop", '"', "'", '""', "\\",
    "\\x00", "a,b", "a;b", "#a", "x" * 300, "x" * 70_000, "é" * 5000, "image_path", "epoch", "loss", "lr",
    "eval_top1", "train_loss", "top1", "state_dict",
)  # fmt: skip
PATHS = (
    "", ".", "..", "/", "~", "in", "in/data", "in/none", "in/data/none.csv", "/dev/null", "/dev/zero", "/dev/full",
    "/dev/stdin", "/proc/self/mem", "/proc/self/environ", "/dev/null/x", "in/data/train.csv/x", "in/" + "x" * 300,
    "in/" + "d/" * 2100, "in/data/*.csv", "in/data/[", "in/**", "in/pipe", "in/loop", "in/socket", "in/empty",
    "file:///etc/passwd", "http://127.0.0.1:9/x", "hf-hub:a/b", "in/\udcff", "in/a\nb", "in/sound.pth.tar",
    "in/data/images/0.png", "in/text.txt",
)  # fmt: skip


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Change a few bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def replaced(data: bytes, rng: random.Random) -> bytes:
    """Replace a block by zeros, ones, or noise."""
    length = min(len(data), rng.choice((1, 2, 4, 16, 512, 4096, 65536)))
    at = rng.randrange(len(data) - length + 1)
    block = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return data[:at] + block + data[at + length :]


def truncated(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off, or the beginning."""
    at = rng.choice((0, 1, 2, 8, 30, len(data) // 2, len(data) - 1, rng.randrange(len(data) + 1)))
    return data[:at] if rng.random() < 0.8 else data[at:]


def inserted(data: bytes, rng: random.Random) -> bytes:
    """Put odd bytes somewhere."""
    odd = (
        b"\0",
        b"\0" * 1000,
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\x1a",
        b"\r",
        b"\n\n",
        b'"',
        b"\xc3",
        b"\xed\xa0\x80",
        b"\x1f\x8b",
    )
    at = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
    return data[:at] + rng.choice(odd) + data[at:]


def repeated(data: bytes, rng: random.Random) -> bytes:
    """Repeat a part, or everything."""
    start = rng.choice((0, rng.randrange(len(data) + 1)))
    return data + data[start:] * rng.choice((1, 2, 20))


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, replaced, truncated, inserted, repeated)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Damage bytes in one or two ways."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        data = rng.choice(DAMAGES)(data or b"x", rng)
    return data


def odd_text(rng: random.Random) -> str:
    """Return a text that few expect."""
    pool: tuple[str, ...] = rng.choice((TEXTS, TEXTS, NUMBERS, PATHS))
    return rng.choice(pool)
