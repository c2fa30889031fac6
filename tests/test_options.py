"""Every flag of the original works or is refused with a reason, and a mistake gets one sentence."""

import argparse
import ast
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import options
from options import parser as option_parser
from options.app import app_parser, parse_app_args
from options.audit import audit_parser, parse_audit_args
from options.choose import choose_parser, parse_choose_args
from options.embed import embed_parser, parse_embed_args
from options.export import export_parser, parse_export_args
from options.fill import fill_parser, parse_fill_args
from options.inference import inference_parser, parse_inference_args
from options.parser import Parser, missing_files
from options.refit import parse_refit_args, refit_parser
from options.report import parse_report_args, report_parser
from options.rules import flag
from options.search import parse_search_args, search_parser
from options.split import parse_split_args, split_parser
from options.train import parse_train_args, train_parser
from options.validate import parse_validate_args, validate_parser

ROOT = Path(options.__file__).parents[1]
ORIGINAL = yaml.safe_load((Path(__file__).parent / "data" / "original_flags.yaml").read_text())
PARSERS: dict[str, Callable[[], Parser]] = {
    "train.py": train_parser,
    "validate.py": validate_parser,
    "inference.py": inference_parser,
    "refit.py": refit_parser,
    "report.py": report_parser,
    "export.py": export_parser,
    "choose.py": choose_parser,
    "split.py": split_parser,
    "audit.py": audit_parser,
    "embed.py": embed_parser,
    "search.py": search_parser,
    "fill.py": fill_parser,
    "app.py": app_parser,
}
PARSE: dict[str, Callable[[list[str]], argparse.Namespace]] = {
    "train.py": parse_train_args,
    "validate.py": parse_validate_args,
    "inference.py": parse_inference_args,
    "refit.py": parse_refit_args,
    "report.py": parse_report_args,
    "export.py": parse_export_args,
    "choose.py": parse_choose_args,
    "split.py": parse_split_args,
    "audit.py": parse_audit_args,
    "embed.py": parse_embed_args,
    "search.py": parse_search_args,
    "fill.py": parse_fill_args,
    "app.py": parse_app_args,
}
MINIMAL = {"train.py": ["data"], "validate.py": ["data", "--checkpoint", "x.pth.tar"]}
REFUSALS = {
    script: {dest: rule.refused for dest, rule in parser().rules.declared.items() if rule.refused}
    for script, parser in PARSERS.items()
}
# The original's default was a model too large to start with, and validate.py learns the model from the checkpoint.
CHANGED_DEFAULTS = {
    ("train.py", "--model"): "efficientnet_b0",
    ("validate.py", "--model"): None,
    ("train.py", "--channels-last"): True,  # faster wherever it makes a difference
    ("validate.py", "--channels-last"): True,
    ("train.py", "--eval-metric"): None,  # follows from the losses and the attributes
}

ORIGINAL_FLAGS = [(script, fact) for script, facts in ORIGINAL.items() for fact in facts]


