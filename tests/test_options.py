"""Every flag of the original works or says why not, YAML and command line agree, and mistakes get one sentence."""

import argparse
import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import options
from options import parser as option_parser
from options.inference import inference_parser, parse_inference_args
from options.parser import Parser, missing_files
from options.rules import flag
from options.train import parse_train_args, resolve_eval_metric, train_parser
from options.validate import parse_validate_args, validate_parser
from options.yaml_file import args_text

ROOT = Path(options.__file__).parents[1]
ORIGINAL = yaml.safe_load((Path(__file__).parent / "data" / "original_flags.yaml").read_text())
PARSERS: dict[str, Callable[[], Parser]] = {
    "train.py": train_parser,
    "validate.py": validate_parser,
    "inference.py": inference_parser,
}
PARSE: dict[str, Callable[[list[str]], argparse.Namespace]] = {
    "train.py": parse_train_args,
    "validate.py": parse_validate_args,
    "inference.py": parse_inference_args,
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


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that parses words which are wrong, and returns the sentence about it."""

    def fail(*words: str, parse: Callable[[list[str]], object] = parse_train_args) -> str:
        with pytest.raises(SystemExit) as exit_:
            parse(list(words))
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        sentence, hint, *rest = err.splitlines()
        assert not out
        assert not rest
        assert hint.startswith("see ")
        assert hint.endswith(" --help")
        return sentence.partition(": error: ")[2]

    return fail


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a YAML file and returns its name."""

    def write(text: str) -> str:
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
        return str(file)

    return write


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


def test_what_is_not_there_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("")
    there, gone = str(tmp_path), str(tmp_path / "gone")
    for script, words, told in (
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
    ):
        args = PARSE[f"{script}.py"](words)
        assert next(missing_files(args), None) == told
    # Where torch cannot be imported at all, as here, the sentence still comes.
    for script, *flags in (["train.py"], ["validate.py", "--checkpoint", gone], ["inference.py", "--checkpoint", gone]):
        code = f"import runpy, sys; sys.modules['torch'] = None; runpy.run_path('{script}', run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", code, gone, *flags], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{script}: error: no such ")


# YAML

