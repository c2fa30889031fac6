"""Make train.csv, val.csv, test.csv and all.csv of the Fashion Product Images data set.

Get the data from Kaggle, here straight into this script's folder:

    kaggle datasets download paramaggarwal/fashion-product-images-small --unzip --path fashion-product-images
    python fashion-product-images/prepare.py fashion-product-images

or from Hugging Face, whose copy has fewer rows (44,072); its images are written to OUTPUT/images:

    hf download ashraq/fashion-product-images-small --repo-type dataset --local-dir ../fashion-parquet
    python fashion-product-images/prepare.py ../fashion-parquet

(Older releases of huggingface_hub call `hf` `huggingface-cli`.) A Kaggle folder holds styles.csv and images/<id>.jpg,
and may lie anywhere: nothing is copied, and image_path leads from the CSVs to the images. Rows without an image are
dropped and counted. The attributes are gender, article and color; any other source column can be one as well:

    python fashion-product-images/prepare.py SOURCE --attributes gender article color season usage

The split is stratified over all chosen attributes; the same images, labels, shares and seed give the same one. To use
the split of other CSVs instead, such as those of the original repository, byte for byte:

    python fashion-product-images/prepare.py SOURCE --like FOLDER --path-prefix ./fashion-product-images/images

A blank cell stays blank, which means unknown. "NA" is a class in this data set and stays as it is.
"""

import argparse
import csv
import io
import math
import os
import posixpath
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

SPLITS = ("train", "val", "test")
SOURCE_COLUMN = {"article": "articleType", "color": "baseColour"}
ATTRIBUTES = ("gender", "article", "color")

Labels = dict[str, tuple[str, ...]]  # an image's id -> its class for each attribute, blank where unknown
Record = tuple[str, tuple[str, ...], bytes | None]  # id, labels, and the image where the source holds it


class InputError(Exception):
    """An input that cannot be used; its message is one sentence for the user."""


