"""Loss averages against loops, on one process and several, and the guard that ends a run whose loss is not finite."""

import random

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes

from runtime.errors import UsageError
from training.loss_meter import LossMeter, NonFiniteLossGuard, is_measured

NAMES = ["loss", "simclr_loss", "color_loss"]


def _steps(count: int, seed: int = 0) -> list[tuple[dict[str, float], int]]:
    """Draw the losses and the rows of some steps; no two steps have the same number of rows."""
    draw = random.Random(seed)
    sizes = draw.sample(range(1, 100), count)
    return [({name: draw.uniform(0, 10) for name in NAMES}, rows) for rows in sizes]


def _metered(steps: list[tuple[dict[str, float], int]]) -> LossMeter:
    meter = LossMeter()
    for losses, rows in steps:
        meter.update({name: torch.tensor(value) for name, value in losses.items()}, rows)
    return meter


def _mean_over_rows(steps: list[tuple[dict[str, float], int]]) -> dict[str, float]:
    """Add up every row by itself."""
    means = {}
    for name in NAMES:
        each_row = [losses[name] for losses, rows in steps for _ in range(rows)]
        means[name] = sum(each_row) / len(each_row)
    return means


def test_averages_are_over_rows_not_over_steps() -> None:
    steps = _steps(20)
    assert _metered(steps).averages() == pytest.approx(_mean_over_rows(steps), rel=1e-6)


def test_averages_can_be_read_at_any_step_and_reading_changes_nothing() -> None:
    steps = _steps(5)
    meter = LossMeter()
    for done, (losses, rows) in enumerate(steps, start=1):
        meter.update({name: torch.tensor(value) for name, value in losses.items()}, rows)
        for _ in range(2):
            assert meter.averages() == pytest.approx(_mean_over_rows(steps[:done]), rel=1e-6)


def test_values_are_the_last_steps() -> None:
    steps = _steps(5)
    assert _metered(steps).values() == pytest.approx(steps[-1][0], rel=1e-6)


def test_only_entries_that_end_in_loss_are_metered() -> None:
    meter = LossMeter()
    returned = meter.update(
        {"loss": torch.tensor(1.0), "output": torch.zeros(4, 3), "loss_scale": torch.tensor(8.0)}, rows=4
    )
    assert returned.tolist() == [1.0]
    assert meter.averages() == meter.values() == {"loss": 1.0}


def test_what_is_metered_keeps_no_graph_and_no_half_precision() -> None:
    weight = torch.ones((), requires_grad=True)
    meter = LossMeter()
    for _ in range(600):  # a sum in bfloat16 would stop growing at 256
        assert not meter.update({"loss": (weight * 1).bfloat16()}, rows=1).requires_grad
    assert meter.averages() == {"loss": 1.0}


def test_an_unused_meter_has_nothing_to_tell() -> None:
    assert LossMeter().values() == {}
    assert LossMeter().averages() == {}


def _share(sizes: list[int]) -> list[dict[str, float]]:
    """Meter this process's share of the steps; read the joint averages twice, and then its own."""
    first = sum(sizes[: dist.get_rank()])
    meter = _metered(_steps(sum(sizes))[first : first + sizes[dist.get_rank()]])
    return [meter.averages(distributed=True), meter.averages(distributed=True), meter.averages()]


@pytest.mark.parametrize("sizes", [[4, 4], [1, 6], [2, 5, 1]])
def test_several_processes_average_over_the_rows_of_all(sizes: list[int]) -> None:
    steps = _steps(sum(sizes))
    for rank, (joint, again, own) in enumerate(run_on_processes(len(sizes), _share, sizes)):
        assert joint == again == pytest.approx(_mean_over_rows(steps), rel=1e-6)
        first = sum(sizes[:rank])
        assert own == pytest.approx(_mean_over_rows(steps[first : first + sizes[rank]]), rel=1e-6)


FINE, NAN, INF = [3.0, 1.0, 2.0], [float("nan"), 1.0, float("nan")], [float("inf"), float("-inf"), 2.0]


def _watched(watch: NonFiniteLossGuard, steps: list[list[float]]) -> int | None:
    """Return the index of the step at which the watch ended the run, None where it did not."""
    for step, losses in enumerate(steps):
        try:
            watch.check(NAMES, torch.tensor(losses))
        except UsageError:
            return step
    return None


def test_finite_losses_never_end_a_run() -> None:
    assert _watched(NonFiniteLossGuard(lag=0), [FINE, [0.0, -1e30, 3e38]] * 10) is None


@pytest.mark.parametrize("broken", [NAN, INF])
def test_the_third_broken_loss_in_a_row_ends_the_run(broken: list[float]) -> None:
    assert _watched(NonFiniteLossGuard(lag=0), [FINE, broken, broken, broken, broken]) == 3


def test_a_finite_loss_in_between_starts_the_count_again() -> None:
    assert _watched(NonFiniteLossGuard(lag=0), [NAN, INF, FINE, NAN, NAN, FINE] * 3) is None
    assert _watched(NonFiniteLossGuard(lag=0), [NAN, NAN, FINE, NAN, INF, NAN]) == 5


@pytest.mark.parametrize("lag", [1, 2, 8])
def test_with_a_lag_the_run_ends_so_many_steps_later(lag: int) -> None:
    steps = [FINE, NAN, NAN, NAN] + [FINE] * lag
    assert _watched(NonFiniteLossGuard(lag), steps) == 3 + lag
    assert _watched(NonFiniteLossGuard(lag), steps[:-1]) is None


@pytest.mark.parametrize(
    ("broken", "named"), [(NAN, "color_loss was"), (INF, "simclr_loss was"), ([float("nan"), 1.0, 2.0], "loss was")]
)
def test_the_broken_term_is_named_and_the_sum_only_where_no_term_is_broken(broken: list[float], named: str) -> None:
    watch = NonFiniteLossGuard(lag=0)
    assert _watched(watch, [broken, broken]) is None
    with pytest.raises(UsageError, match=rf"^{named} not finite 3 steps in a row: lower --lr"):
        watch.check(NAMES, torch.tensor(broken))


def test_the_names_are_those_of_the_step_that_is_looked_at() -> None:
    watch = NonFiniteLossGuard(lag=1)
    for _ in range(3):
        watch.check(["shape_loss"], torch.tensor([float("nan")]))
    with pytest.raises(UsageError, match=r"^shape_loss was"):
        watch.check(["color_loss"], torch.tensor([1.0]))


@pytest.mark.parametrize(("steps", "measured"), [(1, 1), (7, 7), (39, 39), (40, 20), (1000, 20), (1010, 21)])
def test_about_twenty_steps_of_an_epoch_are_measured_with_the_first(steps: int, measured: int) -> None:
    assert sum(is_measured(step, steps) for step in range(steps)) == measured
    assert is_measured(0, steps)
