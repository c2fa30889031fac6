#!/usr/bin/env python3
"""Find the images of an index that are most similar to an image.

    python embed.py photos --checkpoint output/train/RUN/model_best.pth.tar -o index        (once)
    python search.py photo.jpg --index index --top 12 -o hits.html
    python search.py photo.jpg --index index --where color=Red --where 'article!=Tshirts' -o hits.csv

The answers are a page or a PNG with thumbnails, CSV or JSON, by the ending of -o. Without -o they are printed. A filter
compares an image's label or, where it has none, its predicted class; `color:given=Red`, `color:predicted=Red` and
`color:probability>=0.9` choose. The search is exact: no image that fits is more similar than those returned. IMAGE
itself is left out if it is in the index.
"""

from options.search import parse_search_args

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_search_args(check_paths=True)

import logging
import time
from argparse import Namespace
from pathlib import Path

from reports.hit_sheet import check_sheet, write_hit_page, write_hit_picture
from reports.hits import Hits, hit_lines, write_hits_csv, write_hits_json
from runtime.atomic_file import check_writable
from runtime.errors import printable, report_usage_errors
from runtime.process import set_up_process
from runtime.process_group import check_single
from runtime.stop_signals import stop_signals
from serving.search import Index
from training.flag_names import naming_flags

_logger = logging.getLogger("search")


def main(argv: list[str] | None = None) -> None:
    """Search as the command line says."""
    args = parse_search_args(argv)
    with (
        report_usage_errors("search.py", "embed by --projection, whose embeddings are shorter"),
        naming_flags("checkpoint", "overwrite"),
        stop_signals("search.py"),
    ):
        search(args)


def search(args: Namespace) -> None:
    """Search: open the index, embed the images, find, write the answers."""
    check_single("several processes would write one file")
    output = Path(args.output) if args.output else None
    if output is not None:
        check_writable(output)
    with naming_flags("device"):
        device = set_up_process(args.device).device
    index = Index(args.index, checkpoint=args.checkpoint, device=device)
    filters = tuple(args.where or ())
    start = time.perf_counter()
    table = index.search(args.image, where=filters, top=args.top, keep_query=args.keep_query, engine=args.engine)
    _logger.info(f"Embedded the query and searched {len(index):,} images in {time.perf_counter() - start:.2f} s")
    hits = Hits(table, index.label_space, tuple(index.info.labels), filters)
    if output is None:
        print(printable_lines(hits), flush=True)
    else:
        write_hits(output, hits, args)
        print(f"{len(table):,} images: {printable(str(output))}", flush=True)


def write_hits(output: Path, hits: Hits, args: Namespace) -> None:
    """Write the answers in the format that the file's ending names."""
    if output.suffix == ".csv":
        write_hits_csv(output, hits, args.spreadsheet_safe)
    elif output.suffix == ".json":
        write_hits_json(output, hits)
    else:
        check_sheet(hits)
        if output.suffix == ".html":
            write_hit_page(output, hits, f"Search in {args.index}")
        else:
            write_hit_picture(output, hits)


def printable_lines(hits: Hits) -> str:
    """Return the answers as lines for a terminal."""
    return "\n".join(printable(line) for line in hit_lines(hits))


if __name__ == "__main__":
    main()
