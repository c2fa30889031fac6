#!/usr/bin/env python3
"""Make an index of images, in which search.py finds similar ones.

    python embed.py photos --checkpoint output/train/RUN/model_best.pth.tar -o index
    python embed.py catalog.csv --checkpoint FILE -o index        (search.py also filters by the table's labels)
    python embed.py photos --checkpoint FILE -o index --projection        (by z, which the contrastive loss trained)

An input is an image, a folder with its subfolders, or a table with a column image_path. One pass through the model
gives the embedding and the prediction of each image. The folder gets embeddings.npy (float16 [N, D], rows of length 1),
rows.parquet (paths, labels, predictions) and index.json (the checkpoint, its hash, the settings). If the command is
ended, give it again: it continues. An unreadable image keeps its row, which no search returns.
"""

from commands.early_mistakes import report_table_mistakes
from options.embed import embed_parser, parse_embed_args

if __name__ == "__main__":
    # --help, a misspelled flag and a wrong table are answered at once, not after torch was imported.
    report_table_mistakes("embed.py", parse_embed_args(check_paths=True))

import logging
import time
from argparse import Namespace
from pathlib import Path

from options.serving_kwargs import NAMED, serving_kwargs
from options.shared import SMALLER
from runtime.errors import printable, report_usage_errors
from runtime.process import set_up_process
from runtime.process_group import check_single
from runtime.stop_signals import stop_signals
from serving.index_build import build_index
from serving.multi_label import MultiLabel
from timm.data.loader_workers import explained_workers
from training.flag_names import naming_flags

_logger = logging.getLogger("embed")


def main(argv: list[str] | None = None) -> None:
    """Embed as the command line says."""
    args = parse_embed_args(argv)
    with (
        report_usage_errors("embed.py", SMALLER),
        naming_flags(*NAMED, "workers", "batch_size", "image_root", "projection", "use_ema", "tta", "overwrite"),
        explained_workers(),
        stop_signals("embed.py"),
    ):
        embed(args)


def embed(args: Namespace) -> None:
    """Make the index: load the model, find the images, embed."""
    check_single("several processes would write one index")
    with naming_flags("device"):
        device = set_up_process(args.device).device
    for note in embed_parser().notes(args, device):
        _logger.info(note)
    model = MultiLabel(args.checkpoint, device=device, **serving_kwargs(args))
    if len(model.label_space):
        model.check_heads()
    ready = model.ready
    _logger.info(f"{args.checkpoint}: {ready.arch}, {ready.data_config}; classes: {ready.label_space}")
    start = time.perf_counter()
    built = build_index(
        model,
        args.input,
        args.output,
        projection=args.projection,
        image_root=args.image_root or None,
        overwrite=args.overwrite,
        log_interval=args.log_freq,
    )
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in Path(args.output).iterdir())
    print(f"{built.rows:,} images, {seconds:.1f} s: {printable(args.output)}, {size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
