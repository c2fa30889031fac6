"""Starting a run from a checkpoint: load the parts that fit, and log which are loaded and which are new."""

from __future__ import annotations

import logging
from pathlib import Path

from catalog.label_space import LabelSpace
from runtime.errors import UsageError, first_line
from runtime.regular_file import irregular_file
from timm.models.foreign_weights import foreign_backbone
from timm.models.multi_label import MultiLabelModel, build_model
from timm.models.multi_label_checkpoint import (
    Checkpoint,
    CheckpointError,
    StateDict,
    load_content,
    read_checkpoint,
    without_auxiliary_norms,
)
from timm.models.pretrained_weights import MAX_UNMATCHED, in_classifier

_logger = logging.getLogger(__name__)

_BACKBONE, _PROJECTOR = "backbone.", "projector."


def load_initial_checkpoint(model: MultiLabelModel, path: str | Path) -> None:
    """Load a checkpoint of ours, of the original, or plain backbone weights in timm's names.

    The file must have all tensors of the model's backbone. It may have timm's classifier and a few more tensors, which
    a warning names. A head is loaded if its attribute has the same classes, the projection head if it has the same
    shape; other heads stay new.

    Raises:
        UsageError: the file cannot be read or its backbone does not fit.
    """
    checkpoint = _read(path)
    given = _under_model_names(model, checkpoint)
    current = model.state_dict()
    loaded = {name: value for name, value in given.items() if name in current and current[name].shape == value.shape}
    if any(name.startswith(_PROJECTOR) and name not in loaded for name in (*current, *given)):  # whole or not at all
        loaded = {name: value for name, value in loaded.items() if not name.startswith(_PROJECTOR)}
    unmatched = _unmatched(model, given)
    _require_backbone(model, checkpoint, given, loaded, unmatched)
    model.load_state_dict(loaded, strict=False)
    # the log
    new = sorted({_part(model, name) for name in current if name not in loaded})
    kept = sorted({_part(model, name) for name in loaded})
    _logger.info(f"{path}: took {', '.join(kept)}; {'new: ' + ', '.join(new) if new else 'nothing is new'}")
    if checkpoint.heads_are_untrained:
        _logger.info(f"{path} was trained with classification_loss_weight 0: its heads learned nothing in that run")
    if unmatched:
        _logger.warning(f"{path}: the backbone has no place for {', '.join(unmatched)}: not loaded")


def _require_backbone(
    model: MultiLabelModel, checkpoint: Checkpoint, given: StateDict, loaded: StateDict, unmatched: list[str]
) -> None:
    """Raise where the file's backbone is not the model's.

    Args:
        model: the model.
        checkpoint: the file.
        given: its weights under the model's names.
        loaded: those weights that have a place in the model.
        unmatched: names in the file's backbone that the model lacks.
    """
    path, arch, wanted = checkpoint.path, checkpoint.arch, model.config["arch"]
    missing = [name for name in model.state_dict() if name.startswith(_BACKBONE) and name not in loaded]
    too_many = len(unmatched) > MAX_UNMATCHED * len(given)
    if (missing or too_many) and isinstance(arch, str) and arch != wanted:
        raise UsageError(f"initial_checkpoint: {path} holds a {arch}, and arch is {wanted}: use arch {arch}")
    if missing:
        bare = all(name.startswith(_BACKBONE) for name in given)
        advice = "; pretrained_path adapts weights to another image size or channels" if bare else ""
        raise UsageError(
            f"initial_checkpoint: {path} does not fit the backbone: {len(missing)} tensors are missing or have "
            f"another shape, the first being {missing[0]}{advice}"
        )
    if too_many:
        raise UsageError(
            f"initial_checkpoint: {path} does not fit the backbone, which lacks {len(unmatched)} tensors of the "
            f"file, the first being {unmatched[0]}: set arch to the architecture of the file"
        )


def _unmatched(model: MultiLabelModel, given: StateDict) -> list[str]:
    """Return the names in the file's backbone that the model lacks, without timm's classifier."""
    current = model.state_dict()
    extra = [name for name in given if name.startswith(_BACKBONE) and name not in current]
    return [name for name in extra if not in_classifier(name.removeprefix(_BACKBONE), model.backbone)]


def _read(path: str | Path) -> Checkpoint:
    """Read the file, or say in one sentence why that failed."""
    if fault := irregular_file(path):
        raise UsageError(f"initial_checkpoint: {fault}")
    if not Path(path).is_file():
        raise UsageError(f"initial_checkpoint: no file {path}")
    try:
        return read_checkpoint(path, bare=True)
    except CheckpointError as error:
        cause = error.__cause__
        why = first_line(cause) if isinstance(cause, OSError) else "it is damaged or of another kind"
        raise UsageError(
            f"initial_checkpoint: {path} cannot be read: {why}; give a .pth.tar of a run, or weights in timm's "
            "names (.safetensors, .pth)"
        ) from error


def _under_model_names(model: MultiLabelModel, checkpoint: Checkpoint) -> StateDict:
    """Return the file's weights under this model's names, without heads that have other classes here."""
    if checkpoint.config is None and not checkpoint.is_original:
        return {f"{_BACKBONE}{name}": value for name, value in _plain_weights(model, checkpoint).items()}
    return _heads_by_attribute(model, build_model(checkpoint))


def _plain_weights(model: MultiLabelModel, checkpoint: Checkpoint) -> StateDict:
    """Return the backbone in a file of another program, without the prefix of its names.

    Raises:
        UsageError: only a part of the backbone is below a prefix.
    """
    content = load_content(checkpoint.path)
    foreign = foreign_backbone(content, checkpoint.state_dict, list(model.backbone.state_dict()))
    if foreign is None:
        return checkpoint.state_dict
    if not foreign.fits:
        raise UsageError(f"initial_checkpoint: {checkpoint.path} does not fit the backbone: {foreign.refusal()}")
    _logger.info(f"{checkpoint.path}: {foreign.line()}")
    return foreign.weights


def _heads_by_attribute(model: MultiLabelModel, source: MultiLabelModel) -> StateDict:
    """Return the source's weights, with heads renumbered as in this model; leave out heads with other classes."""
    weights = {n: v for n, v in without_auxiliary_norms(source.state_dict()).items() if not n.startswith("heads.")}
    if source.label_space.attributes != model.label_space.attributes:
        weights.pop("log_variances", None)  # its entries would belong to other attributes
    sources = list(source.label_space.attributes)
    for index, attribute in enumerate(model.label_space.attributes):
        if _same_head(source.label_space, model.label_space, attribute):
            head: StateDict = source.heads[sources.index(attribute)].state_dict()
            weights |= {f"heads.{index}.{part}": value for part, value in head.items()}
    return weights


def _same_head(one: LabelSpace, other: LabelSpace, attribute: str) -> bool:
    """Return whether an attribute has the same classes in both, and is multi-valued in both or in neither."""
    several = [attribute in space.multi_valued for space in (one, other)]
    return one.classes.get(attribute) == other.classes.get(attribute) and several[0] == several[1]


def _part(model: MultiLabelModel, name: str) -> str:
    part, _, rest = name.partition(".")
    return f"head {model.label_space.attributes[int(rest.split('.')[0])]}" if part == "heads" else part
