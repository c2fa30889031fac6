"""A data folder in which each fault that an audit finds is planted once, and what it must find."""

import shutil
from pathlib import Path

from drawn_photograph import photograph
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from table_files import Row, write_table

from catalog.decode import load_image

HOSTILE = "<script>alert(1)</script>"

# kind, split, image, attribute, other image, without the folder of the images
PLANTED = {
    ("unreadable", "train", "broken.jpg", "", ""),
    ("unreadable", "val", "missing.jpg", "", ""),
    ("leakage-file", "val", "t0.jpg", "", "t0.jpg"),
    ("leakage-exact", "val", "copy.jpg", "", "t1.jpg"),
    ("leakage-near", "val", "encoded.jpg", "", "t2.jpg"),
    ("leakage-near", "val", "mirrored.jpg", "", "t3.jpg"),
    ("duplicate-file", "train", "t4.jpg", "", "t4.jpg"),
    ("duplicate-exact", "train", "same.png", "", "t5.jpg"),
    ("duplicate-near", "train", "cropped.jpg", "", "t6.jpg"),
    ("contradiction", "train", "same.png", "shape", "t5.jpg"),
    ("contradiction", "train", "cropped.jpg", "color", "t6.jpg"),
    ("tiny", "train", "tiny.png", "", ""),
    ("shape", "train", "wide.jpg", "", ""),
    ("uniform", "train", "white.png", "", ""),
    ("dark", "train", "dark.jpg", "", ""),
    ("blurred", "val", "blurred.jpg", "", ""),
    ("gray", "val", "gray.jpg", "", ""),
    ("unseen-class", "val", "gray.jpg", "color", ""),
}


def row(name: str, index: int, **labels: str) -> Row:
    """Return a row whose labels follow from an index."""
    usual = {"color": ("blue", "red")[index % 2], "shape": ("disc", "square")[index // 2 % 2], "maker": f"m{index}"}
    return {"image_path": f"images/{name}"} | usual | labels


def plant(folder: Path) -> Path:
    """Write the images, train.csv and val.csv; return the folder."""
    images = folder / "images"
    images.mkdir(parents=True)

    def save(name: str, image: Image.Image) -> str:
        image.save(images / name)
        return name

    train = [row(save(f"t{i}.jpg", photograph(i)), i) for i in range(20)]
    val = [row(save(f"v{i}.jpg", photograph(100 + i)), 20 + i) for i in range(6)]
    opened = [load_image(images / f"t{i}.jpg") for i in range(20)]
    (images / "broken.jpg").write_bytes((images / "t7.jpg").read_bytes()[:2000])
    shutil.copy(images / "t1.jpg", images / "copy.jpg")
    train += [
        row("broken.jpg", 30),
        row("t4.jpg", 4),
        row(save("same.png", opened[5]), 5, shape="square" if train[5]["shape"] == "disc" else "disc"),
        row(save("cropped.jpg", opened[6].crop((6, 8, 234, 312))), 6, color="red"),
        row(save("tiny.png", photograph(40).resize((20, 26))), 31),
        row(save("wide.jpg", photograph(41).resize((640, 100))), 32),
        row(save("white.png", Image.new("RGB", (90, 90), "white")), 33),
        row(save("dark.jpg", ImageEnhance.Brightness(photograph(42)).enhance(0.2)), 34),
    ]
    val += [
        row("missing.jpg", 35),
        row("t0.jpg", 0),
        row("copy.jpg", 1),
        row(save("encoded.jpg", ImageEnhance.Brightness(opened[2].resize((120, 160))).enhance(0.9)), 2),
        row(save("mirrored.jpg", ImageOps.mirror(opened[3])), 3),
        row(save("blurred.jpg", photograph(43).filter(ImageFilter.GaussianBlur(5))), 36),
        row(save("gray.jpg", photograph(44).convert("L")), 37, color=HOSTILE),
    ]
    write_table(folder / "train.csv", train)
    write_table(folder / "val.csv", val)
    return folder