def dest_of(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def train(*words: str) -> argparse.Namespace:
    return parse_train_args(["data", *words])


# The original's flags


@pytest.mark.parametrize(("script", "fact"), ORIGINAL_FLAGS, ids=lambda x: x if isinstance(x, str) else x["name"])
def test_a_flag_of_the_original_keeps_its_names_and_default(script: str, fact: dict[str, Any]) -> None:
    parser, args = PARSERS[script](), PARSE[script](MINIMAL[script])
    name = fact["name"]
    if fact.get("positional"):
        assert getattr(args, name) == "data"
        return
    for spelling in [name, *fact.get("aliases", []), *filter(None, [fact["short"]])]:
        assert parser.flags[spelling] is parser.flags[name]
    if name not in ("--checkpoint", "--native-amp"):
        default = CHANGED_DEFAULTS.get((script, name), fact["default"])
        assert getattr(args, dest_of(name)) == default
        assert isinstance(getattr(args, dest_of(name)), bool) == isinstance(default, bool)  # False == 0
    if fact.get("action") == "store_true":
        assert parser.flags[name].nargs == 0


def test_native_amp_is_amp() -> None:
    assert not train().amp
    assert train("--native-amp").amp


def test_short_names_take_their_values() -> None:
    args = train("-b", "8", "-vb", "2", "-j", "1", "-t", "0.1", "-wls", "1", "-wlc", "0", "--dr", "0.5", "-d", "table")
    assert (args.batch_size, args.validation_batch_size_multiplier, args.workers) == (8, 2, 1)
    assert (args.temperature, args.simclr_loss_weight, args.classification_loss_weight) == (0.1, 1.0, 0.0)
    assert args.decay_rate == 0.5
    assert parse_validate_args(["data", "--checkpoint", "a", "-m", "resnet*", "-b", "3"]).model == "resnet*"
    assert parse_inference_args(["a.png", "b.png", "--checkpoint", "a", "-o", "x.json"]).output == "x.json"


@pytest.mark.parametrize(("script", "dest"), [(s, d) for s, reasons in REFUSALS.items() for d in reasons])
def test_a_refused_flag_says_why_and_what_to_do(script: str, dest: str, mistake: Callable[..., str]) -> None:
    action = PARSERS[script]().flags[flag(dest)]
    words = [flag(dest)] + ([] if action.nargs == 0 else ["7"])
    sentence = mistake(*MINIMAL[script], *words, parse=PARSE[script])
    assert sentence == f"{flag(dest)} is refused: {REFUSALS[script][dest]}"
    assert any(remedy in sentence for remedy in ("leave it out", "use --", "start several with torchrun"))


@pytest.mark.parametrize("script", PARSERS)
def test_every_flag_has_help_and_the_help_names_every_flag(script: str) -> None:
    parser = PARSERS[script]()
    text = parser.format_help()
    for name, action in parser.flags.items():
        assert action.help
        assert name in text
    assert "==SUPPRESS==" not in text


def test_the_page_of_flags_is_what_the_command_writes() -> None:
    done = subprocess.run([sys.executable, "-m", "options"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == done.stdout, "run make flags"
    for parser in PARSERS.values():
        assert all(f"`{name}`" in done.stdout for rule in parser().rules.declared.values() for name in rule.spellings)


def test_reading_arguments_imports_no_slow_package() -> None:
    code = (
        "import sys, options.train; options.train.parse_train_args(['data']);"
        "print({'torch', 'timm', 'numpy'} & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_missing_path_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("")
    there, gone = str(tmp_path), str(tmp_path / "gone")
    for script, words, sentence in (
        ("train", [gone], f"no such data folder: {gone}"),
        ("train", [gone, "--train-split", f"{there}/it"], None),
        ("train", [f"{there}/it"], f"{there}/it is a file, and DATA a folder: give {there}, and --train-split it"),
        ("train", [there, "--resume", gone], f"--resume: no such file: {gone}"),
        ("train", [there, "--initial-checkpoint", gone], f"--initial-checkpoint: no such file: {gone}"),
        ("train", [there, "--pretrained-path", gone], f"--pretrained-path: no such file: {gone}"),
        ("train", [there, "--resume", f"{there}/it", "--initial-checkpoint", gone], None),
        ("validate", [gone, "--checkpoint", f"{there}/it"], f"no such data folder: {gone}"),
        ("validate", [there, "--checkpoint", gone], f"--checkpoint: no such file: {gone}"),
        ("validate", [there, "--checkpoint", f"{gone}*"], None),
        ("inference", [gone, "--checkpoint", f"{there}/it"], f"no such image, folder or table: {gone}"),
        ("inference", [there, "--checkpoint", gone], f"--checkpoint: no such file: {gone}"),
        ("refit", [gone, there], f"--checkpoint: no such file: {gone}"),
        ("refit", [f"{there}/it", gone], f"no such data folder: {gone}"),
    ):
        args = PARSE[f"{script}.py"](words)
        assert next(missing_files(args), None) == sentence
    # Where torch cannot be imported at all, as here, the sentence still comes.
    for script, *flags in (["train.py"], ["validate.py", "--checkpoint", gone], ["inference.py", "--checkpoint", gone]):
        code = f"import runpy, sys; sys.modules['torch'] = None; runpy.run_path('{script}', run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", code, gone, *flags], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{script}: error: no such ")


# Mistakes


@pytest.mark.parametrize("words", [["data", "--\x1b[2Jmodel", "x"], ["data", "-c", "\x1b[2J\r"]])
def test_a_mistake_shows_control_characters_as_escapes(mistake, words):
    assert r"\x1b[2J" in mistake(*words)


MISTAKES = [
    ("--batchsize 3", "unrecognized arguments: --batchsize; did you mean --batch-size?"),
    ("--batch-siz=3", "unrecognized arguments: --batch-siz; did you mean --batch-size?"),
    (
        "--experiment ../../x",
        "--experiment ../../x lies outside --output: give a plain name, and the folder with --output",
    ),
    (
        "--experiment /tmp/x",
        "--experiment /tmp/x lies outside --output: give a plain name, and the folder with --output",
    ),
    ("--warm 3", "unrecognized arguments: --warm; did you mean --warmup-epochs?"),
    ("more", "unrecognized arguments: more"),
    ("--reprob 1.5", "--reprob: 1.5 is not a probability from 0 to 1"),
    ("--hflip nan", "--hflip: nan is not a probability from 0 to 1"),
    ("--lr 0", "--lr: 0 is not a number above 0"),
    ("--lr inf", "--lr: inf is not a number above 0"),
    ("--epochs 0", "--epochs 0 needs --refit-heads: otherwise nothing is trained"),
    ("--workers=-1", "--workers/-j: -1 is not a whole number from 0 to"),
    ("--smoothing 1", "--smoothing: 1 is not a number from 0 to below 1"),
    ("--log-interval 0", "--log-interval: 0 is not a whole number from 1 to"),
    ("--knn-interval=-1", "--knn-interval: -1 is not a whole number from 0 to"),
    ("--lr-noise-pct 0", "--lr-noise-pct: 0 is not a number above 0"),
    ("--opt-betas 0.9 1", "--opt-betas: 1 is not a number from 0 to below 1"),
    ("--tta 3", "--tta: 3 is not 0 (off) or 2 (the average over the image and its mirror image)"),
    ("--aa best", "--aa: 'best' does not begin with a policy"),
    ("--aa rand-m9-msdt1", "--aa: 'msdt1' in 'rand-m9-msdt1' is not a setting of rand"),
    ("--contrastive best", "--contrastive: invalid choice: 'best'"),
    ("--decode reduced --cache ram", "--decode needs --cache none, not ram: "),
    ("--decode reduced --views simclr --augment-on device", "--decode needs --augment-on cpu, not device: "),
    ("--decode reduced --train-crop-mode rkrc", "--decode needs --train-crop-mode rrc: "),
    ("--decode reduced --no-aug -wls 0", "--decode excludes --no-aug: "),
    ("--cache tape", "--cache: invalid choice: 'tape'"),
    ("--attribute-weights color", "--attribute-weights: 'color' is not name=weight"),
    ("--attribute-weights color=-1", "--attribute-weights: -1 is not a number from 0 to"),
    ("--attribute-weights a=1 a=2", "--attribute-weights: a name is given twice"),
    ("--lr 0.1 --lr-base 0.1", "--lr and --lr-base exclude each other"),
    ("--drop-path 0.1 --drop-connect 0.1", "--drop-connect and --drop-path exclude each other"),
    ("--img-size 8 --input-size 3 8 8", "--img-size and --input-size exclude each other"),
    ("--contrastive none -wls 0.5", "--contrastive none and --simclr-loss-weight exclude each other: none turns "),
    ("--no-pretrained --pretrained-path w.pth", "--pretrained-path and --no-pretrained exclude each other: the file "),
    ("--contrastive none -wlc 0", "--simclr-loss-weight and --classification-loss-weight are both 0"),
    ("-wls 0 -wlc 0", "--simclr-loss-weight and --classification-loss-weight are both 0: nothing"),
    (
        "-c recipes/pretrain.yaml -wls 0",
        "--simclr-loss-weight and --classification-loss-weight are both 0 (recipes/pretrain.yaml sets what the ",
    ),
    ("--contrastive-batch-size 70", "--contrastive-batch-size 70 is not a multiple of --batch-size 32: use 64 or 96"),
    ("--contrastive-batch-size 8", "--contrastive-batch-size 8 is not a multiple of --batch-size 32: use 32"),
    ("--unlabeled more -b 2 --unlabeled-ratio 0.2", "--unlabeled-ratio 0.2 with --batch-size 2 adds no image"),
    ("--unlabeled more --aug-repeats 2", "--unlabeled and --unlabeled-ratio exclude --aug-repeats"),
    ("--classify-view both -wls 0", "--classify-view both needs -wls above 0: "),
    ("--attributes a a", "--attributes names a column twice"),
    ("--attributes a --attribute-weights b=1", "--attribute-weights names 'b'"),
    ("--attributes a b --multi-valued c", "--multi-valued names 'c', which --attributes leaves out: a b"),
    ("--attributes a --attribute-weights a=0", "--attribute-weights are all 0"),
    ("--freeze-backbone --pretrained", "--freeze-backbone needs -wls 0: "),
    ("--freeze-backbone -wls 0", "--freeze-backbone needs trained weights: "),
    ("--input-size 4 8 8", "--input-size has 4 channels"),
    ("--mean 0.5 0.5", "--mean has 2 values: give 1 for all channels or 3"),
    ("--std 0.5 0.5 0.5 --input-size 1 8 8", "--std has 3 values: give 1 for all channels or 1"),
    ("--amp --model-dtype bfloat16", "--amp and --model-dtype bfloat16 exclude each other"),
    ("--sched multistep --decay-milestones 6 3", "--decay-milestones must increase"),
    ("--sched wsd --epochs 10", "--sched wsd needs --decay-epochs, here 30, to be from 1 to the 7 epochs"),
    ("--sched rsqrt --epochs 3", "--sched rsqrt needs --decay-epochs, here 30, to be from 1 to the 0 epochs"),
    ("--lr-noise 0.9 0.4", "--lr-noise is 0.9 to 0.4: give the smaller value first"),
    ("--lr-noise 0.1 0.2 0.3", "--lr-noise takes 1 or 2 values"),
    ("--mixup 0.2 -b 7", "--mixup and --cutmix need an even --batch-size, not 7"),
    ("--cutmix 1 -b 7", "--mixup and --cutmix need an even --batch-size, not 7"),
    ("--cutmix-minmax 0.1 0.2 -b 7", "--mixup and --cutmix need an even --batch-size, not 7"),
    ("--mixup 0.2 --aug-splits 2", "--mixup and --cutmix exclude --aug-splits and --jsd"),
    ("--cutmix 0.3 --cutmix-minmax 0.1 0.2", "--cutmix 0.3 excludes --cutmix-minmax, which draws the size itself"),
    ("--aug-splits 1", "--aug-splits 1 splits nothing"),
    ("--classify-view first --aug-splits 2", "--classify-view first excludes --aug-splits: the heads read the splits"),
    ("--classify-view weak --aug-splits 2", "--classify-view weak excludes --aug-splits"),
    ("--classify-view both --aug-splits 2", "--classify-view both excludes --aug-splits"),
    ("--no-aug", "--no-aug needs -wls 0"),
    ("--aug-repeats 2", "--aug-repeats needs -wls 0"),
    ("--cache device", "--cache device needs --augment-on device: "),
    ("--scale 1 0.5", "--scale is 1 to 0.5: give the smaller value first"),
    ("--ratio 2 1", "--ratio is 2 to 1: "),
    ("--cutmix-minmax 0.5 0.1", "--cutmix-minmax is 0.5 to 0.1: "),
    ("--color-jitter 0.1 0.1", "--color-jitter takes 1 value, or 3"),
    ("--color-jitter 0.1 0.1 0.1 0.6", "--color-jitter turns the hue by at most 0.5"),
    ("--split-bn -wls 0", "--split-bn needs at least two views"),
    ("--split-bn --sync-bn", "--split-bn excludes --sync-bn"),
    ("--dist-bn reduce --sync-bn", "--dist-bn excludes --sync-bn"),
    ("--local-rank 1", "--local-rank 1 needs the same LOCAL_RANK in the environment"),
    ("--opt-kwargs momentum=0.5", "--opt-kwargs momentum=... is what --momentum sets: use that flag alone"),
    ("--opt adam --opt-eps 1 --opt-kwargs eps=2", "--opt-kwargs eps=... is what --opt-eps sets: "),
    ("--gp max --model-kwargs global_pool=avg", "--model-kwargs global_pool=... is what --gp sets: "),
    ("--drop-connect 0.1 --model-kwargs drop_path_rate=0", "--model-kwargs drop_path_rate=... is what --drop-connect "),
    ("--input-size 3 8 8 --model-kwargs img_size=9", "--model-kwargs img_size=... is what --input-size sets: "),
    # several needs of one flag, and values in the sentence
    (
        "--mask-false-negatives --contrastive none",
        "--mask-false-negatives needs -wls above 0: without the SimCLR loss ",
    ),
    ("--contrastive none --contrastive-batch-size 64", "--contrastive-batch-size needs -wls above 0: at weight 0 no "),
    ("--cache-dir a --cache ram", "--cache-dir needs --cache disk, not ram: the other caches need no folder"),
    ("--min-lr 0 --sched constant", "--min-lr needs --sched cosine, tanh, poly, plateau, wsd or rsqrt, not constant: "),
    ("--hflip 0.1 --no-aug -wls 0", "--hflip excludes --no-aug: it only resizes"),
    ("--no-model-ema-warmup", "--no-model-ema-warmup needs --model-ema: there is no average without it"),
]


@pytest.mark.parametrize(("words", "expected"), MISTAKES)
def test_a_mistake_gets_one_sentence(
    words: str, expected: str, mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert mistake("data", *words.split()).startswith(expected)


def test_a_missing_required_flag_is_named(mistake: Callable[..., str]) -> None:
    assert mistake().startswith("DATA is missing: ")
    assert mistake("--checkpoint", "a", parse=parse_validate_args).startswith("DATA is missing: ")
    assert mistake("data", parse=parse_validate_args).startswith("--checkpoint is missing: ")
    assert mistake("a.png", parse=parse_inference_args).startswith("--checkpoint is missing: ")
    assert "INPUT" in mistake("--checkpoint", "a", parse=parse_inference_args)
    words = ["a.png", "--checkpoint", "a", "--output", "a.txt"]
    assert "does not end in .csv, .json or .parquet" in mistake(*words, parse=parse_inference_args)


def test_only_rank_0_reports_a_mistake_and_the_other_ranks_wait(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(option_parser.time, "sleep", naps.append)
    for rank, lines, waits in (("0", 2, 0), ("3", 0, 1)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as exit_:
            train("--epochs", "0")
        assert exit_.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == lines
        assert len(naps) == waits


def test_related_flags_agree() -> None:
    assert train("--pretrained-path", "a.safetensors").pretrained
    assert train("--no-aug", "-wls", "0").no_aug
    assert train("--split-bn").split_bn
    assert train("--sched", "wsd", "--epochs", "10", "--decay-epochs", "0.2").sched == "wsd"
    assert train("--epochs", "1").warmup_epochs == 3  # a short trial needs no change of the schedule
    assert train("--data-dir", "elsewhere").data_dir == "elsewhere"
    assert train("--color-jitter", "0.1").color_jitter == 0.1
    assert train("--color-jitter", "0.1", "0.2", "0.3").color_jitter == [0.1, 0.2, 0.3]
    assert train("--model-kwargs", "a=1", "b=silu", "c=(1,2)").model_kwargs == {"a": 1, "b": "silu", "c": (1, 2)}
    assert train().scale is not train().scale


def test_a_local_rank_that_the_launcher_set_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert train("--local-rank=2").local_rank == 2


# Nothing is accepted and ignored

# The parser reads the first, compares the second with the launcher's, and logs that the third has no effect.
READ_ELSEWHERE = {"config", "local_rank", "no_test_pool"}
# Where the options of a command may be read, beside the command itself. The declarations are not among them.
READERS = {
    "train.py": ["commands/*.py", "options/train_kwargs*.py", "training/*.py"],
    "validate.py": ["options/serving_kwargs.py", "options/train_kwargs.py", "serving/*.py"],
    "inference.py": ["options/serving_kwargs.py", "options/train_kwargs.py", "serving/*.py"],
    "export.py": ["options/serving_kwargs.py", "serving/*.py"],
    "refit.py": ["options/serving_kwargs.py", "options/train_kwargs.py", "serving/*.py"],
    "report.py": ["options/train_kwargs.py"],
    "choose.py": ["options/choose.py", "options/train_kwargs.py"],
    "split.py": ["options/split.py"],
    "audit.py": [],
    "embed.py": ["options/serving_kwargs.py", "options/train_kwargs.py"],
    "search.py": [],
    "fill.py": ["options/fill.py", "options/serving_kwargs.py", "options/train_kwargs.py"],
    "app.py": [],
}


def words_in(tree: ast.AST) -> Iterator[str]:
    """Yield the options that are read as attributes, and the strings, without docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id in ("args", "cfg", "options"):
                yield node.attr
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


@pytest.mark.parametrize("script", PARSERS)
def test_every_flag_is_read_by_the_script_or_its_packages(script: str) -> None:
    files = [ROOT / script, *(file for pattern in READERS[script] for file in sorted(ROOT.glob(pattern)))]
    read = {word for file in files for word in words_in(ast.parse(file.read_text()))}
    unread = set(PARSERS[script]().defaults) - read - READ_ELSEWHERE - set(REFUSALS.get(script, {}))
    assert unread == set()


def test_the_page_of_flags_ends_quietly_when_its_reader_does() -> None:
    with subprocess.Popen([sys.executable, "-m", "options"], cwd=ROOT, stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == -signal.SIGPIPE
