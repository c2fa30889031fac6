"""The optimizer that the flags make."""

from argparse import Namespace

import pytest
import torch
from torch import nn

from options import parse_train_args
from timm.task.optimization import fused, make_optimizer


def args_of(*flags: str) -> Namespace:
    args = parse_train_args(["DATA", "--device", "cpu", *flags])
    args.world_size = 1
    return args


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "lookahead_adamw"])
def test_optimizers_of_pytorch_update_in_one_kernel(name: str) -> None:
    optimizer = make_optimizer(args_of("--opt", name), nn.Linear(3, 2))
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ["adamp", "lamb", "nadamw", "rmsprop", "lion"])
def test_other_optimizers_are_made_as_timm_makes_them(name: str) -> None:
    assert fused(args_of("--opt", name)) == {}
    make_optimizer(args_of("--opt", name), nn.Linear(3, 2))


@pytest.mark.parametrize("choice", ["fused=False", "foreach=True", "differentiable=True"])
def test_another_form_of_an_optimizer_can_be_chosen(choice: str) -> None:
    optimizer = make_optimizer(args_of("--opt", "adamw", "--opt-kwargs", choice), nn.Linear(3, 2))
    assert not optimizer.param_groups[0]["fused"]


def test_other_devices_keep_pytorchs_own_choice() -> None:
    args = args_of("--opt", "adamw")
    args.device = "mps"
    assert fused(args) == {}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_kernel_changes_the_weights_as_the_loop_does(name: str) -> None:
    after = []
    for flags in ([], ["--opt-kwargs", "fused=False", "foreach=False"]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 2)).double()
        optimizer = make_optimizer(args_of("--opt", name, "--lr", "0.1", "--weight-decay", "0.1", *flags), model)
        for _ in range(3):
            model(torch.randn(4, 7, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        after.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
