"""Predict the tables of a cell of the label-efficiency study by logistic regression on frozen features.

    python benchmarks/logistic_regression.py TABLES --pretrained-path FILE --img-size 224 --features FILE -o FOLDER

Fits on the labeled rows of TABLES/train.csv, one classifier for each attribute, on standardized features. Its strength
is chosen among five by the accuracy of five-fold cross-validation on the same rows. Writes val-predictions.csv,
test-predictions.csv and cost.json into FOLDER. All photographs pass the backbone once; --features keeps the result.
Needs scikit-learn (requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the checkout's timm and catalog

from command import command_parser, run_command
from label_efficiency_cells import Row, locked, read_rows
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler

STRENGTHS = np.logspace(-4, 0, 5)  # inverse of the L2 penalty
FOLDS = 5

Array = np.ndarray[Any, np.dtype[Any]]


def main() -> None:
    """Compute or read the features, fit, and write the predictions."""
    # features
    args = parse_args()
    with locked(args.features.with_suffix(".lock")):
        if not args.features.exists():
            compute_features(args)
    with np.load(args.features) as stored:
        features = dict(zip(stored["names"].tolist(), stored["features"], strict=True))
        seconds = float(stored["seconds"]) / len(features)

    # a classifier for each attribute
    start = time.process_time()
    labeled = [row for row in read_rows(args.tables / "train.csv") if any(list(row.values())[1:])]
    tables = {name: read_rows(args.tables / f"{name}.csv") for name in ("val", "test")}
    inputs = {name: select(features, rows) for name, rows in tables.items()}
    for attribute in list(labeled[0])[1:]:
        rows = [row for row in labeled if row[attribute]]
        predicted = fit_predict(select(features, rows), [row[attribute] for row in rows], inputs)
        for name, classes in predicted.items():
            tables[name] = [row | {attribute: kind} for row, kind in zip(tables[name], classes, strict=True)]

    # files
    args.output.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with (args.output / f"{name}-predictions.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    # what a user would pay: the features of the labeled rows, and the fits
    cost = {"seconds": time.process_time() - start + seconds * len(labeled)}
    (args.output / "cost.json").write_text(json.dumps(cost))


def parse_args() -> argparse.Namespace:
    """Return the flags of the command line."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("tables", type=Path, help="folder with train.csv, val.csv, test.csv and all.csv")
    add(
        "--photographs", type=Path, help="folder with the photographs by their names (default: the paths of the tables)"
    )
    add("--model", default="tf_efficientnet_lite0", help="timm's name of the backbone (default: %(default)s)")
    add("--pretrained-path", required=True, help="file of weights with timm's parameter names")
    add("--img-size", type=int, default=224, help="side in pixels (default: %(default)s)")
    add("--features", type=Path, required=True, help="file of the features, .npz; written if it does not exist")
    add("-o", "--output", type=Path, required=True, help="folder for the predictions")
    return parser.parse_args()


def fit_predict(features: Array, labels: list[str], inputs: dict[str, Array]) -> dict[str, list[str]]:
    """Return the predicted classes of each table's images.

    Args:
        features: representations of the labeled images, [N, D].
        labels: their classes.
        inputs: representations of the images to predict, by table, each [M, D].
    """
    # The penalty is the same in any rotation of the features, and N images span at most N directions.
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    rotation = np.linalg.svd(scaled, full_matrices=False)[2].T if len(scaled) < scaled.shape[1] else None
    turn = (lambda x: x) if rotation is None else (lambda x: x @ rotation)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": STRENGTHS}, cv=folds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # rare classes miss some folds
        search.fit(turn(scaled), labels)
    return {name: search.predict(turn(scaler.transform(x))).tolist() for name, x in inputs.items()}


def select(features: dict[str, Array], rows: list[Row]) -> Array:
    """Return the features of the rows' photographs, [N, D]."""
    return np.stack([features[Path(row["image_path"]).stem] for row in rows])


def compute_features(args: argparse.Namespace) -> None:
    """Write the features of all photographs of all.csv and test.csv, by their file names without endings."""
    import frozen_features

    from catalog.build_label_space import build_label_space
    from catalog.table import read_table
    from timm.models.multi_label import create_multi_label_model

    # the photographs
    originals = {file.stem: file for file in args.photographs.iterdir()} if args.photographs else {}
    rows = [row for name in ("all", "test") for row in read_rows(args.tables / f"{name}.csv")]
    names = [Path(row["image_path"]).stem for row in rows]
    table = args.features.with_suffix(".csv")
    paths = [originals.get(name, Path(row["image_path"])) for name, row in zip(names, rows, strict=True)]
    lines = [f"{path.resolve()},x" for path in paths[:-1]] + [f"{paths[-1].resolve()},y"]  # labels that nothing reads
    table.write_text("\n".join(["image_path,label", *lines]) + "\n")

    # their features
    start = time.process_time()
    label_space = build_label_space(read_table(table))
    size = (3, args.img_size, args.img_size)
    model = create_multi_label_model(
        args.model,
        label_space,
        pretrained_path=args.pretrained_path,
        pretrained=True,
        image_size=size,
        projection_dim=0,
    )
    features, _ = frozen_features.extract(model.eval(), table, label_space, args)
    seconds = time.process_time() - start
    partial = args.features.with_suffix(".partial.npz")
    np.savez(partial, names=np.array(names), features=features, seconds=seconds)
    partial.replace(args.features)


if __name__ == "__main__":
    run_command(main)
