"""The report of a run: its model's predictions for a split and the files of its folder, as a page and a model card."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import torch

from reports.model_card import model_card
from reports.run_page import RunReport, write_run_page
from reports.run_record import VIEWS, read_record, record_lines, table_hashes
from reports.run_results import RunResults
from runtime.atomic_file import atomic_file
from serving.reported_model import (
    ReportedModel,
    load_reported,
    read_epochs,
    report_results,
    scored_table,
)

PAGE, CARD = "report.html", "README.md"
_CARD_START = b"---\nlibrary_name: timm\n"
_FEW = 500  # images that are read in this process
_LARGEST_SHEET = 400_000  # bytes of views.jpg that a page has room for


def write_report(
    path: Path,
    reported: ReportedModel,
    results: RunResults | None,
    *,
    notes: tuple[str, ...] = (),
    card: bool = True,
) -> None:
    """Write the page of a model, and beside its checkpoint the model card.

    Args:
        path: the page.
        reported: the model.
        results: its predictions; None without a split to score.
        notes: sentences about what the page lacks.
        card: whether to write the model card into the run's folder, unless another README.md is there.

    Raises:
        UsageError: a file cannot be written.
    """
    folder, checkpoint = reported.folder, reported.checkpoint
    weights = ", averaged weights" if reported.averaged else ""
    epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
    split = "" if results is None else f", scored on {results.split}"
    report = RunReport(
        title=f"{folder.name}, {reported.ready.arch}",
        checkpoint=f"{checkpoint.path.name}{epoch}{weights}{split}.",
        results=results,
        summary=read_epochs(folder),
        facts=_facts(reported),
        commands=usage(reported),
        views=_views(folder),
        notes=notes,
    )
    write_run_page(path, report)
    if card and _may_replace(folder / CARD):
        config = dict(reported.ready.data_config)
        text = model_card(
            reported.ready.arch, reported.ready.label_space, config, False, results=results, source=checkpoint.path.name
        )
        with atomic_file(folder / CARD) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def _may_replace(card: Path) -> bool:
    """Return whether a file is absent or a model card, and not a README.md that somebody wrote."""
    try:
        with card.open("rb") as file:
            return file.read(len(_CARD_START)) == _CARD_START
    except FileNotFoundError:
        return True


def usage(reported: ReportedModel) -> list[tuple[str, str]]:
    """Return how to use a model, as pairs of a sentence and commands."""
    path = reported.checkpoint.path
    file, data = shlex.quote(str(path)), shlex.quote(str(reported.flags.get("data_dir") or "DATA"))
    ema = " --use-ema" if reported.averaged else ""
    averaged = ", use_ema=True" if reported.averaged else ""
    commands = []
    if len(reported.ready.label_space) and reported.checkpoint.heads_are_untrained:
        commands = [
            ("Solve heads for its attributes, without training the backbone.", f"python refit.py {file} {data}"),
            (
                "Or train it further on the labels.",
                f"python train.py {data} -c recipes/fine-tune.yaml --initial-checkpoint {file}",
            ),
        ]
    elif len(reported.ready.label_space):
        commands = [
            (
                "Label a folder of images: one row for each, with a class and a probability for each attribute.",
                f"python inference.py PHOTOS --checkpoint {file}{ema} -o predictions.csv",
            ),
            (
                "Score it on another split, with tables by class.",
                f"python validate.py {data} --checkpoint {file}{ema} --split test --per-class",
            ),
        ]
    predicts = len(reported.ready.label_space) and not reported.checkpoint.heads_are_untrained
    predict = '\ntable = model.predict("PHOTOS", precision=0.97)  # blank where fewer are right' if predicts else ""
    commands.append(
        (
            "From Python, in the checkout: labels, and representations for search.",
            f"from serving import MultiLabel\n\nmodel = MultiLabel({json.dumps(str(path))}{averaged}){predict}\n"
            'h = model.embed("PHOTOS", normalize=True)',
        )
    )
    commands.append(
        (
            "Hand it to other tools: timm and transformers, or ONNX.",
            f"python export.py {file} --format onnx -o model.onnx",
        )
    )
    return commands


def _facts(reported: ReportedModel) -> list[tuple[str, str]]:
    """Return how a run was made: from its record, or as far as its checkpoint knows."""
    flags, lines = reported.flags, record_lines(read_record(reported.folder))
    names = {name for name, _ in lines}
    arguments = reported.folder / "args.yaml"
    if "command" not in names:
        command = f"python train.py -c {arguments}" if arguments.is_file() else ""
        lines = [("command", f"{command} (the exact one was not recorded)" if command else "not recorded"), *lines]
    ready = reported.ready
    parameters = sum(one.numel() for one in ready.model.parameters()) / 1e6
    lines.append(("model", f"{ready.arch}, {parameters:.2f} M parameters, {len(ready.label_space)} attributes"))
    size = " x ".join(map(str, ready.data_config["input_size"][1:]))
    lines.append(("images", f"{size} pixels, crop {ready.data_config['crop_pct']:g}"))
    if flags.get("data_dir"):
        lines.append(("data", str(flags["data_dir"])))
    if not any(name.startswith("SHA-256") for name in names):
        hashes = table_hashes(flags.get("data_dir"), flags.get("train_split"), flags.get("val_split"))
        lines += [(f"SHA-256 of {name}, now", digest) for name, digest in hashes.items()]
    return lines


def _views(folder: Path) -> bytes | None:
    """Return the picture of training views in a run's folder; None without one."""
    path = folder / VIEWS
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST_SHEET else None
    except OSError:
        return None


def leave_page(folder: Path, device: torch.device, batch_size: int, workers: int, note: str) -> Path:
    """Write the page and the model card of a run that has just ended, from one pass over its validation images.

    Args:
        folder: folder of the run.
        device: device of the model.
        batch_size: images at a time.
        workers: processes that load images, if there are many.
        note: a sentence for the page.

    Returns:
        The path of the page.

    Raises:
        UsageError: the run has no checkpoint, or too many images are unreadable.
    """
    reported = load_reported(folder, device=device, batch_size=batch_size)
    table, results = scored_table(reported), None
    if table is not None:
        reported.model.loading["workers"] = workers if len(table) > _FEW else 0  # a worker takes a second to start
        unreadable = float(reported.flags.get("max_unreadable") or 0.01)
        results = report_results(reported, table, logistic_images=0, max_unreadable=unreadable)
    path = folder / PAGE
    notes = (note,) if results is not None and results.attributes else ()
    write_report(path, reported, results, notes=notes)
    return path
