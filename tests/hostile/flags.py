"""Hostile flags: any flag of any command, with odd values, in odd combinations."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from hostile.case import Case, copy_data, link_checkpoint, link_index, on_data
from hostile.odd import NUMBERS, PATHS, TEXTS
from hostile.tables import THINGS
from options.audit import audit_parser
from options.choose import choose_parser
from options.embed import embed_parser
from options.export import export_parser
from options.fill import fill_parser
from options.inference import inference_parser
from options.parser import Parser
from options.refit import refit_parser
from options.report import report_parser
from options.search import search_parser
from options.split import split_parser
from options.train import train_parser
from options.validate import validate_parser

PARSERS: dict[str, Parser] = {
    parser.prog: parser
    for parser in (
        *(train_parser(), validate_parser(), inference_parser(), refit_parser(), choose_parser()),
        *(audit_parser(), split_parser(), fill_parser(), embed_parser(), search_parser()),
        *(report_parser(), export_parser()),
    )
}
# Values that a flag may well take, so that combinations get beyond the parser.
PLAUSIBLE: dict[str, tuple[str, ...]] = {
    "model": (
        "test_vit",
        "test_efficientnet",
        "test_convnext",
        "test_byobnet",
        "test_resnet.r160_in1k",
        "resnet",
        "test_*",
    ),
    "opt": ("sgd", "lamb", "adamp", "muon", "sgdp", "adafactor", "lookahead_adam", "lbfgs", "kron", "nadamw", "lion"),
    "aa": ("rand-m9-mstd0.5", "augmix-m5-w4-d2", "v0", "3a", "rand-m99", "rand", "original-mstd-1", "augmix-w0"),
    "device": ("cpu", "cuda", "cuda:0", "mps", "meta", "xla", "cpu:0", "cpu:-1", "hpu"),
    "attributes": ("color", "shape", "tags", "Color", "color color", "image_path"),
    "multi_valued": ("tags", "color", "shape tags", ""),
    "opt_kwargs": (
        "nesterov=False",
        "foreach=True",
        "lr=3",
        "amsgrad=1",
        "params=1",
        "x=y",
        "fused=True",
        "capturable=True",
    ),
    "model_kwargs": (
        "act_layer=silu",
        "num_classes=3",
        "in_chans=1",
        "drop_rate=2",
        "layers=(1,1,1,1)",
        "block=x",
        "global_pool=''",
    ),
    "attribute_weights": ("color=2", "color=0", "color=-1", "color=nan", "x=1", "color=1 color=2", "=1", "color="),
    "eval_metric": (
        "loss",
        "color",
        "ema_top1",
        "eval_loss",
        "tags_map",
        "color_knn20",
        "train_loss",
        "simclr_loss",
        "epoch",
    ),
    "gp": ("avg", "max", "avgmax", "catavgmax", "fast", "token", "map"),
    "torchcompile": ("eager", "nothing"),
    "budget": ("1s", "5s", "0s", "1e3s", "nan", "5", "9e99h", "-1m"),
    "initial_checkpoint": ("in/sound.pth.tar",),
    "resume": ("in/sound.pth.tar",),
    "checkpoint": ("in/sound.pth.tar", "in/*.pth.tar", "in"),
    "index": ("in/index", "in", "in/data"),
    "where": (
        "color=red",
        "color!=red",
        "color:probability>=0.9",
        "color>",
        "=",
        "x=1",
        "tags=new",
        "color:probability>=x",
        "color=\x1b[31m",
    ),
    "output": ("out/x.csv", "out/x.html", "out/x.json", "out/x.png", "out/x.parquet", "out", "in/data/train.csv"),
    "holdout": ("in/data/val.csv", "in/data", "in/data/train.csv"),
    "group": ("color", "image_path", "x", "tags"),
    "format": ("timm", "torch", "onnx"),
    "engine": ("numpy", "faiss", "auto", "torch", "onnx"),
    "config": ("in/data/train.csv", "in/text.txt"),
    "candidates": ("frozen", "labels joint", "pretrain"),
    "img_size": ("32", "8", "1", "33"),
    "input_size": ("3 32 32", "1 32 32", "3 8 64", "3 1 1", "2 32 32"),
}
# Flags of cost alone: their large values are allowed to take long.
COST = {
    "epochs",
    "steps",
    "batch_size",
    "validation_batch_size_multiplier",
    "img_size",
    "input_size",
    "workers",
    "model",
    "warmup_epochs",
}
COST |= {
    "cooldown_epochs",
    "contrastive_batch_size",
    "grad_accum_steps",
    "aug_repeats",
    "aug_splits",
    "recount",
    "projection_dim",
}
COST |= {
    "lr_cycle_limit",
    "projection_layers",
    "torchcompile",
    "unlabeled_ratio",
    "splits",
    "budget",
    "lr_cycle_mul",
    "warmup_steps",
}
SMALL = ("0", "1", "2", "3", "-1", "nan", "x", "")


def make(rng: random.Random, place: Path, sound: Path) -> Case:
    """Return a command with one to six odd flags after the flags of a tiny run."""
    copy_data(sound, place)
    checkpoint = link_checkpoint(sound, place)
    link_index(sound, place)
    surroundings(place)
    command = rng.choice(("train.py", "train.py", "train.py", *PARSERS))
    parser = PARSERS[command]
    actions = sorted({action.dest: action for action in parser.flags.values()}.values(), key=lambda action: action.dest)
    words = on_data(command, "in/data", checkpoint)
    drawn: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6))):
        drawn += flag_words(rng.choice([a for a in actions if a.dest not in ("help", "log_wandb", "log_trackio")]), rng)
    words += drawn
    if rng.random() < 0.1:
        rng.shuffle(words[1:])
        words = [words[0], *rng.sample(words[1:], len(words) - 1)]
    words = [word for word in words if "\0" not in word]
    return Case(words, " ".join(drawn)[:300], inside=(".",), draws=rng.random() < 0.05)


def surroundings(place: Path) -> None:
    """Make what PATHS names."""
    for name, kind in (("pipe", "a pipe"), ("loop", "a loop of links"), ("socket", "a socket"), ("empty", "a folder")):
        THINGS[kind](place / "in" / name)
    (place / "in" / "text.txt").write_text("no table\n")


def flag_words(action: argparse.Action, rng: random.Random) -> list[str]:
    """Return a flag as typed, with odd values."""
    name = rng.choice([*action.option_strings, action.option_strings[0]])
    if action.nargs == 0 or (action.type is None and action.choices is None and action.metavar is None):
        return [f"{name}=x"] if rng.random() < 0.05 else [name]
    many = action.nargs in ("+", "*", "?") or isinstance(action.nargs, int)
    counts = (0, 1, 1, 2, 3, 5) if many else (1, 1, 1, 1, 1, 1, 1, 0, 2)
    values = [value for _ in range(rng.choice(counts)) for value in _value(action, rng)]
    if len(values) == 1 and rng.random() < 0.2:
        return [f"{name}={values[0]}"]
    return [name, *values]


def _value(action: argparse.Action, rng: random.Random) -> list[str]:
    pools: list[tuple[Any, ...]] = []
    if action.choices:
        pools += [tuple(map(str, action.choices))] * 6
    if action.dest in PLAUSIBLE:
        pools += [PLAUSIBLE[action.dest]] * 4
    if action.metavar in ("N", "X"):
        pools += [SMALL, SMALL, ("0.5", "0.1", "1", "2", "0.999")]
    if action.dest not in COST:
        pools += [NUMBERS]
    elif action.metavar in ("N", "X"):
        return [rng.choice(SMALL)]
    pools += [PATHS if action.metavar in ("FILE", "PATH", "FOLDER", "DATA", "INPUT") else TEXTS]
    text = rng.choice(rng.choice(pools))
    return text.split() if " " in text.strip() else [text]
