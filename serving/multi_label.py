"""A trained model from Python: images in, tables, embeddings and scores out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from catalog.label_space import LabelSpace
from catalog.pictures import Pictures
from catalog.table import Table, read_table
from options.export import ENDINGS
from reports.predictions import Predictions, prediction_table
from reports.probabilities import NoProbabilities
from reports.results import score_columns
from runtime.errors import UsageError
from runtime.process import open_device
from serving.abstention import Cells, labeled_cells, named_validation, warn_of_blank_attributes
from serving.embedding import embed_images
from serving.engine import check_engine, faster
from serving.ensemble import Ensemble, make_ensemble
from serving.exported import read_model
from serving.exporting import ExportSettings, default_output, export_model
from serving.inputs import Images, find_table, image_rows
from serving.labeling import label, report_unreadable
from serving.loading import EvaluationModel, check_data_needed, check_heads, load_evaluation_model
from serving.scoring import Scores, score_table
from serving.selective import Selection, check_precision, choose_threshold
from timm.data.image_dataset import ImageDataset
from timm.models.multi_label_checkpoint import Checkpoint

_logger = logging.getLogger("serving")

Source = str | os.PathLike[str] | Checkpoint


class MultiLabel:
    """A trained model that labels, embeds and scores images; or several models that label together.

        model = MultiLabel("output/train/mine")
        table = model.predict("photos", precision=0.97)

    Args:
        source: a checkpoint of this project or of the original; the folder of a run, whose `model_best.pth.tar` is
            taken, or `last.pth.tar` without one; or what export.py wrote, a folder in timm's format or an ONNX file.
            Several label together: their calibrated probabilities are averaged.
        device: name of a PyTorch device; None for the GPU if there is one, else the CPU.
        use_ema: take the averaged weights.
        batch_size: images that the model sees at a time.
        workers: processes that load images; 0 loads them in this one.
        tta: 2 averages each image with its mirror image.
        data: a data folder that names the classes of a checkpoint of the original, which has no names.
        preprocessing: changes to the preprocessing of training, such as `{"img_size": 128}`; see `serving.loading`.
        number_format: `amp`, `amp_dtype` and `model_dtype`; see `runtime.precision`.
        channels_last: whether images and convolutions have the channels last in memory.
        compiler: a backend of torch.compile; None does not compile.
        engine: "torch" for PyTorch; "onnx" for onnxruntime, which is faster on a CPU; "auto" takes it for jobs of more
            than 40 seconds if it is installed and a batch is faster with it. `score` and `evaluate` use it only if the
            engine is "onnx". See `serving.engine`.
        pin_memory: whether batches are loaded into page-locked memory.
        prefetcher: whether images are normalized on the device.
        distributed: whether there is a process group, whose processes share the rows that `score` reads.

    Attributes:
        checkpoints: what the models were loaded from, without the weights.
        ensemble: the models.

    Raises:
        UsageError: a source is no such checkpoint, or the settings do not fit it.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        *,
        device: str | torch.device | None = None,
        use_ema: bool = False,
        batch_size: int = 64,
        workers: int = 0,
        tta: int = 0,
        data: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        number_format: Mapping[str, Any] | None = None,
        channels_last: bool = True,
        compiler: str | None = None,
        engine: str = "auto",
        pin_memory: bool = False,
        prefetcher: bool = True,
        distributed: bool = False,
    ) -> None:
        _check_numbers(batch_size, workers, tta)
        self.loading = {
            "batch_size": batch_size,
            "workers": workers,
            "pin_memory": pin_memory,
            "prefetcher": prefetcher,
            "distributed": distributed,
        }
        place = device if isinstance(device, torch.device) else open_device(device)
        settings: dict[str, Any] = {
            "use_ema": use_ema,
            "preprocessing": preprocessing or {},
            "precision": {"amp": False, "amp_dtype": None, "model_dtype": None} | dict(number_format or {}),
            "channels_last": channels_last,
            "compiler": compiler,
            "data": data,
            "needs_heads": False,  # a model without attributes embeds images too
        }
        check_engine(engine, place, settings["precision"], compiler)
        self.engine = engine
        self.tta, self.use_ema, self.data, self.number_format = tta, use_ema, data, settings["precision"]
        self.preprocessing = settings["preprocessing"]
        sources = [source] if isinstance(source, str | os.PathLike | Checkpoint) else list(source)
        if not sources:
            raise UsageError("there is no checkpoint: name the folder of a run, or a file")
        members, self.checkpoints, originals = [], [], []
        for one in sources:
            checkpoint = one if isinstance(one, Checkpoint) else read_model(one)
            members.append(load_evaluation_model(checkpoint, place, **settings))
            if checkpoint.is_original:
                originals.append(checkpoint.path)
            weightless = replace(checkpoint, state_dict={}, state_dict_ema=None, optimizer=None)
            self.checkpoints.append(weightless)
        check_data_needed(data, self.checkpoints[0].path, bool(originals))
        self._unnamed = originals if data is None else []
        self.ensemble: Ensemble = make_ensemble(members, [str(one.path) for one in self.checkpoints])
        self._unchecked = [(one, ready.model) for one, ready in zip(self.checkpoints, members, strict=True)]
        self._cells: dict[Path, dict[str, Cells]] = {}

    def choose_engine(self, images: int) -> None:
        """Let the engine that suits a number of images run the models from now on; see `serving.engine.faster`.

        Args:
            images: number of images that the models are about to see.

        Raises:
            UsageError: the engine is "onnx", and it cannot run a model.
        """
        members = tuple(faster(one, self.engine, images) for one in self.ensemble.members)
        self.ensemble = replace(self.ensemble, members=members)

    @property
    def label_space(self) -> LabelSpace:
        """The attributes and their classes."""
        return self.ensemble.label_space

    @property
    def temperatures(self) -> list[dict[str, float]]:
        """For each model the divisor of each attribute's logits, which calibrates its probabilities."""
        return [one.temperatures for one in self.ensemble.members]

    def __repr__(self) -> str:
        """Return the architectures and attributes."""
        models = ", ".join(one.arch for one in self.ensemble.members)
        return f"MultiLabel({models}: {self.label_space})"

    def predict(
        self,
        images: Images,
        *,
        topk: int = 1,
        precision: float | None = None,
        validation: str | os.PathLike[str] | None = None,
    ) -> pa.Table:
        """Return a table with a row for each image, in order, as inference.py writes it.

        Args:
            images: one or several of: an image file, a folder, a table's file, a table in memory with a column
                image_path, a Pillow image, an array uint8 [H, W] or [H, W, C]. An array [N, H, W, C] holds N images.
            topk: number of classes for each attribute.
            precision: leave cells blank, so that for each attribute this share of all others is right, between 0 and
                1; see `select`. None leaves no cell blank.
            validation: see `select`.

        Returns:
            `image_path`, null for an image in memory; each attribute's class, and `<attribute>_probability`. A
            multi-valued attribute has its values separated by "|". If an image could not be read, its row is blank,
            with the reason in a column `error`. `to_pandas()` gives a DataFrame.

        Raises:
            UsageError: there are no images, none can be read, or the model has no attributes.
        """
        self.check_heads()
        if topk < 1:
            raise UsageError(f"topk {topk}: give the number of classes to return, at least 1")
        dataset = ImageDataset(image_rows(images))
        predictions = Predictions(self.label_space, len(dataset), topk)
        predictions.check_columns()
        thresholds = None
        if precision is not None:
            selections = self.select(precision, validation)
            warn_of_blank_attributes(selections, precision, self._validation(validation).name)
            thresholds = {name: chosen.threshold for name, chosen in selections.items()}
        self.label(dataset, predictions, thresholds=thresholds)
        return prediction_table(predictions, dataset.paths, dataset.errors())

    def select(self, precision: float, validation: str | os.PathLike[str] | None = None) -> dict[str, Selection]:
        """Return for each attribute the confidence from which its cells are right at a promised rate.

        With a probability of 95% over the draw of the validation split, the promise holds for new images from the same
        source. See `serving.selective`.

        Args:
            precision: the promised share of right cells among the predicted ones, between 0 and 1.
            validation: labeled images that the models were not trained on: a table's file, or a data folder with a
                validation split. None for the validation split that the checkpoint names.

        Raises:
            UsageError: the precision is no such share, or there is no validation split.
        """
        check_precision(precision)
        self.check_heads()
        path = self._validation(validation)
        key = path.resolve()
        if key not in self._cells:
            root = None if validation is not None else self.checkpoints[0].trained_flags.get("image_root")
            table = read_table(path, None, require_attributes=False, image_root=root or None)
            self.choose_engine(len(table))
            self._cells[key] = labeled_cells(self.ensemble, table, self.tta, self.loading)
        return {name: choose_threshold(*cells, precision) for name, cells in self._cells[key].items()}

    def embed(self, images: Images, *, projection: bool = False, normalize: bool = False) -> npt.NDArray[np.float32]:
        """Return the representation h of each image, in order: float32 [N, D], NaN where an image could not be read.

        Args:
            images: the images, as in `predict`.
            projection: return the projection z [N, P] instead, which the contrastive loss reads.
            normalize: divide each row by its length, so that a dot product is the cosine similarity.

        Raises:
            UsageError: there are no images, none can be read, or there is no projection head, or several models.
        """
        dataset = ImageDataset(image_rows(images), self.ready.channels)
        settings = self._loading_of(dataset)
        self.choose_engine(len(dataset))
        found = embed_images(self.ready, dataset, projection=projection, tta=self.tta, loading=settings)
        if normalize:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return found

    def evaluate(
        self, data: str | os.PathLike[str], split: str = "validation", *, max_unreadable: float = 0.01
    ) -> dict[str, Any]:
        """Return the scores on a split, as in the results of validate.py: percentages, `loss`, `<attribute>_top1`, ...

        Args:
            data: a data folder, or a table's file.
            split: the split of a data folder: "validation", "test", ...
            max_unreadable: largest share of unreadable images, 0-1.

        Raises:
            UsageError: there is no such table, too many images are unreadable, or there are several models.
        """
        table = read_table(find_table(data, split), None, require_attributes=False)
        return {"images": len(table), **score_columns(self.score(table, max_unreadable=max_unreadable).metrics)}

    def export(self, form: str, output: str | os.PathLike[str] | None = None, *, outputs: Sequence[str] = ()) -> Path:
        """Write the model for other tools, as export.py does, and return the file or folder.

        Args:
            form: "timm", "onnx" or "torch".
            output: what to write; None for a place beside the checkpoint.
            outputs: "h" and "z", to have them beside the attributes' logits.

        Raises:
            UsageError: there is no such format, the model cannot be exported, or there are several models.
        """
        if form not in ENDINGS:
            raise UsageError(f"format {form!r}: give one of {', '.join(ENDINGS)}")
        _ = self.ready.network  # only a model with its weights
        source = self.checkpoints[0].path
        path = default_output(source, form) if output is None else Path(output)
        settings = ExportSettings(outputs=tuple(outputs))
        same = {"use_ema": self.use_ema, "data": self.data, "preprocessing": self.preprocessing}
        export_model(read_model(source), form, path, settings, **same)
        return path

    def label(
        self,
        dataset: ImageDataset,
        predictions: Predictions,
        distributions: NoProbabilities | None = None,
        *,
        thresholds: Mapping[str, float] | None = None,
        log_interval: int = 10,
    ) -> None:
        """Predict the classes of a dataset's images; what could not be read is blank, and logged.

        Args:
            dataset: the images.
            predictions: receives the predictions by row.
            distributions: receives the probabilities of all classes, batch by batch.
            thresholds: by attribute, the confidence at or below which a cell is blank; None leaves none blank.
            log_interval: batches between two lines of the log.

        Raises:
            UsageError: no image could be read.
        """
        self.check_heads()
        self.choose_engine(len(dataset))
        batches = self.ensemble.batches(dataset, **self._loading_of(dataset))
        label(
            self.ensemble,
            batches,
            dataset,
            predictions,
            distributions or NoProbabilities(),
            thresholds=thresholds or {},
            tta=self.tta,
            log_interval=log_interval,
        )
        errors = dataset.errors()
        predictions.blank(list(errors))
        report_unreadable(dataset, errors)

    def score(
        self,
        table: Table,
        *,
        max_unreadable: float,
        separator: str | None = None,
        log_interval: int = 10,
        confusion: bool = False,
        calibrate: bool = False,
    ) -> Scores:
        """Score the model on a table; see `serving.scoring.score_model`.

        Args:
            table: the images and their labels.
            max_unreadable: largest share of unreadable images, 0-1.
            separator: what separates the values of the table's cells; None for the model's separator.
            log_interval: batches between two lines of the log.
            confusion: whether to count confusion matrices.
            calibrate: whether to fit temperatures, instead of measuring the checkpoint's.
        """
        self.check_heads()
        self.check_names()
        if self.engine == "onnx":
            self.choose_engine(len(table))
        return score_table(
            self.ready,
            self.checkpoints[0],
            table,
            max_unreadable=max_unreadable,
            separator=separator,
            loading=self.loading,
            tta=self.tta,
            log_interval=log_interval,
            confusion=confusion,
            calibrate=calibrate,
        )

    @property
    def ready(self) -> EvaluationModel:
        """The only model.

        Raises:
            UsageError: there are several.
        """
        if len(self.ensemble.members) > 1:
            names = ", ".join(str(one.path) for one in self.checkpoints)
            raise UsageError(f"this needs a single model, but {names} are loaded together: load only one of these")
        return self.ensemble.members[0]

    def check_heads(self) -> None:
        """Raise if the models have no attributes; warn if no labels trained their heads.

        Raises:
            UsageError: there is no attribute to predict.
        """
        while self._unchecked:
            checkpoint, model = self._unchecked[0]
            check_heads(checkpoint, model)
            del self._unchecked[0]  # warn once

    def check_names(self) -> None:
        """Raise if the classes are numbers, so that no label of a table would be right.

        Raises:
            UsageError: a checkpoint of the original was loaded without the data that names its classes.
        """
        if self._unnamed:
            raise UsageError(
                f"{self._unnamed[0]} holds no class names: give data=DATA, a data folder that names the classes"
            )

    def _loading_of(self, dataset: ImageDataset) -> dict[str, Any]:
        """Return the arguments of the loader; processes cannot share an open file of Pillow."""
        in_memory = any(isinstance(part, Pictures) for part in dataset.lists)
        return self.loading | ({"workers": 0} if in_memory else {})

    def _validation(self, validation: str | os.PathLike[str] | None) -> Path:
        """Return the table on which precision is warranted."""
        self.check_names()
        return named_validation(self.checkpoints) if validation is None else find_table(validation, "validation")


def _check_numbers(batch_size: int, workers: int, tta: int) -> None:
    """Raise for settings out of range."""
    if batch_size < 1:
        raise UsageError(f"batch_size {batch_size}: give the number of images at a time, at least 1")
    if workers < 0:
        raise UsageError(f"workers {workers}: give the number of processes that load images, at least 0")
    if tta not in (0, 2):
        raise UsageError(f"tta {tta}: give 2 to add the mirror image, or 0 to leave it out")
