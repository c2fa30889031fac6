"""The order of the most probable classes."""

import torch

from timm.task.top_classes import top_classes


def test_the_highest_logit_comes_first_and_the_count_is_at_most_the_number_of_classes() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
    assert top_classes(logits, 2).tolist() == [[1, 2], [2, 0]]
    assert top_classes(logits, 5).tolist() == [[1, 2, 0], [2, 0, 1]]


def test_ties_are_resolved_by_class_order_for_every_count() -> None:
    logits = torch.randint(0, 3, (64, 141)).to(torch.bfloat16)
    best = top_classes(logits, 141)
    assert torch.equal(top_classes(logits, 1), best[:, :1])
    assert torch.equal(best[:, 0], (logits == logits.max(dim=1, keepdim=True).values).int().argmax(dim=1))
