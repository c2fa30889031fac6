"""The README.md of a model, with the front matter that model hubs read."""

from __future__ import annotations

import json
from typing import Any

from catalog.label_space import LabelSpace
from reports.bootstrap import interval
from reports.page_style import plain
from reports.run_results import AttributeResults, RunResults

_FEW = 12  # classes that a row of the table lists


def model_card(
    arch: str,
    label_space: LabelSpace,
    data_config: dict[str, Any],
    backbone_only: bool,
    *,
    results: RunResults | None = None,
    source: str = "",
) -> str:
    """Return a model card: what the model predicts, how well, how images are prepared, and how it is loaded.

    Args:
        arch: name of the backbone.
        label_space: the attributes and their classes.
        data_config: the preprocessing.
        backbone_only: whether the model has no classifier.
        results: its predictions for a split; None without scores.
        source: file name of the checkpoint beside the card; "" for a folder that stock timm loads.
    """
    features = backbone_only or not len(label_space)
    scored = results is not None and results.heads_trained
    shown = [one for one in results.attributes if len(one)] if results is not None and scored else []
    size = " x ".join(map(str, data_config["input_size"][1:]))
    lines = [_front_matter(arch, features, shown, results, bool(source))]
    lines += [f"# {arch}, {'its representation' if features else 'fine-tuned for several attributes'}", ""]
    where = "the checkpoint" if source else "config.json"
    lines += [f"Images are resized to {size} pixels. Mean, standard deviation and crop are in {where}.", ""]
    usage = _usage_of_checkpoint(source, features) if source else _usage(features)
    if features:
        return "\n".join([*lines, "The model returns the representation of an image.", "", *usage])
    lines += _outputs(label_space)
    lines += (
        []
        if source
        else [
            "The outputs are logits, one attribute after the other: take the softmax of the outputs of each attribute,",
            "divided by its temperature in config.json. An attribute with several classes at once takes the sigmoid.",
            "",
        ]
    )
    if shown and results is not None:
        lines += _scores(shown, results)
    return "\n".join([*lines, *usage])


def _front_matter(
    arch: str, features: bool, shown: list[AttributeResults], results: RunResults | None, ours: bool
) -> str:
    """Return the front matter; with scores it has them as hubs read them."""
    kind = "image-feature-extraction" if features else "image-classification"
    rule = "-" * 3
    tags = ["timm", *([] if ours else ["transformers"]), kind]
    lines = [rule, "library_name: timm", f"pipeline_tag: {kind}", "tags:", *(f"- {tag}" for tag in tags)]
    if shown and results is not None:
        lines += ["model-index:", f"- name: {json.dumps(arch)}", "  results:"]
        for one in shown:
            lines += [
                "  - task:",
                f"      type: {kind}",
                "    dataset:",
                f"      name: {json.dumps(plain(f'{results.split}, {one.name}'))}",
                "      type: image-table",
                "    metrics:",
                "    - type: accuracy",
                f"      value: {float(one.right.mean()):.4f}",
            ]
    return "\n".join([*lines, rule, ""])


def _outputs(label_space: LabelSpace) -> list[str]:
    """Return the table of the attributes, their classes and their outputs."""
    lines = ["| attribute | classes | outputs |", "|---|---|---|"]
    start = 0
    for attribute, names in label_space.classes.items():
        shown = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
        several = ", several at once" if attribute in label_space.multi_valued else ""
        lines.append(f"| {_cell(attribute)}{several} | {_cell(shown)} | {start} to {start + len(names) - 1} |")
        start += len(names)
    return [*lines, ""]


def _scores(shown: list[AttributeResults], results: RunResults) -> list[str]:
    """Return the table of the accuracies."""
    lines = [f"Accuracies on {_cell(results.split)}, with 95% bootstrap intervals over its images:", ""]
    lines += ["| attribute | labeled images | accuracy | always guessing |", "|---|---|---|---|"]
    for one in shown:
        low, high = interval(one.right[None].astype(float))
        value, guess = 100 * float(one.right.mean()), 100 * float(one.guess.mean())
        lines.append(f"| {_cell(one.name)} | {len(one):,} | {value:.1f}% ({low:.1f} to {high:.1f}) | {guess:.1f}% |")
    return [*lines, ""]


def _usage(features: bool) -> list[str]:
    """Return the section on loading a folder with stock timm."""
    last = "features = model(images)  # [B, D]"
    last = last if features else "logits = model(images)  # names of the outputs: model.pretrained_cfg"
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


def _usage_of_checkpoint(source: str, features: bool) -> list[str]:
    """Return the section on loading a checkpoint in a checkout of this project."""
    last = 'h = model.embed("photo.jpg")' if features else 'table = model.predict("photo.jpg")'
    return [
        "```python",
        "from serving import MultiLabel  # in a checkout of simclr-multi-label",
        "",
        f'model = MultiLabel("{source}")',
        last,
        "```",
        "",
        "export.py writes it for timm, transformers, ONNX or torch.export.",
        "",
    ]


def _cell(text: str) -> str:
    """Return text as a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
