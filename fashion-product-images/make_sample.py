"""Draw a small fashion catalog for trying everything offline, in half a minute, without a download or an account.

    python fashion-product-images/make_sample.py                          # into this folder
    python fashion-product-images/make_sample.py /tmp/small --rows 500    # elsewhere, smaller
    python fashion-product-images/make_sample.py --sheet catalog.png      # and a contact sheet

The pictures resemble Kaggle's "Fashion Product Images (Small)": 60 x 80 pixels, one product each, mostly on white. They
have three attributes: gender (shown mostly by cut and proportion), article (by shape) and color (by palette and light).
As in the real data, every attribute has a long tail, and some cells and whole rows are blank. The same rows and seed
give the same files, byte for byte.
"""

import argparse
import csv
import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import accessory
import bag
import garment
import numpy as np
import shoe
from palette import dye
from PIL import Image, ImageDraw, ImageFont
from studio import SIZE, Look, Pen, pattern, photograph

FIRST_ID = 100_001  # above the real images' ids, which end at 60,000: both can share a folder
SPLITS = ("train", "val", "test", "all")
GENDERS = ("Men", "Women", "Unisex", "Boys", "Girls")
PLAIN = ("plain",)
SPORTY = ("plain", "plain", "plain", "stripes", "plain")
FORMAL = ("plain", "plain", "checks", "checks", "pinstripes", "stripes")
FLORAL = ("plain", "plain", "plain", "flowers", "dots", "stripes")


class Article(NamedTuple):
    """One kind of product.

    Args:
        share: share of the products, in percent.
        draw: the function that draws it.
        genders: shares of Men, Women, Unisex, Boys and Girls, in percent.
        patterns: patterns of its cloth; each product gets one at random.
        gloss: shine, 0-1.
        colors: factors that make some colors more or less frequent than in `COLORS`.
        size: scale of the drawing.
    """

    share: float
    draw: Callable[[Pen, Look], None]
    genders: tuple[float, float, float, float, float]
    patterns: tuple[str, ...] = PLAIN
    gloss: float = 0.1
    colors: dict[str, float] = {}  # noqa: RUF012 - read only
    size: float = 0.92


LEATHER = {"Brown": 3.5, "Black": 1.5, "Beige": 1.5}
DENIM = {
    "Blue": 6.0, "Navy Blue": 3.0, "Grey": 1.5, "Red": 0.1, "Green": 0.2, "Pink": 0.2, "Yellow": 0.1, "Purple": 0.1,
}  # fmt: skip
BRIGHT = {"Pink": 2.5, "Red": 1.8, "Purple": 1.8, "Yellow": 1.5, "Green": 1.4, "Orange": 1.4}
ARTICLES: dict[str, Article] = {
    "Tshirts": Article(17.0, garment.tshirt, (69, 20, 3, 5, 3), SPORTY, 0.0),
    "Shirts": Article(10.0, garment.shirt, (85, 12, 0, 2, 1), FORMAL, 0.0, {"White": 1.6, "Blue": 1.8}),
    "Casual Shoes": Article(8.5, shoe.casual_shoe, (66, 28, 4, 1, 1), PLAIN, 0.3, LEATHER, 0.95),
    "Watches": Article(8.0, accessory.watch, (50, 41, 8, 1, 0), PLAIN, 0.6, {"Black": 1.8, "Brown": 1.8}),
    "Tops": Article(7.0, garment.top, (1, 93, 0, 0, 6), FLORAL, 0.0, BRIGHT),
    "Sports Shoes": Article(6.5, shoe.sports_shoe, (75, 19, 4, 1, 1), PLAIN, 0.2, {"White": 2.0, "Grey": 1.6}, 0.95),
    "Handbags": Article(6.0, bag.handbag, (2, 97, 1, 0, 0), PLAIN, 0.4, LEATHER | {"Pink": 1.5}),
    "Kurtas": Article(5.5, garment.kurta, (32, 66, 0, 1, 1), FLORAL, 0.0, BRIGHT),
    "Heels": Article(5.0, shoe.heel, (0, 97, 1, 0, 2), PLAIN, 0.6, {"Black": 1.4, "Brown": 1.4, "Beige": 2.0}, 0.95),
    "Sunglasses": Article(
        4.0, accessory.sunglasses, (48, 32, 20, 0, 0), PLAIN, 0.7, {"Black": 1.8, "Brown": 2.0}, 0.95
    ),
    "Wallets": Article(3.5, bag.wallet, (60, 38, 2, 0, 0), PLAIN, 0.3, LEATHER),
    "Flip Flops": Article(3.2, shoe.flip_flop, (56, 32, 8, 3, 1), PLAIN, 0.1),
    "Jeans": Article(3.0, garment.jeans, (57, 36, 0, 4, 3), PLAIN, 0.0, DENIM),
    "Belts": Article(2.8, accessory.belt, (76, 22, 2, 0, 0), PLAIN, 0.4, LEATHER),
    "Dresses": Article(2.4, garment.dress, (0, 88, 0, 0, 12), FLORAL, 0.0, BRIGHT),
    "Shorts": Article(2.2, garment.shorts, (62, 22, 2, 10, 4), (*SPORTY, "checks"), 0.0),
    "Backpacks": Article(2.0, bag.backpack, (28, 16, 52, 2, 2), (*PLAIN * 4, "checks", "dots"), 0.2),
    "Trousers": Article(
        1.7, garment.trousers, (66, 27, 0, 5, 2), (*PLAIN * 4, "pinstripes"), 0.0, {"Beige": 2.5, "Grey": 2.0}
    ),
    "Socks": Article(1.4, accessory.socks, (50, 26, 14, 6, 4), (*PLAIN * 3, "stripes", "dots"), 0.0),
    "Caps": Article(1.0, accessory.cap, (48, 8, 38, 4, 2), (*PLAIN * 4, "checks"), 0.0),
}
COLORS = {
    "Black": 22.0, "White": 12.0, "Blue": 12.0, "Brown": 7.5, "Grey": 7.0, "Red": 6.0, "Green": 5.5, "Navy Blue": 5.0,
    "Pink": 4.5, "Purple": 4.0, "Yellow": 2.5, "Beige": 2.5, "Orange": 1.8,
}  # fmt: skip


