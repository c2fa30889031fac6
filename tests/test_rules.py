"""A flag takes effect, or is refused with the reason; what is typed is never changed."""

import argparse
from collections.abc import Callable

import pytest

from options.train import parse_train_args, resolve_eval_metric, train_parser
from options.train_kwargs import freeze_bn
from options.validate import parse_validate_args, validate_parser
from options.yaml_file import args_text


def train(*words: str) -> argparse.Namespace:
    return parse_train_args(["data", *words])


# For each flag words with which it has no effect, one for each of its needs. The flag comes first.
UNMET = """
--early-stop 3 --epochs 0 --refit-heads
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
--warmup-epochs 4 --steps 100 | --warmup-steps 5 | --warmup-steps 5 --steps 100 --sched none
--warmup-prefix --steps 100 | --cooldown-epochs 5 --steps 100 --sched cosine
--lr-cycle-limit 2 --sched cosine --steps 100 | --warmup-lr 0 --steps 100 --warmup-steps 0
--warmup-epochs 4 --sched none | --warmup-lr 0 --warmup-epochs 0 | --warmup-lr 0 --sched none
--warmup-prefix --warmup-epochs 0 | --warmup-prefix --sched none | --cooldown-epochs 5 --sched step
--lr-cycle-limit 2 --sched step | --lr-cycle-mul 2 --sched step | --lr-cycle-mul 2 --sched cosine
--lr-cycle-decay 0.1 --sched wsd | --lr-cycle-decay 0.1 --sched tanh | --lr-k-decay 2 --sched tanh
--min-lr 0 --sched constant | --decay-milestones 3 6 | --patience-epochs 3 | --lr-decay-fn cosine
--lr-stable-timescale 2 --sched wsd
--views simclr --no-aug -wls 0 | --views simclr --classify-view weak -wls 0 | --augment-on device
--augment-on device --views simclr --no-prefetcher | --augment-on device --views simclr --train-interpolation lanczos
--view-strength 0.5 | --view-strength 0.5 --views simclr --augment-on device --classify-view weak -wls 0
--decode reduced --cache ram | --decode reduced --views simclr --augment-on device
--decode reduced --no-aug -wls 0 | --decode reduced --train-crop-mode rkrc
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
--grayscale-prob 0.1 --input-size 1 8 8
--aa rand-m9 --views simclr | --aa rand-m9 --no-aug -wls 0 | --aa original --classify-view weak -wls 0
--aug-splits 2 --views simclr | --aug-splits 2 --no-aug -wls 0 | --aug-splits 2 --classify-view weak -wls 0
--aug-splits 2 -wlc 0 | --jsd | --reprob 0.1 --no-aug -wls 0
--reprob 0.1 --classify-view weak -wls 0 | --remode pixel | --recount 2 | --resplit
--resplit --reprob 0.5 --no-prefetcher | --mixup 0.2 -wlc 0 | --cutmix 1 -wlc 0 | --cutmix-minmax 0.2 0.8 -wlc 0
--mixup-prob 0.5 | --mixup-switch-prob 0.1 --mixup 1 | --mixup-mode elem | --mixup-off-epoch 2
--pretrained --initial-checkpoint a | --pretrained-path a --initial-checkpoint b
--refit-heads -wlc 0 | --probe-first -wlc 0 | --probe-first | --probe-first --pretrained --freeze-backbone -wls 0
--head-grad detach -wls 0 | --head-grad detach -wlc 0 | --no-resume-opt
--grad-checkpointing --freeze-backbone --pretrained -wls 0
--bn-momentum 0.1 --freeze-backbone --pretrained -wls 0
--bn-tf --bn-momentum 0.1 --bn-eps 0.1 | --bn-tf --bn-eps 0.1 --freeze-backbone --pretrained -wls 0
--sync-bn --freeze-backbone --pretrained -wls 0
--freeze-bn | --freeze-bn --freeze-backbone --pretrained -wls 0 | --bn-momentum 0.1 --freeze-bn --pretrained
--bn-tf --bn-eps 0.1 --freeze-bn --pretrained | --sync-bn --freeze-bn --pretrained
--split-bn --freeze-bn --pretrained
--dist-bn reduce --freeze-backbone --pretrained -wls 0 | --split-bn --freeze-backbone --pretrained -wls 0 --aug-splits 2
--model-ema-force-cpu | --model-ema-decay 0.9 | --no-model-ema-warmup | --knn-images 500 --knn-interval 0
--save-images --freeze-backbone --pretrained -wls 0 --no-aug | --wandb-project a | --torchcompile-mode max-autotune
--torchcompile-mode max-autotune --torchcompile eager
--pseudo ema --model-ema -wlc 0 | --pseudo ema | --pseudo ema --model-ema --no-aug
--pseudo ema --model-ema --model-ema-force-cpu --device cuda | --pseudo ema --model-ema --mixup 0.2
--pseudo ema --model-ema --aug-splits 3 | --pseudo-weight 0.5 | --pseudo-skip color | --pseudo-warmup 0.5
--pseudo-labels s.parquet -wlc 0 | --pseudo-labels s.parquet --mixup 0.2 | --pseudo-labels s.parquet --cutmix 1
--pseudo-labels s.parquet --aug-splits 3 | --pseudo-labels s.parquet --pseudo ema --model-ema
 --pseudo-warmup 0.5 --pseudo-labels s.parquet
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
        "--pseudo ema --model-ema --unlabeled more -wls 0",
        "--pseudo-weight 0",
        "--reprob 0.1 --pseudo ema --model-ema --classify-view weak -wls 0",
        "--mixup-prob 0",
        "--save-images --freeze-backbone --pretrained -wls 0 --no-aug --tta 2",
        "--sched-on-updates --sched constant",
        "--steps 100 --warmup-epochs 0 --cooldown-epochs 0 --warmup-steps 0",
        "--no-freeze-bn",
        "--bn-momentum 0.1 --freeze-bn --pretrained --projection-norm batch",
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
def test_a_typed_flag_removes_what_it_leaves_without_effect_from_the_recipe(
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
    words = ["--dist-bn", "reduce", "--no-ddp-bb", "--dist-backend", "gloo", "--dist-timeout", "90"]
    flags = ["--dist-bn", "--dist-backend", "--dist-timeout", "--no-ddp-bb"]
    assert [note.split()[0] for note in notes(train(*words))] == flags
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert notes(train(*words)) == []
    (note,) = notes(train("--initial-checkpoint", "a", "--resume", "b"))
    assert note == "--initial-checkpoint has no effect here: the weights come from --resume"
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


@pytest.mark.parametrize(
    ("words", "frozen"),
    [
        ("", False),
        ("--pretrained", None),
        ("--pretrained-path w", None),
        ("--initial-checkpoint a --bn-eps 0.1 --dist-bn reduce", None),
        ("--pretrained -wls 0", None),
        ("--pretrained --opt nadam", None),
        ("--pretrained --opt sgd", False),
        ("--pretrained -wlc 0", False),
        ("--pretrained --head-grad detach", False),
        ("--pretrained --no-freeze-bn", False),
        ("--pretrained --freeze-bn -wlc 0", True),
        ("--pretrained --bn-momentum 0.01", False),
        ("--pretrained --bn-tf", False),
        ("--pretrained --split-bn", False),
        ("--pretrained --sync-bn", False),
        ("--pretrained --freeze-backbone -wls 0", False),
        ("--resume a", None),
        ("--resume a --opt sgd", None),
        ("--resume a --split-bn", False),
    ],
)
def test_statistics_are_frozen_where_labels_fine_tune_trained_weights_gently(words: str, frozen: bool | None) -> None:
    args = train("--opt", "adamw", *words.split())
    assert freeze_bn(args, lr=5e-4) is frozen
    if frozen is None and not args.resume:
        assert freeze_bn(args, lr=6e-4) is False


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
