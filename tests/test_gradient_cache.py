"""Gradient caching against the joint batch with one graph: gradients, random numbers, running statistics, memory."""

import weakref
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from catalog.label_space import UNKNOWN, LabelSpace
from runtime.precision import PlainBackward
from runtime.random_state import seed_all
from timm.data.multi_label_mixup import MultiLabelMixup
from timm.data.view_plan import ViewPlan, plan_views
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.task.contrastive_loss import ContrastiveLoss
from timm.task.gradient_cache import chunk_forwards, detached, grouped, joint_result
from timm.task.simclr_classification import SimCLRClassificationTask
from timm.utils.model import unwrap_model
from training import loop as train_loop

torch.set_num_threads(1)

SPACE = LabelSpace.numbered({"gender": 3, "color": 4})
SIDE = 32
DROPS = {
    "test_vit": {"proj_drop_rate": 0.2, "attn_drop_rate": 0.2},
    "test_convnext": {},  # its stochastic depth alone
}
LOSSES = [("ntxent", True), ("dcl", False), ("dcl", True), ("supcon", False)]  # name, and whether it is masked
Chunks = list[tuple[Tensor, Tensor]]


class Tiny(nn.Module):
    """A backbone without batch statistics that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10), nn.Tanh(), nn.Dropout(0.3))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def tiny_task(plan: ViewPlan | None = None, dtype: torch.dtype = torch.float64, **options) -> SimCLRClassificationTask:
    torch.manual_seed(0)
    model = MultiLabelModel(Tiny(), SPACE, 6, drop_rate=0.2, image_size=(3, 4, 4)).to(dtype)
    options = {"smoothing": 0.1, "attribute_weights": {"color": 2.0}} | options
    return SimCLRClassificationTask(model, plan or plan_views(True), dtype=dtype, **options).train()


def timm_task(arch: str, drop: bool, dtype: torch.dtype = torch.float64, **options) -> SimCLRClassificationTask:
    torch.manual_seed(0)
    kwargs = DROPS.get(arch, {}) if drop else {}
    model = create_multi_label_model(
        arch, SPACE, image_size=(3, SIDE, SIDE), drop_path_rate=0.3 * drop, model_kwargs=kwargs, drop_rate=0.2 * drop
    ).to(dtype)
    return SimCLRClassificationTask(model, plan_views(True), dtype=dtype, **options).train()


def draw(
    sizes: list[int],
    views: int = 2,
    side: int = 4,
    dtype: torch.dtype = torch.float64,
    blank: float = 0.4,
    seed: int = 1,
) -> Chunks:
    """Draw a chunk of images for each size, with blank cells."""
    g = torch.Generator().manual_seed(seed)
    chunks = []
    for size in sizes:
        target = torch.stack([torch.randint(k, (size,), generator=g) for k in (3, 4)], dim=1)
        target = target.masked_fill(torch.rand(target.shape, generator=g) < blank, UNKNOWN)
        images = torch.randn(views * size, 3, side, side, generator=g, dtype=torch.float64).to(dtype)
        chunks.append((images, target))
    return chunks


def copied(chunks: Chunks) -> Chunks:
    return [(images.clone(), target.clone()) for images, target in chunks]


def merge(pieces: list[Tensor], views: int) -> Tensor:
    """Join batches [V*B, ...], view 0 of all first."""
    return torch.cat([torch.cat([piece.chunk(views)[view] for piece in pieces]) for view in range(views)])


def in_one_graph(task: SimCLRClassificationTask, chunks: Chunks) -> dict:
    """Return the oracle's losses: keep all chunks' graphs, and treat their outputs as one batch."""
    views, classified = len(task.plan), len(task.plan.classify)
    targets = [task.prepare_targets(images, target) for images, target in chunks]
    outputs = [task.trainable_module(images) for images, _ in chunks]
    logits = {name: merge([logits[name] for logits, _ in outputs], views) for name in SPACE.attributes}
    projections = merge([z for _, z in outputs], views)
    if task.mixup is None:
        joint = merge(targets, classified)
    else:
        joint = [merge(list(columns), classified) for columns in zip(*targets, strict=True)]
    labels = torch.cat([target for _, target in chunks])
    return task.losses((logits, projections), joint, contrast=partial(task.contrastive, labels=labels))


def cached(task: SimCLRClassificationTask, chunks: Chunks, autocast=nullcontext, scale: float = 1.0) -> dict:
    """Add the gradients chunk by chunk, as training does."""
    results = []
    for forward in chunk_forwards(task, chunks, autocast):
        with autocast():
            result = forward()
        (result["loss"] * scale).backward()
        results.append(detached(result))
    return joint_result(results)


def test_learned_variances_have_the_joint_batchs_gradients() -> None:
    def balanced() -> SimCLRClassificationTask:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10), nn.Tanh())
        model = MultiLabelModel(body, SPACE, 6, balance="uncertainty", image_size=(3, 4, 4)).double()
        model.log_variances.data = torch.tensor([0.7, -0.4], dtype=torch.float64)
        return SimCLRClassificationTask(model, plan_views(True), dtype=torch.float64).train()

    chunks = draw([3, 2, 3])
    chunks[1][1][:, 1] = -100  # a chunk without a label of one attribute
    one, many = balanced(), balanced()
    expected = in_one_graph(one, copied(chunks))
    expected["loss"].backward()
    result = cached(many, copied(chunks))
    torch.testing.assert_close(result["classification_loss"], expected["classification_loss"].detach())
    torch.testing.assert_close(many.log_variances.grad, one.log_variances.grad)


def test_the_projections_of_chunks_equal_the_projections_of_the_joint_batch() -> None:
    task, chunks = tiny_task().eval(), draw([3, 2, 3])
    task.trainable_module.train()  # in training mode the model returns projections
    for module in task.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    joint = in_one_graph(task, copied(chunks))["projections"]
    assert joint.shape == (2, 8, 6)
    assert not joint.requires_grad
    torch.testing.assert_close(cached(task, copied(chunks))["projections"], joint)


def gradients(task: SimCLRClassificationTask) -> dict[str, Tensor]:
    """Return the gradients by parameter, and forget them."""
    found = {name: p.grad.clone() for name, p in unwrap_model(task.trainable_module).named_parameters()}
    task.zero_grad()
    return found


def assert_equals_one_graph(task: SimCLRClassificationTask, chunks: Chunks, rtol: float = 1e-7) -> None:
    """Compare gradients, losses and the random numbers that come next."""
    seed_all(5)
    expected = in_one_graph(task, copied(chunks))
    expected["loss"].backward()
    expected_gradients, expected_next = gradients(task), torch.rand(1)
    seed_all(5)
    found = cached(task, copied(chunks))
    assert torch.equal(torch.rand(1), expected_next)
    # Entries that happen to cancel are as exact as the largest one, no better.
    largest = max(gradient.abs().max().item() for gradient in expected_gradients.values())
    torch.testing.assert_close(gradients(task), expected_gradients, rtol=rtol, atol=rtol * largest)
    assert largest > 0
    losses = {name: value for name, value in expected.items() if name.endswith("loss")}
    for name, value in losses.items():
        torch.testing.assert_close(
            found[name], value.detach(), rtol=rtol, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )
    rows = sum(len(task.classified_targets(target)) for _, target in chunks)
    assert [len(found["output"][name]) for name in SPACE.attributes] == [rows, rows]


# One process


@pytest.mark.parametrize("sizes", [[3, 3, 3], [2, 5, 1]], ids=str)
@pytest.mark.parametrize("arch", DROPS)
def test_chunks_have_the_gradients_of_one_batch_of_all_images(arch: str, sizes: list[int]) -> None:
    task, chunks = timm_task(arch, drop=False, smoothing=0.1), draw(sizes, side=SIDE)
    images, target = merge([images for images, _ in chunks], 2), torch.cat([target for _, target in chunks])
    expected = task(images, target)
    expected["loss"].backward()
    whole = gradients(task)
    found = cached(task, chunks)
    torch.testing.assert_close(gradients(task), whole, rtol=1e-7, atol=1e-12)
    for name in ("loss", "simclr_loss", "classification_loss", "gender_loss", "color_loss"):
        torch.testing.assert_close(found[name], expected[name].detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("arch", DROPS)
def test_with_dropout_and_stochastic_depth_gradients_equal_one_graph(arch: str) -> None:
    task = timm_task(arch, drop=True)
    assert_equals_one_graph(task, draw([3, 2, 4], side=SIDE))
    if arch == "test_vit":
        task.trainable_module.set_grad_checkpointing(True)
        assert_equals_one_graph(task, draw([3, 2], side=SIDE))


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    classify_view=st.sampled_from(["first", "both", "weak"]),
    weights=st.sampled_from([(0.5, 0.5), (1.0, 0.0), (0.1, 2.0)]),
    blank=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_chunks_of_any_size_and_views_with_blank_cells_equal_one_graph(sizes, classify_view, weights, blank) -> None:
    plan = plan_views(True, classify_view)
    task = tiny_task(plan, simclr_loss_weight=weights[0], classification_loss_weight=weights[1])
    assert_equals_one_graph(task, draw(sizes, len(plan), blank=blank))


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize(("name", "masked"), LOSSES)
def test_every_contrastive_loss_reads_the_labels_of_all_chunks(name: str, masked: bool, mixing: bool) -> None:
    plan = plan_views(True, mixing=mixing)
    mixup = MultiLabelMixup(SPACE, mixup_alpha=1.0, cutmix_alpha=1.0, mode="elem") if mixing else None
    task = tiny_task(plan, mixup=mixup, contrastive=ContrastiveLoss(name, 0.2, masked))
    assert_equals_one_graph(task, draw([4, 2, 4], len(plan)), rtol=1e-6 if mixing else 1e-7)


def test_augmix_splits_and_their_divergence_equal_one_graph() -> None:
    plan = plan_views(True, aug_splits=3)
    assert_equals_one_graph(tiny_task(plan, jsd=True), draw([3, 2, 4], len(plan)))


@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
def test_images_are_mixed_once_and_equal_one_graph(mode: str) -> None:
    plan = plan_views(True, mixing=True)
    mixup = MultiLabelMixup(SPACE, mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode)
    task, chunks = tiny_task(plan, mixup=mixup), draw([4, 2, 4], len(plan))
    assert_equals_one_graph(task, chunks, rtol=1e-6)  # soft targets are float32
    passes: list[Tensor] = []
    task.trainable_module.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0].clone()))
    seen = copied(chunks)
    cached(task, seen)
    assert all(torch.equal(one, other) for one, other in zip(passes[:3], passes[3:], strict=True))
    assert not torch.equal(seen[0][0][:4], chunks[0][0][:4])
    assert torch.equal(seen[0][0][4:], chunks[0][0][4:])


def test_the_second_pass_repeats_the_first_bit_for_bit_and_each_chunk_draws_anew() -> None:
    task = timm_task("test_vit", drop=True, dtype=torch.float32)
    images, target = draw([3], side=SIDE, dtype=torch.float32)[0]
    seen: list[Tensor] = []
    task.trainable_module.register_forward_hook(lambda _, inputs, outputs: seen.append(outputs[1].detach().clone()))
    cached(task, [(images, target), (images, target)])
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_a_single_chunk_is_the_whole_batch_and_goes_through_the_model_once() -> None:
    task, (chunk,) = tiny_task(), draw([4])
    passes: list[int] = []
    task.trainable_module.register_forward_pre_hook(lambda *_: passes.append(1))
    seed_all(0)
    expected = task(*chunk)
    expected["loss"].backward()
    whole = gradients(task)
    seed_all(0)
    found = cached(task, [chunk])
    assert len(passes) == 2
    torch.testing.assert_close(gradients(task), whole, rtol=0, atol=0)
    assert found["loss"] == expected["loss"]


def test_running_statistics_move_once_for_each_chunk() -> None:
    task, chunks = timm_task("test_efficientnet", drop=True), draw([3, 2, 4], side=SIDE)
    before = {name: buffer.clone() for name, buffer in task.trainable_module.named_buffers()}
    for images, _ in chunks:
        task.trainable_module(images)
    expected = {name: buffer.clone() for name, buffer in task.trainable_module.named_buffers()}
    task.trainable_module.load_state_dict(before, strict=False)
    cached(task, chunks)
    torch.testing.assert_close(dict(task.trainable_module.named_buffers()), expected, rtol=0, atol=0)
    assert {int(b) for name, b in expected.items() if name.endswith("num_batches_tracked")} == {3}


def test_batch_norm_takes_its_statistics_chunk_by_chunk_in_both_passes() -> None:
    assert_equals_one_graph(timm_task("test_efficientnet", drop=True), draw([3, 2, 4], side=SIDE), rtol=1e-6)


@pytest.mark.parametrize("arch", ["test_efficientnet", "test_resnet"])
def test_with_frozen_statistics_chunks_have_the_gradients_of_one_batch(arch: str) -> None:
    task, chunks = timm_task(arch, drop=False), draw([3, 2, 4], side=SIDE)
    images, target = merge([images for images, _ in chunks], 2), torch.cat([target for _, target in chunks])
    largest_errors = []
    for frozen in (False, True):
        if frozen:
            task.trainable_module.keep_statistics()
        expected = task(images, target)
        expected["loss"].backward()
        whole = gradients(task)
        found = cached(task, copied(chunks))
        errors = [(gradient - whole[name]).abs().max().item() for name, gradient in gradients(task).items()]
        largest_errors.append(max(errors) / max(gradient.abs().max().item() for gradient in whole.values()))
    assert largest_errors[0] > 1e-3  # statistics by chunk make another loss
    assert largest_errors[1] < 1e-10
    torch.testing.assert_close(found["loss"], expected["loss"].detach(), rtol=1e-9, atol=1e-12)


# Precision and compilers


def test_a_loss_scaler_scales_every_gradient_equally() -> None:
    task, chunks = tiny_task(dtype=torch.float32), draw([3, 2, 4], dtype=torch.float32)
    seed_all(0)
    cached(task, chunks)
    expected = gradients(task)
    seed_all(0)
    cached(task, chunks, scale=2.0**16)  # a power of two changes no digit
    found = {name: gradient / 2.0**16 for name, gradient in gradients(task).items()}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_gives_the_gradients_of_one_graph_under_autocast(dtype: torch.dtype) -> None:
    task, chunks = tiny_task(dtype=torch.float32), draw([3, 2, 4], dtype=torch.float32)
    autocast, scale = partial(torch.autocast, "cpu", dtype=dtype), 2.0**10
    seed_all(0)
    with autocast():
        loss = in_one_graph(task, copied(chunks))["loss"]
    (loss * scale).backward()
    expected = gradients(task)
    seed_all(0)
    found = cached(task, chunks, autocast, scale)
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-6, atol=1e-6)
    for name, gradient in gradients(task).items():
        # Adding up chunks rounds otherwise than one product does, by a few units in the last place.
        error = (gradient - expected[name]).norm() / expected[name].norm()
        assert error < 4 * torch.finfo(dtype).eps, name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_repeats_its_random_numbers() -> None:
    task, chunks = tiny_task(dtype=torch.float32), draw([3, 3], dtype=torch.float32)
    task.compile(backend="aot_eager")
    assert_equals_one_graph(task, chunks, rtol=1e-5)


# Memory


class Packed:
    """A tensor that the backward pass will need."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def peak_of_saved_bytes(task: SimCLRClassificationTask, chunks: Chunks) -> int:
    """Return the most bytes of activations that graphs held at a time."""
    live = peak = 0

    def pack(tensor: Tensor) -> Packed:
        nonlocal live, peak
        packed, size = Packed(tensor), tensor.numel() * tensor.element_size()
        live += size
        peak = max(peak, live)
        weakref.finalize(packed, free, size)
        return packed

    def free(size: int) -> None:
        nonlocal live
        live -= size

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        cached(task, chunks)
    assert live == 0
    return peak