class Row(NamedTuple):
    """One product: its id and its three labels, in the order of the CSV's columns."""

    number: int
    gender: str
    article: str
    color: str

    @property
    def path(self) -> str:
        """Return the path of its image, relative to the data folder."""
        return f"images/{self.number}.jpg"


def _pick(rng: np.random.Generator, weights: dict[str, float]) -> str:
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def describe(count: int, seed: int) -> list[Row]:
    """Return random products with all their labels."""
    rng, rows = np.random.default_rng([seed, 0]), []
    for number in range(FIRST_ID, FIRST_ID + count):
        article = _pick(rng, {name: kind.share for name, kind in ARTICLES.items()})
        kind = ARTICLES[article]
        gender = _pick(rng, dict(zip(GENDERS, kind.genders, strict=True)))
        liked = BRIGHT if gender in ("Women", "Girls") and article != "Jeans" else {}
        colors = {name: share * kind.colors.get(name, liked.get(name, 1.0)) for name, share in COLORS.items()}
        rows.append(Row(number, gender, article, _pick(rng, colors)))
    return rows


def draw(row: Row, seed: int) -> Image.Image:
    """Draw one product. The picture depends on the product and the seed alone."""
    rng, kind = np.random.default_rng([seed, row.number]), ARTICLES[row.article]
    child, unisex = row.gender in ("Boys", "Girls"), row.gender == "Unisex"
    middle = 0.5 if unisex else 0.95 if row.gender in ("Women", "Girls") else 0.05
    others = {name: share for name, share in COLORS.items() if name != row.color} | {"White": 25.0}
    look = Look(rng, dye(rng, row.color), dye(rng, _pick(rng, others)), float(rng.normal(middle, 0.13)), child, unisex)
    pen = Pen(
        size=kind.size * float(rng.uniform(0.86, 1.04)) * (float(rng.uniform(0.68, 0.8)) if child else 1.0),
        turn=float(rng.normal(0, 4)),
        shift=(float(rng.normal(0, 0.035)), float(rng.normal(0, 0.05))),
        flip=look.chance(0.2),
        cloth=pattern(look, kind.patterns),
    )
    kind.draw(pen, look)
    return photograph(pen, look, kind.gloss)


def tabulate(rows: Sequence[Row], seed: int) -> dict[str, str]:
    """Split the products and blank some of their cells.

    Args:
        rows: the products.
        seed: seed of the split and of the blank cells.

    Returns:
        The text of each split's CSV, by name. The first product of every class is in train and keeps its labels, so
        that the other splits have no unknown class.
    """
    # split
    rng = np.random.default_rng([seed, 1])
    firsts = {(column, row[column]): row for row in reversed(rows) for column in (1, 2, 3)}
    kept = set(firsts.values())
    rest = [row for row in rows if row not in kept]
    rest = [rest[int(i)] for i in rng.permutation(len(rest))]
    tenth = min(len(rows) // 10, len(rest) // 2)
    parts = {"val": rest[:tenth], "test": rest[tenth : 2 * tenth], "train": [*kept, *rest[2 * tenth :]]}

    # blank cells
    lines: dict[str, list[tuple[str, ...]]] = {}
    for split in SPLITS[:3]:
        lines[split] = []
        for row in sorted(parts[split]):
            blank = rng.random(3) < (0.05 if split == "train" else 0.01)
            unlabeled = bool(rng.random() < 0.05) and split == "train"
            labels = [
                "" if row not in kept and (unlabeled or b) else str(v) for v, b in zip(row[1:], blank, strict=True)
            ]
            lines[split].append((row.path, *labels))
    lines["all"] = sorted(line for split in SPLITS[:3] for line in lines[split])

    # CSV
    texts = {}
    for split, table in lines.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("image_path", *Row._fields[1:]), *table])
        texts[split] = text.getvalue()
    return texts


