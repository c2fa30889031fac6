"""Images without labels beside a table, and the order that mixes them into every batch."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catalog.data_error import DataError
from catalog.label_space import UNKNOWN
from catalog.table import build_label_space, encode_targets, read_table
from catalog.unlabeled import shared_images, with_unlabeled
from runtime.errors import UsageError
from timm.data.mixed_sampler import MixedSampler


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a folder with a table of three images, and five more images in two folders and a table."""
    for name in ("a", "b", "c", "more/d", "more/below/e", "more/f", "g", "h"):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    (tmp_path / "train.csv").write_text("image_path,kind\na.png,x\nb.png,y\nc.png,\n")
    (tmp_path / "others.csv").write_text("image_path,kind,price\ng.png,z,3\na.png,y,4\nh.png,,5\n")
    return tmp_path


def names(table) -> list[str]:
    return [Path(table.image_path(row)).name for row in range(len(table))]


def test_images_of_another_table_among_those_added_are_counted(shop, monkeypatch) -> None:
    monkeypatch.chdir(shop)
    others = read_table("others.csv")
    for inputs, count in (["more"], 0), (["more", "g.png"], 1), (["."], 2):
        assert shared_images(with_unlabeled(read_table("train.csv"), inputs), others) == count
    assert shared_images(read_table("train.csv"), others) == 0  # a.png is a row of the training table itself


@pytest.mark.parametrize(
    ("inputs", "added"),
    [
        (["more"], ["d.png", "e.png", "f.png"]),
        (["more/*.png"], ["d.png", "f.png"]),
        (["more/**/*.png"], ["d.png", "e.png", "f.png"]),
        (["others.csv"], ["g.png", "h.png"]),
        (["g.png", "others.csv", "g.png"], ["g.png", "h.png"]),
        (["."], ["d.png", "e.png", "f.png", "g.png", "h.png"]),
    ],
    ids=str,
)
def test_images_that_the_table_lacks_are_added_once_and_have_no_labels(shop, monkeypatch, inputs, added) -> None:
    monkeypatch.chdir(shop)
    table = read_table("train.csv")
    space = build_label_space(table)
    more = with_unlabeled(table, inputs)
    assert names(more)[:3] == ["a.png", "b.png", "c.png"]
    assert sorted(names(more)[3:]) == added
    assert more.unlabeled == len(added)
    targets = encode_targets(more, space, strict=True)
    assert targets[:3, 0].tolist() == [0, 1, UNKNOWN]
    assert (targets[3:] == UNKNOWN).all()
    assert build_label_space(more) == space
    for row in range(3, len(more)):
        assert Path(more.image_path(row)).is_file()


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (["nowhere"], "no such image, folder or table: nowhere"),
        (["*.webp"], r"--unlabeled \*.webp: nothing matches the pattern"),
        (["a.png"], "--unlabeled a.png: all its images are in train.csv already"),
    ],
    ids=str,
)
def test_what_adds_nothing_is_told(shop, monkeypatch, inputs, sentence) -> None:
    monkeypatch.chdir(shop)
    with pytest.raises(DataError, match=sentence):
        with_unlabeled(read_table("train.csv"), inputs)


@given(
    labeled=st.integers(1, 60), unlabeled=st.integers(1, 60), batch=st.integers(1, 8), extra=st.integers(1, 8),
    processes=st.integers(1, 3), seed=st.integers(-5, 2**40),
)  # fmt: skip
def test_each_batch_has_its_share_and_no_image_twice(labeled, unlabeled, batch, extra, processes, seed) -> None:
    def sampler(rank: int) -> MixedSampler:
        rows = range(labeled), range(labeled, labeled + unlabeled)
        return MixedSampler(*rows, batch, extra, seed=seed, rank=rank, processes=processes)

    if unlabeled < extra * processes:
        with pytest.raises(UsageError, match="lower --unlabeled-ratio"):
            sampler(0)
        return
    ranks = [sampler(rank) for rank in range(processes)]
    steps, turns = labeled // (batch * processes), []
    for epoch in range(4):
        rows, mixed = [], []
        for rank in ranks:
            rank.set_epoch(epoch)
            order = list(rank)
            assert order == list(rank)
            assert len(order) == len(rank) == steps * (batch + extra)
            batches = [order[i : i + batch + extra] for i in range(0, len(order), batch + extra)]
            assert all(max(b[:batch]) < labeled <= min(b[batch:]) for b in batches)
            assert all(max(b) < labeled + unlabeled for b in batches)
            rows += [row for b in batches for row in b[:batch]]
            mixed.append([b[batch:] for b in batches])
        assert len(rows) == len(set(rows)) == steps * batch * processes, "each row comes once in an epoch"
        turns += [list(chain(*step)) for step in zip(*mixed, strict=True)]
    length = unlabeled // (extra * processes)
    for start in range(0, len(turns), length):
        turn = list(chain(*turns[start : start + length]))
        assert len(turn) == len(set(turn)), "no image comes again before the others have come"


def test_epochs_turns_and_seeds_have_orders_of_their_own() -> None:
    def orders(seed: int) -> list[list[int]]:
        sampler, found = MixedSampler(range(16), range(16, 24), 8, 4, seed=seed), []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            found.append(list(sampler))
        return found

    first = orders(1)
    assert first == orders(1)
    assert len({tuple(order) for order in [*first, *orders(2)]}) == 6
    images = [[row for row in order if row >= 16] for order in first]
    assert len({tuple(turn) for turn in images}) == 3
