"""Preprocessing of a model's images: the backbone's, the command line's, and a checkpoint's."""

import json
from typing import Any

import pytest

from runtime.errors import UsageError
from timm.data.preprocessing import resolve_preprocessing

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
BACKBONE = {
    "input_size": (3, 160, 160),
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.95,
    "crop_mode": "squash",
    "url": "elsewhere",
}
CONFIG = resolve_preprocessing(BACKBONE, {"input_size": (3, 8, 8), "mean": MEAN, "std": STD, "crop_pct": 1.0})


def test_preprocessing_is_the_backbones_by_default() -> None:
    expected = {key: list(v) if isinstance(v, tuple) else v for key, v in BACKBONE.items() if key != "url"}
    assert resolve_preprocessing(BACKBONE, {"mean": None, "std": None, "interpolation": "", "lr": 0.1}) == expected


def test_settings_replace_the_backbones_preprocessing() -> None:
    given = {
        "input_size": [3, 96, 64],
        "interpolation": "bicubic",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 0.8,
        "crop_mode": "border",
    }
    assert resolve_preprocessing(BACKBONE, given) == given


def test_preprocessing_survives_a_file_and_is_resolved_from_itself() -> None:
    saved = json.loads(json.dumps(CONFIG))
    assert saved == CONFIG
    assert resolve_preprocessing(saved, {}) == CONFIG


def test_one_mean_serves_every_channel() -> None:
    config = resolve_preprocessing(BACKBONE, {"mean": [0.5], "std": [0.25]})
    assert (config["mean"], config["std"]) == ([0.5] * 3, [0.25] * 3)
    gray = resolve_preprocessing(BACKBONE, {"mean": [0.5], "input_size": (1, 8, 8)})
    assert gray["mean"] == [0.5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": [0.1, 0.2]}, r"mean takes one value or one for each channel, got \[0.1, 0.2\]"),
        ({"std": [0.1] * 4}, "std takes one value or one for each channel"),
        ({"mean": [0.1, 0.2, 0.3], "input_size": (1, 8, 8)}, "the same number of channels"),
    ],
)
def test_means_of_another_number_of_channels_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_preprocessing(BACKBONE, given)
