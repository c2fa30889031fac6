"""Workers and their batches are limited to what shared memory has room for."""

import pytest

from timm.data import shared_memory
from timm.data.shared_memory import Prefetch, fitting_prefetch

MIB = 2**20


@pytest.mark.parametrize(
    ("free", "workers", "batch", "sharers", "expected"),
    [
        (None, 8, 10**12, 1, Prefetch(8, 2)),  # a system without a limit
        (100, 4, 9, 1, Prefetch(4, 2)),  # 4 * 2 and the 2 in use are 90 MiB
        (100, 4, 10, 1, Prefetch(4, 1)),
        (64, 4, 19, 1, Prefetch(1, 1)),  # Docker's default
        (64, 4, 64, 1, Prefetch(0, 1)),
        (100, 4, 9, 2, Prefetch(3, 1)),  # two processes share it
        (0, 0, 9, 1, Prefetch(0, 2)),
        (100, 4, 0, 1, Prefetch(4, 2)),
    ],
)
def test_batches_in_flight_fit(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int | None,
    workers: int,
    batch: int,
    sharers: int,
    expected: Prefetch,
) -> None:
    monkeypatch.setattr(shared_memory, "available_shared_memory", lambda: None if free is None else free * MIB)
    assert fitting_prefetch(workers, batch * MIB, sharers) == expected
    if expected == Prefetch(workers, 2):
        assert not caplog.messages
        return
    (sentence,) = caplog.messages
    assert sentence.startswith(f"Shared memory is short: /dev/shm has {free} MiB free, and {workers} workers fill ")
    assert ("the main process loads alone" in sentence) == (expected.workers == 0)
