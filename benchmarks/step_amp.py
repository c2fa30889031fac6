"""The step in mixed precision: `step` with --amp, against the original's way without it and with it."""

from __future__ import annotations

from functools import partial

from harness import Result
from step import (
    DEVICE,
    Contenders,
    bare_backbone,
    compare,
    original_scoring,
    original_step,
    our_scoring,
    our_step,
    sizes,
)

from timm.task.precision import emulates_bfloat16


def run(small: bool) -> list[Result]:
    """Compare training steps in bfloat16, the bare backbone, and scoring; nothing where bfloat16 is emulated."""
    if emulates_bfloat16(DEVICE):
        print("\nstep-amp: left out, this processor has no bfloat16 instructions")
        return []
    batch, size, images = sizes(small)
    training: Contenders = {
        "ours, --amp": partial(our_step, batch, size, True),
        "the original's way, float32": partial(original_step, batch, size, False),
        "the original's way, bfloat16": partial(original_step, batch, size, True),
        "the bare backbone, bfloat16": partial(bare_backbone, batch, size, True),
    }
    scoring: Contenders = {
        "ours, --amp": partial(our_scoring, images, size, True),
        "the original's way": partial(original_scoring, images, size),
    }
    return compare(small, training, scoring, ", --amp")