# For each option one value that is not its default, with what else that value needs.
SAMPLES = """
--data-dir elsewhere | --train-split a | --val-split b | --max-unreadable 0.5 | --attributes color no true 007
--attribute-weights color=2 a=b=0.5 no=1 | --classify-view both | --model resnet50 | --pretrained
--pretrained-path w.safetensors | --initial-checkpoint a.pth | --resume null | --resume a --no-resume-opt
--gp max | --model-kwargs a=1 b='1' c=(1,2) d=[1,{'x':None}] e=True f=None g=silu h=1e-3 i=no j=01
--grad-checkpointing | --img-size 64 | --input-size 1 28 28 | --crop-pct 0.9
--crop-mode border | --mean 0.5 | --std 0.1 0.2 0.3 | --interpolation bicubic | --temperature 0.07
--simclr-loss-weight 0 | --classification-loss-weight 0 | --projection-dim 8 | --projection-layers 3
--contrastive-batch-size 96 | --contrastive dcl | --contrastive none | --mask-false-negatives
--projection-norm batch | --opt lamb | --opt-eps 1e-8 | --opt-betas 0.9 0.99 | --momentum 0 | --weight-decay 1e-05
--clip-grad 1 | --clip-grad 0.1 --clip-mode agc | --layer-decay 0.7 | --layer-decay 0.7 --layer-decay-min-scale 0.1
--layer-decay 0.7 --layer-decay-no-opt-scale 0.1 | --opt-kwargs nesterov=False | --opt-foreach | --no-opt-foreach
--sched wsd | --sched-on-updates | --lr 3e-4 | --lr-base 0.1 | --lr-base 0.1 --lr-base-size 512
--lr-base 0.1 --lr-base-scale sqrt | --lr-noise 0.4 0.9 --lr-noise-pct 0.5 --lr-noise-std 2
--sched tanh --lr-cycle-limit 3 --lr-cycle-mul 2 --lr-cycle-decay 0.1 | --sched poly --lr-k-decay 2
--sched wsd --lr-decay-fn 1-sqrt | --sched rsqrt --lr-stable-timescale 2 | --warmup-lr 0 | --sched cosine --min-lr 0
--epochs 3 | --start-epoch 0 | --decay-epochs 0.5
--sched multistep --decay-milestones 3 6 | --warmup-epochs 0 | --warmup-prefix | --cooldown-epochs 0
--sched plateau --patience-epochs 0
--decay-rate 0.5 | --no-aug -wls 0 | --train-crop-mode rkrc | --scale 0.5 1 | --ratio 1 1 | --hflip 0 | --vflip 1
--color-jitter 0 | --color-jitter 0.1 0.2 0.3 0.4 | --color-jitter-prob 0.8 | --grayscale-prob 0.2
--gaussian-blur-prob 0.5 | --aa rand-m9-mstd0.5-inc1 | --aug-repeats 2 -wls 0 | --aug-splits 3 | --aug-splits 2 --jsd
--reprob 0.5 --remode pixel --recount 2 --resplit | --mixup 0.2 | --cutmix 1 | --cutmix-minmax 0.2 0.8
--mixup 0.2 --mixup-prob 0.5 --mixup-mode elem --mixup-off-epoch 2 | --mixup 1 --cutmix 1 --mixup-switch-prob 0.1
--train-interpolation bilinear | --smoothing 0 | --drop 0.2 | --drop-connect 0.1 | --drop-path 0 | --drop-block 0.1
--bn-tf | --bn-momentum 0.1 | --bn-eps 1e-3 | --sync-bn | --dist-bn reduce | --split-bn | --model-ema
--model-ema --model-ema-force-cpu --model-ema-decay 0.99 --no-model-ema-warmup | --batch-size 7
--validation-batch-size-multiplier 2 | --grad-accum-steps 2 | --seed 0 | --output=-o | --experiment 007
--experiment null | --experiment false | --experiment 2024-01-01 | --experiment éa:b#c | --eval-metric loss
--knn-interval 3 | --knn-images 500
--val-interval 2 | --tta 2 | --checkpoint-hist 1 | --recovery-interval 5 | --log-interval 1 | --save-images
--log-wandb | --log-wandb --wandb-project yes | --local_rank 1 | --dist-backend gloo | --no-ddp-bb
--synchronize-step | --use-multi-epochs-loader | --worker-seeding part | --device cuda:1 | --amp
--amp --amp-dtype bfloat16 | --model-dtype float16 | --torchcompile | --torchcompile eager
--torchcompile --torchcompile-mode max-autotune | --no-channels-last | --workers 0 | --pin-mem | --no-prefetcher
--views simclr | --views simclr-keepcolor --view-strength 0.5
--views simclr --augment-on device --cache device
--unlabeled more others.csv --unlabeled-ratio 2 | --unlabeled more --unlabeled others.csv
--class-weights effective --logit-adjustment 1 --balance uncertainty --gradient-centralization
--multi-valued tags fit --multi-valued-loss asl | --multi-valued
--freeze-backbone --pretrained -wls 0 | --head-grad detach --backbone-lr-scale 0.5
--cache ram | --cache disk --cache-dir a
"""
ROUND_TRIPS = ["", *[sample.strip() for line in SAMPLES.strip().splitlines() for sample in line.split("|")]]


