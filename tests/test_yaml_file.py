"""A YAML file of flags is words typed before the command line, and the saved flags of a run repeat it."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from options.train import parse_train_args, train_parser
from options.yaml_file import args_text


def train(*words: str) -> argparse.Namespace:
    return parse_train_args(["data", *words])


# For each option one value that is not its default, with the other flags that this value needs.
SAMPLES = """
--data-dir elsewhere | --train-split a | --val-split b | --on-save-error go-on | --attributes color no true 007
--max-unreadable 0.5 | --attribute-weights color=2 a=b=0.5 no=1 | --classify-view both | --model resnet50 | --pretrained
--no-report | --pretrained-path w.safetensors | --initial-checkpoint a.pth | --resume null | --resume a --no-resume-opt
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
--epochs 3 | --epochs 0 --refit-heads | --refit-heads | --probe-first --pretrained
--steps 300 | --steps 300 --warmup-steps 0 | --start-epoch 0 | --decay-epochs 0.5
--sched multistep --decay-milestones 3 6 | --warmup-epochs 0 | --warmup-prefix | --cooldown-epochs 0
--sched plateau --patience-epochs 0
--decay-rate 0.5 | --no-aug -wls 0 | --train-crop-mode rkrc | --scale 0.5 1 | --ratio 1 1 | --hflip 0 | --vflip 1
--color-jitter 0 | --color-jitter 0.1 0.2 0.3 0.4 | --color-jitter-prob 0.8 | --grayscale-prob 0.2
--gaussian-blur-prob 0.5 | --aa rand-m9-mstd0.5-inc1 | --aug-repeats 2 -wls 0 | --aug-splits 3 | --aug-splits 2 --jsd
--reprob 0.5 --remode pixel --recount 2 --resplit | --mixup 0.2 | --cutmix 1 | --cutmix-minmax 0.2 0.8
--mixup 0.2 --mixup-prob 0.5 --mixup-mode elem --mixup-off-epoch 2 | --mixup 1 --cutmix 1 --mixup-switch-prob 0.1
--train-interpolation bilinear | --smoothing 0 | --drop 0.2 | --drop-connect 0.1 | --drop-path 0 | --drop-block 0.1
--bn-tf | --freeze-bn --pretrained | --no-freeze-bn
--bn-momentum 0.1 | --bn-eps 1e-3 | --sync-bn | --dist-bn reduce | --split-bn | --model-ema
--model-ema --model-ema-force-cpu --model-ema-decay 0.99 --no-model-ema-warmup | --batch-size 7
--validation-batch-size-multiplier 2 | --grad-accum-steps 2 | --seed 0 | --output=-o | --experiment 007
--experiment null | --experiment false | --experiment 2024-01-01 | --experiment éa:b#c | --eval-metric loss
--knn-interval 3 | --knn-images 500 | --recovery-interval 10m | --resume auto --experiment a
--val-interval 2 | --tta 2 | --checkpoint-hist 1 | --recovery-interval 5 | --log-interval 1 | --save-images
--log-wandb | --log-wandb --wandb-project yes | --log-tensorboard | --log-trackio
--local_rank 1 | --dist-backend gloo --dist-timeout 90 | --no-ddp-bb
--synchronize-step | --use-multi-epochs-loader | --worker-seeding part | --device cuda:1 | --amp
--amp --amp-dtype bfloat16 | --model-dtype float16 | --torchcompile | --torchcompile eager
--torchcompile --torchcompile-mode max-autotune | --no-channels-last | --workers 0 | --pin-mem | --no-prefetcher
--views simclr | --views simclr-keepcolor --view-strength 0.5
--views simclr --augment-on device --cache device
--unlabeled more others.csv --unlabeled-ratio 2 | --unlabeled more --unlabeled others.csv
--class-weights effective --logit-adjustment 1 --balance uncertainty --gradient-centralization
--multi-valued tags fit --multi-valued-loss asl | --multi-valued | --separator ; | --image-root pictures
--freeze-backbone --pretrained -wls 0 | --head-grad detach --backbone-lr-scale 0.5
--pseudo ema --model-ema --pseudo-weight 0.5 --pseudo-skip color no --pseudo-warmup 0.1
--pseudo-labels s.parquet --pseudo-weight 2
--cache ram | --cache disk --cache-dir a | --decode reduced | --early-stop 3
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


@pytest.mark.parametrize("sample", ROUND_TRIPS)
def test_what_is_typed_is_never_changed(sample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    args = vars(train(*sample.split()))
    assert args | train_parser().read(["data", *sample.split()]) == args


def test_every_option_is_in_a_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    parser = train_parser()
    samples = [vars(train(*sample.split())) for sample in ROUND_TRIPS]
    unchanged = {d for d, default in parser.defaults.items() if all(sample[d] == default for sample in samples)}
    assert {dest for dest in unchanged if not parser.rules.declared[dest].refused} == {"config"}


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
    assert args.amp_dtype is None  # it needs the recipe's amp, which --no-amp takes back
    assert (args.lr_base, args.no_aug) == (1.0, False)
    again = parse_train_args(["-c", recipe(args_text(args)), "--lr", "0.2"])
    assert (again.lr, again.lr_base) == (0.2, None)


def test_contrastive_none_is_weight_zero_and_typed_flags_win(recipe: Callable[[str], str]) -> None:
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
        ("batch_size: x", "--batch-size/-b: x is not a whole number from 1 to 1,048,576"),
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
        (
            "lr: 1\nmodel_kwargs: {a: !!int x}",
            "line 2: the tag tag:yaml.org,2002:int is not read: write the value alone",
        ),
        ("model_kwargs: &a {b: *a}", "line 1: *a repeats itself without end: write its values out"),
        ("lr: 1\nmodel_kwargs: {a: [2001-13-40]}", "line 2: this value cannot be read (month must be in 1..12"),
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
