"""Every command-line flag of the three scripts, once, and the YAML files that can hold them. Imports no torch.

A YAML file is words typed before the command line: its keys become flags and go through the same parser, so types,
choices and misspellings are checked by the same code, and what is typed wins. `args_text` writes such a file.

    args = parse_train_args(["data", "-c", "recipe.yaml", "--lr", "0.05"])

What a value may be, and which flags exclude each other, is in `option_checks.py`.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import yaml

from options import checks as check
from options.checks import COUNT, FRACTION, NONNEGATIVE, POSITIVE, PROBABILITY, RATE, REAL, WHOLE

RESIZES = ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
SCHEDULES = ["cosine", "tanh", "step", "multistep", "poly", "plateau", "wsd", "rsqrt", "constant", "none"]
DECAYS = ["linear", "1-sqrt", "cosine", "power", "exp"]
CROPS = ["center", "squash", "border"]
TRAIN_CROPS = ["rrc", "rkrc", "rkrr"]
CLASSIFIED = ["first", "both", "weak"]
CONTRASTIVE = ["ntxent", "dcl", "supcon", "none"]
VIEWS = ["timm", "simclr", "simclr-keepcolor"]


def parse_train_args(argv: Sequence[str] | None = None, look: bool = False) -> argparse.Namespace:
    """Return the options of `train.py`; on a mistake, say so in a sentence and exit with status 2.

    Args:
        argv: The words after the script's name; those of this process by default.
        look: Whether a folder or file that is not there is a mistake too, before it is opened.
    """
    return _parse(train_parser(), argv, look, check.TRAIN_REFUSALS, check.train_conflicts, _follow)


def _follow(args: argparse.Namespace) -> None:
    """Set the options of train.py whose defaults follow from others."""
    args.pretrained = args.pretrained or bool(args.pretrained_path)
    if args.unlabeled and args.unlabeled_ratio is None:
        args.unlabeled_ratio = 1.0
    if args.classification_loss_weight == 0 and args.eval_metric == "top1":
        args.eval_metric = "simclr_loss"  # heads that nothing trains guess


def parse_validate_args(argv: Sequence[str] | None = None, look: bool = False) -> argparse.Namespace:
    """Return the options of `validate.py`, as `parse_train_args` does."""
    return _parse(validate_parser(), argv, look, check.VALIDATE_REFUSALS, check.validate_conflicts)


def parse_inference_args(argv: Sequence[str] | None = None, look: bool = False) -> argparse.Namespace:
    """Return the options of `inference.py`, as `parse_train_args` does."""
    return _parse(inference_parser(), argv, look, {}, check.inference_conflicts)


def args_text(args: argparse.Namespace, without: Sequence[str] = ()) -> str:
    """Return options as YAML such that `-c` with that file gives the same options again, but for those `without`."""
    # The file that was read is spent: its keys are among the values. An unused --lr beside --lr-base would be refused.
    left_out = {"config"} if getattr(args, "lr_base", None) is None else {"config", "lr"}
    values = {dest: _plain(value) for dest, value in vars(args).items() if dest not in {*left_out, *without}}
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    """Return a mapping with values that YAML keeps: what is no number becomes the word that means it."""
    if not isinstance(value, dict):
        return value
    plain = {}
    for key, item in value.items():
        unquoted = isinstance(item, str) and check.keyword(f"k={item}")[1] == item
        plain[key] = item if unquoted or item is None or isinstance(item, bool | int | float) else repr(item)
    return plain


def _parse(
    parser: "Parser",
    argv: Sequence[str] | None,
    look: bool,
    refusals: Mapping[str, str],
    conflicts: Callable[[argparse.Namespace], Iterator[str]],
    follow: Callable[[argparse.Namespace], None] = lambda args: None,
) -> argparse.Namespace:
    typed = parser.read(sys.argv[1:] if argv is None else argv)
    recipe = parser.read_yaml(typed["config"]) if typed.get("config") else {}
    args = parser.combine(recipe, typed)
    follow(args)
    mistakes = (check.refused(args, parser.defaults, refusals), check.missing(args, parser.defaults), conflicts(args))
    for mistake in chain(*mistakes, check.missing_files(args) if look else ()):
        parser.error(mistake)
    return args


class Switch(argparse.Action):
    """A flag without a value, and its opposite: --amp and --no-amp, --no-aug and --aug.

    Every switch has an opposite, so that the command line can undo what a YAML file did.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        name = option_strings[0].removeprefix("--")
        self.opposite = "--" + (name.removeprefix("no-") if name.startswith("no-") else f"no-{name}")
        super().__init__([*option_strings, self.opposite], dest, nargs=0, **settings)

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, name: str | None = None) -> None:
        """Set the option to on, or with the opposite to off."""
        setattr(namespace, self.dest, name != self.opposite)


