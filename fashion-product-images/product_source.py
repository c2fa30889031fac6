"""A reader of the Fashion Product Images dataset, as Kaggle's folder or as Hugging Face's parquet files."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SOURCE_COLUMN = {"article": "articleType", "color": "baseColour"}

# What images are converted from. Pillow would run Ghostscript for EPS, so not every format that it knows.
_FORMATS = ("PNG", "WEBP", "GIF", "BMP", "TIFF")

Labels = dict[str, tuple[str, ...]]  # an image's id -> its class for each attribute, blank where unknown
Record = tuple[str, tuple[str, ...], bytes | None]  # id, labels, and the image if the source holds it


class InputError(Exception):
    """An unusable input; its message is one sentence for the user."""


class Source(NamedTuple):
    """The dataset as read: labels in the source's order, the images' folder, and dropped rows by reason."""

    labels: Labels
    images: Path
    dropped: Counter[str]


def read_source(sources: list[Path], attributes: list[str], output: Path, force: bool) -> Source:
    """Read either form of the dataset.

    Args:
        sources: one Kaggle folder, or parquet files and folders that contain some.
        attributes: names of the attributes to read.
        output: folder that gets the images of parquet files, in its subfolder images.
        force: whether existing images may be overwritten.

    Raises:
        InputError: if there is nothing to read, a column is missing, or no row has an image.
    """
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        if not source.is_dir() and not source.is_file():
            raise InputError(f"{source} is a pipe, a socket or a device: save its content as a file, and name that")

    # Kaggle's folder, or parquet files
    if tables := [source / "styles.csv" for source in sources if (source / "styles.csv").is_file()]:
        if len(sources) > 1:
            raise InputError(f"{tables[0].parent} is a Kaggle folder (it holds styles.csv): give it as the only source")
        images = tables[0].parent / "images"
        present = {file.name for file in images.iterdir()} if images.is_dir() else set()
        labels, dropped = collect(
            kaggle_records(tables[0], attributes),
            lambda identifier, _: "" if f"{identifier}.jpg" in present else "no image",
        )
    else:
        files = parquet_files(sources)
        images = output / "images"
        if not force and images.is_dir() and any(images.iterdir()):
            raise InputError(f"{images} has files in it: pass --force to overwrite them, or another --output")
        labels, dropped = collect(
            parquet_records(files, attributes), lambda identifier, image: save_image(images, identifier, image)
        )
    if not labels:
        raise InputError(f"no images: none of the {dropped.total()} rows has one that can be used as {images}/<id>.jpg")
    return Source(labels, images, dropped)


def collect(records: Iterable[Record], store: Callable[[str, bytes | None], str]) -> tuple[Labels, Counter[str]]:
    """Collect the labels of all records that have an image.

    Args:
        records: the source's rows.
        store: a function of an id and an image that returns the reason to drop the row, or "".

    Returns:
        The labels in the records' order, and the number of dropped rows for each reason.
    """
    labels: Labels = {}
    dropped: Counter[str] = Counter()
    for identifier, values, image in records:
        if not re.fullmatch(r"[\w.-]+", identifier):  # the id becomes a file name: no blanks, no folders
            problem = "no usable id"
        elif identifier in labels:
            problem = "id of an earlier row"
        else:
            problem = store(identifier, image)
        if problem:
            dropped[problem] += 1
        else:
            labels[identifier] = values
    return labels, dropped


def source_columns(attributes: list[str], present: list[str], file: Path) -> list[str]:
    """Return the source's columns for the attributes.

    Args:
        attributes: names of the attributes.
        present: columns of the file.
        file: path of the file, for the message.

    Raises:
        InputError: if a column is missing; the message lists the existing ones.
    """
    columns = [SOURCE_COLUMN.get(name, name) for name in attributes]
    usable = [name for name in present if name not in ("id", "image")]
    if missing := [name for name in columns if name not in usable]:
        raise InputError(f"{file} has no column '{missing[0]}' for an attribute; it has {', '.join(usable) or 'none'}")
    if "id" not in present:
        raise InputError(f"{file} has no column 'id'; it has {', '.join(present)}")
    return columns


def kaggle_records(file: Path, attributes: list[str]) -> Iterator[Record]:
    """Yield the rows of styles.csv.

    Some product names have commas without quotes. The name is the last column, so surplus cells belong to it.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            header = parse_line(lines.readline())
            wanted = [header.index(name) for name in ("id", *source_columns(attributes, header, file))]
            last = len(header) - 1
            for line in lines:
                cells = parse_line(line)
                if not any(cells):
                    continue
                cells = [*cells[:last], ",".join(cells[last:])]
                cells += [""] * (len(header) - len(cells))
                identifier, *values = (cells[i] for i in wanted)
                yield identifier, tuple(values), None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is not a CSV file in UTF-8: {error}") from error


def parse_line(line: str) -> list[str]:
    """Split one line of CSV. Line by line, a stray quote cannot swallow the next rows."""
    return [cell.strip() for cell in next(csv.reader([line]), [])]


def parquet_files(sources: list[Path]) -> list[Path]:
    """Return the sources that are parquet files, and all parquet files inside the folders."""
    files: list[Path] = []
    for source in sources:
        found = sorted(filter(Path.is_file, source.rglob("*.parquet"))) if source.is_dir() else [source]
        if not found:
            raise InputError(f"{source} holds neither styles.csv (Kaggle) nor a .parquet file (Hugging Face)")
        files += found
    return files


def parquet_records(files: list[Path], attributes: list[str]) -> Iterator[Record]:
    """Yield the rows of the parquet files, with a few hundred in memory at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("parquet files need pyarrow: pip install pyarrow") from error

    try:
        # check every file before the first image is written
        for file in files:
            schema = pyarrow.parquet.read_schema(file)
            columns = source_columns(attributes, schema.names, file)
            image = schema.field("image").type if "image" in schema.names else None
            if not (isinstance(image, pyarrow.StructType) and "bytes" in {field.name for field in image}):
                raise InputError(f"{file} has no images: it needs a column 'image' that holds 'bytes'")

        # rows
        for file in files:
            batches = pyarrow.parquet.ParquetFile(file).iter_batches(256, columns=list({"id", "image", *columns}))
            for row in (row for batch in batches for row in batch.to_pylist()):
                yield (
                    as_text(row["id"]),
                    tuple(as_text(row[name]) for name in columns),
                    (row["image"] or {}).get("bytes"),
                )
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def as_text(value: Any) -> str:
    """Return a cell as the Kaggle file has it. Parquet files store years as floats if one is missing."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def save_image(folder: Path, identifier: str, image: bytes | None) -> str:
    """Write an image as <id>.jpg; JPEG data stays unchanged.

    Returns:
        The reason to drop the row, or "".
    """
    if not image:
        return "no image"
    if not image.startswith(b"\xff\xd8\xff"):
        from PIL import Image

        converted = io.BytesIO()
        try:  # in memory: an error of a full disk must not count as an unreadable image
            with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
                opened.convert("RGB").save(converted, "JPEG", quality=95)
        except (OSError, SyntaxError, ValueError):  # Pillow's errors for broken files
            return "unreadable image"
        image = converted.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{identifier}.jpg").write_bytes(image)
    return ""
