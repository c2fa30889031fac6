"""Give the soft labels of photographs to their small copies: another path for each row, the same probabilities.

    python benchmarks/relabel_copies.py SOFT.parquet COPIES.csv -o FILE.parquet

COPIES.csv has the copies in the order of the rows of SOFT.parquet, which inference.py keeps.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from command import command_parser, run_command
from label_efficiency_cells import read_rows


def main() -> None:
    """Write the file."""
    parser = command_parser(__doc__)
    parser.add_argument("soft", type=Path, help="file of inference.py --probabilities")
    parser.add_argument("copies", type=Path, help="table of the copies")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    args = parser.parse_args()

    table, copies = pq.read_table(args.soft), [row["image_path"] for row in read_rows(args.copies)]
    photographs = table["image_path"].to_pylist()
    if [Path(path).stem for path in photographs] != [Path(path).stem for path in copies]:
        raise SystemExit(f"{args.copies} does not have the photographs of {args.soft} in the same order")
    column = table.schema.get_field_index("image_path")
    field = table.schema.field(column)
    pq.write_table(table.set_column(column, field, [pa.array(copies, field.type)]), args.output)


if __name__ == "__main__":
    run_command(main)
