"""The optimizer and the schedule that the flags make."""

from typing import Any

import pytest
import torch
from torch import nn

from options.train import parse_train_args
from options.train_kwargs import optimizer_kwargs, schedule_kwargs
from training.optimization import fused, make_optimizer, make_scheduler, plateau_memory

CPU = torch.device("cpu")


def make(model: Any, *flags: str) -> torch.optim.Optimizer:
    """Return the optimizer that train.py's flags make."""
    args = parse_train_args(["DATA", *flags])
    return make_optimizer(model, CPU, args.lr, **optimizer_kwargs(args))


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "lookahead_adamw"])
def test_optimizers_of_pytorch_update_in_one_kernel(name: str) -> None:
    optimizer = make(nn.Linear(3, 2), "--opt", name)
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ["adamp", "lamb", "nadamw", "rmsprop", "lion"])
def test_other_optimizers_are_made_as_timm_makes_them(name: str) -> None:
    assert fused(CPU, name, {}, {}) == {}
    make(nn.Linear(3, 2), "--opt", name)


@pytest.mark.parametrize("choice", ["fused=False", "foreach=True", "differentiable=True"])
def test_another_form_of_an_optimizer_can_be_chosen(choice: str) -> None:
    optimizer = make(nn.Linear(3, 2), "--opt", "adamw", "--opt-kwargs", choice)
    assert not optimizer.param_groups[0]["fused"]


def test_other_devices_keep_pytorchs_own_choice() -> None:
    assert fused(torch.device("mps"), "adamw", {}, {}) == {}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_kernel_changes_the_weights_as_the_loop_does(name: str) -> None:
    after = []
    for flags in ([], ["--opt-kwargs", "fused=False", "foreach=False"]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 2)).double()
        optimizer = make(model, "--opt", name, "--lr", "0.1", "--weight-decay", "0.1", *flags)
        for _ in range(3):
            model(torch.randn(4, 7, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        after.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lookahead_sgd", "adamp"])
def test_centralized_gradients_have_no_mean_over_the_inputs_of_an_output(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5))
    optimizer = make(model, "--opt", name, "--gradient-centralization")
    model(torch.randn(2, 3, 3, 3)).square().sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    optimizer.step()
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        if gradient.ndim == 1:
            torch.testing.assert_close(parameter.grad, gradient)
            continue
        for own, given in zip(parameter.grad, gradient, strict=True):
            torch.testing.assert_close(own, given - given.sum() / given.numel())


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_biases_and_norms_are_neither_decayed_nor_scaled_by_layer(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    flags = ["--opt", name, "--weight-decay", "0.1", "--lr", "0.1"]
    optimizer = make(model, *flags)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight), id(model[2].weight)}
    moved = {}
    for size in 1.0, 1000.0:  # the size of the weights, with which a trust ratio grows
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(size)
                parameter.grad = torch.full_like(parameter, 0.5)
        make(model, *flags).step()
        moved[size] = [(size - parameter.detach()).mean().item() for parameter in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    for parameter, one, other in zip(names, *moved.values(), strict=True):
        if parameter in ("0.weight", "2.weight"):
            assert other > 50 * one
        else:
            assert other == pytest.approx(one, rel=1e-2)


@pytest.mark.parametrize(("interval", "waited"), [(1, 4), (2, 4), (3, 6), (7, 7)])
def test_patience_counts_epochs_whatever_the_interval_of_the_metric(interval: int, waited: int) -> None:
    args = parse_train_args(["DATA", "--sched", "plateau", "--patience-epochs", "3", "--warmup-epochs", "0"])
    optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=1.0)
    scheduler, _ = make_scheduler(optimizer, 1, False, interval, **schedule_kwargs(args))
    rates = []
    for epoch in range(9):  # the first score is the best; the first decay comes more than 3 epochs later
        scheduler.step(epoch + 1, None if epoch % interval else 50.0)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates.index(0.1) == waited


