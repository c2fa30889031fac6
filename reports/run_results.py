"""What a trained model predicts for each image of a split, from which its report is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AttributeResults:
    """The labeled images of a split for one attribute, n of them, and what the model says of them.

    Attributes:
        name: name of the attribute.
        classes: the names of its K classes.
        multi_valued: whether an image has any number of the classes.
        rows: index of each labeled image among the results' images, [n].
        truth: the label, int64 [n], -1 for a class that the model does not know; or a set of values, bool [n, K].
        predicted: the prediction, int64 [n] or bool [n, K].
        raw: probabilities without a temperature, [n, K].
        calibrated: probabilities, each half of the images with the temperature that fits the other half, [n, K].
        confidence: confidence of each prediction, from `calibrated`, [n].
        outside: whether a label holds a class or value that the model does not know, [n].
        temperature: the checkpoint's temperature; 1 without any.
        guess: whether the most frequent training label is right, [n].
        logistic: whether a logistic regression on the training images' representations is right, [n]; None without one.
        neighbors: accuracy of 20 nearest neighbors in percent; None if they were not searched.
        trained: number of training images of each class, [K]; None if the training table is not here.
    """

    name: str
    classes: Sequence[str]
    multi_valued: bool
    rows: Ints
    truth: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    raw: Floats
    calibrated: Floats
    confidence: Floats
    outside: Bools
    temperature: float
    guess: Bools
    logistic: Bools | None = None
    neighbors: float | None = None
    trained: Ints | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def right(self) -> Bools:
        """Whether each prediction is right, [n]; a set is right if all of its values are."""
        same = self.predicted == self.truth
        right: Bools = (same.all(axis=1) if self.multi_valued else same) & ~self.outside
        return right

    def label_text(self, place: int) -> str:
        """Return the label of a labeled image in words."""
        return self._text(self.truth[place], bool(self.outside[place]))

    def prediction_text(self, place: int) -> str:
        """Return the prediction for a labeled image in words."""
        return self._text(self.predicted[place], False)

    def _text(self, value: Any, outside: bool) -> str:
        unknown = ["a class that the model does not know"] if outside else []
        if self.multi_valued:
            return " | ".join([*(self.classes[code] for code in np.flatnonzero(value).tolist()), *unknown]) or "none"
        return unknown[0] if unknown else self.classes[int(value)]


@dataclass(frozen=True, eq=False)
class ImageMap:
    """Some images of a split on a plane, where the model's representations lie.

    Attributes:
        rows: index of each image among the results' images, [m].
        places: coordinates, [m, 2].
        explained: share of the representations' variance in the plane, 0-1.
        tiles: a small picture of each image, uint8 [m, side, side, 3].
    """

    rows: Ints
    places: Floats
    explained: float
    tiles: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class RunResults:
    """A model's predictions for a split.

    Attributes:
        split: the table's file name.
        total: number of images of the split.
        images: names of the images that were read; fewer than `total` if the split was thinned.
        attributes: the results of each attribute; empty if the model predicts nothing.
        heads_trained: whether labels have trained the heads; otherwise their predictions are guesses.
        map: the images on a plane; None without images.
        logistic_images: number of training images of the logistic regression; 0 without one.
        picture: returns the picture of an image by its index; None if it cannot be read.
    """

    split: str
    total: int
    images: Sequence[str]
    attributes: Sequence[AttributeResults]
    heads_trained: bool
    map: ImageMap | None
    logistic_images: int = 0
    picture: Callable[[int], Image.Image | None] = lambda row: None

    def right(self) -> Floats:
        """Return 1 where a prediction is right, 0 where it is wrong and NaN where the label is unknown, [A, N]."""
        found = np.full((len(self.attributes), len(self.images)), np.nan)
        for place, one in enumerate(self.attributes):
            found[place, one.rows] = one.right
        return found
