"""What must be right before anything is timed: losses, a step, the original's command, resuming, two processes."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from gpu_timing import Settings
from gpu_train import ORIGINAL, ROOT, sample, train
from harness import Result
from label_losses import GROUPS, Loss
from step import CLASSES, label_space
from torch import Tensor

from timm.data.view_plan import plan_views
from timm.models.multi_label import create_multi_label_model
from timm.task.simclr_classification import SimCLRClassificationTask

LOSS_DEVIATION, STEP_DEVIATION = 1e-5, 1e-3  # largest relative deviations that count as right, in float32


def run(settings: Settings) -> Iterator[Result]:
    """Check in this order; the first that fails ends the section with its sentence."""
    yield from _losses(settings)
    yield _step(settings)
    with tempfile.TemporaryDirectory() as folder:
        yield from _commands(Path(folder), settings)


def _losses(settings: Settings) -> Iterator[Result]:
    """Compare losses in float32 on the device with float64 on the CPU, from one matrix and in blocks."""
    for name, contenders in GROUPS.items():
        loss, attributes = contenders["ours"]
        for n in (8,) if settings.smoke else (200, 3000):
            g = torch.Generator().manual_seed(0)
            z = torch.randn(2, n, 128, generator=g, dtype=torch.float64)
            labels = torch.stack([torch.randint(9, (n,), generator=g) for _ in range(attributes)], dim=1)
            exact = _value_and_gradient(loss, z, labels)
            found = _value_and_gradient(loss, z.to(settings.device, torch.float32), labels.to(settings.device))
            deviation = max(_deviation(*pair) for pair in zip(found, exact, strict=True))
            _require(f"{name}, N={n}", deviation, LOSS_DEVIATION)
            yield Result(f"{name}, N={n}", "of the largest", {"ours": deviation}, {}, "float32 against float64")


def _value_and_gradient(loss: Loss, z: Tensor, labels: Tensor) -> list[Tensor]:
    views = z.clone().requires_grad_()
    value = loss(views[0], views[1], labels)
    return [value.detach().double().cpu(), torch.autograd.grad(value, views)[0].double().cpu()]


def _step(settings: Settings) -> Result:
    """Compare the gradients of a training step on the device with those on the CPU, in float32 without TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    found = []
    for device in ("cpu", settings.device):
        torch.manual_seed(0)
        model = create_multi_label_model("test_efficientnet", label_space()).to(device)
        task = SimCLRClassificationTask(model, plan_views(True), device=torch.device(device))
        task.train()
        images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        target = torch.zeros(8, len(CLASSES), dtype=torch.int64)
        task(images.to(device), target.to(device))["loss"].backward()
        gradients = [weight.grad.flatten().cpu() for weight in model.parameters() if weight.grad is not None]
        found.append(torch.cat(gradients))
    deviation = _deviation(found[1], found[0])
    _require("gradients of a step", deviation, STEP_DEVIATION)
    return Result(
        "gradients of a step", "of the largest", {"ours": deviation}, {}, "float32, the device against the CPU"
    )


def _commands(folder: Path, settings: Settings) -> Iterator[Result]:
    """Run the original's command, stop and resume it, and run it on two devices."""
    rows, batch = (24, 4) if settings.smoke else (800, 32)
    data = sample(folder / "sample", rows)
    words = ["--model", "efficientnet_b0", "-b", str(batch), *ORIGINAL, "-j", "0" if settings.smoke else "8"]
    words += ["--device", settings.device, "--cooldown-epochs", "0"]
    if settings.smoke:
        words += ["--model", "test_efficientnet", "--img-size", "32", "--drop", "0", "--drop-connect", "0"]
    trained = train(data, [*words, "--epochs", "1"], folder, "original")
    loss = float(trained.summary[0]["train_loss"])
    note = f"{rows} products, batch {batch}"
    yield Result("the original's command, one epoch", "loss", {"ours": loss}, {}, note)
    if settings.smoke:  # the suite has its own tests of resuming
        return
    trained = train(data, [*words, "--epochs", "2", "--resume", "auto"], folder, "original")
    if [row["epoch"] for row in trained.summary] != ["0", "1"]:
        raise RuntimeError("resuming the original's command did not continue its summary.csv")
    loss = float(trained.summary[1]["train_loss"])
    yield Result("the original's command, resumed", "loss", {"ours": loss}, {}, "its second epoch")
    if torch.cuda.device_count() > 1:
        words += ["--epochs", "1", "--output", str(folder), "--no-report"]
        two = ["./distributed_train.sh", "2", str(data), *words]
        done = subprocess.run(two, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"two processes: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        yield Result("the original's command on two devices", "exit status", {"ours": 0.0}, {}, "")


def _deviation(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).abs().max() / exact.abs().max()).item()


def _require(name: str, deviation: float, most: float) -> None:
    if not deviation <= most:  # also true for NaN
        raise RuntimeError(f"{name}: deviates by {deviation:.1e} of the largest value, more than {most:.0e}")
