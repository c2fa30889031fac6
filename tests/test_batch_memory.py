"""A batch that no memory holds is refused before workers make it."""

import pytest

from runtime import batch_memory
from runtime.batch_memory import check_batch_fits
from runtime.errors import UsageError


def test_a_batch_beyond_the_memory_is_refused_and_one_within_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_memory, "available_memory", lambda: 5 * 2 * 10 * 3 * 64 * 32)
    check_batch_fits(10, (3, 64, 32), views=2)
    check_batch_fits(50, (3, 64, 32), views=2, on_host=False)
    with pytest.raises(UsageError) as error:
        check_batch_fits(11, (3, 64, 32), views=2)
    assert str(error.value) == (
        "a batch of 11 images of 64 x 32 pixels takes 0.00 GiB before any activation, and 0.00 GiB are available: use "
        "a smaller batch_size or img_size"
    )


def test_without_an_estimate_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_memory, "available_memory", lambda: None)
    check_batch_fits(2**20, (3, 4096, 4096), views=2)
