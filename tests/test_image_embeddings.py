"""Embeddings of image files, and the pairs that are almost equal, compared with a loop over all pairs."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from drawn_photograph import photograph
from tiny_checkpoint import make_model, save_checkpoint

from catalog.decode import load_image
from runtime.errors import UsageError
from serving.image_embeddings import embed_files, load_embedder, similar_pairs
from timm.data import create_transform


def test_an_embedding_is_the_representation_of_the_checkpoints_preprocessing(tmp_path: Path) -> None:
    model = make_model()
    ready = load_embedder(str(save_checkpoint(tmp_path / "model.pth.tar", model)), "cpu", use_ema=False)
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i in (0, 2):
        photograph(i).save(files[i])
    seen: list[int] = []
    found = embed_files(ready, files, batch_size=2, workers=0, after_batch=seen.append)
    transform = create_transform(**model.config["data_config"])
    with torch.no_grad():
        images = torch.stack([transform(load_image(files[i])) for i in (0, 2)])
        expected = F.normalize(model.eval().forward_features(images), dim=1)
    assert torch.allclose(found[[0, 2]], expected, atol=1e-5)
    assert (found[1] == 0).all()  # there is no such file
    assert seen == [2, 1]


def test_weights_that_have_diverged_are_refused(tmp_path: Path) -> None:
    model = make_model()
    next(iter(model.backbone.parameters())).data.fill_(3e38)
    ready = load_embedder(str(save_checkpoint(tmp_path / "model.pth.tar", model)), "cpu", use_ema=False)
    photograph(0).save(tmp_path / "0.png")
    with pytest.raises(UsageError, match="not finite"):
        embed_files(ready, [str(tmp_path / "0.png")], batch_size=2, workers=0)


def test_similar_pairs_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.image_embeddings._BLOCK", 7)
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(40, 5), dim=1)
    pairs = similar_pairs(embeddings, 0.7)
    similarity = embeddings @ embeddings.T
    expected = {(i, j) for i in range(40) for j in range(i + 1, 40) if similarity[i, j] >= 0.7}
    assert len(expected) > 10
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == expected
    assert torch.allclose(torch.tensor(pairs.score).float(), similarity[pairs.first, pairs.second])
    assert not len(similar_pairs(embeddings[:1], 0.7))
    assert not len(similar_pairs(embeddings[:0], 0.7))
