"""Size, normalization and crop of a model's images, as plain lists that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.errors import UsageError
from timm.data import resolve_data_config

DataConfig = dict[str, Any]


def resolve_preprocessing(pretrained_cfg: Mapping[str, Any], overrides: Mapping[str, Any]) -> DataConfig:
    """Return timm's data config (input_size, interpolation, mean, std, crop_pct, crop_mode) as plain lists.

    Args:
        pretrained_cfg: the backbone's config, or the config that a checkpoint saved under the same keys.
        overrides: settings that replace the config's; None and empty values replace nothing.

    Raises:
        UsageError: the numbers of channels do not agree.
    """
    given = {key: value for key, value in overrides.items() if value not in (None, "")}
    for key in ("mean", "std"):
        if key in given and len(given[key]) not in (1, 3):
            raise UsageError(f"{key} takes one value or one for each channel, got {given[key]}")
    try:
        config = resolve_data_config(given, pretrained_cfg=dict(pretrained_cfg))
    except AssertionError as error:
        raise UsageError(f"mean, std and input_size must have the same number of channels: {given}") from error
    channels = config["input_size"][0]
    for key in ("mean", "std"):
        if len(config[key]) != channels:  # the backbone's statistics are for colors: gray images use their average
            config[key] = (sum(config[key]) / len(config[key]),) * channels
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
