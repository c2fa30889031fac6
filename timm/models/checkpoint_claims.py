"""What a checkpoint claims, checked before it is used: the file's checksums, and the type and range of each entry.

A checkpoint may come from anybody. `torch.load(weights_only=True)` runs no code from it, but it reads damaged weights
without a word, and believes any name, size and path.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_SIDE = 4096  # pixels; a larger input takes gigabytes for a single image
_MAX_COUNT = 16_384  # layers, channels, heads
_MAX_EPOCH = 10**9
_MAX_CLASSES = 10**7
_ARCH = re.compile(
    r"\w+(\.\w+)?", re.ASCII
)  # no hf-hub: or local-dir:, which would load code or weights from elsewhere
_SAVED = re.compile(r"checkpoint-\d{1,10}\.pth\.tar", re.ASCII)
_NOT_KWARGS = {"checkpoint_path", "cache_dir", "num_classes", "features_only", "scriptable", "exportable", "no_jit"}


class Claim(NamedTuple):
    """What an entry must be.

    Attributes:
        holds: function that says whether a value is so.
        words: what the value must be, to end the sentence "it must be ...".
        optional: whether the entry may be absent or None.
    """

    holds: Callable[[Any], bool]
    words: str
    optional: bool = True


def damage_of(path: Path) -> str | None:
    """Return what is wrong with a file that torch saved, or None: its checksums are read, which torch does not do."""
    if not zipfile.is_zipfile(path):
        return None  # another format, or not a checkpoint: the reader says so
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
            if packed:
                return f"its part {packed[0]} is compressed, which torch.save never does"
            if broken := archive.testzip():
                return f"its part {broken} is damaged"
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        return f"it is damaged ({error})"
    return None


def false_claim(content: Mapping[str, Any]) -> str | None:
    """Return a sentence about the first entry of a checkpoint that cannot be, or None if all can."""
    nested = content.get("multi_label")
    return (
        _first_false(content, _ENTRIES, "")
        or (_first_false(nested, _CONFIG, "multi_label.") if isinstance(nested, Mapping) else None)
        or _not_finite(content)
    )


def _first_false(content: Mapping[str, Any], claims: Mapping[str, Claim], prefix: str) -> str | None:
    for key, claim in claims.items():
        value = content.get(key)
        if value is None and claim.optional:
            continue
        if not claim.holds(value):
            return f"its entry {prefix}{key} is {_shown(value)}: it must be {claim.words}"
    return None


def _not_finite(content: Mapping[str, Any]) -> str | None:
    for key in ("state_dict", "state_dict_ema"):
        for name, value in (content.get(key) or {}).items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                return f"its weights {name} are not finite, as after training that diverged: take an earlier checkpoint"
    return None


def _shown(value: Any) -> str:
    """Return a value in at most 60 characters."""
    text = f"a {type(value).__name__}" if isinstance(value, Tensor | Mapping) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1000


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(weight, Tensor) and _is_stored(weight) for name, weight in value.items()
    )


def _are_lists_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(names, list) and all(map(_is_text, names)) for names in value)


def _is_stored(weight: Tensor) -> bool:
    """Return whether a file holds each number of a tensor: an expanded one of a few bytes could fill all memory."""
    if weight.layout != torch.strided or weight.is_quantized or weight.is_meta:
        return False
    return weight.numel() * weight.element_size() <= weight.untyped_storage().nbytes()


def _is_early_stop(value: Any) -> bool:
    counts = _or_none(_is_whole(0, _MAX_EPOCH))
    return isinstance(value, Mapping) and all(
        (counts if name in ("best_epoch", "since", "epochs") else _or_none(_is_number))(one)
        for name, one in value.items()
        if name != "metric"
    )


def _is_progress(value: Any) -> bool:
    counts = _is_whole(0, _MAX_EPOCH)
    lists = [value.get(key, []) for key in ("random", "sums")] if isinstance(value, Mapping) else [None]
    return all(isinstance(states, list) for states in lists) and all(
        counts(value.get(key, 0)) for key in ("epoch", "batch", "steps", "updates")
    )


def _by_attribute(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, Mapping) and all(isinstance(name, str) and holds(number) for name, number in value.items())
    )


def _is_saver(value: Any) -> bool:
    """Return whether a value is timm's history of a run's checkpoints, which names only files of the run's folder.

    The saver deletes the files that it names.
    """
    if not isinstance(value, Mapping):
        return False
    files, pending = value.get("checkpoint_files", []), value.get("pending", (None, None))
    metric = _or_none(lambda score: isinstance(score, int | float))  # which may be NaN
    epoch = _or_none(_is_whole(0, _MAX_EPOCH))
    return (
        _are_pairs([*files] if isinstance(files, list | tuple) else None, _is_saved_name, metric)
        and _are_pairs([pending], epoch, metric)
        and epoch(value.get("best_epoch"))
        and metric(value.get("best_metric"))
    )


def _is_saved_name(value: Any) -> bool:
    return isinstance(value, str) and _SAVED.fullmatch(value) is not None


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _are_pairs(values: Any, first: Callable[[Any], bool], second: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and first(pair[0]) and second(pair[1]) for pair in values
    )


def _is_image_size(value: Any) -> bool:
    side = _is_whole(1, MAX_SIDE)
    sizes = isinstance(value, list | tuple) and len(value) == 3
    return sizes and _is_whole(1, 64)(value[0]) and all(map(side, value[1:]))


def _are_kwargs(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and name not in _NOT_KWARGS
        and not name.startswith("pretrained")
        and _is_plain(setting, 4)
        for name, setting in value.items()
    )


def _is_plain(value: Any, depth: int) -> bool:
    """Return whether a value is made of texts, small numbers and short lists of them."""
    if value is None or isinstance(value, bool) or _is_text(value):
        return True
    if isinstance(value, int | float):
        return abs(value) <= _MAX_COUNT  # false for NaN
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    return (
        isinstance(value, list | tuple)
        and depth > 0
        and len(value) < 1000
        and all(_is_plain(v, depth - 1) for v in value)
    )


def _are_head_kwargs(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _HEADS[name](setting) if name in _HEADS else False for name, setting in value.items()
    )


def _is_label_space(value: Any) -> bool:
    """Return whether a value has the form and a size that LabelSpace.from_dict may read; it checks the names itself."""
    if not isinstance(value, Mapping):
        return False
    classes = value.get("classes")
    if not isinstance(classes, list | tuple) or not all(isinstance(names, list | tuple) for names in classes):
        return True  # its own sentence is more precise
    return sum(map(len, classes)) <= _MAX_CLASSES


def is_data_config(value: Any) -> bool:
    """Return whether a value is timm's data config, with which images can be prepared."""
    return (
        isinstance(value, Mapping)
        and all(_is_plain(setting, 2) for setting in value.values())
        and all(holds(value[name]) for name, holds in _PREPROCESSING.items() if value.get(name) is not None)
    )