class OneOrMany(argparse.Action):
    """A flag whose single value is that value, and whose several are a list."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, name: str | None = None) -> None:
        """Set the option to the value, or to the list."""
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


class Mapped(argparse.Action):
    """A flag whose values are pairs, `color=2 gender=1`, kept as a dict."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, name: str | None = None) -> None:
        """Set the option to the dict."""
        pairs = dict(values)
        if len(pairs) < len(values):
            raise argparse.ArgumentError(self, "a name is given twice")
        setattr(namespace, self.dest, pairs)


class Parser(argparse.ArgumentParser):
    """An argument parser that tells what was given from what is default, and reads YAML.

    Attributes:
        flags: Every spelling of every flag, `--batch-size` and `-b`.
        defaults: The value of each option that is not given. The actions themselves have none (argparse.SUPPRESS),
            so that parsing returns only what was given.
    """

    def __init__(self, prog: str, description: str, usage: str) -> None:
        # No abbreviations: --warm, which is --warmup-epochs today, is ambiguous with the next flag.
        super().__init__(prog, f"{prog} {usage}", f"{description} A switch has an opposite.", allow_abbrev=False)
        self.flags: dict[str, argparse.Action] = {}
        self.defaults: dict[str, Any] = {}
        self._source = ""

    def error(self, message: str) -> NoReturn:
        """Say one sentence and where to read more, and exit; only the first of several processes speaks."""
        if os.environ.get("RANK", "0") in ("", "0"):
            text = self._source + message.removeprefix("argument ")
            self.exit(2, f"{self.prog}: error: {text}\nsee {self.prog} --help\n")
        time.sleep(3)  # the launcher ends all once one has ended, and the first should have spoken by then
        self.exit(2)

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the options that `words` give, without defaults."""
        namespace, unknown = self.parse_known_args(words, argparse.Namespace())
        if unknown:
            # A value after a misspelled flag is unknown too, but it is not what to correct.
            names = [word.split("=")[0] for word in unknown if word.startswith("-")] or unknown
            self.error(f"unrecognized arguments: {' '.join(names)}{self._nearest(names[0])}")
        given = vars(namespace)
        for first, second, because in check.EXCLUSIVE:
            if first in given and second in given:
                self.error(f"{check.flag(first)} and {check.flag(second)} exclude each other: {because}")
        for dest, word, other, settled, because in check.IMPLIES:
            if given.get(dest) == word and given.get(other, settled) != settled:
                self.error(f"{check.flag(dest)} {word} and {check.flag(other)} exclude each other: {because}")
        return given

    def read_yaml(self, file: str) -> dict[str, Any]:
        """Return the options that a YAML file gives, without defaults."""
        self._source = f"{file}: "  # goes before whatever is wrong from here on
        try:
            root = yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            self.error(error.strerror or str(error))
        except UnicodeDecodeError:
            self.error("this is not a text file in UTF-8")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f"line {mark.line + 1}: " if mark else ""
            self.error(f"{place}this is not YAML ({getattr(error, 'problem', None) or 'unreadable characters'})")
        if root is not None and not isinstance(root, yaml.MappingNode):
            self.error("this is not a list of keys with values, such as batch-size: 64")
        words, seen = [], {"config"}  # a file that names another counts as a second one
        for key, value in root.value if root else []:
            words += self._words(str(key.value), value, seen)
        recipe = self.read(words)
        self._source = ""
        return recipe

    def _words(self, key: str, node: yaml.Node, seen: set[str]) -> list[str]:
        """Return what one would type for a key of a YAML file and its value."""
        name = check.flag(key)
        action = self.flags.get(name)
        if action is None:
            self.error(f"unknown key '{key}'{self._nearest(name).replace('--', '')}")
        if action.dest in seen:
            nested = "a YAML file cannot name another; merge them, or give the other on the command line"
            self.error(f"'{key}': {nested if action.dest == 'config' else 'this flag is set twice'}")
        seen.add(action.dest)

        if isinstance(node, yaml.ScalarNode):
            return self._scalar_words(name, action, node)
        if isinstance(node, yaml.MappingNode) and isinstance(action, Mapped):
            items = [_pair(*item) for item in node.value]
        elif isinstance(node, yaml.SequenceNode) and action.nargs not in (None, 0, "?"):
            items = [item.value if isinstance(item, yaml.ScalarNode) else "a list in a list" for item in node.value]
        else:
            kind = "one value" if action.nargs in (None, "?") else "true or false" if action.nargs == 0 else "a list"
            self.error(f"'{key}' takes {kind}")
        # An empty list says nothing where a flag needs a value, and that there is none where it does not.
        return [name, *items] if items or (action.nargs == "*" and not isinstance(action, Mapped)) else []

    def _scalar_words(self, name: str, action: argparse.Action, node: yaml.ScalarNode) -> list[str]:
        """Return what one would type for a single value.

        It is the text in the file, so `experiment: 007` and an attribute called `no` stay what they are, except
        where YAML's null, true and false say that a flag is given or is not.
        """
        value = _typed(node) if node.tag.endswith((":bool", ":null")) else node.value
        if action.nargs == 0 and not isinstance(value, bool | None):
            self.error(f"'{name[2:]}' takes true or false, not '{node.value}'")
        if value is None or (value is False and node.value.lower() == "false" and not isinstance(action, Switch)):
            return []
        if isinstance(action, Switch) and value is False:
            return [action.opposite if name != action.opposite else action.option_strings[0]]
        if value is True and action.nargs in (0, "?"):
            return [name]
        return [f"{name}={node.value}"]  # one word, because the value may begin with a dash

    def _nearest(self, name: str) -> str:
        """Return the end of a sentence about an unknown flag: the flag that was meant, if one is near."""
        if short := self.flags.get("-" + name.lstrip("-")):
            return f"; did you mean {short.option_strings[0]}?"
        names = [flag for flag in self.flags if flag.startswith("--")]
        near = get_close_matches(name, names, 1, 0.75) or [flag for flag in names if flag.startswith(name)]
        near = near or get_close_matches(name, names, 1)
        return f"; did you mean {near[0]}?" if near else ""

    def combine(self, recipe: dict[str, Any], typed: dict[str, Any]) -> argparse.Namespace:
        """Return every option: as typed, else as in the recipe, else its default."""
        for first, second, _ in check.EXCLUSIVE:  # typing one takes back the other
            for winner, loser in ((first, second), (second, first)):
                if winner in typed:
                    recipe.pop(loser, None)
        for dest, word, other, settled, _ in check.IMPLIES:
            if recipe.get(dest) == word and (dest in typed or typed.get(other, settled) != settled):
                recipe.pop(dest)  # typing another word, or the weight, takes back the recipe's
            for given in (recipe, typed):
                if given.get(dest) == word:
                    given[other] = settled
        for dest, needed, _ in check.NEEDS:  # typing --no-amp takes back a recipe's --amp-dtype
            if not typed.get(needed, True):
                recipe.pop(dest, None)
        return argparse.Namespace(**{**deepcopy(self.defaults), **recipe, **typed})


def _typed(node: yaml.Node) -> Any:
    """Return the Python value of a YAML node."""
    return yaml.SafeLoader("").construct_object(node, deep=True)


def _pair(key: yaml.Node, value: yaml.Node) -> str:
    """Return the word that means an entry of a YAML mapping: depth=3."""
    text = isinstance(value, yaml.ScalarNode) and not value.tag.endswith((":bool", ":null", ":int", ":float"))
    return f"{key.value}={value.value if text else repr(_typed(value))}"


Kind = Callable[[str], Any] | list[str] | str


class Group:
    """A group of flags, as `--help` shows them."""

    def __init__(self, parser: Parser, title: str) -> None:
        self._parser, self._group = parser, parser.add_argument_group(title)

    def value(self, names: str, kind: Kind, default: Any, help: str, **settings: Any) -> None:
        """Declare a flag that takes a value.

        Args:
            names: What one may type for it, long name first: "--batch-size -b".
            kind: The type of the value, or the words to choose from, or for any text the word to show in the help.
            default: The option when the flag is not given.
            help: A sentence, with the unit; the default is added.
            settings: What else `argparse` is to know.
        """
        if isinstance(kind, str):
            settings.setdefault("metavar", kind)
        elif isinstance(kind, list):
            settings["choices"] = kind
        else:
            settings["type"] = kind
            settings.setdefault("metavar", "X" if getattr(kind, "kind", None) is float else "N")
        self._declare(names, default, help, **settings)

    def switch(self, names: str, help: str, default: bool | None = False) -> None:
        """Declare a flag that is on or off."""
        self._declare(names, default, help, action=Switch)

    def bare(self, names: str, help: str) -> None:
        """Declare a flag that is given or is not, and has no opposite."""
        self._declare(names, False, help, action="store_true")

    def pairs(self, names: str, kind: Kind, shape: str, help: str) -> None:
        """Declare a flag that takes pairs of a name and a value, which make a dict."""
        self._declare(names, {}, help, type=kind, nargs="*", action=Mapped, metavar=shape)

    def refuse(self, reasons: Mapping[str, str], flags: Sequence[tuple[str, Kind | None, Any]]) -> None:
        """Declare flags whose only use is to hear why they are refused; one without a kind takes no value."""
        for names, kind, default in flags:
            reason = "refused: " + reasons[names.split()[0].removeprefix("--").replace("-", "_")]
            if kind is None:
                self.bare(names, reason)
            else:
                self.value(names, kind, default, reason)

    def _declare(self, names: str, default: Any, help: str, **settings: Any) -> None:
        values = default if isinstance(default, list) else ["on" if default is True else default]
        if default not in ("", {}) and default is not None and default is not False:
            help += f" (default: {' '.join(f'{x:g}' if isinstance(x, float) else str(x) for x in values)})"
        action = self._group.add_argument(*names.split(), help=help, default=argparse.SUPPRESS, **settings)
        self._parser.flags.update(dict.fromkeys(action.option_strings, action))
        self._parser.defaults.setdefault(action.dest, default)


def train_parser() -> Parser:
    """Return the parser of `train.py`."""
    parser = Parser("train.py", "Train one model for every attribute of a table, with SimCLR.", "DATA [flags]")
    _dataset(Group(parser, "Dataset"))
    _attributes(Group(parser, "Attributes"))
    _model(Group(parser, "Model"))
    _preprocessing(Group(parser, "Preprocessing"), "the model's own")
    _simclr(Group(parser, "SimCLR"))
    _optimizer(Group(parser, "Optimizer"))
    _schedule(Group(parser, "Schedule"))
    _augmentation(Group(parser, "Augmentation"))
    _regularization(Group(parser, "Regularization"))
    _batch_norm(Group(parser, "Batch norm"))
    _ema(Group(parser, "EMA: a moving average of the weights"))
    _train_running(Group(parser, "Running"))
    group = Group(parser, "Device and precision")
    _precision(group)
    _model_dtype(group)
    group.value("--torchcompile-mode", "NAME", None, "how hard to compile: default, reduce-overhead, max-autotune, ...")
    group = Group(parser, "Loading")
    _loading(group)
    _cache(group)
    group = Group(parser, "Refused")
    group.refuse(
        check.TRAIN_REFUSALS,
        [
            ("--dataset -d", "NAME", ""),
            ("--num-classes", COUNT, None),
            ("--apex-amp", None, False),
            ("--torchscript", None, False),
        ],
    )
    return parser


def validate_parser() -> Parser:
    """Return the parser of `validate.py`."""
    parser = Parser("validate.py", "Score a checkpoint, or each of several, on a split of a table.", "DATA [flags]")
    group = Group(parser, "Scoring")
    add = group.value
    add("data", "DATA", None, "folder that holds the table, a CSV file for each split", nargs="?")
    add("--data-dir", "DATA", None, "the same, as a flag", dest="data")
    add("--split", "NAME", "validation", "which split to score: train, validation (val.csv), test, ...")
    add("--checkpoint", "FILE", "", "checkpoint, a folder of them, or a pattern: 'run/*'")
    add("--model -m", "NAME", None, "the checkpoint's architecture, or a pattern that selects some checkpoints")
    group.switch("--use-ema", "score the moving average of the weights in place of the weights")
    add("--results-file", "FILE", "", "file to write the results to, .csv or .json")
    add(
        "--per-class",
        "FOLDER",
        None,
        "write tables of the classes, if not to FOLDER beside the results",
        nargs="?",
        const="",
    )
    add("--max-unreadable", FRACTION, 0.01, _UNREADABLE)
    add("--batch-size -b", COUNT, 256, "images per process and step")
    add("--tta", check.views_at_test, 0, _TTA)
    add("--log-freq", COUNT, 10, "batches between log lines")
    group.switch("--no-latency", "do not time the model on single images")
    group.bare("--no-test-pool", "accepted from older commands: there is no pooling over larger images to leave out")
    _preprocessing(Group(parser, "Preprocessing"), "the checkpoint's")
    group = Group(parser, "Device and precision")
    _precision(group)
    _model_dtype(group)
    _loading(Group(parser, "Loading"))
    group = Group(parser, "Refused")
    group.refuse(
        check.VALIDATE_REFUSALS,
        [
            ("--dataset -d", "NAME", ""),
            ("--num-classes", COUNT, None),
            ("--class-map", "FILE", ""),
            ("--gp", "NAME", None),
            ("--pretrained", None, False),
            ("--num-gpu", COUNT, 1),
            ("--apex-amp", None, False),
            ("--tf-preprocessing", None, False),
            ("--torchscript", None, False),
            ("--legacy-jit", None, False),
            ("--real-labels", "FILE", ""),
            ("--valid-labels", "FILE", ""),
        ],
    )
    return parser


def inference_parser() -> Parser:
    """Return the parser of `inference.py`."""
    parser = Parser(
        "inference.py", "Label new images with a checkpoint.", "INPUT [INPUT ...] --checkpoint FILE [flags]"
    )
    group = Group(parser, "Labeling")
    add = group.value
    add("input", "INPUT", None, "images, a folder of images, or a table with a column image_path", nargs="+")
    add("--checkpoint", "FILE", "", "the trained model, model_best.pth.tar of a run")
    group.switch("--use-ema", "label with the moving average of the weights in place of the weights")
    add("--output -o", check.predictions_file, "predictions.csv", _PREDICTIONS, metavar="FILE")
    add("--topk", COUNT, 1, "classes to write for each attribute, the most probable first")
    add("--batch-size -b", COUNT, 64, "images per step")
    add("--tta", check.views_at_test, 0, _TTA)
    add("--log-freq", COUNT, 10, "batches between log lines")
    _preprocessing(Group(parser, "Preprocessing"), "the checkpoint's")
    _precision(Group(parser, "Device and precision"))
    _loading(Group(parser, "Loading"))
    return parser


_CONTRASTIVE_BATCH = (
    "images per process and step that are contrasted, a multiple of --batch-size; memory holds only that many at a "
    "time, which go through the model twice and have batch norm statistics of their own (default: --batch-size)"
)
_GRAD_ACCUM = "steps whose gradients make one update; adds no negatives, unlike --contrastive-batch-size"
_KNN = (
    "epochs between scorings of the representation by its nearest neighbors (k = 20 and 200) among training images; "
    "also after the last epoch; 0 leaves them out"
)
_PREDICTIONS = "file to write, in the format of its ending: .csv, .json or .parquet"
_TTA = "copies of an image to average over when scoring: 0, or 2 for the image and its mirror image"
_UNREADABLE = "share of a table's images, 0..1, that may fail to open before it is an error; 10 always may"


def _dataset(group: Group) -> None:
    add = group.value
    add("--config -c", "FILE", "", "YAML file of flags, such as a run's args.yaml; typed ones win")
    add("data_dir", "DATA", None, "folder that holds the tables: train.csv, val.csv, ...", nargs="?")
    add("--data-dir", "DATA", None, "the same, as a flag")
    add("--train-split", "NAME", "train", "table to train on")
    several = {"nargs": "+", "action": "extend"}
    add("--unlabeled", "PATH", None, "images without labels: folders, tables, files or patterns of them", **several)
    add(
        "--unlabeled-ratio",
        POSITIVE,
        None,
        "unlabeled images, of --unlabeled and of the table, in a batch for each of its --batch-size labeled ones "
        "(1 with --unlabeled; without either rows come as they are in the table)",
    )
    add("--val-split", "NAME", "validation", "table to score after an epoch; validation means val.csv")
    add("--max-unreadable", FRACTION, 0.01, _UNREADABLE)


def _attributes(group: Group) -> None:
    add = group.value
    add("--attributes", "NAME", None, "columns to learn (default: every one but image_path)", nargs="+")
    several = "columns whose cells hold several values, split by | (default: those with a | in a cell; no NAME: none)"
    add("--multi-valued", "NAME", None, several, nargs="*")
    add("--multi-valued-loss", ["bce", "asl"], "bce", "binary cross-entropy or the asymmetric loss (arXiv:2009.14119)")
    group.pairs("--attribute-weights", check.weight, "NAME=X", "weights in the classification loss: color=2; else 1")
    balance = "whether the attributes' weights stay, or each is divided by a variance that it learns (arXiv:1705.07115)"
    add("--balance", ["fixed", "uncertainty"], "fixed", balance)
    rare = "weigh classes by one over their number of labels, or over their effective number (arXiv:1901.05555)"
    add("--class-weights", ["none", "inverse", "effective"], "none", rare)
    add("--logit-adjustment", NONNEGATIVE, 0.0, "factor on the logarithm of a class's share, which trains as a margin")
    add(
        "--classify-view",
        CLASSIFIED,
        None,
        "views that the heads read; weak is one only cropped and flipped (default: both; first where there is one "
        "alone, or with mixup or cutmix, where both would need a fourth)",
    )


def _model(group: Group) -> None:
    add, switch = group.value, group.switch
    add("--model", "NAME", "efficientnet_b0", "any of timm's architectures")
    switch("--pretrained", "start from timm's pretrained weights, downloaded")
    add("--pretrained-path", "FILE", "", "pretrained weights on disk, named as in timm")
    add("--initial-checkpoint", "FILE", "", "start from the weights of a run of this project")
    add("--resume", "FILE", "", "go on from a checkpoint: weights, optimizer, epoch, best score")
    switch("--freeze-backbone", "train the heads alone (a linear probe); with --no-aug its features are made only once")
    add("--head-grad", ["joint", "detach"], "joint", "whether the heads train the backbone, or only watch it")
    switch("--no-resume-opt", "resume without the states of the optimizer and of the loss scaler")
    add("--gp", "NAME", None, "global pooling: avg, max, avgmax, ... (default: the model's own)")
    group.pairs("--model-kwargs", check.keyword, "NAME=VALUE", "more arguments for the architecture: act_layer=silu")
    switch("--grad-checkpointing", "recompute activations on the way back: less memory, more time")


def _preprocessing(group: Group, default: str) -> None:
    add = group.value
    add("--img-size", COUNT, None, f"side of the square RGB input in pixels (default: {default})")
    add("--input-size", COUNT, None, f"channels (1 or 3), height and width (default: {default})", nargs=3)
    add("--crop-pct", POSITIVE, None, f"share of the side kept by the center crop when scoring (default: {default})")
    add("--crop-mode", CROPS, None, f"when scoring: cut to a square, squeeze, or pad (default: {default})")
    add("--mean", REAL, None, f"mean of each channel, in 0..1, to subtract (default: {default})", nargs="+")
    add("--std", POSITIVE, None, f"deviation of each channel, to divide by (default: {default})", nargs="+")
    add("--interpolation", ["", *RESIZES], "", f"how images are resized when scoring (default: {default})")


def _simclr(group: Group) -> None:
    add = group.value
    add("--contrastive", CONTRASTIVE, "ntxent", "the SimCLR loss; supcon reads the labels, none leaves it out")
    group.switch("--mask-false-negatives", "images whose known labels all agree are not contrasted (ntxent, dcl)")
    add("--temperature -t", POSITIVE, 0.5, "divisor of the similarities in the SimCLR loss")
    add("--simclr-loss-weight -wls", NONNEGATIVE, 0.5, "factor on the SimCLR loss; 0 leaves it out")
    add("--classification-loss-weight -wlc", NONNEGATIVE, 0.5, "factor on the classification loss; 0 trains no heads")
    add("--projection-dim", COUNT, 64, "length of the projections that the SimCLR loss compares")
    add("--projection-layers", COUNT, 2, "linear layers of the projection head")
    add("--projection-norm", ["none", "batch", "layer"], "none", "normalization between these layers")
    add("--contrastive-batch-size", COUNT, None, _CONTRASTIVE_BATCH)


def _optimizer(group: Group) -> None:
    add = group.value
    add("--opt", "NAME", "sgd", "any of timm's optimizers")
    add("--opt-eps", POSITIVE, None, "the optimizer's epsilon (default: its own)")
    add("--opt-betas", RATE, None, "the optimizer's betas (default: its own)", nargs="+")
    add("--momentum", RATE, 0.9, "momentum, for optimizers that have one")
    add("--weight-decay", NONNEGATIVE, 1e-4, "weight decay")
    add("--clip-grad", POSITIVE, None, "limit of the gradient (default: no limit)")
    add("--clip-mode", ["norm", "value", "agc"], "norm", "limit the norm of all, each entry, or adaptively each unit")
    group.switch("--gradient-centralization", "take from each output's gradient its mean (arXiv:2004.01461)")
    add("--backbone-lr-scale", POSITIVE, 1.0, "factor on the learning rate of the backbone, but not of the heads")
    add("--layer-decay", POSITIVE, None, "factor on the learning rate from each layer to the one before it")
    add("--layer-decay-min-scale", NONNEGATIVE, 0.0, "smallest factor that the layer decay may reach")
    add("--layer-decay-no-opt-scale", NONNEGATIVE, None, "freeze layers whose factor is below this one")
    group.pairs("--opt-kwargs", check.keyword, "NAME=VALUE", "more arguments for the optimizer: nesterov=False")
    group.switch("--opt-foreach", "update many tensors at a time (default: PyTorch's choice)", default=None)


def _schedule(group: Group) -> None:
    add = group.value
    add("--sched", SCHEDULES, "step", "how the learning rate falls; none leaves it alone")
    group.switch("--sched-on-updates", "let the learning rate fall with each update, not with each epoch")
    add("--lr", POSITIVE, 0.01, "learning rate after warm-up")
    add("--lr-base", POSITIVE, None, "in place of --lr: learning rate for a global batch of --lr-base-size images")
    add("--lr-base-size", COUNT, 256, "images per update, over all processes, that --lr-base is for")
    add("--lr-base-scale", ["", "linear", "sqrt"], "", "its growth with the batch (default: sqrt for Adam's family)")
    add("--lr-noise", FRACTION, None, "fractions of the run where noise on the rate begins (and ends)", nargs="+")
    add("--lr-noise-pct", POSITIVE, 0.67, "largest noise, as a share of the learning rate")
    add("--lr-noise-std", NONNEGATIVE, 1.0, "standard deviation of the noise")
    add("--lr-cycle-mul", POSITIVE, 1.0, "factor on the length of each next cycle")
    add("--lr-cycle-decay", POSITIVE, 0.5, "factor on the learning rate of each next cycle")
    add("--lr-cycle-limit", COUNT, 1, "cycles (cosine, tanh, poly)")
    add("--lr-k-decay", POSITIVE, 1.0, "exponent on the share of the run that is over (cosine, poly)")
    add("--lr-decay-fn", DECAYS, None, "shape of the decay (default: 1-sqrt for wsd, linear for rsqrt)")
    add("--lr-stable-timescale", POSITIVE, None, "time scale of rsqrt in epochs (default: the warm-up)")
    add("--warmup-lr", NONNEGATIVE, 1e-4, "learning rate where warm-up begins")
    add("--min-lr", NONNEGATIVE, 1e-5, "learning rate where the schedule ends")
    add("--epochs", COUNT, 200, "epochs to train, cool-down excluded")
    add("--start-epoch", WHOLE, None, "number of the first epoch (default: 0, or the resumed one)")
    add("--decay-epochs", POSITIVE, 30.0, "epochs between decays (step), or that the decay takes (wsd)")
    add("--decay-milestones", COUNT, [90, 180, 270], "epochs of the decays, the first being 1 (multistep)", nargs="+")
    add("--warmup-epochs", WHOLE, 3, "epochs of warm-up")
    group.switch("--warmup-prefix", "do not count warm-up among the epochs")
    add("--cooldown-epochs", WHOLE, 10, "epochs at the last rate after cosine, tanh or poly end")
    add("--patience-epochs", WHOLE, 10, "epochs without a better score before a decay (plateau)")
    add("--decay-rate --dr", POSITIVE, 0.1, "factor of a decay; the power of poly")


def _augmentation(group: Group) -> None:
    add, switch = group.value, group.switch
    views = "what makes the views: timm's flags below, SimCLR's policy, or that without hue, gray and saturation"
    add("--views", VIEWS, "timm", views)
    place = "where the views of --views simclr are made: by the workers, or for a whole batch on the model's device"
    add("--augment-on", ["cpu", "device"], "cpu", place)
    add("--view-strength", POSITIVE, 1.0, "strength of the color distortion of --views simclr")
    switch("--no-aug", "resize to the input size, no more")
    add("--train-crop-mode", TRAIN_CROPS, None, "random resized crop, or keep the ratio and crop (default: rrc)")
    add("--scale", POSITIVE, [0.08, 1.0], "smallest and largest crop, as a share of the area", nargs=2)
    add("--ratio", POSITIVE, [3 / 4, 4 / 3], "smallest and largest ratio of a crop's sides", nargs=2)
    add("--hflip", PROBABILITY, 0.5, "probability of mirroring left to right")
    add("--vflip", PROBABILITY, 0.0, "probability of mirroring top to bottom")
    jitter = "change of brightness, contrast and saturation: 1 value, or 3, or 4 with hue; not used with --aa"
    add("--color-jitter", NONNEGATIVE, 0.4, jitter, nargs="+", action=OneOrMany)
    add("--color-jitter-prob", PROBABILITY, None, "probability of the color jitter (default: always)")
    add("--grayscale-prob", PROBABILITY, 0.0, "probability of losing all color")
    add("--gaussian-blur-prob", PROBABILITY, 0.0, "probability of a blur")
    add("--aa", check.auto_augment, None, "automatic augmentation: rand-m9-mstd0.5, augmix, v0, ...", metavar="POLICY")
    add("--aug-repeats", WHOLE, 0, "copies of an image in an epoch, one on each of several processes; 0 is off")
    add("--aug-splits", WHOLE, 0, "copies of an image, the first one clean, that are classified; 0 is off")
    switch("--jsd", "add a loss on how much the predictions of the splits differ (Jensen-Shannon divergence)")
    add("--reprob", PROBABILITY, 0.0, "probability of erasing a rectangle")
    add("--remode", ["const", "rand", "pixel"], "const", "put zeros there, a random color, or one for each pixel")
    add("--recount", COUNT, 1, "most rectangles in an image")
    switch("--resplit", "leave the first of the splits, or half of the batch, without erasing")
    add("--mixup", NONNEGATIVE, 0.0, "alpha of mixup, which blends two images; 0 is off")
    add("--cutmix", NONNEGATIVE, 0.0, "alpha of cutmix, which pastes part of another image; 0 is off")
    add("--cutmix-minmax", FRACTION, None, "smallest and largest share of the side to paste; turns cutmix on", nargs=2)
    add("--mixup-prob", PROBABILITY, 1.0, "probability of mixing a batch, or an image")
    add("--mixup-switch-prob", PROBABILITY, 0.5, "probability of cutmix where both are on")
    add("--mixup-mode", ["batch", "pair", "elem"], "batch", "what shares one draw of the mixture")
    add("--mixup-off-epoch", WHOLE, 0, "epoch from which nothing is mixed; 0 is never")
    add("--train-interpolation", ["random", *RESIZES], "random", "how images are resized for training")


def _regularization(group: Group) -> None:
    add = group.value
    add("--smoothing", RATE, 0.1, "label smoothing: probability spread over all classes")
    add("--drop", RATE, 0.0, "dropout before the attribute heads")
    add("--drop-connect", RATE, None, "older name of --drop-path")
    add("--drop-path", RATE, None, "probability of skipping a residual branch (stochastic depth)")
    add("--drop-block", RATE, None, "probability of dropping blocks of a feature map")


def _batch_norm(group: Group) -> None:
    add, switch = group.value, group.switch
    switch("--bn-tf", "use TensorFlow's momentum and epsilon")
    add("--bn-momentum", FRACTION, None, "momentum of the running statistics (default: the model's own)")
    add("--bn-eps", POSITIVE, None, "epsilon (default: the model's own)")
    switch("--sync-bn", "compute statistics over all processes; needs CUDA")
    add(
        "--dist-bn",
        ["", "broadcast", "reduce"],
        "",
        "share running statistics after an epoch: the first's, or the mean",
    )
    switch("--split-bn", "keep separate statistics for each view")


def _ema(group: Group) -> None:
    group.switch("--model-ema", "keep a moving average of the weights, and score it too")
    group.switch("--model-ema-force-cpu", "keep the average in CPU memory")
    group.value("--model-ema-decay", RATE, 0.9998, "share of the average that an update keeps")
    group.switch("--model-ema-warmup", "begin with a smaller decay, so that short runs get an average", default=True)


def _train_running(group: Group) -> None:
    add, switch = group.value, group.switch
    add("--batch-size -b", COUNT, 32, "images per process and step, or that go through the model at a time")
    add("--validation-batch-size-multiplier -vb", COUNT, 1, "times as many images when scoring")
    add("--grad-accum-steps", COUNT, 1, _GRAD_ACCUM)
    add("--seed", WHOLE, 42, "seed of every random number; each process adds its rank")
    add("--output", "FOLDER", "", "folder for runs (default: output/train)")
    add("--experiment", "NAME", "", "name of the run's folder (default: time, model and image size)")
    add("--eval-metric", "NAME", "top1", "column of summary.csv that decides which checkpoint is best")
    add("--val-interval", COUNT, 1, "epochs between scorings")
    add("--knn-interval", WHOLE, 10, _KNN)
    add("--knn-images", COUNT, 10_000, "labeled training images at most, drawn by --seed, that neighbors are among")
    add("--tta", check.views_at_test, 0, _TTA)
    add("--checkpoint-hist", COUNT, 10, "checkpoints to keep")
    add("--recovery-interval", WHOLE, 0, "steps between recovery checkpoints; 0 writes none")
    add("--log-interval", COUNT, 200, "steps between log lines")
    switch("--save-images", "save the views of a batch, before any mixing, at each log line")
    switch("--log-wandb", "send the scores to Weights & Biases")
    add("--wandb-project", "NAME", None, "project to send them to")
    add("--local_rank --local-rank", WHOLE, 0, "set by the launcher")
    add("--dist-backend", "NAME", None, "how processes talk: nccl, gloo, ... (default: by device)")
    switch("--no-ddp-bb", "do not broadcast buffers from the first process before each step")
    switch("--synchronize-step", "wait for the device after each step, to time it")
    switch("--use-multi-epochs-loader", "keep the workers, and what they have loaded, from epoch to epoch")
    add("--worker-seeding", ["all", "part"], "all", "who seeds NumPy in each worker: timm, or with part PyTorch")


def _precision(group: Group) -> None:
    """Declare what every script runs on."""
    add, switch = group.value, group.switch
    add("--device", "NAME", None, "cpu, cuda, cuda:1, mps, ... (default: cuda where there is one, else cpu)")
    switch("--amp --native-amp", "mixed precision")
    add("--amp-dtype", ["float16", "bfloat16"], None, "its format (default: float16 on cuda, bfloat16 on cpu)")
    add("--torchcompile", "BACKEND", None, "compile the model (inductor if not named)", nargs="?", const="inductor")
    switch("--channels-last", "channels last in memory: faster for convolutions, no slower for others", default=True)


def _model_dtype(group: Group) -> None:
    group.value("--model-dtype", ["float32", "bfloat16", "float16"], None, "format of the weights (default: float32)")


def _loading(group: Group) -> None:
    """Declare how every script loads images."""
    group.value("--workers -j", WHOLE, 4, "processes that load images; 0 loads in this one")
    group.switch("--pin-mem", "load into page-locked memory, from which copies to a GPU are faster")
    group.switch("--no-prefetcher", "normalize on the CPU, and copy no batch ahead")


def _cache(group: Group) -> None:
    group.value(
        "--cache",
        ["none", "ram", "disk", "device"],
        "none",
        "keep decoded images, so that none is decoded twice: in memory that all processes share, on disk for later "
        "runs too, or with --augment-on device in the memory of each device. They keep their own size: if that is far "
        "above --img-size, shrinking the files serves better",
    )
    group.value("--cache-dir", "FOLDER", "", "folder of --cache disk (default: ~/.cache/simclr-multi-label)")
