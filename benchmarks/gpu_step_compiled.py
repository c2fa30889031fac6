"""The training step under --torchcompile: a section of its own, because compiling takes most of its time."""

from gpu_step import run_compiled as run

__all__ = ["run"]