def test_graphs_hold_one_chunk_at_a_time() -> None:
    task = timm_task("test_vit", drop=True)
    one, eight = (peak_of_saved_bytes(task, draw([4] * count, side=SIDE)) for count in (1, 8))
    assert eight < 1.1 * one  # what grows is the loss's own table of similarities
    together = peak_of_saved_bytes(task, draw([32], side=SIDE))
    assert together > 4 * one


# Steps and updates


def test_batches_are_grouped_without_reading_ahead_and_the_last_group_is_smaller() -> None:
    read: list[int] = []

    def batches():
        for batch in range(7):
            read.append(batch)
            yield batch

    for count, group in enumerate(grouped(batches(), 3), start=1):
        assert group == list(range(3 * count - 3, min(3 * count, 7)))
        assert len(read) == min(3 * count, 7)
    assert list(grouped([1, 2], 1)) == [[1], [2]]
    assert list(grouped([], 2)) == []


class Counting(PlainBackward):
    """Backward that notes whether each call changed the weights."""

    def __init__(self) -> None:
        self.updates: list[bool] = []

    def __call__(self, *args, need_update: bool = True, **kwargs) -> None:
        self.updates.append(need_update)
        super().__call__(*args, need_update=need_update, **kwargs)


def weights_after(shares: list[list[int]], alone: bool, name: str, masked: bool) -> dict[str, Tensor]:
    """Return the weights after three updates of two steps each, and the contrastive losses.

    Args:
        shares: by process the sizes of its chunks.
        alone: do all of it here, in one graph; else this process's share, chunk by chunk.
        name: name of the contrastive loss.
        masked: whether it masks false negatives.
    """
    task, backward = tiny_task(contrastive=ContrastiveLoss(name, 0.5, masked)), Counting()
    task.trainable_module.backbone.body[3].p = task.trainable_module.drop.p = 0.0  # processes draw other masks
    optimizer = torch.optim.SGD(task.parameters(), lr=0.3, momentum=0.9)
    parts = {"process": SimpleNamespace(distributed=True), "settings": SimpleNamespace(clip_grad=0.5, clip_mode="norm")}
    run: Any = SimpleNamespace(**parts, task=task, optimizer=optimizer, backward=backward, autocast=nullcontext)
    if not alone:
        task.prepare_distributed()
    losses = []
    for step in range(6):
        update = step % 2 == 1
        chunks = draw([size for own in shares for size in own], seed=step)
        if alone:
            result = in_one_graph(task, chunks)
            clipped = {"clip_grad": 0.5, "parameters": task.get_clip_parameters()}
            PlainBackward()(result["loss"] * 0.5, optimizer, **clipped, need_update=update)
        else:
            first = sum(len(own) for own in shares[: dist.get_rank()])
            own_chunks = chunks[first : first + len(shares[dist.get_rank()])]
            result = train_loop.backpropagate(run, own_chunks, 0.5, update)
        losses.append(result["simclr_loss"].detach())
        if update:
            optimizer.zero_grad()
    assert alone or backward.updates == [False, False, False, True] * 3
    weights = unwrap_model(task.trainable_module).state_dict()
    return {name: value.clone() for name, value in weights.items()} | {"losses": torch.stack(losses)}


