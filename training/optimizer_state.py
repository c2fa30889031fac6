"""The state of an optimizer in a checkpoint, which follows each weight by its name into other parameter groups."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

Names = list[list[str]]

_COUNTERS = ("step", "lookahead_step")  # what some optimizers count in their groups; all else there follows from flags
_STATEFUL = ("momentum", "amsgrad", "centered", "beta1")  # settings that, where they are on, need a state of their own


def parameter_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> Names:
    """Return the names of an optimizer's weights in the model, by parameter group and in its order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Names, saved: dict[str, Any], saved_names: Names | None
) -> None:
    """Give each weight the state that it had, however the weights were grouped.

    The settings of the groups stay as they are, because flags win over the checkpoint. A weight that had no state,
    such as one that was frozen, starts without.

    Args:
        optimizer: new optimizer; receives the state.
        names: names of its weights, by group.
        saved: the state of the checkpoint's optimizer.
        saved_names: names of that one's weights, by group; None in older files.

    Raises:
        ValueError: a sentence that says why the state is of no use here.
    """
    fresh = optimizer.state_dict()["param_groups"]
    groups = saved["param_groups"]
    if saved_names is None:
        if [len(group["params"]) for group in groups] != [len(group) for group in names]:
            raise ValueError("it does not name the weights in its parameter groups, and these flags group them anew")
        saved_names = names
    place = {
        name: (group, index)
        for group, members in zip(groups, saved_names, strict=True)
        for name, index in zip(members, group["params"], strict=True)
    }
    merged: list[dict[str, Any]] = []
    state: dict[int, Any] = {}
    for group, members in zip(fresh, names, strict=True):
        known = [name for name in members if name in place]
        before = place[known[0]][0] if known else {}
        merged.append({**group, **{name: deepcopy(before[name]) for name in _COUNTERS if name in before}})
        indices = dict(zip(members, group["params"], strict=True))
        kept = {indices[name]: saved["state"][index] for name in known if (index := place[name][1]) in saved["state"]}
        _check_complete(dict(zip(group["params"], members, strict=True)), kept)
        for setting in _STATEFUL if kept else ():
            if group.get(setting) and not before.get(setting):
                raise ValueError(f"its averages were made without {setting}, which needs one of its own")
        state |= kept
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def _check_complete(names: dict[int, str], states: dict[int, dict[str, Any]]) -> None:
    """Raise a ValueError if the state of a weight lacks an entry of another weight's in its parameter group.

    Weights of one group may have states of two kinds, as with Muon, but none of a kind's entries is missing then.
    """
    kinds = {frozenset(state) for state in states.values()}
    for index, state in states.items():
        if fuller := next((kind for kind in kinds if state and kind > state.keys()), None):
            raise ValueError(f"its state of {names[index]} lacks {min(fuller - state.keys())}")