def _digests(texts: dict[str, str]) -> str:
    return "".join(f"{hashlib.sha256(texts[name].encode()).hexdigest()}  {name}.csv\n" for name in SPLITS)


def _foreign(folder: Path) -> Path | None:
    """Return a CSV that this script did not write, since no stamp holds its digest; None if there is none."""
    known = "".join(stamp.read_text() for stamp in (folder / "images").glob(".sample-*"))
    for path in (folder / f"{name}.csv" for name in SPLITS):
        if path.exists() and f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" not in known:
            return path
    return None


def _clear(folder: Path, ours: bool) -> None:
    """Remove an earlier sample, so that an interrupted run leaves no mixture. Another dataset's images stay."""
    if ours and (folder / "all.csv").exists():
        for line in (folder / "all.csv").read_text().splitlines()[1:]:
            (folder / line.split(",")[0]).unlink(missing_ok=True)
    for path in (*(folder / f"{name}.csv" for name in SPLITS), *(folder / "images").glob(".sample-*")):
        path.unlink(missing_ok=True)


def make(folder: Path, count: int, seed: int, force: bool = False) -> str:
    """Write the sample into a folder, unless it is there already.

    Args:
        folder: folder for the CSVs; its subfolder `images` gets the images.
        count: number of products.
        seed: seed of the sample, 0 or more.
        force: whether to draw an existing sample again, and to replace another dataset's CSVs.

    Returns:
        One sentence about the result.

    Raises:
        FileExistsError: if a CSV exists that this script did not write.
    """
    # existing files
    rows = describe(count, seed)
    texts, stamp = tabulate(rows, seed), folder / "images" / f".sample-{count}-{seed}-v1"
    foreign = _foreign(folder)
    if foreign and not force:
        raise FileExistsError(
            f"{foreign} belongs to another dataset: choose another FOLDER, or --force to replace its CSVs"
        )
    tables = {folder / f"{name}.csv": text.encode() for name, text in texts.items()}
    same = all(path.exists() and path.read_bytes() == content for path, content in tables.items())
    if same and not force and stamp.exists() and all((folder / row.path).exists() for row in rows):
        return f"{folder} holds this sample of {count} images already: nothing to do"

    # images and tables
    stamp.parent.mkdir(parents=True, exist_ok=True)
    _clear(folder, ours=foreign is None)
    for row in rows:
        draw(row, seed).save(folder / row.path, quality=75 + row.number % 20)
    stamp.write_text(_digests(texts))  # before the CSVs: after an interruption, every CSV is recognized as ours
    for path, content in tables.items():
        path.write_bytes(content)
    return f"{folder} now holds a sample of {count} images in {stamp.parent} and {', '.join(p.name for p in tables)}"


def sheet(count: int, seed: int, path: Path, across: int = 16, down: int = 8) -> None:
    """Draw a contact sheet of the products, sorted by article, each with its labels below."""
    rows = sorted(describe(count, seed)[: across * down], key=lambda row: (list(ARTICLES).index(row.article), row))
    wide, high, small = 2 * SIZE[0] + 12, 2 * SIZE[1] + 36, ImageFont.load_default(10)
    page = Image.new("RGB", (across * wide, down * high), "white")
    pencil = ImageDraw.Draw(page)
    for place, row in enumerate(rows):
        x, y = place % across * wide + 6, place // across * high + 4
        page.paste(draw(row, seed).resize((2 * SIZE[0], 2 * SIZE[1]), Image.Resampling.BICUBIC), (x, y))
        pencil.text((x + SIZE[0], y + 2 * SIZE[1] + 8), row.article, "black", small, anchor="mm")
        pencil.text((x + SIZE[0], y + 2 * SIZE[1] + 20), f"{row.gender}, {row.color}", "gray", small, anchor="mm")
    page.save(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Draw a small fashion catalog with gender, article and color labels.", allow_abbrev=False
    )
    add = parser.add_argument
    here = Path(__file__).resolve().parent
    add("folder", nargs="?", type=Path, default=here, help="output folder (default: this script's folder)")
    add("--rows", type=int, default=2400, help="number of products, at least 20 (default: 2400)")
    add("--seed", type=int, default=42, help="seed of the sample, 0 or more (default: 42)")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, e.g. catalog.png")
    add("--force", action="store_true", help="draw again, and replace another dataset's CSVs; its images stay")
    args = parser.parse_args(argv)
    if args.rows < 20 or args.seed < 0:
        parser.error(f"--rows must be at least 20 and --seed at least 0: got {args.rows} and {args.seed}")
    try:
        print(make(args.folder, args.rows, args.seed, args.force))
        if args.sheet:
            sheet(args.rows, args.seed, args.sheet)
            print(f"{args.sheet} shows some of them")
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
