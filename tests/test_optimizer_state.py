"""The state of an optimizer follows each weight by its name into other parameter groups."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from timm.optim import create_optimizer_v2
from training.optimizer_state import parameter_names, restore_optimizer

OPTIMIZERS = [
    *("sgd", "momentum", "adam", "adamw", "adamp", "nadamw", "lamb", "lars", "lion", "adan", "adafactor", "adabelief"),
    *("rmsproptf", "madgrad", "novograd", "adopt", "laprop", "mars", "muon", "radam", "lookahead_adamw", "cadamw"),
]


class Net(nn.Module):
    """Weights with one, two and four dimensions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.norm(self.conv(images)).mean(dim=(2, 3)))
        return scores


def step(model: nn.Module, optimizer: Any, number: int) -> None:
    torch.manual_seed(number)
    optimizer.zero_grad()
    model(torch.randn(6, 3, 5, 5)).square().sum().backward()
    optimizer.step()


def make(model: nn.Module, name: str, weight_decay: float, **settings: Any) -> Any:
    return create_optimizer_v2(model, opt=name, lr=0.01, weight_decay=weight_decay, **settings)


def trained(name: str, weight_decay: float, **settings: Any) -> tuple[Net, Any]:
    model = Net()
    optimizer = make(model, name, weight_decay, **settings)
    for number in range(7):  # lookahead has made a slow step
        step(model, optimizer, number)
    return model, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("before", "now"), [(0.05, 0.05), (0.05, 0.0), (0.0, 0.05)])
def test_the_next_step_is_that_of_the_same_optimizer_with_another_decay(name: str, before: float, now: float) -> None:
    model, optimizer = trained(name, before)
    again = deepcopy(model)
    fresh = make(again, name, now)
    saved = deepcopy(optimizer.state_dict())
    restore_optimizer(fresh, parameter_names(fresh, again), saved, parameter_names(optimizer, model))

    decays = {id(p): g["weight_decay"] for g in fresh.param_groups for p in g["params"]}
    decay_of = {name: decays[id(parameter)] for name, parameter in again.named_parameters()}
    groups = optimizer.param_groups  # the oracle: one group for each weight, with the decay that it has now
    named = parameter_names(optimizer, model)
    groups[:] = [
        {**deepcopy({**group, "params": []}), "params": [parameter], "weight_decay": decay_of[weight]}
        for group, weights in zip(groups, named, strict=True)
        for parameter, weight in zip(group["params"], weights, strict=True)
    ]
    for number in (7, 8):
        step(model, optimizer, number)
        step(again, fresh, number)
    for (weight, one), other in zip(model.named_parameters(), again.parameters(), strict=True):
        # lamb sums over the weights in another order
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7, msg=weight)


def test_new_settings_win_and_a_weight_without_a_state_starts_without() -> None:
    model, optimizer = trained("adamw", 0.05, betas=(0.9, 0.99))
    names = [name for group in parameter_names(optimizer, model) for name in group]
    saved = optimizer.state_dict()
    del saved["state"][names.index("head.weight")]  # as though the head had been frozen
    fresh = make(model, "adamw", 0.05, betas=(0.8, 0.9), eps=1e-3)
    restore_optimizer(fresh, parameter_names(fresh, model), saved, parameter_names(optimizer, model))
    assert all((group["betas"], group["eps"]) == ((0.8, 0.9), 1e-3) for group in fresh.param_groups)
    assert model.head.weight not in fresh.state
    assert set(fresh.state[model.head.bias]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_setting_that_needs_averages_which_were_not_kept_is_refused() -> None:
    for name, before, now, word in (
        ("rmsproptf", {"momentum": 0.0}, {"momentum": 0.9}, "momentum"),
        ("adamw", {}, {"amsgrad": True}, "amsgrad"),
    ):
        model, optimizer = trained(name, 0.0, **before)
        fresh = make(model, name, 0.0, **now)
        names = parameter_names(fresh, model)
        with pytest.raises(ValueError, match=f"its averages were made without {word}"):
            restore_optimizer(fresh, names, optimizer.state_dict(), names)
        restore_optimizer(optimizer, names, deepcopy(optimizer.state_dict()), names)


def test_a_file_without_names_is_taken_by_position_only_where_the_groups_are_as_large() -> None:
    model, optimizer = trained("adamw", 0.05)
    fresh = make(model, "adamw", 0.01)
    names = parameter_names(fresh, model)
    restore_optimizer(fresh, names, optimizer.state_dict(), None)
    assert torch.equal(fresh.state[model.head.bias]["exp_avg"], optimizer.state[model.head.bias]["exp_avg"])
    fresh = make(model, "adamw", 0.0)
    with pytest.raises(ValueError, match="does not name the weights"):
        restore_optimizer(fresh, parameter_names(fresh, model), optimizer.state_dict(), None)


@pytest.mark.parametrize(("name", "entry"), [("adamw", "exp_avg"), ("lamb", "exp_avg_sq"), ("muon", "exp_avg")])
def test_a_state_with_a_missing_entry_is_refused_by_the_name_of_its_weight(name: str, entry: str) -> None:
    model, optimizer = trained(name, 0.05)
    names, saved = parameter_names(optimizer, model), deepcopy(optimizer.state_dict())
    index = [weight for group in names for weight in group].index("head.bias")
    del saved["state"][index][entry]
    with pytest.raises(ValueError, match=f"its state of head.bias lacks {entry}"):
        restore_optimizer(make(model, name, 0.05), names, saved, names)
