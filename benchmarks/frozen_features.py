"""Score each attribute without training the backbone: logistic regression on its frozen features.

    python benchmarks/frozen_features.py DATA --model tf_efficientnet_lite0 --pretrained-path FILE --img-size 224

Prints top-1 and balanced accuracy in percent for each attribute of DATA's val.csv, and the exact match. A fine-tuned
model should beat these figures. Needs scikit-learn (requirements-dev.txt).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the checkout's timm and simclr

import torch
from command import command_parser, run_command
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from catalog.build_label_space import build_label_space
from catalog.label_space import LabelSpace
from catalog.splits import find_label_table, find_split
from catalog.table import read_table
from catalog.targets import encode_targets
from runtime.errors import report_usage_errors
from timm.data.multi_label_loader import LoaderSettings, create_eval_loader
from timm.data.preprocessing import resolve_preprocessing
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label import create_multi_label_model


def main() -> None:
    """Extract the features of both splits, fit a classifier for each attribute, and print the scores."""
    # features
    args = parse_args()
    with report_usage_errors("frozen_features.py"):
        train_path = find_split(args.data, "train")
        label_space = build_label_space(read_table(find_label_table(args.data, train_path)))
        model = create_multi_label_model(
            args.model,
            label_space,
            pretrained=True,
            pretrained_path=args.pretrained_path,
            image_size=(3, args.img_size, args.img_size),
            projection_dim=0,
        ).eval()
        train = extract(model, train_path, label_space, args)
        test = extract(model, find_split(args.data, "val"), label_space, args)

    # a classifier for each attribute
    right = np.ones(len(test[1]), dtype=bool)
    for index, name in enumerate(label_space.attributes):
        known, labeled = train[1][:, index] >= 0, test[1][:, index] >= 0
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=args.c, max_iter=2000))
        classifier.fit(train[0][known], train[1][known, index])
        predicted, labels = classifier.predict(test[0]), test[1][:, index]
        right &= (predicted == labels) | ~labeled
        accuracy = 100 * np.mean(predicted[labeled] == labels[labeled])
        balanced = 100 * balanced_accuracy_score(labels[labeled], predicted[labeled])
        print(f"{name}: top-1 {accuracy:.1f}, balanced {balanced:.1f}, {labeled.sum()} labels")
    any_label = (test[1] >= 0).any(axis=1)
    print(f"exact match: {100 * np.mean(right[any_label]):.1f}, {any_label.sum()} images")


def parse_args() -> argparse.Namespace:
    """Return the flags of the command line."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("data", help="folder with train.csv and val.csv")
    add("--model", default="tf_efficientnet_lite0", help="timm's name of the architecture (default: %(default)s)")
    add("--pretrained-path", help="file of weights with timm's parameter names (default: download)")
    add("--img-size", type=int, default=224, help="side in pixels (default: %(default)s)")
    add("--c", type=float, default=0.01, help="inverse of the L2 penalty, above 0 (default: %(default)s)")
    return parser.parse_args()


@torch.inference_mode()
def extract(
    model: Any, path: Path, label_space: LabelSpace, args: argparse.Namespace
) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Return the representations [N, D] and the targets [N, A] of a table's images, preprocessed as for scoring."""
    table = read_table(path)
    dataset = TwoViewDataset(table, encode_targets(table, label_space, strict=False))
    config = resolve_preprocessing(model.pretrained_cfg, {"img_size": args.img_size})
    loader = create_eval_loader(dataset, config, 64, LoaderSettings(num_workers=2, use_prefetcher=False))
    features = [model.forward_features(images).numpy() for images, _ in loader]
    return np.concatenate(features), dataset.targets.numpy()


if __name__ == "__main__":
    run_command(main)
