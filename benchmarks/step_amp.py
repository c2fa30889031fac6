"""Compare the step under --amp with the original's way in float32 and in bfloat16."""

from __future__ import annotations

from harness import Result
from step import DEVICE, bare_backbone, compare, original_step, our_step

from runtime.precision import emulates_bfloat16


def run(small: bool) -> list[Result]:
    """Compare training steps in bfloat16, the bare backbone and scoring; skip a device that emulates bfloat16."""
    if emulates_bfloat16(DEVICE):
        print("\nstep-amp: skipped, this processor has no bfloat16 instructions")
        return []
    steps = {
        "ours, --amp": (our_step, True),
        "the original's way, float32": (original_step, False),
        "the original's way, bfloat16": (original_step, True),
        "the bare backbone, bfloat16": (bare_backbone, True),
    }
    return compare(small, steps, amp=True)