def test_a_plateau_saves_its_memory_and_takes_its_settings_from_the_flags() -> None:
    schedules = []
    for patience in ("5", "1"):
        args = parse_train_args(["DATA", "--sched", "plateau", "--patience-epochs", patience, "--warmup-epochs", "0"])
        optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=1.0)
        schedules.append(make_scheduler(optimizer, 1, False, **schedule_kwargs(args))[0])
    before, resumed = schedules
    for epoch in (1, 2):
        before.step(epoch, 50.0)
    memory = plateau_memory(before)
    assert memory is not None
    resumed.lr_scheduler.load_state_dict(memory)
    resumed.step(3, 50.0)  # the second bad epoch: one more than the new patience
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "words",
    [
        "cosine",
        "tanh",
        "poly",
        "constant",
        "wsd --decay-epochs 0.3",
        "rsqrt --decay-epochs 0.3",
        "cosine --lr-noise 0.5",
        "cosine --warmup-steps 0",
    ],
)
def test_the_rates_of_a_number_of_steps_do_not_depend_on_the_epochs(words: str) -> None:
    def rates(updates: int, *flags: str) -> list[float]:
        args = parse_train_args(["DATA", "--sched", *words.split(), *flags])
        optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=1.0)
        scheduler, epochs = make_scheduler(optimizer, updates, False, **schedule_kwargs(args))
        values = []
        for step in range(epochs * updates):
            values.append(optimizer.param_groups[0]["lr"])
            scheduler.step_update(step + 1)
            if (step + 1) % updates == 0:
                scheduler.step((step + 1) // updates, 50.0)
        return values

    one, many, whole = (rates(updates, "--steps", "20") for updates in (1, 7, 50))
    assert len(set(one)) > 1
    assert (len(one), len(many), len(whole)) == (20, 21, 50)
    assert one == many[:20] == whole[:20]
    if "--" not in words:
        epochs = ["--epochs", "20", "--warmup-epochs", "2", "--sched-on-updates"]
        cooldown = [] if words == "constant" else ["--cooldown-epochs", "0"]
        assert rates(1, *epochs, *cooldown) == pytest.approx(one)


@pytest.mark.parametrize(
    ("words", "epochs"), [("none", [1] * 4), ("plateau", [1e-4, 1, 1, 1]), ("step", None), ("multistep", None)]
)
def test_other_schedules_count_their_epochs_in_a_run_of_steps(words: str, epochs: list[float] | None) -> None:
    flags = ["--sched", words, "--steps", "26"] + ([] if words == "none" else ["--warmup-steps", "7"])
    flags += ["--decay-epochs", "2"] if words == "step" else []
    flags += ["--decay-milestones", "3"] if words == "multistep" else []
    args = parse_train_args(["DATA", *flags])
    optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=1.0)
    scheduler, number = make_scheduler(optimizer, 7, False, **schedule_kwargs(args))
    assert number == 4
    rates = []
    for step in range(28):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step + 1)
        if (step + 1) % 7 == 0:
            scheduler.step((step + 1) // 7, 50.0)
    if epochs:
        assert rates[::7] == pytest.approx(epochs)
        return
    assert rates[13] == 1
    first = 14 if words == "step" else next(step for step, rate in enumerate(rates) if step > 7 and rate < 1)
    assert rates[first : first + 7] == pytest.approx([0.1] * 7)
    assert first in (14, 20, 21)


def test_without_a_schedule_the_rate_stays_and_nothing_is_saved() -> None:
    args = parse_train_args(["DATA", "--sched", "none", "--lr", "0.5"])
    optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=args.lr)
    scheduler, epochs = make_scheduler(optimizer, 1, False, **schedule_kwargs(args))
    scheduler.step_update(1)
    scheduler.step(1, 50.0)
    assert (epochs, optimizer.param_groups[0]["lr"], plateau_memory(scheduler)) == (args.epochs, 0.5, None)