@pytest.mark.parametrize("sample", ROUND_TRIPS)
def test_the_saved_arguments_give_the_same_arguments(
    sample: str, recipe: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    args = train(*sample.split())
    again = parse_train_args(["-c", recipe(args_text(args))])
    assert again.config
    assert vars(again) | {"config": ""} == vars(args)


def test_every_option_is_in_a_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    parser = train_parser()
    samples = [vars(train(*sample.split())) for sample in ROUND_TRIPS]
    unchanged = {d for d, default in parser.defaults.items() if all(sample[d] == default for sample in samples)}
    assert unchanged - {"config", *REFUSALS["train.py"]} == set()


def test_yaml_is_words_typed_before_the_command_line(recipe: Callable[[str], str]) -> None:
    text = """
    data_dir: elsewhere
    batch-size: 64
    lr: 3e-4
    mean: [0.5, 0.5, 0.5]
    attributes: [no, color]
    attribute_weights: {color: 2}
    amp: true
    no-prefetcher: false
    model-ema: true
    model-ema-warmup: false
    torchcompile: true
    dr: 0.5
    resume: null
    torchscript: false
    num_classes:
    """
    args = parse_train_args(["-c", recipe(text)])
    assert (args.data_dir, args.batch_size, args.lr, args.decay_rate) == ("elsewhere", 64, 3e-4, 0.5)
    assert args.attributes == ["no", "color"]
    assert args.attribute_weights == {"color": 2.0}
    assert args.amp
    assert not args.no_prefetcher
    assert not args.model_ema_warmup
    assert args.torchcompile == "inductor"
    assert args.resume == ""


def test_the_command_line_wins_over_yaml_and_undoes_it(recipe: Callable[[str], str]) -> None:
    file = recipe("batch_size: 64\namp: true\namp_dtype: bfloat16\nlr: 0.5\ndata_dir: there\nno_aug: true\nmean: [0.1]")
    args = parse_train_args(["here", "-c", file, "-b", "8", "--no-amp", "--lr-base", "1", "--aug"])
    assert (args.data_dir, args.batch_size, args.mean) == ("here", 8, [0.1])
    assert not args.amp
    assert args.amp_dtype is None  # it came with the recipe's amp, and goes with it
    assert (args.lr_base, args.no_aug) == (1.0, False)
    again = parse_train_args(["-c", recipe(args_text(args)), "--lr", "0.2"])
    assert (again.lr, again.lr_base) == (0.2, None)


def test_no_contrastive_loss_is_weight_zero_and_what_is_typed_wins(recipe: Callable[[str], str]) -> None:
    def settled(text: str, *words: str) -> tuple[str, float]:
        args = train(*(["-c", recipe(text)] if text else []), *words)
        return args.contrastive, args.simclr_loss_weight

    assert settled("") == ("ntxent", 0.5)
    assert settled("", "--contrastive", "none") == ("none", 0)
    assert settled("", "--contrastive", "none", "-wls", "0") == ("none", 0)
    assert settled("simclr_loss_weight: 0.1", "--contrastive", "none") == ("none", 0)
    assert settled("contrastive: none") == ("none", 0)
    assert settled("contrastive: none", "-wls", "0.3") == ("ntxent", 0.3)
    assert settled("contrastive: none", "--contrastive", "dcl") == ("dcl", 0.5)
    assert settled("contrastive: dcl", "-wls", "0") == ("ntxent", 0)
    assert settled("contrastive: dcl\nmask_false_negatives: true", "--contrastive", "none")[0] == "none"
    saved = args_text(train("--contrastive", "none"))
    assert settled(saved) == ("none", 0)
    assert settled(saved, "--contrastive", "supcon", "-wls", "1") == ("supcon", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contrastive: none\nsimclr_loss_weight: 1", "--contrastive none and --simclr-loss-weight exclude each other"),
        ("batchsize: 3", "unknown key 'batchsize'; did you mean batch-size?"),
        ("b: 3", "unknown key 'b'; did you mean batch-size?"),
        ("qqqqq: 3", "unknown key 'qqqqq'"),
        ("batch_size: x", "--batch-size/-b: x is not a whole number of at least 1"),
        ("sched: cosin", "--sched: invalid choice: 'cosin'"),
        ("config: b.yaml", "'config': a YAML file cannot name another"),
        ("batch_size: 3\nbatch-size: 4", "'batch-size': this flag is set twice"),
        ("lr: 1\nlr-base: 2", "--lr and --lr-base exclude each other"),
        ("amp: 3", "'amp' takes true or false, not '3'"),
        ("amp: [true]", "'amp' takes true or false"),
        ("batch_size: [3, 4]", "'batch_size' takes one value"),
        ("mean: {a: 1}", "'mean' takes a list"),
        ("model_kwargs: [a]", "--model-kwargs: 'a' is not name=value"),
        ("- a\n- b", "this is not a list of keys with values"),
        ("a: [", "line 1: this is not YAML"),
    ],
)
def test_a_mistake_in_yaml_names_the_file_and_the_key(
    text: str, expected: str, recipe: Callable[[str], str], mistake: Callable[..., str]
) -> None:
    file = recipe(text)
    assert mistake("-c", file).startswith(f"{file}: {expected}")


