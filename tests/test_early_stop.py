"""The run stops after as many scorings without a better one as asked, and a resumed one at the same epoch."""

from types import SimpleNamespace
from typing import cast

import torch.distributed as dist
from distributed import run_on_processes
from hypothesis import given
from hypothesis import strategies as st

from training.early_stop import EarlyStop
from training.loop import stops_early
from training.run import Run

SCORES = st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), max_size=20)


def stops_at(scores: list[float | None], patience: int, decreasing: bool) -> int | None:
    """Return the epoch after which a run stops, by the definition; None for never."""
    for epoch in range(len(scores)):
        known = [value for value in scores[: epoch + 1] if value is not None]
        if scores[epoch] is None or not known:
            continue
        best = min(known) if decreasing else max(known)
        if len(known) - 1 - known.index(best) >= patience:
            return epoch
    return None


@given(SCORES, st.integers(1, 4), st.booleans(), st.integers(0, 20))
def test_it_stops_where_the_definition_says_and_so_does_a_resumed_run(
    scores: list[float | None], patience: int, decreasing: bool, killed: int
) -> None:
    stop, found = EarlyStop("top1", decreasing, patience), None
    for epoch, value in enumerate(scores):
        if epoch == killed:
            state, stop = stop.state(), EarlyStop("top1", decreasing, patience)
            stop.restore(state)
        stop.record(epoch, value)
        if stop.is_over:
            found = epoch
            break
    assert found == stops_at(scores, patience, decreasing)
    if found is not None:
        assert stop.epochs == found + 1


def test_without_patience_it_never_stops_but_counts() -> None:
    stop = EarlyStop("top1")
    for epoch in range(9):
        stop.record(epoch, 1.0)
    assert not stop.is_over
    assert stop.since == 8


def test_the_state_of_another_metric_or_of_an_older_file_is_not_taken() -> None:
    for state in ({"metric": "loss", "best": 9.0, "best_epoch": 0, "since": 5, "epochs": 6}, None, {}):
        stop = EarlyStop("top1", False, 1)
        stop.restore(state)
        assert stop == EarlyStop("top1", False, 1)


def _stops(values: list[list[float]]) -> tuple[int, float | None]:
    """Return the epoch after which this process stops, given each process's values, and its best value."""
    rank = dist.get_rank()
    run = cast(Run, SimpleNamespace(early_stop=EarlyStop("top1", False, 2), process=SimpleNamespace(world_size=2)))
    stopped = next(epoch for epoch, value in enumerate(values[rank]) if stops_early(run, epoch, value))
    return stopped, run.early_stop.best


def test_processes_with_different_values_stop_after_the_same_epoch() -> None:
    values = [[1.0, 3.0, 2.0, 2.0, 9.0, 1.0, 1.0], [1.0, 0.5, 0.5, 9.0, 9.0, 9.0, 9.0]]
    assert run_on_processes(2, _stops, values, timeout=300) == [(3, 3.0), (3, 3.0)]
