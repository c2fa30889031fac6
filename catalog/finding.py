"""What an audit finds: the kinds of findings, and what each says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "notice"]


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: error for what makes scores wrong or fails, warning for what should be looked at, notice for the rest.
        title: its heading.
        advice: what it means and what to do.
    """

    severity: Severity
    title: str
    advice: str


KINDS = {
    "unreadable": Kind("error", "Unreadable images", "The file is missing or damaged. Replace it, or delete the row."),
    "leakage-file": Kind(
        "error",
        "Leakage: the same file in two splits",
        "The model is scored on images that it was trained on, so scores are too high. Keep each image in one split.",
    ),
    "leakage-exact": Kind(
        "error",
        "Leakage: the same pixels in two splits",
        "Two files hold one image, and they are in two splits. Keep it in one of them.",
    ),
    "leakage-near": Kind(
        "error",
        "Leakage: nearly the same image in two splits",
        "One is the other encoded anew, resized, brightened, cropped or mirrored. Keep both in one split.",
    ),
    "leakage-similar": Kind(
        "error",
        "Leakage: similar images in two splits, for the model",
        "The model represents both almost equally. Look whether they show one product, which belongs in one split.",
    ),
    "leakage-group": Kind(
        "error",
        "Leakage: a group in two splits",
        "Rows that belong together are in two splits. Move the whole group into one.",
    ),
    "contradiction": Kind(
        "warning",
        "Labels of duplicates that contradict each other",
        "The same image has two labels of one attribute. Keep the right one.",
    ),
    "duplicate-file": Kind(
        "warning", "Repeated rows", "The row repeats the file of an earlier one. It counts more than once; delete it."
    ),
    "duplicate-exact": Kind(
        "warning", "Exact duplicates", "Two files of a split hold the same pixels. The image counts more than once."
    ),
    "duplicate-near": Kind(
        "warning",
        "Near duplicates",
        "One is the other encoded anew, resized, brightened, cropped or mirrored. The image counts more than once.",
    ),
    "duplicate-similar": Kind(
        "notice", "Similar images, for the model", "The model represents both images of a split almost equally."
    ),
    "tiny": Kind("warning", "Tiny images", "The shorter side has few pixels. Enlarging adds no detail."),
    "shape": Kind(
        "warning",
        "Oddly shaped images",
        "One side is several times as long as the other, so a square crop shows a small part, or squeezes it.",
    ),
    "uniform": Kind("warning", "Uniform images", "The image has almost one color: a placeholder, or an empty scan."),
    "dark": Kind("warning", "Dark images", "Almost all of the image is nearly black."),
    "blurred": Kind("warning", "Blurred images", "Even its strongest edges are soft."),
    "gray": Kind("notice", "Images without color", "A gray image teaches no color."),
    "remark": Kind("warning", "Remarks on the tables", "What reading the tables and their classes warned of."),
    "column": Kind(
        "warning",
        "Columns that are not attributes",
        "Training refuses such a column. Choose the attributes with --attributes, or correct the column.",
    ),
    "missing-column": Kind(
        "warning", "Missing columns", "A split lacks an attribute, and counts as blank in every row."
    ),
    "unseen-class": Kind(
        "warning",
        "Classes that training never sees",
        "The model cannot predict a class that the training table lacks; its images count as wrong.",
    ),
    "rare-class": Kind("notice", "Rare classes", "Few training images have the class. Collect more, or merge classes."),
    "rare-combination": Kind(
        "notice",
        "Combinations that occur once",
        "Two labels that are frequent alone are together in one row only. It may be a wrong label.",
    ),
    "absent-combination": Kind(
        "notice",
        "Combinations that never occur",
        "Two labels that are frequent alone are never together. A model cannot learn to tell such attributes apart.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: a key of `KINDS`.
        detail: what is wrong; if there is another row, its place follows.
        row: position among the audited rows; None if it concerns no single row.
        other: position of the row that it is compared with, or None.
        attribute: the attribute that it concerns, or "".
        split: number of the table if there is no row, or None.
    """

    kind: str
    detail: str
    row: int | None = None
    other: int | None = None
    attribute: str = ""
    split: int | None = None
