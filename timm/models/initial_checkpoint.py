"""Starting from a checkpoint: what fits is taken, and what was taken and what is new is told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from catalog.label_space import LabelSpace
from runtime.errors import UsageError, first_line
from timm.models import clean_state_dict, load_state_dict
from timm.models.multi_label import MultiLabelModel
from timm.models.multi_label_checkpoint import (
    CheckpointError,
    StateDict,
    build_model,
    heads_are_untrained,
    read_checkpoint,
    without_auxiliary_norms,
)
from timm.models.pretrained_weights import STRANGERS

_logger = logging.getLogger(__name__)

_BACKBONE, _PROJECTOR = "backbone.", "projector."


def load_initial_checkpoint(model: MultiLabelModel, path: str | Path) -> None:
    """Load a checkpoint of ours, of the original, or plain backbone weights in timm's names.

    The backbone must fit completely: nothing of the model's may be missing in the file, and of the file's in the model
    timm's classifier alone, or a few tensors, which are named. A head is taken where its attribute has the same
    classes, the projection head where it has the same shape; the others stay new.

    Raises:
        UsageError: the file cannot be read or its backbone does not fit.
    """
    checkpoint = _read(path)
    given = _named_as_ours(model, path, checkpoint)
    own = model.state_dict()
    taken = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if any(name.startswith(_PROJECTOR) and name not in taken for name in (*own, *given)):  # whole or not at all
        taken = {name: value for name, value in taken.items() if not name.startswith(_PROJECTOR)}
    missing = [name for name in own if name.startswith(_BACKBONE) and name not in taken]
    strange = _strangers(model, given)
    too_strange = len(strange) > STRANGERS * len(given)
    arch, wanted = checkpoint.get("arch"), model.config["arch"]
    if (missing or too_strange) and isinstance(arch, str) and arch != wanted:
        raise UsageError(f"--initial-checkpoint: {path} is of {arch}, and --model is {wanted}: use --model {arch}")
    if missing:
        adapted = "" if _is_ours(given) else "; --pretrained-path adapts weights to another image size or channels"
        raise UsageError(
            f"--initial-checkpoint: {path} does not fit the backbone: {len(missing)} of its tensors are missing or "
            f"of another shape, the first being {missing[0]}{adapted}"
        )
    if too_strange:
        raise UsageError(
            f"--initial-checkpoint: {path} does not fit the backbone, which has no place for {len(strange)} of the "
            f"file's tensors, the first being {strange[0]}: name its own architecture with --model"
        )
    model.load_state_dict(taken, strict=False)
    new = sorted({_part(model, name) for name in own if name not in taken})
    kept = sorted({_part(model, name) for name in taken})
    _logger.info(f"{path}: took {', '.join(kept)}; {'new: ' + ', '.join(new) if new else 'nothing is new'}")
    if heads_are_untrained(checkpoint):
        _logger.info(f"{path} was trained with -wlc 0, so that its heads have learned nothing in that run")
    if strange:
        _logger.warning(f"{path}: the backbone has no place for {', '.join(strange)}, which stays out")


def _is_ours(given: StateDict) -> bool:
    return any(not name.startswith(_BACKBONE) for name in given)


def _strangers(model: MultiLabelModel, given: StateDict) -> list[str]:
    """Return the names in the file's backbone that the model's lacks, without those of timm's classifier."""
    classifier = model.pretrained_cfg.get("classifier") or ()
    classifiers = [classifier] if isinstance(classifier, str) else classifier
    expected = tuple(f"{_BACKBONE}{name}." for name in classifiers)
    own = model.state_dict()
    return [n for n in given if n.startswith(_BACKBONE) and n not in own and not n.startswith(expected)]


def _read(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint; of a bare file of weights one that holds these alone."""
    if not Path(path).is_file():
        raise UsageError(f"--initial-checkpoint: no file {path}")
    try:
        return read_checkpoint(path)
    except CheckpointError:
        try:
            weights = load_state_dict(str(path))
        except Exception as error:  # on garbage the readers raise whatever the bytes make them stumble over
            why = first_line(error) if isinstance(error, OSError) else "it is damaged or of another kind"
            raise UsageError(
                f"--initial-checkpoint: {path} cannot be read: {why}; give a .pth.tar of a run, or weights in timm's "
                "names (.safetensors, .pth)"
            ) from error
        return {"state_dict": {name: value for name, value in weights.items() if isinstance(value, Tensor)}}


def _named_as_ours(model: MultiLabelModel, path: str | Path, checkpoint: dict[str, Any]) -> StateDict:
    """Return the file's weights under this model's names, without heads that mean something else here."""
    weights = clean_state_dict(checkpoint["state_dict"])
    is_originals = any(name.startswith("base_model.") for name in weights)
    if not is_originals and "multi_label" not in checkpoint:
        return {f"backbone.{name}": value for name, value in weights.items()}
    return _heads_by_attribute(model, build_model(path, checkpoint, False, None))


def _heads_by_attribute(model: MultiLabelModel, source: MultiLabelModel) -> StateDict:
    """Return the source's weights with its heads moved to this model's places, where their classes are the same."""
    weights = {n: v for n, v in without_auxiliary_norms(source.state_dict()).items() if not n.startswith("heads.")}
    if source.label_space.attributes != model.label_space.attributes:
        weights.pop("log_variances", None)  # it would be another attribute's
    sources = list(source.label_space.attributes)
    for index, attribute in enumerate(model.label_space.attributes):
        if _same_head(source.label_space, model.label_space, attribute):
            head: StateDict = source.heads[sources.index(attribute)].state_dict()
            weights |= {f"heads.{index}.{part}": value for part, value in head.items()}
    return weights


def _same_head(one: LabelSpace, other: LabelSpace, attribute: str) -> bool:
    """Whether an attribute has the same classes in both, and in both one or several an image."""
    several = [attribute in space.multi_valued for space in (one, other)]
    return one.classes.get(attribute) == other.classes.get(attribute) and several[0] == several[1]


def _part(model: MultiLabelModel, name: str) -> str:
    part, _, rest = name.partition(".")
    return f"head {model.label_space.attributes[int(rest.split('.')[0])]}" if part == "heads" else part
