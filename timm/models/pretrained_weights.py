"""Pretrained weights of a backbone: fail early, with one message, when they are unavailable or do not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HTTPError
from torch import Tensor, nn

from runtime.errors import UsageError, first_line
from runtime.regular_file import irregular_file
from timm.models import load_state_dict
from timm.models.foreign_weights import foreign_backbone
from timm.models.multi_label_checkpoint import StateDict, load_content

_logger = logging.getLogger(__name__)

_HUB_TIMEOUT = 3.0  # seconds to wait for the hub, for each of its addresses
_BACKBONE = "backbone."
# Largest share of tensors without a counterpart: a model that was adapted, as to another pooling, has a few.
MAX_UNMATCHED = 0.1

Make = Callable[..., Any]


class DownloadError(UsageError):
    """Pretrained weights that neither the hub nor its cache provides; the message says which, and why."""


def create_from_file(arch: str, path: str, make: Make) -> Any:
    """Return a backbone with the weights of a local file, which timm adapts to channels, image size and pooling.

    Args:
        arch: the backbone's name, for messages.
        path: a file of weights in timm's names, of a checkpoint of ours, or in a format that timm converts.
        make: returns the backbone; takes timm's `pretrained` and `pretrained_cfg_overlay`.

    Raises:
        UsageError: the file is missing, cannot be read, or does not fit the backbone.
    """
    if fault := irregular_file(path):
        raise UsageError(f"pretrained_path: {fault}")
    if not Path(path).is_file():
        raise UsageError(f"pretrained_path: no file {path}")
    random_state = torch.get_rng_state()
    try:
        if path.endswith((".npz", ".npy")):  # the model's own method reads these, and checks their names
            return make(pretrained=True, pretrained_cfg_overlay={"file": path})
        weights = _backbone_weights(path, lambda: _names(make, random_state))
        backbone = make(pretrained=True, pretrained_cfg_overlay={"state_dict": weights})
        backbone.pretrained_cfg.pop("state_dict", None)  # the backbone has copied them
        _check_names(weights, backbone, lambda: _first_weights(make, random_state))
    except UsageError:
        raise
    except Exception as error:  # reading a foreign file can raise any type of error
        raise UsageError(
            f"pretrained_path: {path} does not fit {arch} ({first_line(error)}): give weights of {arch}"
        ) from error
    return backbone


def create_from_hub(arch: str, make: Make) -> Any:
    """Return a backbone with the weights that timm downloads, or that the local cache of the hub has.

    If the hub is out of reach, this fails within seconds instead of retrying for minutes. Cached weights need no hub.

    Args:
        arch: the backbone's name, for messages.
        make: returns the backbone; takes timm's `pretrained`.

    Raises:
        DownloadError: neither the hub nor its cache provides the weights.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline = before or not _hub_answers()
    try:
        return make(pretrained=True)
    except (OSError, HTTPError) as error:
        silent = "HF_HUB_OFFLINE is set" if before else f"{constants.ENDPOINT} does not answer"
        why = f"{silent} and the cache has none" if offline else first_line(error)
        raise DownloadError(f"the weights of {arch} cannot be downloaded ({why})") from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _backbone_weights(path: str, names: Callable[[], Collection[str]]) -> StateDict:
    """Return the weights in a file; from a checkpoint of ours only the backbone, averaged where the file has both.

    The names lose the prefix of our models here, because timm's filters recognize a format by its names. They also lose
    the prefix of another program, if all tensors of the backbone are below it.

    Args:
        path: the file.
        names: returns the names of the backbone's tensors.

    Raises:
        ValueError: the file has no tensors, or below a prefix only a part of the backbone's.
    """
    content = load_content(Path(path))
    weights: StateDict = load_state_dict(path)
    inside = {name.removeprefix(_BACKBONE): value for name, value in weights.items() if name.startswith(_BACKBONE)}
    if inside and isinstance(content, dict) and "multi_label" in content:
        return inside
    if foreign := foreign_backbone(content, weights, names()):
        if not foreign.fits:
            raise UsageError(f"pretrained_path: {path} does not fit the backbone: {foreign.refusal()}")
        _logger.info(f"{path}: {foreign.line()}")
        return foreign.weights
    if not any(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError("it holds no tensors")
    return inside or weights


def _names(make: Make, random_state: Tensor) -> Collection[str]:
    """Return the names of a backbone's tensors."""
    try:
        with torch.device("meta"):  # takes no time and no memory
            return list(make(pretrained=False).state_dict())
    except Exception:  # some backbones compute values when they are made
        return list(_first_weights(make, random_state))


def _first_weights(make: Make, random_state: Tensor) -> StateDict:
    """Return the weights that a backbone had before it loaded the file."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        state: StateDict = make(pretrained=False).state_dict()
    return state


def _check_names(weights: StateDict, backbone: nn.Module, first_weights: Callable[[], StateDict]) -> None:
    """Raise where the names of file and backbone do not match: timm ignores tensors without a counterpart.

    timm converts some formats to its names. So a tensor counts as missing only if it kept its first value. Where timm
    has converted names, the file's remaining names are not compared.

    Args:
        weights: the file's tensors by name.
        backbone: the model that timm has loaded them into.
        first_weights: returns the backbone's weights before loading.

    Raises:
        RuntimeError: more than a tenth of either side has no counterpart.
    """
    state = backbone.state_dict()
    known = {*state, *(name for name, _ in backbone.named_buffers())}  # files may hold buffers that a state leaves out
    unknown = [name for name in weights if name not in known and not in_classifier(name, backbone)]
    missing = [name for name in state if name not in weights and not name.endswith(".num_batches_tracked")]
    if missing:
        first = first_weights()
        kept = [name for name in missing if torch.equal(state[name], first[name])]
        if len(kept) < len(missing):
            unknown = []
        missing = kept
    if len(missing) > MAX_UNMATCHED * len(state) or len(unknown) > MAX_UNMATCHED * len(weights):
        raise RuntimeError(
            f"{len(missing)} tensors of the model are missing in it, and it has {len(unknown)} that the model lacks"
        )
    if missing:
        _logger.warning(f"The file of pretrained weights lacks {', '.join(missing)}, which keep their first weights")


def in_classifier(name: str, backbone: Any) -> bool:
    """Return whether a tensor belongs to timm's classifier, which a backbone lacks."""
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    classifiers = [classifier] if isinstance(classifier, str) else classifier
    return name.startswith(tuple(f"{layer}." for layer in classifiers))


def _hub_answers() -> bool:
    """Return whether the hub answers a request at all, through the proxy where there is one."""
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    except (OSError, HTTPError):
        return False
    return True
