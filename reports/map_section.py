"""The map of a split's images in a run's report: where the model's representations lie, with a picture of each."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from reports.page_style import escape, plain
from reports.run_results import AttributeResults, Ints, RunResults

_QUALITY = 72
_ATTRIBUTES = 12  # that the map can be colored by


def map_section(results: RunResults, points: int) -> tuple[str, dict[str, Any]]:
    """Return the section of the map, and what the page's script draws it from.

    Args:
        results: the results, with a map.
        points: number of images at most.
    """
    assert results.map is not None
    chosen = np.unique(
        np.linspace(0, len(results.map.rows) - 1, min(points, len(results.map.rows))).round().astype(int)
    )
    tiles, rows = results.map.tiles[chosen], results.map.rows[chosen]
    sprite, columns = _sprite(tiles)
    x, y = _scaled(results.map.places[chosen])
    attributes = results.attributes[:_ATTRIBUTES]
    data = {
        "x": x,
        "y": y,
        "tile": int(tiles.shape[1]),
        "columns": columns,
        "images": [plain(results.images[row], 80) for row in rows],
        "attributes": [_colors(one, rows, len(results.images), results.heads_trained) for one in attributes],
    }
    words = (
        f"Each point is one of {len(rows):,} images. Images that the model represents alike lie close together: these "
        f"are the first two principal components of h, with {100 * results.map.explained:.0f}% of its variance. Point "
        "at one, or move with the arrow keys. A class in the list shows its points alone."
    )
    choices = _choices(attributes, results.heads_trained)
    markup = f"""<section id="map"><h2>Map of the images</h2><p>{words}</p>
<div class="map">
<p><label>Color by <select class="by">{choices}</select></label></p>
<div class="both"><div class="field">
<canvas class="plane" tabindex="0" role="application" aria-label="Map: arrow keys move from image to image"></canvas>
<div class="legend" role="group" aria-label="Classes"></div></div>
<div class="beside"><canvas class="picture" role="img" aria-label="The chosen image"></canvas>
<div class="lines" role="status"></div></div></div>
<img id="sprite" src="{sprite}" alt="" hidden></div></section>"""
    return markup, data


def _choices(attributes: Any, predicts: bool) -> str:
    """Return the ways to color the points."""
    options = []
    for place, one in enumerate(attributes):
        if not one.multi_valued:
            options.append((f"{place} label", f"{one.name}: label"))
        if predicts and not one.multi_valued:
            options.append((f"{place} prediction", f"{one.name}: prediction"))
        if predicts:
            options.append((f"{place} right", f"{one.name}: right or wrong"))
    options = options or [("", "nothing")]
    return "".join(f'<option value="{value}">{escape(name)}</option>' for value, name in options)


def _colors(one: AttributeResults, rows: Ints, images: int, predicts: bool) -> dict[str, Any]:
    """Return the labels and predictions of the points for one attribute; -1 where the label is unknown."""
    place = np.full(images, -1)
    place[one.rows] = np.arange(len(one))
    places = place[rows].tolist()
    found: dict[str, Any] = {"name": plain(one.name), "names": [], "predictions": [-1] * len(places)}
    found["right"] = [int(predicts and place >= 0 and bool(one.right[place])) for place in places]
    if one.multi_valued:
        found["labels"] = [0 if place >= 0 else -1 for place in places]
        found["texts"] = [plain(one.label_text(place), 80) if place >= 0 else "no label" for place in places]
        return found
    labels = [int(one.truth[place]) if place >= 0 else -1 for place in places]
    predicted = [int(one.predicted[place]) if predicts and place >= 0 else -1 for place in places]
    # only the classes that occur among the points
    used = sorted({*labels, *predicted} - {-1})
    code = {old: new for new, old in enumerate(used)} | {-1: -1}
    found |= {"names": [plain(one.classes[old], 60) for old in used], "labels": [code[old] for old in labels]}
    return found | {"predictions": [code[old] for old in predicted]}


def _scaled(places: Any) -> tuple[list[int], list[int]]:
    """Return coordinates from 0 to 1000 that cut off at most a hundredth of the images at each side."""
    low, high = np.percentile(places, [0.5, 99.5], axis=0)
    span = np.where(high > low, high - low, 1)
    scaled = np.clip(1000 * (places - low) / span, 0, 1000).round().astype(int)
    return scaled[:, 0].tolist(), (1000 - scaled[:, 1]).tolist()


def _sprite(tiles: Any) -> tuple[str, int]:
    """Return small pictures [m, side, side, 3] as the address of one JPEG, and how many are in a row."""
    count, side = tiles.shape[:2]
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, side, side, 3), np.uint8)
    sheet[:count] = tiles
    pixels = sheet.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), columns
