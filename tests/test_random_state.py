import random

import numpy as np
import pytest
import torch
from flag_effects import ON_GPU

from runtime.random_state import (
    get_random_state,
    get_torch_random_state,
    preserved_random_state,
    replayed_random_state,
    seed_all,
    set_random_state,
)


def draw():
    """Draw from each of the three streams."""
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()  # noqa: NPY002


def test_seeds_differ_by_seed_process_and_epoch():
    drawn = set()
    for seed in (0, 42, -1):
        for rank in range(4):
            for epoch in range(8):
                seed_all(seed, rank, epoch)
                drawn.add(draw())
    assert len(drawn) == 3 * 4 * 8
    assert len({value for values in drawn for value in values[:1]}) == len(drawn)


def test_the_same_seed_draws_the_same_from_every_stream():
    seed_all(42, rank=1, epoch=3)
    first = draw()
    seed_all(42, rank=1, epoch=3)
    assert draw() == first


def test_restoring_the_state_repeats_what_python_numpy_and_torch_drew():
    seed_all(1)
    draw()  # a normal number leaves its pair in the state
    state = get_random_state()
    expected = [draw() for _ in range(400)]  # more than the 624 words of a Mersenne twister
    seed_all(2)
    set_random_state(state)
    assert [draw() for _ in range(400)] == expected


def test_the_state_survives_a_safe_load(tmp_path):
    seed_all(7)
    draw()
    torch.save({"random": get_random_state()}, tmp_path / "state.pth")
    expected = draw()
    seed_all(8)
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True)["random"])
    assert draw() == expected


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
def test_a_replay_draws_the_same_and_leaves_the_stream_where_it_was(device):
    device = torch.device(device)
    seed_all(3)
    state = get_torch_random_state(device)
    first = torch.rand(5, device=device)
    before = get_torch_random_state(device)
    with replayed_random_state(state, device):
        assert torch.equal(torch.rand(5, device=device), first)
    assert all(torch.equal(a, b) for a, b in zip(get_torch_random_state(device), before, strict=True))


def test_what_is_drawn_in_between_leaves_the_stream_where_it_was():
    seed_all(4)
    expected = draw()
    seed_all(4)
    with preserved_random_state():
        draw()
    assert draw() == expected
