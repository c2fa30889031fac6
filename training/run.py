"""The parts of a run: train.py makes them, the loop uses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runtime.precision import Autocast
from runtime.process import Process, memory_format
from timm.data.preprocessing import DataConfig
from timm.data.view_plan import ViewPlan
from timm.task.simclr_classification import SimCLRClassificationTask
from training.early_stop import EarlyStop
from training.health_check import HealthCheck
from training.loss_meter import NonFiniteLossGuard
from training.outputs import NoOutputs, Outputs
from training.stop_vote import StopVote

Start = dict[str, Any]  # `epoch` and `batch` to start with, and inside an epoch `random`, the states by process


@dataclass(frozen=True)
class Settings:
    """Numbers that the loop reads.

    Args:
        seed: seed of the run.
        batch_size: images per training batch, on each process, without mixed-in unlabeled ones.
        chunks: batches per step, which are contrasted together.
        grad_accum_steps: steps per update.
        clip_grad: threshold of gradient clipping; None for none.
        clip_mode: timm's way of clipping: "norm", "value" or "agc".
        mixup_off_epoch: first epoch without mixing; 0 for none.
        channels_last: whether images are laid out with the channels last.
        dist_bn: how running statistics are shared after an epoch: "reduce", else the first process's are sent.
        ema_on_cpu: whether the averaged weights are kept on the CPU.
        eval_metric: metric that chooses the best epoch, and that a plateau schedule watches.
        val_interval: epochs between validations.
        knn_interval: epochs between k-NN scorings; 0 for none.
        tta: predictions averaged per image when scoring; 0 for none.
        log_interval: steps between log lines.
        recovery_interval: steps between recovery checkpoints; 0 for none.
        recovery_seconds: time between recovery checkpoints, instead of steps; 0 for none.
        counts_confusions: whether scoring counts confusion matrices, for the loggers.
        log_weights: whether the loss weights change and are logged.
        synchronize: whether each update waits for the GPU.
        refit_heads: whether the heads are solved after the last epoch.
        probe_first: whether the heads are solved before the first epoch of a new run.
    """

    seed: int
    batch_size: int
    chunks: int
    grad_accum_steps: int
    clip_grad: float | None
    clip_mode: str
    mixup_off_epoch: int
    channels_last: bool
    dist_bn: str
    ema_on_cpu: bool
    eval_metric: str
    val_interval: int
    knn_interval: int
    tta: int
    log_interval: int
    recovery_interval: int
    recovery_seconds: float
    counts_confusions: bool
    log_weights: bool
    synchronize: bool
    refit_heads: bool
    probe_first: bool


@dataclass
class Run:
    """What the loop works with.

    Args:
        process: device and rank of this process.
        settings: numbers that the loop reads.
        plan: views of an image.
        data_config: preprocessing of the images.
        task: model and losses.
        train_loader: loader of training batches.
        eval_loader: loader of the validation split; None without attributes.
        index_loader: loader of the training images in the k-NN index; None without one.
        optimizer: optimizer of the model's weights.
        scheduler: schedule of the learning rate.
        num_epochs: number of epochs; fewer once the run has stopped early.
        backward: backward pass with update, with or without loss scaling.
        autocast: function that returns the context of a forward pass.
        loss_guard: guard against losses that are not finite.
        health_check: check of each epoch's numbers.
        start: epoch and batch to start with.
        stop: the agreement of all processes to stop.
        clean_loader: loader of the labeled training images in their evaluation view; None if no head is solved.
        outputs: files that this process writes.
        progress: where the run stands, for its checkpoints.
        early_stop: best score, and whether the run stops since it is long ago.
    """

    process: Process
    settings: Settings
    plan: ViewPlan
    data_config: DataConfig
    task: SimCLRClassificationTask
    train_loader: Any
    eval_loader: Any
    index_loader: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any
    num_epochs: int
    backward: Any
    autocast: Autocast
    loss_guard: NonFiniteLossGuard
    health_check: HealthCheck
    start: Start
    stop: StopVote
    clean_loader: Any = None
    outputs: Outputs | NoOutputs = field(default_factory=NoOutputs)
    progress: dict[str, Any] = field(default_factory=dict)
    early_stop: EarlyStop = field(default_factory=EarlyStop)

    def to_device(self, images: Tensor) -> Tensor:
        """Return a batch on the device, in the dtype and the memory layout of the model."""
        # Without the prefetcher, images are float32 even if the weights are not.
        images = images.to(self.process.device, self.task.dtype, non_blocking=True)
        layout = memory_format(self.settings.channels_last)
        return images.contiguous(memory_format=layout) if images.ndim == 4 else images
