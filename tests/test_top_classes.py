import torch

from timm.task.top_classes import top_classes


def test_the_best_come_first_and_no_more_than_there_are() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
    assert top_classes(logits, 2).tolist() == [[1, 2], [2, 0]]
    assert top_classes(logits, 5).tolist() == [[1, 2, 0], [2, 0, 1]]


def test_equal_logits_go_by_the_order_of_the_classes_whatever_the_count() -> None:
    logits = torch.randint(0, 3, (64, 141)).to(torch.bfloat16)
    best = top_classes(logits, 141)
    assert torch.equal(top_classes(logits, 1), best[:, :1])
    assert torch.equal(best[:, 0], (logits == logits.max(dim=1, keepdim=True).values).int().argmax(dim=1))
