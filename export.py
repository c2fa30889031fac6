#!/usr/bin/env python3
"""Write a checkpoint's model for other tools: timm and transformers, ONNX, or torch.export.

    python export.py output/train/RUN/model_best.pth.tar --format timm -o my-model
    python export.py CHECKPOINT --format onnx -o my-model.onnx --outputs h
    python export.py CHECKPOINT --format onnx --int8 DATA        (a quarter of the size, and faster on a CPU)
    python export.py CHECKPOINT --format torch -o my-model.pt2

timm: a folder that `timm.create_model("local-dir:my-model", pretrained=True)` loads without this project. The heads are
stacked into its classifier, whose outputs are named `color=Red`, ... onnx: one file with an output for each attribute,
for batches of any size. torch: a program that PyTorch alone runs. All carry the classes, the preprocessing, thresholds
and temperatures. Before anything is written, the exported model must have the checkpoint's outputs on real images.
"""

from options.export import parse_export_args

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_export_args(check_paths=True)

from argparse import Namespace
from pathlib import Path

from options.serving_kwargs import NAMED, PREPROCESSING
from runtime.errors import printable, report_usage_errors
from runtime.process import set_up_process
from runtime.process_group import check_single
from runtime.stop_signals import stop_signals
from serving.checkpoint_files import run_checkpoint
from serving.exporting import ExportSettings, default_output, export_model
from timm.models.multi_label_checkpoint import read_checkpoint
from training.flag_names import naming_flags


def main(argv: list[str] | None = None) -> None:
    """Export as the command line says."""
    args = parse_export_args(argv)
    with report_usage_errors("export.py"), naming_flags(*NAMED, "output"), stop_signals("export.py"):
        export(args)


def export(args: Namespace) -> None:
    """Export the model, and say where it is."""
    check_single("several processes would write one file")
    path = run_checkpoint(args.checkpoint)
    output = Path(args.output) if args.output else default_output(path, args.format)
    set_up_process("cpu")
    settings = ExportSettings(
        backbone_only=args.backbone_only,
        outputs=args.outputs or (),
        int8=args.int8,
        calibration_images=args.calibration_images,
        workers=args.workers,
        triton=args.triton,
    )
    preprocessing = {name: getattr(args, name) for name in PREPROCESSING}
    checkpoint = read_checkpoint(path)
    export_model(
        *(checkpoint, args.format, output, settings),
        use_ema=args.use_ema,
        data=args.data,
        preprocessing=preprocessing,
        images=args.images,
    )
    size = sum(file.stat().st_size for file in [output, *output.rglob("*")] if file.is_file())
    print(f"Exported: {printable(str(output))}, {size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
