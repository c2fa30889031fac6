"""The split of images into train, val and test: a new stratified one, or that of existing CSVs."""

import csv
import math
import random
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from product_source import InputError, Labels

SPLITS = ("train", "val", "test")

ClassKey = tuple[int, str]  # an attribute's index and one of its classes


def assign_splits(labels: Labels, val: float, test: float, seed: int) -> dict[str, list[str]]:
    """Split the images so that every class of every attribute has its share in each split, as far as possible.

    First, each class gets one row in train. Then each class distributes its other rows. The rarest class comes first in
    both passes, because it has the fewest rows to choose from. A row goes to a split without the class, or else to the
    split that most lacks the row's classes.

    Thus a class of one row is only in train, a class of two rows is usually in one more split, and ten rows are shared
    8:1:1. Every class is within a few rows of its shares.

    Args:
        labels: the labels of every image.
        val: share of the images for val, 0-1.
        test: share of the images for test, 0-1.
        seed: seed of the order in which a class distributes its rows.

    Returns:
        The ids of train, val, test and all, each in the order of `labels`.
    """
    shares = {name: share for name, share in zip(SPLITS, (1 - val - test, val, test), strict=True) if share > 0}
    classes_of, members = _group_by_class(labels, seed)
    rarest_first = sorted(members, key=lambda key: (len(members[key]), key))
    # A surplus row matters less to a large class. In experiments the square root kept classes closest to their shares.
    weight = {key: 1 / math.sqrt(len(members[key])) for key in members}

    # rows that have a split so far
    split_of: dict[str, str] = {}
    counts = {key: dict.fromkeys(shares, 0) for key in members}
    placed: Counter[ClassKey] = Counter()

    def put(identifier: str, name: str) -> None:
        split_of[identifier] = name
        for key in classes_of[identifier]:
            counts[key][name] += 1
            placed[key] += 1

    def surplus(identifier: str, name: str) -> float:
        """Return how far a split would exceed its share of the row's classes, including this row."""
        keys = classes_of[identifier]
        return sum(weight[key] * (counts[key][name] - shares[name] * (placed[key] + 1)) for key in keys)

    # one row of each class in train, before another class can move that row to another split
    for key in rarest_first:
        if not placed[key]:
            put(members[key][0], "train")

    # all other rows
    for key in rarest_first:
        for identifier in members[key]:
            if identifier not in split_of:
                put(identifier, min(shares, key=lambda name: (counts[key][name] > 0, surplus(identifier, name))))
    listed = {name: [identifier for identifier in labels if split_of[identifier] == name] for name in SPLITS}
    return {**listed, "all": list(labels)}


def _group_by_class(labels: Labels, seed: int) -> tuple[dict[str, list[ClassKey]], dict[ClassKey, list[str]]]:
    """Return the classes of each image, and the images of each class in random order."""
    shuffled = sorted(labels)  # sorted first: the result must not depend on the order of the source
    random.Random(seed).shuffle(shuffled)
    members: dict[ClassKey, list[str]] = defaultdict(list)
    classes_of = {}
    for identifier in shuffled:
        known = [(attribute, value) for attribute, value in enumerate(labels[identifier]) if value]
        classes_of[identifier] = known or [(-1, "")]  # rows without any label form a class of their own
        for key in classes_of[identifier]:
            members[key].append(identifier)
    return classes_of, members


def read_splits(folder: Path) -> dict[str, list[str]]:
    """Read the split and the order of existing CSVs.

    Args:
        folder: folder with train.csv, val.csv, test.csv and possibly all.csv; each image_path ends in <id>.jpg.

    Returns:
        The ids of train, val, test and all. Without all.csv, all joins the three.

    Raises:
        InputError: if a file is missing, has no image_path or is not CSV, or if an image is listed twice.
    """
    # ids
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

    # repeated ids
    for listed in ([identifier for split in SPLITS for identifier in ids[split]], ids["all"]):
        if repeated := [identifier for identifier, count in Counter(listed).items() if count > 1]:
            raise InputError(f"--like {folder}: image {repeated[0]} is listed more than once: delete all rows but one")
    return ids


def only_known(listed: dict[str, list[str]], labels: Labels) -> tuple[dict[str, list[str]], int]:
    """Remove the ids that are not in the source.

    Returns:
        The remaining ids in the same order, and the number of different ids removed.

    Raises:
        InputError: if no id remains.
    """
    known = {name: [identifier for identifier in ids if identifier in labels] for name, ids in listed.items()}
    if not any(known.values()):
        raise InputError("--like: none of the images in its CSVs is in the source")
    return known, len({identifier for ids in listed.values() for identifier in ids if identifier not in labels})
