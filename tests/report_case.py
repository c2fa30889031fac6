"""Results of made-up models, for tests of reports: any number of images, classes and attributes, without a model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from reports.run_results import AttributeResults, ImageMap, RunResults


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def class_results(
    name: str, classes: Sequence[str], images: int, seed: int = 0, blank: float = 0.1, skill: float = 2.0
) -> AttributeResults:
    """Return the results of an attribute with one class an image; a few labels are outside the label space."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(rng.random(images) >= blank)
    count = len(classes)
    truth = np.minimum(rng.geometric(min(0.7, 2 / count + 0.02), len(rows)) - 1, count - 1)
    logits = rng.normal(size=(len(rows), count)) + skill * np.eye(count)[truth]
    outside = rng.random(len(rows)) < 0.01
    raw, calibrated = softmax(3 * logits), softmax(logits)
    predicted = logits.argmax(axis=1)
    return AttributeResults(
        name,
        list(classes),
        False,
        rows,
        np.where(outside, -1, truth),
        predicted,
        raw.astype(np.float32),
        calibrated.astype(np.float32),
        calibrated.max(axis=1),
        outside,
        3.0,
        truth == 0,
        logistic=rng.random(len(rows)) < 0.5,
        neighbors=51.0,
        trained=np.bincount(truth, minlength=count) * 3,
    )


def set_results(name: str, classes: Sequence[str], images: int, seed: int = 0) -> AttributeResults:
    """Return the results of an attribute with several values an image."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(rng.random(images) >= 0.1)
    truth = rng.random((len(rows), len(classes))) < 0.3
    chance = 1 / (1 + np.exp(-(2 * rng.normal(size=truth.shape) + 3 * truth - 1.5)))
    outside = np.zeros(len(rows), bool)
    predicted = chance >= 0.5
    confidence = np.where(predicted, chance, 1 - chance).prod(axis=1)
    return AttributeResults(
        name, list(classes), True, rows, truth, predicted, chance, chance, confidence, outside, 1.0, outside
    )


def run_results(
    attributes: Sequence[AttributeResults], images: int, points: int, names: str = "images/{}.jpg"
) -> RunResults:
    """Return results with a map of noisy pictures, the hardest to compress."""
    rng = np.random.default_rng(1)
    rows = np.unique(np.linspace(0, images - 1, points).round().astype(np.int64))
    tiles = rng.integers(0, 256, (len(rows), 40, 40, 3), dtype=np.uint8)
    places = rng.normal(size=(len(rows), 2))

    def picture(row: int) -> Image.Image | None:
        shades = np.random.default_rng(row).integers(0, 256, (80, 60, 3), dtype=np.uint8)
        return None if row % 11 == 5 else Image.fromarray(shades)  # some cannot be read

    found = [names.format(row) for row in range(images)]
    results = RunResults("val.csv", images, found, attributes, True, ImageMap(rows, places, 0.5, tiles), 100)
    return replace(results, picture=picture)
