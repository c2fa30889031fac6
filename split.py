#!/usr/bin/env python3
"""Make train, val and test tables from one table, or from folders of classes.

    python split.py DATA                                  all.csv, or the only table of DATA, or DATA/CLASS/*.jpg
    python split.py products.csv -o DATA --group product_id
    python split.py DATA --overwrite                      DATA/train.csv is split, and kept whole as all.csv

Every class of every attribute gets its share in each table, as far as its images allow. Rows of one group, and copies
of one image, stay in one table. The same seed gives the same tables, whatever the order of the rows. Where a
column or folders say train, val and test, that is kept. Images are not copied.
"""

from options.split import parse_split_args, shares

if __name__ == "__main__":
    parse_split_args()  # --help and a misspelled flag answer at once

import logging
import shlex
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog.cell_text import normalized_name
from catalog.draw_parts import (
    Rows,
    Together,
    divided_groups,
    draw_parts,
    names_of,
    rows_together,
    with_balanced_columns,
)
from catalog.label_space import SEPARATOR
from catalog.separated_cells import with_separator
from catalog.split_paths import paths_from
from catalog.split_source import PARTS, SplitSource, read_split_source
from catalog.stratify import Labels, table_labels
from catalog.write_parts import check_left, check_places, write_parts
from reports.split_report import split_lines, together_line
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.log import set_up_log
from runtime.progress import announced
from training.flag_names import naming_flags

_logger = logging.getLogger("split")


def main(argv: list[str] | None = None) -> None:
    """Split as the command line says."""
    args = parse_split_args(argv)
    set_up_log()
    with report_usage_errors("split.py"), naming_flags("overwrite", "separator", "split_column"):
        split(args)


def split(args: Namespace) -> None:
    """Read the rows, draw the tables, write them, and say what they hold."""
    # rows
    with announced(f"Reading {args.source}", _logger.info):
        source = read_split_source(Path(args.source), _split_column(args))
    group = normalized_name(args.group) if args.group else None
    read = with_separator(source.table, args.separator or SEPARATOR)
    table, odd = with_balanced_columns(read, args.attributes, [*filter(None, (group, source.split_column))])
    drawn = drawn_shares(args, source)
    folder = Path(args.output or source.table.path.parent)
    made = made_tables(source, drawn)
    written = source.table.path if source.is_file and not source.in_parts else None
    if source.in_parts and folder.resolve() == source.table.path.parent.resolve():
        raise UsageError(f"{source.table.path} is in parts, which the new tables would stand beside: name an --output")
    check_places(folder, tuple(made.values()), source.ending, written, args.overwrite)
    check_left(folder, made.values(), source.table)
    if odd:
        _logger.info(f"Not balanced: {names_of(odd)}, which no model can learn; name columns with --attributes")

    # parts
    with announced(f"Comparing {len(table):,} images, to keep copies together", _logger.info):
        together = rows_together(source.table, group)
    labels = table_labels(table.columns, table.lists)
    with announced(f"Drawing {len(table):,} rows", _logger.info):
        parts = draw_parts(table, labels, together.units, args.seed, drawn, source.parts)

    # tables
    with announced(f"Writing {len(table):,} rows", _logger.info):
        write(source, folder, parts, made, together)
    for line in report(labels, parts, together, made, drawn if source.parts is None else None):
        print(printable(line))
    chosen = (
        [] if source.table.attributes == table.attributes or not table.columns else ["--attributes", *table.columns]
    )
    chosen += ["--separator", args.separator] if args.separator else []
    print(printable(f"Train on them: {shlex.join(['python', 'train.py', str(folder), *chosen])}"), flush=True)


def _split_column(args: Namespace) -> str | None:
    """Return the column that says the split, "" for none, None for whichever does."""
    return "" if args.split_column == "none" else args.split_column


def drawn_shares(args: Namespace, source: SplitSource) -> dict[str, float]:
    """Return the share of each part to draw; parts that the source says are not drawn.

    Raises:
        UsageError: a flag asks for a part that the source says.
    """
    if source.parts is None:
        return shares(args, ())
    given = [name for index, name in enumerate(PARTS) if (source.parts == index).any()]
    for name in given[1:] if "train" in given else given:
        if getattr(args, name) is not None:
            raise UsageError(
                f"--{name} has no effect, as {source.said_by} of {args.source} say which rows are {name}: leave it out"
                + (", or ignore the column with --split-column none" if source.split_column else "")
            )
    return shares(args, given or ("train",))


def made_tables(source: SplitSource, drawn: dict[str, float]) -> dict[int, str]:
    """Return the name of each table to write, by its part."""
    given = [] if source.parts is None else [name for index, name in enumerate(PARTS) if (source.parts == index).any()]
    return {index: name for index, name in enumerate(PARTS) if name in drawn or name in given}


def write(source: SplitSource, folder: Path, parts: Rows, made: dict[int, str], together: Together) -> None:
    """Write the tables, with paths that are valid in their folder."""
    place = folder.resolve()
    cells = source.cells
    if source.path_column and place != source.table.path.parent.resolve():
        paths = paths_from(folder, source.table, together.located)
        position = cells.column_names.index(source.path_column)
        cells = cells.set_column(position, source.path_column, pa.chunked_array([paths]))
    tables = {name: cells.take(pa.array(np.flatnonzero(parts == part))) for part, name in made.items()}
    replaced = place / f"train{source.ending}"
    keeps = source.is_file and not source.in_parts and replaced.exists() and replaced.samefile(source.table.path)
    write_parts(folder, tables, source.ending, source.table.path if keeps else None)
    if keeps:
        _logger.info(f"{replaced}: all its rows are kept in all{source.ending}")


def report(
    labels: Labels, parts: Rows, together: Together, made: dict[int, str], drawn: dict[str, float] | None
) -> list[str]:
    """Return the lines about what was made; `drawn` is None where the source says some part itself."""
    labeled = np.unique(labels.rows) if len(labels.rows) else np.arange(len(parts))
    wanted = {
        part: float((parts[labeled] == part).mean()) if drawn is None else drawn[name] for part, name in made.items()
    }
    lines = list(split_lines(parts, labels, made, wanted))
    for codes, what in ((together.groups, "group"), (together.images, "image")):
        if codes is not None and (line := together_line(codes, what, divided_groups(codes, parts))):
            lines.append(line)
    return lines


if __name__ == "__main__":
    main()
