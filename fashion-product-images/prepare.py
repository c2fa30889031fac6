"""Make train.csv, val.csv, test.csv and all.csv of the Fashion Product Images dataset.

Get the data from Kaggle, here straight into this script's folder:

    kaggle datasets download paramaggarwal/fashion-product-images-small --unzip --path fashion-product-images
    python fashion-product-images/prepare.py fashion-product-images

or from Hugging Face. That copy has fewer rows (44,072), and its images are written to OUTPUT/images:

    hf download ashraq/fashion-product-images-small --repo-type dataset --local-dir ../fashion-parquet
    python fashion-product-images/prepare.py ../fashion-parquet

(In older releases of huggingface_hub, `hf` is `huggingface-cli`.) A Kaggle folder holds styles.csv and images/<id>.jpg
and may be anywhere. Its images stay there, and image_path is the path from the CSVs to them. Rows without an image are
dropped and counted. The attributes are gender, article and color. Any other source column can be an attribute too:

    python fashion-product-images/prepare.py SOURCE --attributes gender article color season usage

The split is stratified over all chosen attributes. The same images, labels, shares and seed give the same split. To
reproduce the split of existing CSVs byte for byte, such as the original repository's:

    python fashion-product-images/prepare.py SOURCE --like FOLDER --path-prefix ./fashion-product-images/images

A blank cell stays blank, which means unknown. "NA" is a class in this dataset and stays.
"""

import argparse
import csv
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from product_source import InputError, Labels, Source, read_source
from product_split import SPLITS, assign_splits, only_known, read_splits

ATTRIBUTES = ("gender", "article", "color")


def main(argv: Sequence[str] | None = None) -> int:
    """Make the CSVs and print a summary.

    Args:
        argv: words of the command line after the program's name (default: this process's).

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
    """Parse the command line; `check_arguments` checks the values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    here = Path(__file__).parent
    names = "gender, article, color, or any source column by its name (default: the first three)"
    add("source", nargs="+", type=Path, help="the Kaggle folder, or parquet files or folders of them")
    add("--output", type=Path, default=here, help="folder for the CSVs (default: this script's folder)")
    add("--attributes", nargs="+", default=list(ATTRIBUTES), metavar="NAME", help=names)
    add("--like", type=Path, metavar="FOLDER", help="reuse the split and order of this folder's CSVs")
    add("--path-prefix", metavar="PREFIX", help="write PREFIX/<id>.jpg as image_path (default: path to the images)")
    # No defaults here: --like refuses these three, so parsing must show whether they were given.
    add("--val", type=float, help="share of the rows for val.csv, 0-1 (default: 0.1)")
    add("--test", type=float, help="share of the rows for test.csv, 0-1 (default: 0.1)")
    add("--seed", type=int, help="seed of the split (default: 42)")
    add("--force", action="store_true", help="overwrite the CSVs and images in the output folder")
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Set the defaults, and refuse contradictions and overwriting.

    Raises:
        InputError: if flags contradict each other or a file would be overwritten.
    """
    if args.like and (given := [f"--{name}" for name in ("val", "test", "seed") if getattr(args, name) is not None]):
        raise InputError(f"--like takes its split from existing CSVs: leave out {' and '.join(given)}")
    args.val = 0.1 if args.val is None else args.val
    args.test = 0.1 if args.test is None else args.test
    args.seed = 42 if args.seed is None else args.seed
    if not (args.val >= 0 and args.test >= 0 and args.val + args.test < 1):
        raise InputError(f"--val {args.val} and --test {args.test} must be 0 or more and leave a share for train.csv")
    if repeated := [name for name, count in Counter(args.attributes).items() if count > 1]:
        raise InputError(f"--attributes names '{repeated[0]}' more than once: name it once")
    tables = [args.output / f"{name}.csv" for name in (*SPLITS, "all")]
    if not args.force and (existing := [table for table in tables if table.exists()]):
        raise InputError(f"{existing[0]} exists: pass --force to overwrite it, or another --output")


def relative_folder(images: Path, output: Path) -> str:
    """Return the path from the CSVs to the images, with / between the folders."""
    path = os.path.relpath(images, output)
    if path.startswith(".."):  # ".." after a symbolic link leads to the link's target's parent
        path = os.path.relpath(images.resolve(), output.resolve())
    return path.replace(os.sep, "/")


def write_tables(
    folder: Path, attributes: list[str], prefix: str, listed: dict[str, list[str]], labels: Labels
) -> None:
    """Write a CSV for each entry of `listed`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in listed.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image_path", *attributes])
            writer.writerows([posixpath.join(prefix, f"{key}.jpg"), *labels[key]] for key in ids)


def print_summary(args: argparse.Namespace, source: Source, listed: dict[str, list[str]], missing: int) -> None:
    """Print the numbers of rows, classes, blank cells and dropped rows, and the output folders."""
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