class Source(NamedTuple):
    """What was read: the labels of every image in the source's order, where the images are, rows dropped by reason."""

    labels: Labels
    images: Path
    dropped: Counter[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the CSVs and prints a summary.

    Args:
        argv: The words of the command line after the program's name; those of this process by default.

    Returns:
        The exit code: 0, or 2 after one sentence on stderr.
    """
    args = parse_arguments(argv)
    try:
        check_arguments(args)
        like = read_splits(args.like) if args.like else None
        source = read_source(args.source, args.attributes, args.output, args.force)
        if like:
            listed, missing = only_known(like, source.labels)
        else:
            listed, missing = assign_splits(source.labels, args.val, args.test, args.seed), 0
        prefix = relative_folder(source.images, args.output) if args.path_prefix is None else args.path_prefix
        write_tables(args.output, args.attributes, prefix, listed, source.labels)
    except (InputError, OSError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 2
    print_summary(args, source, listed, missing)
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; what needs more than its syntax is checked in `check_arguments`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("source", nargs="+", type=Path, help="the Kaggle folder, or parquet files or a folder of them")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="folder for the CSVs (default: this script's)"
    )
    parser.add_argument(
        "--attributes",
        nargs="+",
        default=list(ATTRIBUTES),
        metavar="NAME",
        help="gender, article, color or any source column by its own name (default: the first three)",
    )
    parser.add_argument("--like", type=Path, metavar="FOLDER", help="reuse the split and order of this folder's CSVs")
    parser.add_argument(
        "--path-prefix", metavar="PREFIX", help="write PREFIX/<id>.jpg as image_path (default: the way to the images)"
    )
    # No defaults in these three: with --like they are refused, so it must be known whether they were given.
    parser.add_argument("--val", type=float, help="share of the rows for val.csv, 0-1 (default: 0.1)")
    parser.add_argument("--test", type=float, help="share of the rows for test.csv, 0-1 (default: 0.1)")
    parser.add_argument("--seed", type=int, help="seed of the split (default: 42)")
    parser.add_argument("--force", action="store_true", help="overwrite the CSVs and images in the output folder")
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Completes the defaults and refuses what contradicts itself or would overwrite something.

    Raises:
        InputError: With what is wrong and the remedy.
    """
    if args.like and (given := [f"--{name}" for name in ("val", "test", "seed") if getattr(args, name) is not None]):
        raise InputError(f"--like takes its split from existing CSVs: leave out {' and '.join(given)}")
    args.val = 0.1 if args.val is None else args.val
    args.test = 0.1 if args.test is None else args.test
    args.seed = 42 if args.seed is None else args.seed
    if not (args.val >= 0 and args.test >= 0 and args.val + args.test < 1):
        raise InputError(f"--val {args.val} and --test {args.test} must be 0 or more and leave a share for train.csv")
    if repeated := [name for name, count in Counter(args.attributes).items() if count > 1]:
        raise InputError(f"--attributes names '{repeated[0]}' more than once")
    tables = [args.output / f"{name}.csv" for name in (*SPLITS, "all")]
    if not args.force and (existing := [table for table in tables if table.exists()]):
        raise InputError(f"{existing[0]} exists: pass --force to overwrite it, or another --output")


def read_source(sources: list[Path], attributes: list[str], output: Path, force: bool) -> Source:
    """Reads whichever form the source has.

    Args:
        sources: One Kaggle folder, or parquet files and folders that hold some.
        attributes: Names of the attributes to read.
        output: Where the images of parquet files go, in the subfolder images.
        force: Whether images that are there already may be overwritten.

    Raises:
        InputError: If there is nothing to read, a column is missing, or no row has an image.
    """
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
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
    """Gathers the records whose image is there.

    Args:
        records: The source's rows.
        store: Sees to an image: given id and image, returns why its row must be dropped, or "".

    Returns:
        The labels in the records' order, and how many rows were dropped for each reason.
    """
    labels: Labels = {}
    dropped: Counter[str] = Counter()
    for identifier, values, image in records:
        if not re.fullmatch(r"[\w.-]+", identifier):  # it becomes a file name: no blanks, no folders
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
    """Finds the source's columns for the attributes.

    Args:
        attributes: Names of the attributes.
        present: The columns of the file.
        file: The file, for the message.

    Raises:
        InputError: If one is missing, with those there are.
    """
    columns = [SOURCE_COLUMN.get(name, name) for name in attributes]
    usable = [name for name in present if name not in ("id", "image")]
    if missing := [name for name in columns if name not in usable]:
        raise InputError(f"{file} has no column '{missing[0]}' for an attribute; it has {', '.join(usable) or 'none'}")
    if "id" not in present:
        raise InputError(f"{file} has no column 'id'; it has {', '.join(present)}")
    return columns


def kaggle_records(file: Path, attributes: list[str]) -> Iterator[Record]:
    """Yields the rows of styles.csv.

    Some product names hold commas but no quotes. The name is the last column, so what is too much belongs to it.
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
    """Splits a line of CSV; line by line, so that a stray quote in a name cannot swallow the rows that follow."""
    return [cell.strip() for cell in next(csv.reader([line]), [])]


def parquet_files(sources: list[Path]) -> list[Path]:
    """Lists the parquet files that are the sources or lie in them, at any depth."""
    files: list[Path] = []
    for source in sources:
        found = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
        if not found:
            raise InputError(f"{source} holds neither styles.csv (Kaggle) nor a .parquet file (Hugging Face)")
        files += found
    return files


def parquet_records(files: list[Path], attributes: list[str]) -> Iterator[Record]:
    """Yields the rows of the parquet files, a few hundred at a time in memory."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("parquet files need pyarrow: pip install pyarrow") from error

    try:
        for file in files:  # all of them before the first image is written
            schema = pyarrow.parquet.read_schema(file)
            columns = source_columns(attributes, schema.names, file)
            image = schema.field("image").type if "image" in schema.names else None
            if not (isinstance(image, pyarrow.StructType) and "bytes" in {field.name for field in image}):
                raise InputError(f"{file} has no images: it needs a column 'image' that holds 'bytes'")
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
    """Writes a cell as the Kaggle file does: years are floats in the parquet files, because one is missing."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def save_image(folder: Path, identifier: str, image: bytes | None) -> str:
    """Writes an image as <id>.jpg, and as it is if it is JPEG already.

    Returns:
        Why its row must be dropped, or "".
    """
    if not image:
        return "no image"
    if not image.startswith(b"\xff\xd8\xff"):
        from PIL import Image

        converted = io.BytesIO()
        try:  # in memory, so that a full disk is not taken for an unreadable image
            with Image.open(io.BytesIO(image)) as opened:
                opened.convert("RGB").save(converted, "JPEG", quality=95)
        except (OSError, SyntaxError, ValueError):  # Pillow's ways to say that a file is broken
            return "unreadable image"
        image = converted.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{identifier}.jpg").write_bytes(image)
    return ""


def assign_splits(labels: Labels, val: float, test: float, seed: int) -> dict[str, list[str]]:
    """Splits the images so that every class of every attribute has its share in each split, as far as possible.

    First each class gets one row in train, rarest class first. Then the classes' other rows are dealt, again from the
    rarest class on, because it has the fewest rows to choose from: a row goes to a split without the class, else to
    the split that most lacks this row's classes. So a class of one row is in train only, one of two is usually in one
    more split, one of ten is shared 8:1:1, and all are within a few rows of their shares.

    Args:
        labels: The labels of every image.
        val: Share of the images for val, 0-1.
        test: Share of the images for test, 0-1.
        seed: Decides which rows of a class go where.

    Returns:
        The ids of train, val, test and all, each in the order of `labels`.
    """
    shares = {name: share for name, share in zip(SPLITS, (1 - val - test, val, test), strict=True) if share > 0}
    shuffled = sorted(labels)  # sorted first: the order of the source must not matter
    random.Random(seed).shuffle(shuffled)
    members: dict[tuple[int, str], list[str]] = defaultdict(list)
    classes_of = {}
    for identifier in shuffled:
        known = [(attribute, value) for attribute, value in enumerate(labels[identifier]) if value]
        classes_of[identifier] = known or [(-1, "")]  # rows without any label are dealt like a class of their own
        for key in classes_of[identifier]:
            members[key].append(identifier)
    rarest_first = sorted(members, key=lambda key: (len(members[key]), key))
    # One row too many matters less to a large class. The square root kept all classes closest to their shares.
    weight = {key: 1 / math.sqrt(len(members[key])) for key in members}

    split_of: dict[str, str] = {}
    have = {key: dict.fromkeys(shares, 0) for key in members}
    dealt: Counter[tuple[int, str]] = Counter()

    def put(identifier: str, name: str) -> None:
        split_of[identifier] = name
        for key in classes_of[identifier]:
            have[key][name] += 1
            dealt[key] += 1

    def surplus(identifier: str, name: str) -> float:
        """What the split has above its share of the row's classes, of the rows dealt so far and this one."""
        keys = classes_of[identifier]
        return sum(weight[key] * (have[key][name] - shares[name] * (dealt[key] + 1)) for key in keys)

    # All of these before the dealing, which could take a row that two classes share away from train.
    for key in rarest_first:
        if not dealt[key]:
            put(members[key][0], "train")
    for key in rarest_first:
        for identifier in members[key]:
            if identifier not in split_of:
                put(identifier, min(shares, key=lambda name: (have[key][name] > 0, surplus(identifier, name))))
    listed = {name: [identifier for identifier in labels if split_of[identifier] == name] for name in SPLITS}
    return {**listed, "all": list(labels)}


def read_splits(folder: Path) -> dict[str, list[str]]:
    """Reads which images are in which split of existing CSVs, in their order.

    Args:
        folder: Holds train.csv, val.csv, test.csv and perhaps all.csv, with an image_path that ends in <id>.jpg.

    Returns:
        The ids of train, val, test and all; without an all.csv, all is the three in turn.

    Raises:
        InputError: If a file is missing, has no image_path or is not CSV, or if an image is listed twice.
    """
    ids: dict[str, list[str]] = {}
    for name in (*SPLITS, "all"):
        file = folder / f"{name}.csv"
        if not file.is_file():
            if name != "all":
                raise InputError(f"--like {folder}: there is no {name}.csv")
            ids["all"] = [identifier for split in SPLITS for identifier in ids[split]]
            continue
        try:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines)
                if "image_path" not in (reader.fieldnames or []):
                    raise InputError(f"--like {folder}: {name}.csv has no column image_path")
                ids[name] = [PurePosixPath(row["image_path"] or "").stem for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{file} is not a CSV file in UTF-8: {error}") from error
    for listed in ([identifier for split in SPLITS for identifier in ids[split]], ids["all"]):
        if repeated := [identifier for identifier, count in Counter(listed).items() if count > 1]:
            raise InputError(f"--like {folder}: image {repeated[0]} is listed more than once")
    return ids


def only_known(listed: dict[str, list[str]], labels: Labels) -> tuple[dict[str, list[str]], int]:
    """Leaves out the ids that are not in the source.

    Returns:
        The rest, in the same order, and how many different ids were left out.

    Raises:
        InputError: If nothing is left.
    """
    known = {name: [identifier for identifier in ids if identifier in labels] for name, ids in listed.items()}
    if not any(known.values()):
        raise InputError("--like: none of the images in its CSVs is in the source")
    return known, len({identifier for ids in listed.values() for identifier in ids if identifier not in labels})


def relative_folder(images: Path, output: Path) -> str:
    """Finds the way from the CSVs to the images, with / between the folders."""
    way = os.path.relpath(images, output)
    if way.startswith(".."):  # ".." after a symbolic link leads elsewhere than its name says
        way = os.path.relpath(images.resolve(), output.resolve())
    return way.replace(os.sep, "/")


def write_tables(
    folder: Path, attributes: list[str], prefix: str, listed: dict[str, list[str]], labels: Labels
) -> None:
    """Writes a CSV for each entry of `listed`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in listed.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image_path", *attributes])
            writer.writerows([posixpath.join(prefix, f"{key}.jpg"), *labels[key]] for key in ids)


def print_summary(args: argparse.Namespace, source: Source, listed: dict[str, list[str]], missing: int) -> None:
    """Prints rows, classes, what was left out, and where everything is."""
    print("rows: " + ", ".join(f"{len(ids)} {name}" for name, ids in listed.items()))
    for index, attribute in enumerate(args.attributes):
        counts = Counter(source.labels[identifier][index] for identifier in listed["all"])
        print(f"{attribute}: {len(counts) - ('' in counts)} classes, {counts['']} blank")
    for reason, count in source.dropped.items():
        print(f"dropped: {count} rows with {reason}")
    if args.like:
        unused = len(source.labels.keys() - set().union(*listed.values()))
        print(f"--like {args.like}: {missing} of its images are not in the source, {unused} of the source not in it")
    print(f"tables: {args.output}")
    print(f"images: {source.images}")


if __name__ == "__main__":
    sys.exit(main())
