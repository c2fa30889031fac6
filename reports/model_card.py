"""The README.md of an exported folder, with the front matter that model hubs read."""

from __future__ import annotations

from typing import Any

from catalog.label_space import LabelSpace

_FEW = 12  # classes that a row of the table lists


def model_card(arch: str, label_space: LabelSpace, data_config: dict[str, Any], backbone_only: bool) -> str:
    """Return a model card: what the model predicts, how images are prepared, and how it is loaded.

    Args:
        arch: name of the backbone.
        label_space: the attributes and their classes.
        data_config: the preprocessing.
        backbone_only: whether the model has no classifier.
    """
    kind = "image-feature-extraction" if backbone_only else "image-classification"
    size = " x ".join(map(str, data_config["input_size"][1:]))
    rule = "-" * 3
    head = f"{rule}\nlibrary_name: timm\npipeline_tag: {kind}\ntags:\n- timm\n- transformers\n- {kind}\n{rule}\n"
    lines = [head, f"# {arch}, fine-tuned for several attributes", ""]
    lines += [f"Images are resized to {size} pixels. Mean, standard deviation and crop are in config.json.", ""]
    if backbone_only:
        lines += ["The model returns the representation of an image.", ""]
        return "\n".join([*lines, *_usage("features = model(images)  # [B, D]")])
    lines += ["| attribute | classes | outputs |", "|---|---|---|"]
    start = 0
    for attribute, names in label_space.classes.items():
        shown = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
        several = ", several at once" if attribute in label_space.multi_valued else ""
        lines.append(f"| {_cell(attribute)}{several} | {_cell(shown)} | {start} to {start + len(names) - 1} |")
        start += len(names)
    lines += [
        "",
        "The outputs are logits, one attribute after the other: take the softmax of the outputs of each attribute,",
        "divided by its temperature in config.json. An attribute with several classes at once takes the sigmoid.",
        "",
    ]
    return "\n".join([*lines, *_usage("logits = model(images)  # names of the outputs: model.pretrained_cfg")])


def _usage(last: str) -> list[str]:
    """Return the section on loading the model."""
    return [
        "```python",
        "import timm",
        "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        last,
        "```",
        "",
    ]


def _cell(text: str) -> str:
    """Return text as a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