@pytest.mark.parametrize(("name", "masked"), [("ntxent", False), *LOSSES])
@pytest.mark.parametrize("shares", [[[4, 3], [2, 5]], [[1, 6], [4, 3]]], ids=str)
def test_two_processes_of_two_chunks_end_in_the_weights_of_one_with_everything(
    shares: list[list[int]], name: str, masked: bool
) -> None:
    alone = weights_after(shares, True, name, masked)
    for shared in run_on_processes(2, weights_after, shares, False, name, masked):
        for name, value in alone.items():
            torch.testing.assert_close(shared[name], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def count_all_reduces(shares: list[list[int]]) -> int:
    """Return how many times DDP averages gradients in a step that updates."""
    task = tiny_task()
    task.prepare_distributed()
    averaged: list[int] = []

    def average(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        averaged.append(1)
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])

    task.trainable_module.register_comm_hook(None, average)
    parts = {
        "process": SimpleNamespace(distributed=True),
        "settings": SimpleNamespace(clip_grad=None, clip_mode="norm"),
    }
    optimizer = torch.optim.SGD(task.parameters(), lr=0.3)
    run: Any = SimpleNamespace(**parts, task=task, optimizer=optimizer, backward=PlainBackward(), autocast=nullcontext)
    train_loop.backpropagate(run, draw(shares[dist.get_rank()]), 1.0, True)
    return len(averaged)


def test_processes_average_gradients_once_an_update() -> None:
    assert run_on_processes(2, count_all_reduces, [[2, 2, 2], [2, 2, 2]]) == [1, 1]