def _are_channels(low: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list | tuple) and 0 < len(value) <= 64 and all(_is_number(v) and v >= low for v in value)
    )


_PREPROCESSING: dict[str, Callable[[Any], bool]] = {
    "input_size": _is_image_size,
    "crop_pct": lambda value: _is_number(value) and 0.01 <= value <= 100,
    "crop_mode": lambda value: value in ("center", "squash", "border"),
    "interpolation": lambda value: value in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
    "mean": _are_channels(-_MAX_COUNT),
    "std": _are_channels(1e-6),
}
_HEADS: dict[str, Callable[[Any], bool]] = {
    "projection_dim": _is_whole(0, _MAX_COUNT),
    "projection_layers": _is_whole(1, 64),
    "projection_norm": lambda value: value in ("none", "batch", "layer"),
    "drop_rate": lambda value: _is_number(value) and 0 <= value <= 1,
    "balance": lambda value: value in ("fixed", "uncertainty"),
}
_COUNT = Claim(_is_whole(0, _MAX_EPOCH), f"a whole number from 0 to {_MAX_EPOCH:,}")
_THRESHOLDS = Claim(_by_attribute(lambda value: _is_number(value) and 0 <= value <= 1), "numbers from 0 to 1 by name")
_TEMPERATURES = Claim(_by_attribute(lambda value: _is_number(value) and value > 0), "numbers above 0 by name")
_DICT = Claim(lambda value: isinstance(value, Mapping), "a dict")
_ARCHITECTURE = Claim(
    lambda value: _is_text(value) and _ARCH.fullmatch(value) is not None, "the name of a model of the installed timm"
)
_ENTRIES: dict[str, Claim] = {
    "state_dict": Claim(_is_weights, "tensors by name, with all their values", optional=False),
    "state_dict_ema": Claim(_is_weights, "tensors by name, with all their values"),
    "multi_label": _DICT,
    "arch": Claim(_is_text, "the name of a model"),
    "epoch": _COUNT,
    "version": _COUNT,
    "optimizer": _DICT,
    "parameter_names": Claim(_are_lists_of_text, "lists of the names of weights"),
    "amp_scaler": _DICT,
    "args": Claim(lambda value: isinstance(value, Mapping) or hasattr(value, "__dict__"), "the flags of a run"),
    "progress": Claim(_is_progress, "a dict with an epoch and a batch"),
    "plateau": _DICT,
    "early_stop": Claim(_is_early_stop, "the best score and the scorings since"),
    "thresholds": _THRESHOLDS,
    "thresholds_ema": _THRESHOLDS,
    "temperatures": _TEMPERATURES,
    "temperatures_ema": _TEMPERATURES,
    "pseudo": _DICT,
    "saver": Claim(_is_saver, "a history of files called checkpoint-N.pth.tar"),
}
_CONFIG: dict[str, Claim] = {
    "arch": _ARCHITECTURE._replace(optional=False),
    "model_kwargs": Claim(_are_kwargs, "settings of a network, without weights or paths", optional=False),
    "head_kwargs": Claim(_are_head_kwargs, f"settings of the heads: {', '.join(_HEADS)}", optional=False),
    "image_size": Claim(_is_image_size, f"channels, height and width, up to {MAX_SIDE:,} pixels", optional=False),
    "label_space": Claim(_is_label_space, "attributes and their classes", optional=False),
    "batch_norm": Claim(_by_attribute(_or_none(_is_number)), "numbers by name"),
    "data_config": Claim(is_data_config, "the preprocessing of images"),
}