def test_a_missing_or_unreadable_yaml_file_is_one_sentence(tmp_path: Path, mistake: Callable[..., str]) -> None:
    missing = tmp_path / "missing.yaml"
    assert mistake("-c", str(missing)) == f"{missing}: No such file or directory"
    missing.write_bytes(b"\xff\xfe")
    assert "UTF-8" in mistake("-c", str(missing))
    missing.write_text("")
    assert parse_train_args(["data", "-c", str(missing)]).lr == 0.01


# Mistakes

MISTAKES = [
    ("--batchsize 3", "unrecognized arguments: --batchsize; did you mean --batch-size?"),
    ("--batch-siz=3", "unrecognized arguments: --batch-siz; did you mean --batch-size?"),
    ("--warm 3", "unrecognized arguments: --warm; did you mean --warmup-epochs?"),
    ("more", "unrecognized arguments: more"),
    ("--reprob 1.5", "--reprob: 1.5 is not a probability in 0..1"),
    ("--hflip nan", "--hflip: nan is not a probability in 0..1"),
    ("--lr 0", "--lr: 0 is not a number above 0"),
    ("--lr inf", "--lr: inf is not a number above 0"),
    ("--epochs 0", "--epochs: 0 is not a whole number of at least 1"),
    ("--workers=-1", "--workers/-j: -1 is not a whole number of at least 0"),
    ("--smoothing 1", "--smoothing: 1 is not a number from 0 up to but not including 1"),
    ("--log-interval 0", "--log-interval: 0 is not a whole number of at least 1"),
    ("--knn-interval=-1", "--knn-interval: -1 is not a whole number of at least 0"),
    ("--lr-noise-pct 0", "--lr-noise-pct: 0 is not a number above 0"),
    ("--opt-betas 0.9 1", "--opt-betas: 1 is not a number from 0 up to but not including 1"),
    ("--tta 3", "--tta: 3 is not 0 (off) or 2 (the image and its mirror image, averaged)"),
    ("--aa best", "--aa: 'best' does not begin with a policy"),
    ("--aa rand-m9-msdt1", "--aa: 'msdt1' in 'rand-m9-msdt1' is not a setting of rand"),
    ("--contrastive best", "--contrastive: invalid choice: 'best'"),
    ("--cache tape", "--cache: invalid choice: 'tape'"),
    ("--attribute-weights color", "--attribute-weights: 'color' is not name=weight"),
    ("--attribute-weights color=-1", "--attribute-weights: -1 is not a number of at least 0"),
    ("--attribute-weights a=1 a=2", "--attribute-weights: a name is given twice"),
    ("--lr 0.1 --lr-base 0.1", "--lr and --lr-base exclude each other"),
    ("--drop-path 0.1 --drop-connect 0.1", "--drop-connect and --drop-path exclude each other"),
    ("--img-size 8 --input-size 3 8 8", "--img-size and --input-size exclude each other"),
    ("--contrastive none -wls 0.5", "--contrastive none and --simclr-loss-weight exclude each other: none leaves no "),
    ("--no-pretrained --pretrained-path w.pth", "--pretrained-path and --no-pretrained exclude each other: the file "),
    ("--contrastive none -wlc 0", "--simclr-loss-weight and --classification-loss-weight are both 0"),
    ("-wls 0 -wlc 0", "--simclr-loss-weight and --classification-loss-weight are both 0: nothing"),
    (
        "-c recipes/pretrain.yaml -wls 0",
        "--simclr-loss-weight and --classification-loss-weight are both 0 (recipes/pretrain.yaml sets what the ",
    ),
    ("--contrastive-batch-size 70", "--contrastive-batch-size 70 is not a multiple of --batch-size 32: use 64 or 96"),
    ("--contrastive-batch-size 8", "--contrastive-batch-size 8 is not a multiple of --batch-size 32: use 32"),
    ("--unlabeled more -b 2 --unlabeled-ratio 0.2", "--unlabeled-ratio 0.2 of --batch-size 2 is no image"),
    ("--unlabeled more --aug-repeats 2", "--unlabeled and --unlabeled-ratio exclude --aug-repeats"),
    ("--classify-view both -wls 0", "--classify-view both needs -wls above 0: "),
    ("--attributes a a", "--attributes names a column twice"),
    ("--attributes a --attribute-weights b=1", "--attribute-weights names 'b'"),
    ("--attributes a b --multi-valued c", "--multi-valued names 'c', which --attributes leaves out: a b"),
    ("--attributes a --attribute-weights a=0", "--attribute-weights are all 0"),
    ("--freeze-backbone --pretrained", "--freeze-backbone needs -wls 0: "),
    ("--freeze-backbone -wls 0", "--freeze-backbone needs weights to keep: "),
    ("--input-size 4 8 8", "--input-size has 4 channels"),
    ("--mean 0.5 0.5", "--mean has 2 values: give 1 for all channels or 3"),
    ("--std 0.5 0.5 0.5 --input-size 1 8 8", "--std has 3 values: give 1 for all channels or 1"),
    ("--amp --model-dtype bfloat16", "--amp and --model-dtype bfloat16 exclude each other"),
    ("--sched multistep --decay-milestones 6 3", "--decay-milestones must rise"),
    ("--sched wsd --epochs 10", "--sched wsd needs --decay-epochs, here 30, to be from 1 to the 7 epochs"),
    ("--sched rsqrt --epochs 3", "--sched rsqrt needs --decay-epochs, here 30, to be from 1 to the 0 epochs"),
    ("--lr-noise 0.1 0.2 0.3", "--lr-noise takes 1 or 2 values"),
    ("--mixup 0.2 -b 7", "--mixup and --cutmix need an even --batch-size, not 7"),
    ("--cutmix 1 -b 7", "--mixup and --cutmix need an even --batch-size, not 7"),
    ("--cutmix-minmax 0.1 0.2 -b 7", "--mixup and --cutmix need an even --batch-size, not 7"),
    ("--mixup 0.2 --aug-splits 2", "--mixup and --cutmix exclude --aug-splits and --jsd"),
    ("--cutmix 0.3 --cutmix-minmax 0.1 0.2", "--cutmix 0.3 excludes --cutmix-minmax, which draws the size itself"),
    ("--aug-splits 1", "--aug-splits 1 splits nothing"),
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
    ("--mask-false-negatives --contrastive none", "--mask-false-negatives needs -wls above 0: at weight 0, or with "),
    ("--contrastive none --contrastive-batch-size 64", "--contrastive-batch-size needs -wls above 0: at weight 0 no "),
    ("--cache-dir a --cache ram", "--cache-dir needs --cache disk, not ram: nothing else is kept in a folder"),
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


# For each flag words with which it has no effect, one for each of its needs. The flag comes first.
UNMET = """
--amp-dtype float16 | --multi-valued-loss asl -wlc 0 | --balance uncertainty -wlc 0 | --class-weights inverse -wlc 0
--class-weights effective --aug-splits 3 --jsd | --logit-adjustment 1 -wlc 0 | --classify-view weak -wlc 0
--smoothing 0.3 -wlc 0 | --contrastive dcl -wls 0 | --mask-false-negatives -wls 0
--mask-false-negatives --contrastive supcon | --temperature 0.1 -wls 0 | --projection-dim 8 -wls 0
--projection-layers 3 -wls 0 | --projection-norm batch -wls 0 | --projection-norm batch --projection-layers 1
--contrastive-batch-size 64 -wls 0 | --unlabeled more -wls 0 | --unlabeled-ratio 2 -wls 0
--clip-mode agc | --layer-decay-min-scale 0.1 | --layer-decay-no-opt-scale 0.1
--backbone-lr-scale 0.5 --sched none | --backbone-lr-scale 0.5 --freeze-backbone --pretrained -wls 0
--layer-decay 0.7 --sched none | --layer-decay 0.5 --freeze-backbone --pretrained -wls 0
--sched-on-updates --sched plateau | --sched-on-updates --sched none
--sched-on-updates --sched constant --warmup-epochs 0
--lr-base-size 8 | --lr-base-scale sqrt | --lr-noise 0.5 --sched none | --lr-noise-pct 0.5 | --lr-noise-std 2
--warmup-epochs 4 --sched none | --warmup-lr 0 --warmup-epochs 0 | --warmup-lr 0 --sched none
--warmup-prefix --warmup-epochs 0 | --warmup-prefix --sched none | --cooldown-epochs 5 --sched step
--lr-cycle-limit 2 --sched step | --lr-cycle-mul 2 --sched step | --lr-cycle-mul 2 --sched cosine
--lr-cycle-decay 0.1 --sched wsd | --lr-cycle-decay 0.1 --sched tanh | --lr-k-decay 2 --sched tanh
--min-lr 0 --sched constant | --decay-milestones 3 6 | --patience-epochs 3 | --lr-decay-fn cosine
--lr-stable-timescale 2 --sched wsd
--views simclr --no-aug -wls 0 | --views simclr --classify-view weak -wls 0 | --augment-on device
--augment-on device --views simclr --no-prefetcher | --augment-on device --views simclr --train-interpolation lanczos
--view-strength 0.5 | --view-strength 0.5 --views simclr --augment-on device --classify-view weak -wls 0
--train-crop-mode rkrc --views simclr | --train-crop-mode rkrc --no-aug -wls 0
--train-crop-mode rkrc --classify-view weak -wls 0 | --scale 0.3 1 --no-aug -wls 0
--scale 0.3 1 --classify-view weak -wls 0 | --ratio 1 1 --no-aug -wls 0 | --hflip 0.1 --no-aug -wls 0
--vflip 0.1 --no-aug -wls 0 | --color-jitter 0.1 --views simclr-keepcolor | --color-jitter 0.1 --no-aug -wls 0
--color-jitter 0.2 --classify-view weak -wls 0 | --color-jitter 0.1 --aa rand-m9
--color-jitter-prob 0.8 --views simclr | --color-jitter-prob 0.8 --no-aug -wls 0
--color-jitter-prob 0.8 --classify-view weak -wls 0 | --color-jitter-prob 0.8 --aa v0
--color-jitter-prob 0.8 --color-jitter 0 0 0 | --grayscale-prob 0.1 --views simclr
--grayscale-prob 0.1 --no-aug -wls 0
--grayscale-prob 0.1 --classify-view weak -wls 0 | --gaussian-blur-prob 0.1 --views simclr
--gaussian-blur-prob 0.1 --no-aug -wls 0 | --gaussian-blur-prob 0.1 --classify-view weak -wls 0
--aa rand-m9 --views simclr | --aa rand-m9 --no-aug -wls 0 | --aa original --classify-view weak -wls 0
--aug-splits 2 --views simclr | --aug-splits 2 --no-aug -wls 0 | --aug-splits 2 --classify-view weak -wls 0
--aug-splits 2 -wlc 0 | --jsd | --reprob 0.1 --no-aug -wls 0
--reprob 0.1 --classify-view weak -wls 0 | --remode pixel | --recount 2 | --resplit
--resplit --reprob 0.5 --no-prefetcher | --mixup 0.2 -wlc 0 | --cutmix 1 -wlc 0 | --cutmix-minmax 0.2 0.8 -wlc 0
--mixup-prob 0.5 | --mixup-switch-prob 0.1 --mixup 1 | --mixup-mode elem | --mixup-off-epoch 2
--pretrained --initial-checkpoint a | --pretrained-path a --initial-checkpoint b
--head-grad detach -wls 0 | --head-grad detach -wlc 0 | --no-resume-opt
--grad-checkpointing --freeze-backbone --pretrained -wls 0
--bn-momentum 0.1 --freeze-backbone --pretrained -wls 0
--bn-tf --bn-momentum 0.1 --bn-eps 0.1 | --sync-bn --freeze-backbone --pretrained -wls 0
--dist-bn reduce --freeze-backbone --pretrained -wls 0 | --split-bn --freeze-backbone --pretrained -wls 0 --aug-splits 2
--model-ema-force-cpu | --model-ema-decay 0.9 | --no-model-ema-warmup | --knn-images 500 --knn-interval 0
--save-images --freeze-backbone --pretrained -wls 0 --no-aug | --wandb-project a | --torchcompile-mode max-autotune
--use-multi-epochs-loader -j 0 | --worker-seeding part -j 0 | --cache-dir a
"""
NO_EFFECT = [words.strip() for line in UNMET.strip().splitlines() for words in line.split("|")]


@pytest.mark.parametrize("words", NO_EFFECT)
def test_a_flag_without_effect_is_refused(words: str, mistake: Callable[..., str]) -> None:
    name = words.split()[0]
    sentence = mistake("data", *words.split())
    assert sentence.startswith((f"{name} needs ", f"{name} excludes "))


def test_every_need_of_every_flag_is_tested(capsys: pytest.CaptureFixture[str]) -> None:
    for words in NO_EFFECT:
        with pytest.raises(SystemExit):
            train(*words.split())
    said = capsys.readouterr().err
    for rule in train_parser().rules.declared.values():
        for need in rule.needs:
            assert need.noted or f"error: {rule.name} {need.verb} {need.wanted}" in said, (rule.name, need.wanted)


@pytest.mark.parametrize(
    "words",
    [
        "--cooldown-epochs 0 --sched constant",
        "--warmup-epochs 0 --sched none",
        "--hflip 0 --color-jitter 0 --no-aug -wls 0",
        "--color-jitter 0 --aa rand-m9",
        "--color-jitter 0.1 --aa 3a",
        "--cutmix 1 --cutmix-minmax 0.1 0.2",
        "--smoothing 0 -wlc 0",
        "--contrastive none -wls 0",
        "--mixup-prob 0",
        "--save-images --freeze-backbone --pretrained -wls 0 --no-aug --tta 2",
        "--sched-on-updates --sched constant",
    ],
)
def test_a_flag_that_asks_for_nothing_needs_nothing(words: str) -> None:
    train(*words.split())


@pytest.mark.parametrize(
    ("recipe_text", "typed", "dest", "value"),
    [
        ("sched: cosine\nmin-lr: 1e-6", "--sched constant", "min_lr", 1e-5),
        ("warmup-lr: 1e-6", "--warmup-epochs 0", "warmup_lr", 1e-4),
        ("hflip: 0.1\nsimclr-loss-weight: 0", "--no-aug", "hflip", 0.5),
        ("views: simclr\nview-strength: 0.5\nsimclr-loss-weight: 0", "--no-aug", "view_strength", 1.0),
        ("reprob: 0.2\nremode: pixel", "--reprob 0", "remode", "const"),
        ("model-ema: true\nmodel-ema-decay: 0.9", "--no-model-ema", "model_ema_decay", 0.9998),
        ("initial-checkpoint: a", "--resume b", "initial_checkpoint", "a"),  # args.yaml repeats the run
        ("pretrained: true", "--initial-checkpoint a", "pretrained", False),
        ("pretrained-path: w", "--initial-checkpoint a", "pretrained_path", ""),
    ],
)
def test_a_typed_flag_takes_back_what_it_leaves_without_effect(
    recipe_text: str, typed: str, dest: str, value: object, recipe: Callable[[str], str]
) -> None:
    assert getattr(train("-c", recipe(recipe_text), *typed.split()), dest) == value


def notes(args: argparse.Namespace, device: str = "cuda") -> list[str]:
    return train_parser().notes(args, device)


def test_a_flag_of_the_originals_command_without_effect_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notes(train()) == []
    assert notes(train("--sched", "cosine", "--decay-epochs", "2.4", "--decay-rate", ".97")) == [
        "--decay-epochs has no effect here: this schedule does not decay at intervals",
        "--decay-rate has no effect here: this schedule does not decay by a factor",
    ]
    words = ["--dist-bn", "reduce", "--no-ddp-bb", "--dist-backend", "gloo"]
    assert [note.split()[0] for note in notes(train(*words))] == ["--dist-bn", "--dist-backend", "--no-ddp-bb"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert notes(train(*words)) == []
    (note,) = notes(train("--initial-checkpoint", "a", "--resume", "b"))
    assert note == "--initial-checkpoint has no effect here: --resume has the weights"
    probe = ["--freeze-backbone", "--no-aug", "-wls", "0", "--initial-checkpoint", "a", "--drop-path", "0.1"]
    (note,) = notes(train(*probe))
    assert note == "--drop-path has no effect here: a frozen backbone stays in evaluation mode"
    (note,) = notes(train(*probe, "--drop-path", "0", "--use-multi-epochs-loader"))
    assert note.startswith("--use-multi-epochs-loader has no effect here: ")
    (note,) = notes(train("-wlc", "0", "--drop", "0.2"))
    assert note.startswith("--drop has no effect here: ")
    cpu = ["--pin-mem", "--synchronize-step", "--model-ema", "--model-ema-force-cpu"]
    assert notes(train(*cpu)) == []
    assert [note.split()[0] for note in notes(train(*cpu), "cpu")] == [cpu[3], cpu[1], cpu[0]]
    scored = ["data", "--checkpoint", "x"]
    assert validate_parser().notes(parse_validate_args(scored), "cpu") == []
    (note,) = validate_parser().notes(parse_validate_args([*scored, "--no-test-pool"]), "cpu")
    assert note.startswith("--no-test-pool has no effect here: ")


def test_a_numbered_device_for_several_processes_is_refused(
    mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--device", "cuda:1").device == "cuda:1"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train("--device", "cuda").device == "cuda"
    assert mistake("data", "--device", "cuda:1").startswith("--device cuda:1 is one device for 2 processes")


# What is typed is never changed


def test_the_metric_follows_from_the_run_unless_it_is_given(recipe: Callable[[str], str]) -> None:
    assert train().eval_metric is None
    assert train("-wlc", "0", "--eval-metric", "top1").eval_metric == "top1"
    assert resolve_eval_metric(None, heads_learn=True, only_sets=False) == "top1"
    assert resolve_eval_metric(None, heads_learn=True, only_sets=True) == "map"
    assert resolve_eval_metric(None, heads_learn=False, only_sets=True) == "simclr_loss"
    for heads_learn in (True, False):
        for only_sets in (True, False):
            assert resolve_eval_metric("top1", heads_learn, only_sets) == "top1"
    assert train("-c", recipe(args_text(train("-wlc", "0")))).eval_metric is None


def test_pretrained_weights_are_used_unless_they_are_declined(recipe: Callable[[str], str]) -> None:
    def settled(text: str, *words: str) -> tuple[bool, str]:
        args = train(*(["-c", recipe(text)] if text else []), *words)
        return args.pretrained, args.pretrained_path

    assert settled("", "--pretrained-path", "w") == (True, "w")
    assert settled("pretrained-path: w") == (True, "w")
    assert settled("pretrained-path: w", "--no-pretrained") == (False, "")
    assert settled("pretrained: false", "--pretrained-path", "w") == (True, "w")
    assert settled(args_text(train("--pretrained-path", "w"))) == (True, "w")
    assert settled(args_text(train("--pretrained-path", "w")), "--no-pretrained") == (False, "")
    assert settled(args_text(train()), "--pretrained-path", "w") == (True, "w")


def test_what_is_missing_is_asked_for(mistake: Callable[..., str]) -> None:
    assert mistake().startswith("DATA is missing: ")
    assert mistake("--checkpoint", "a", parse=parse_validate_args).startswith("DATA is missing: ")
    assert mistake("data", parse=parse_validate_args).startswith("--checkpoint is missing: ")
    assert mistake("a.png", parse=parse_inference_args).startswith("--checkpoint is missing: ")
    assert "INPUT" in mistake("--checkpoint", "a", parse=parse_inference_args)
    words = ["a.png", "--checkpoint", "a", "--output", "a.txt"]
    assert "does not end in .csv, .json or .parquet" in mistake(*words, parse=parse_inference_args)


def test_only_the_first_process_reports_a_mistake_and_the_others_leave_it_the_time(
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


def test_related_flags_agree_where_they_should() -> None:
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

# Read by the parser itself, or only to log that it has no effect.
READ_ELSEWHERE = {"config", "no_test_pool"}
# Where the options of a command may be read, beside the command itself. The declarations are not among them.
READERS = {
    "train.py": ["options/train_kwargs*.py", "training/*.py"],
    "validate.py": ["options/train_kwargs.py", "serving/*.py"],
    "inference.py": ["options/train_kwargs.py", "serving/*.py"],
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
