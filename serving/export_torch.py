"""Export to a torch.export program, which PyTorch alone runs: no timm, no code of this project."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from runtime.errors import UsageError, first_line
from serving.export_outputs import NamedOutputs


def write_program(outputs: NamedOutputs, images: Tensor, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a model as a program that takes batches of any size.

    Args:
        outputs: the model with its named outputs.
        images: example images [B, C, H, W], at least two.
        file: the file to write.
        metadata: text to keep in the file, each entry as `NAME.json`.

    Raises:
        UsageError: the model cannot be traced.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own use of what PyTorch deprecates
            program = torch.export.export(outputs, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        raise UsageError(
            f"--format torch cannot export this backbone ({first_line(error)}): choose another format"
        ) from error
    content = io.BytesIO()  # into a file, torch would abort the process where the disk is full
    torch.export.save(program, content, extra_files={f"{name}.json": text for name, text in metadata.items()})
    file.write_bytes(content.getbuffer())


def load_program(file: Path, names: list[str]) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return a program's file as a function of images [B, C, H, W] that gives outputs by name."""
    with file.open("rb") as content:  # by its name, torch would insist on the ending .pt2
        module = torch.export.load(content).module()
    return lambda images: dict(zip(names, module(images), strict=True))
