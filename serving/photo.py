"""What a model says about one image: calibrated probabilities, what it abstains from, and where it looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from catalog.decode import as_image, as_pixels
from catalog.pictures import Pictures
from runtime.errors import UsageError
from serving.ensemble import Labels
from serving.grad_cam import grad_cam
from serving.multi_label import MultiLabel
from serving.selective import Selection
from timm.data.image_dataset import ImageDataset
from timm.data.view_maker import evaluation_view

MOST_CLASSES = 200  # the most probable ones of an attribute
MAPPED = 5  # the most probable classes of an attribute, whose maps are made

_SHOWN_SIDE = 384  # pixels of the shorter side of the picture that is shown, at least


def read_photo(model: MultiLabel, image: Image.Image, selections: Mapping[str, Selection]) -> dict[str, Any]:
    """Return what the model says about an image, in plain values.

    Args:
        model: the model.
        image: the image, in mode "RGB" or "L".
        selections: the confidence from which each attribute is predicted; attributes that are missing always are.

    Returns:
        `seen`, the address of a JPEG of what the model sees, with its own data; `size`, width and height of the model's
        input; `attributes`, each with `name`, `several`, `predicted`, `confidence`, `abstains`, `classes` (`name`,
        `probability`, `map` or None) and `hidden`, the number of further classes; `unmapped`, why there are no maps,
        or "". A map is rows of numbers 0-1; the region with 1 speaks most for the class.

    Raises:
        UsageError: there are several models.
    """
    dataset = ImageDataset([Pictures([image])])
    images, _ = next(iter(model.ensemble.batches(dataset, **model.loading | {"workers": 0})))
    labels = model.ensemble.label(images, 1, model.tta)
    ranked = {name: np.argsort(-_probabilities(one), kind="stable")[:MOST_CLASSES] for name, one in labels.items()}
    mapped = [(name, int(code)) for name, codes in ranked.items() for code in codes[:MAPPED]]
    maps, unmapped = {}, ""
    try:
        if mapped:
            maps = dict(zip(mapped, grad_cam(model.ready, images[0], mapped), strict=True))
    except UsageError as error:
        unmapped = str(error)
    classes = model.label_space.classes
    attributes = []
    for name, one in labels.items():
        values, confidence = _probabilities(one), float(one.confidence()[0])
        chosen = selections.get(name)
        attributes.append(
            {
                "name": name,
                "several": one.ranked is None,
                "predicted": [classes[name][code] for code in _predicted(one)],
                "confidence": confidence,
                "abstains": chosen is not None and not confidence > chosen.threshold,
                "classes": [
                    {"name": classes[name][code], "probability": float(values[code]), "map": _plain(maps, name, code)}
                    for code in ranked[name].tolist()
                ],
                "hidden": len(values) - len(ranked[name]),
            }
        )
    height, width = images[0].shape[2:]
    return {"seen": _seen(model, image), "size": [width, height], "attributes": attributes, "unmapped": unmapped}


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """Return an image as the bytes of a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _seen(model: MultiLabel, image: Image.Image) -> str:
    """Return the part of the image that the model sees, at a size for the screen."""
    config = model.ready.data_config
    channels, height, width = config["input_size"]
    factor = -(-_SHOWN_SIDE // min(height, width))
    larger = config | {"input_size": (channels, factor * height, factor * width)}
    pixels = as_pixels(image if channels == 3 else image.convert("L"))
    view = np.asarray(evaluation_view(larger, prefetched=True)(pixels))
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(as_image(view.transpose(1, 2, 0)))).decode()


def _probabilities(labels: Labels) -> np.ndarray[Any, np.dtype[np.float32]]:
    values: np.ndarray[Any, np.dtype[np.float32]] = labels.probabilities[0].float().cpu().numpy()
    return values


def _predicted(labels: Labels) -> list[int]:
    """Return the codes of the predicted class, or of the predicted values, the most probable first."""
    if labels.ranked is not None:
        return [int(labels.ranked[0, 0])]
    assert labels.predicted is not None
    values, chosen = _probabilities(labels), labels.predicted[0].cpu().numpy()
    return [code for code in np.argsort(-values, kind="stable").tolist() if chosen[code]]


def _plain(maps: Mapping[tuple[str, int], Any], name: str, code: int) -> list[list[float]] | None:
    """Return a map in plain numbers, the largest 1; None without a map, or if no region speaks for the class."""
    found = maps.get((name, code))
    if found is None or not found.max() > 0:
        return None
    return [[round(float(value), 3) for value in row] for row in found / found.max()]
