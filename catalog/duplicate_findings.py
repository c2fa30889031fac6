"""Findings about images that occur twice: leakage between splits, duplicates within one, contradicting labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from catalog.audited_rows import AuditedRows
from catalog.finding import Finding
from catalog.image_facts import ImageFacts
from catalog.near_duplicates import Pairs

Numbers = npt.NDArray[np.int64]
Partners = dict[int, list[tuple[float, int, bool]]]  # each image with its partners: score, image, mirrored


def exact_findings(rows: AuditedRows, facts: ImageFacts) -> Iterator[Finding]:
    """Yield a finding for each row whose pixels an earlier row has, in its split or in an earlier one.

    Args:
        rows: the rows.
        facts: what is known of their files.
    """
    images = facts.same[rows.file]
    for members in _repeated(images):
        seen: dict[int, dict[int, int]] = {}  # in each split, the first row of each file
        for row in members:
            split, file = int(rows.split[row]), int(rows.file[row])
            own, elsewhere = seen.get(split), [found for number, found in seen.items() if number != split]
            if elsewhere:
                yield _exact("leakage", row, file, elsewhere)
            if own:
                yield _exact("duplicate", row, file, [own])
            seen.setdefault(split, {}).setdefault(file, row)


def _exact(relation: str, row: int, file: int, places: list[dict[int, int]]) -> Finding:
    """Return the finding for a row whose pixels are in other places; one with the same file is the better to name."""
    same = next((found[file] for found in places if file in found), None)
    if same is not None:
        return Finding(f"{relation}-file", "is the file of", row, same)
    return Finding(f"{relation}-exact", "has the pixels of", row, next(iter(places[0].values())))


def pair_findings(rows: AuditedRows, facts: ImageFacts, pairs: Pairs, kind: str, measure: str) -> Iterator[Finding]:
    """Yield a finding for each image with a partner, in its split or in an earlier one: the most similar.

    Args:
        rows: the rows.
        facts: what is known of their files.
        pairs: pairs of files, each the first of its pixels.
        kind: "near" or "similar".
        measure: the name of the pairs' score.
    """
    first_row = _first_rows(rows, facts)
    for image, partners in _partners(pairs).items():
        for split, row in first_row[image].items():
            best: dict[str, tuple[float, int, bool]] = {}
            for score, other, mirrored in partners:
                for number, place in first_row[other].items():
                    if number < split:
                        best.setdefault("leakage", (score, place, mirrored))
                    elif number == split and place < row:
                        best.setdefault("duplicate", (score, place, mirrored))
            for relation, (score, place, mirrored) in best.items():
                looks = "is mirrored, and looks" if mirrored else "looks"
                yield Finding(f"{relation}-{kind}", f"{measure} {score:.2f}: it {looks} like", row, place)


def contradictions(rows: AuditedRows, facts: ImageFacts, pairs: Pairs) -> Iterator[Finding]:
    """Yield a finding for each label that contradicts the one of a duplicate.

    Args:
        rows: the rows.
        facts: what is known of their files.
        pairs: pairs of files that show the same photograph, each the first of its pixels.
    """
    images = facts.same[rows.file]
    partners = _partners(pairs)
    for attribute in rows.columns:
        codes = rows.codes(attribute)
        labeled = np.flatnonzero(codes >= 0)
        first: dict[int, int] = {}  # the first labeled row of each image
        for row in labeled[np.argsort(images[labeled], kind="stable")].tolist():
            earlier = first.setdefault(int(images[row]), row)
            if codes[earlier] != codes[row]:
                yield _contradiction(rows, attribute, row, earlier)
        for image, row in first.items():
            others = (first[other] for _, other, _ in partners.get(image, ()) if other in first)
            if (other := next((o for o in others if o < row and codes[o] != codes[row]), None)) is not None:
                yield _contradiction(rows, attribute, row, other)


def group_findings(rows: AuditedRows) -> Iterator[Finding]:
    """Yield a finding for each row whose group is in an earlier split too."""
    if rows.groups is None:
        return
    first: dict[tuple[int, int], int] = {}
    for row, (group, split) in enumerate(zip(rows.groups.tolist(), rows.split.tolist(), strict=True)):
        if group < 0:
            continue
        first.setdefault((group, split), row)
        earlier = next((first[group, number] for number in range(split) if (group, number) in first), None)
        if earlier is not None:
            yield Finding("leakage-group", f"{rows.group_names[group]!r} is also the group of", row, earlier)


def _contradiction(rows: AuditedRows, attribute: str, row: int, other: int) -> Finding:
    detail = f"{rows.cell(row, attribute)!r} here, and {rows.cell(other, attribute)!r} in"
    return Finding("contradiction", detail, row, other, attribute)


def _repeated(images: Numbers) -> Iterator[list[int]]:
    """Yield the rows of each image that has several, in order."""
    order = np.argsort(images, kind="stable")
    bounds = np.flatnonzero(np.diff(images[order])) + 1
    for members in np.split(order, bounds):
        if len(members) > 1:
            yield members.tolist()


def _first_rows(rows: AuditedRows, facts: ImageFacts) -> dict[int, dict[int, int]]:
    """Return the first row of each image in each split."""
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for row, (image, split) in enumerate(zip(facts.same[rows.file].tolist(), rows.split.tolist(), strict=True)):
        found[image].setdefault(split, row)
    return found


def _partners(pairs: Pairs) -> Partners:
    """Return the partners of each image, the most similar first."""
    found: Partners = defaultdict(list)
    columns = (pairs.first.tolist(), pairs.second.tolist(), pairs.score.tolist(), pairs.mirrored.tolist())
    for first, second, score, mirrored in zip(*columns, strict=True):
        found[first].append((score, second, mirrored))
        found[second].append((score, first, mirrored))
    for partners in found.values():
        partners.sort(key=lambda one: (-one[0], one[1]))
    return found
