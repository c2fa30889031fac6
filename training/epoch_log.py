"""The log lines of an epoch: timm's, with both losses. A terminal shows a progress bar."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.progress import progress_bar
from timm.task.nearest_neighbors import NEIGHBORS
from training.loss_meter import LossMeter

Averages = Callable[[], dict[str, float]]


class EpochLog:
    """The log of an epoch's steps. Its speed counts an image once, however many views it has.

    Args:
        logger: logger that takes the lines.
        epoch: index of the epoch, from 0.
        batches: steps per epoch.
        interval: steps between lines.
        processes: number of processes; the logged speed is of all together.
        enabled: whether to log lines, as only the primary process does; all processes average the losses.
    """

    def __init__(
        self, logger: logging.Logger, epoch: int, batches: int, interval: int, processes: int, enabled: bool = True
    ) -> None:
        self.logger, self.epoch, self.batches, self.interval = logger, epoch, batches, interval
        self.processes, self.enabled = processes, enabled
        self.bar = progress_bar(batches, f"Train: {epoch}", enabled=enabled, lines=False)
        self.since = self.logged = time.perf_counter()
        self.start = self.since
        self.data_time = self.data_total = 0.0
        self.rows_since = self.rows = self.steps_since = 0

    def data_ready(self) -> None:
        """Record the time at which the loader has delivered a batch."""
        self.data_time = time.perf_counter() - self.since
        self.data_total += self.data_time

    def is_due(self, batch: int) -> bool:
        """Return whether a step, counted from 0, has a line: each `interval`-th and the last."""
        return batch % self.interval == 0 or batch + 1 == self.batches

    def step(self, batch: int, rows: int, averages: Averages, lr: float, meter: LossMeter) -> None:
        """Record the end of a step, and log it if a line is due.

        Args:
            batch: index of the step, from 0.
            rows: images of this step on this process.
            averages: collective call that returns the average losses of all processes.
            lr: learning rate.
            meter: meter with the last step's losses.
        """
        self.since = time.perf_counter()
        self.rows += rows
        self.rows_since += rows
        self.steps_since += 1
        self.bar.update()
        if not self.is_due(batch):
            return
        mean, now = averages(), meter.values()
        if self.enabled:
            line = self._line(batch, mean, now, lr)
            if self.bar.disable:
                self.logger.info(line)
            else:
                self.bar.set_postfix_str(f"loss {mean['loss']:.3g}, {self._rate(self.rows, self.start):.1f} images/s")
                if batch + 1 == self.batches:
                    self.bar.clear()
                    self.logger.info(line)
        self.logged, self.rows_since, self.steps_since = self.since, 0, 0

    def close(self) -> None:
        """Remove the progress bar."""
        self.bar.close()

    def _rate(self, rows: int, start: float) -> float:
        return rows * self.processes / max(self.since - start, 1e-9)

    def _line(self, batch: int, mean: Mapping[str, float], now: Mapping[str, float], lr: float) -> str:
        names = {"loss": "Loss", "simclr_loss": "SimCLR", "classification_loss": "Class", "pseudo_loss": "Pseudo"}
        losses = "  ".join(f"{names[n]}: {now[n]:#.3g} ({mean[n]:#.3g})" for n in names if n in mean)
        done = batch + 1
        step, average = (self.since - self.logged), (self.since - self.start)
        return (
            f"Train: {self.epoch} [{done:>4d}/{self.batches} ({100 * done / self.batches:>3.0f}%)]  {losses}  "
            f"Time: {step / self.steps_since:.3f}s, {self._rate(self.rows_since, self.logged):>7.2f}/s  "
            f"({average / done:.3f}s, {self._rate(self.rows, self.start):>7.2f}/s)  "
            f"LR: {lr:.3e}  Data: {self.data_time:.3f} ({self.data_total / done:.3f})"
        )


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """Return the means over the attributes as one line."""
    sets = f"mAP: {metrics['map']:.3f}  " if "map" in metrics else ""
    return (
        f"Loss: {metrics['loss']:.4f}  Acc@1: {metrics['top1']:.3f}  Acc@5: {metrics['top5']:.3f}  "
        f"Balanced: {metrics['balanced_accuracy']:.3f}  F1: {metrics['macro_f1']:.3f}  "
        f"{sets}Exact match: {metrics['exact_match']:.3f}"
    )


def attribute_line(metrics: Mapping[str, Any]) -> str:
    """Return each attribute's accuracy as one line; multi-valued ones add mAP, F1 and the threshold."""

    def values_text(values: Mapping[str, float]) -> str:
        if "map" not in values:
            return f"{values['top1']:.3f}"
        by_value = f"mAP {values['map']:.3f}, F1 {values['micro_f1']:.3f} from {values['threshold']:.3f}"
        return f"{values['top1']:.3f} ({by_value})"

    return "  ".join(f"{name}: {values_text(values)}" for name, values in metrics["attributes"].items())


def calibration_line(metrics: Mapping[str, Any]) -> str:
    """Return the calibration error without and with the temperatures: the mean's, and each attribute's."""
    parts = [f"Calibration error: {metrics['ece']:.2f}% -> {metrics['calibrated_ece']:.2f}%"]
    parts += [
        f"{name}: {values['ece']:.2f}% -> {values['calibrated_ece']:.2f}% (temperature {values['temperature']:.3f})"
        for name, values in metrics["attributes"].items()
        if "temperature" in values
    ]
    return "  ".join(parts)


def projections_line(metrics: Mapping[str, float]) -> str:
    """Return the metrics of an epoch's projections as one line."""
    negatives = metrics["false_negatives"]
    return (
        f"Contrastive Acc@1: {metrics['contrastive_top1']:.3f}  Alignment: {metrics['alignment']:.4f}  "
        f"Uniformity: {metrics['uniformity']:.4f}  Effective rank: {metrics['effective_rank_z']:.2f}"
        + ("" if math.isnan(negatives) else f"  False negatives: {negatives:.2f}%")
    )


def neighbors_lines(accuracies: Mapping[str, float], attributes: Sequence[str]) -> list[str]:
    """Return a line for each k: the mean accuracy and each attribute's."""
    return [
        f"k = {k}: {accuracies[f'eval_knn{k}']:.3f}  "
        + "  ".join(f"{name}: {accuracies[f'{name}_knn{k}']:.3f}" for name in attributes)
        for k in NEIGHBORS
        if attributes
    ]


def weights_line(weights: Mapping[str, float]) -> str:
    """Return the weights of the losses and of the attributes as one line."""
    return "  ".join(f"{name.removesuffix('_weight')}: {value:.3f}" for name, value in weights.items())
