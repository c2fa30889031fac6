"""The starts of the label-efficiency study, its methods, and the settings to try for each.

A setting is a list of stages. A stage is the flags of one call of train.py or, if its first word ends in .py, of that
script. label_efficiency_stages.py adds the tables, the weights and the output to them.

Four flags belong to the study and not to train.py: --steps, which becomes as many epochs as make about that many
steps, --least-epochs (3 by default), --times, which multiplies the epochs, and --original, which reads the photographs
instead of their small copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FRACTIONS = [0.05, 0.1, 0.25, 1.0]
TUNING_FRACTION = 0.1
TUNING_SEEDS = (100,)

COMMON = (
    "--opt adamw --weight-decay 0.05 --sched cosine --warmup-epochs 2 --warmup-lr 1e-6 --min-lr 1e-6 "
    "--cooldown-epochs 0 --clip-grad 5 --views simclr -j 1 --val-interval 1000 --checkpoint-hist 1 --knn-interval 0 "
    "--log-interval 1000 --use-multi-epochs-loader"
)


@dataclass(frozen=True)
class Start:
    """Where the cells of a start begin: a dataset, a network, its weights, and the size of its images.

    Attributes:
        title: its name in the report.
        results: name of its files under benchmarks/results, without the ending.
        img_size: side of the network's input in pixels.
        short_side: shorter side of the small copies of the photographs in pixels.
        model: flags of the network and its regularization.
        attributes: the dataset's attributes; the first stratifies the draws of labels.
        pretrained: whether the network starts from the file of --weights.
        tuned_on: the start whose best settings it takes over, so that another dataset shows what transfers; None
            tunes its own.
    """

    title: str
    results: str
    img_size: int
    short_side: int
    model: str
    attributes: tuple[str, ...]
    pretrained: bool = True
    tuned_on: str | None = None

    @property
    def flags(self) -> str:
        """The flags that all calls of train.py share."""
        return f"{self.model} --img-size {self.img_size} {COMMON}"


_LITE = "--model tf_efficientnet_lite0 --drop 0.2 --drop-path 0.1"
_CLOTHING, _SOLAR = ("article", "kids"), ("defect", "type")
STARTS = {
    "scratch": Start(
        "From scratch", "label-efficiency", 64, 80, "--model test_efficientnet", _CLOTHING, pretrained=False
    ),
    "imagenet": Start("From ImageNet weights", "label-efficiency", 64, 80, _LITE, _CLOTHING),
    "imagenet-128": Start(
        "Clothing, from ImageNet weights, 128 pixels", "label-efficiency-128", 128, 160, _LITE, _CLOTHING
    ),
    "solar-128": Start(
        "Solar cells, from ImageNet weights, 128 pixels",
        *("label-efficiency-solar", 128, 160, _LITE, _SOLAR),
        tuned_on="imagenet-128",
    ),
}
LARGE = [start for start, what in STARTS.items() if what.img_size == 128]

CROPS = "--scale 0.2 1"  # SimCLR's views with a larger minimum crop
MILD = f"--view-strength 0.5 {CROPS}"
LIGHT = "--views timm --scale 0.3 1 --color-jitter 0.2"
LABELS = "--train-split labeled"  # train on the labeled rows only

GENTLE = "--freeze-bn --sched-on-updates"  # warm up smoothly, since a large first step breaks frozen batch norm
PROBED = f"{GENTLE} --probe-first"  # start from solved heads, so that the first gradients do not harm the backbone

# A variant is a method's best setting with one more flag in its last stage, or with one more stage, and no more tuning.
VARIANTS = {
    "classification for long": ("classification", "--times 3"),
    "pretrain and fine-tune for long": ("pretrain for long, fine-tune", "--times 3"),
    "joint, both views": ("joint", "--classify-view both"),
    "joint, weak view": ("joint", "--classify-view weak"),
    "fine-tuning for long": ("fine-tuning", "--times 3"),
    "fine-tuning, frozen batch norm, for long": ("fine-tuning, frozen batch norm", "--times 3"),
    "from solved heads, for long": ("fine-tuning, frozen batch norm, from solved heads", "--times 3"),
}

Settings = dict[str, dict[str, list[list[str]]]]  # method -> start -> settings, each a list of stages


def _small_settings() -> Settings:
    """Return the settings to try at 64 pixels, four to six for each method and start.

    A stage holds the flags that one call of train.py adds to the start's. Each later stage starts from the checkpoint
    of the stage before it.
    """
    found: Settings = {}
    for start, steps, pretraining, rates, gentle in (
        ("scratch", 1620, 4600, (1e-3, 3e-3, 1e-2), ""),
        ("imagenet", 270, 450, (5e-4, 1e-3, 2e-3), LIGHT),
    ):
        # stages
        alone = f"{LABELS} -b 32 -wls 0 -wlc 1 --steps {steps}"
        supervised = [f"{alone} --lr {rate:g} {views}".rstrip() for rate in rates for views in (MILD, gentle)]
        pretrained, long = (
            f"-b 64 -wls 1 -wlc 0 --lr {rates[1]:g} -t 0.1 --steps {many} {CROPS}"
            for many in (pretraining, 3 * pretraining)
        )
        probe = f"{LABELS} -b 32 --freeze-backbone --no-aug --views timm -wls 0 -wlc 1 --steps {steps}"
        mixed = f"{LABELS} -b 32 --unlabeled-ratio 1 -t 0.1 --steps {steps} --lr {rates[1]:g}"
        joint = [
            f"{mixed} -wls {weight:g} -wlc {1 - weight:g} {views}" for weight in (0.5, 0.1) for views in (MILD, CROPS)
        ]

        # methods
        settings = {
            "classification": [[stage] for stage in supervised],
            "pretrain, fine-tune": [[pretrained, stage] for stage in supervised],
            "pretrain for long, fine-tune": [[long, stage] for stage in supervised],
            "pretrain with DCL, fine-tune": [[f"{pretrained} --contrastive dcl", stage] for stage in supervised],
            "pretrain, joint": [[pretrained, stage] for stage in joint],
            "pretrain, joint SupCon": [[pretrained, f"{stage} --contrastive supcon"] for stage in joint],
            "pretrain, probe": [[pretrained, f"{probe} --lr {rate}"] for rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)],
            "joint": [[stage] for stage in joint],
            "joint, SupCon": [[f"{stage} --contrastive supcon"] for stage in joint],
            "joint, masked": [[f"{stage} --mask-false-negatives"] for stage in joint],
        }
        if start == "scratch":  # from the best rate of fine-tuning downward
            taught = (
                f"{LABELS} -b 32 --unlabeled-ratio 2 --steps {steps} --probe-first "
                "--pseudo ema --pseudo-weight 1 --model-ema --model-ema-decay 0.999"
            )
            settings |= {
                f"pretrain for long, {name}": [[long, f"{taught} {losses} --lr {rate:g}"] for rate in rates[::-1]]
                for name, losses in (
                    ("EMA teacher", "-wls 0 -wlc 1"),
                    ("EMA teacher with SimCLR", "-wls 0.1 -wlc 0.9 -t 0.1 --classify-view both"),
                )
            }
        for method, tried in settings.items():
            found.setdefault(method, {})[start] = tried
    return found


def _large_settings() -> Settings:
    """Return the settings to try at 128 pixels: four for most methods that train, two with soft labels alone."""
    # stages with labels alone
    rates, slow = ("5e-4", "2e-3", "1e-3", "2e-4"), ("5e-4", "2e-4")
    solved = ("1e-3", "5e-4")  # the best rate from solved heads, and half of it
    alone = f"{LABELS} -b 32 -wls 0 -wlc 1 {MILD} --least-epochs 5"
    gentle = [f"{alone} {GENTLE} --lr {rate} --steps 100" for rate in (*slow, "1e-3", "3e-4")]
    probed = [f"{alone} {PROBED} --lr {rate} --steps 100" for rate in (*slow, "1e-3", "3e-4")]

    teacher_224 = f"{alone} {PROBED} --lr 1e-3 --steps 100 --img-size 224 --original"  # the rate that was best at 128

    # stages with two unlabeled images for each labeled one
    mixed = f"{LABELS} -b 32 --unlabeled-ratio 2 -wlc 1 {MILD} --least-epochs 5 {PROBED} --steps 100"
    contrast = "-t 0.1 --classify-view both"
    teacher = "--pseudo ema --model-ema --model-ema-decay 0.99"
    pretrained = [f"-b 64 -wls 1 -wlc 0 -t 0.1 --steps 150 {CROPS} --freeze-bn --lr {rate}" for rate in slow]

    # methods
    probe = (
        f"{LABELS} -b 32 -wls 0 -wlc 1 --freeze-backbone --no-aug --views timm --refit-heads --steps 0 --least-epochs 0"
    )
    settings = {
        "logistic regression, 128 pixels": [["logistic_regression.py --img-size 128"]],
        "logistic regression, 224 pixels": [["logistic_regression.py --img-size 224"]],
        "solved heads, 128 pixels": [[probe]],
        "solved heads, 224 pixels": [[f"{probe} --img-size 224 --original"]],
        "fine-tuning": [[f"{alone} --no-freeze-bn --lr {rate} --steps 100"] for rate in rates],
        "fine-tuning at a low rate": [[f"{alone} --no-freeze-bn --lr 2e-4 --steps 100"]],  # as was common before
        "fine-tuning, frozen batch norm": [[f"{alone} --freeze-bn --lr {rate} --steps 100"] for rate in rates],
        "fine-tuning, frozen batch norm, warmed up": [[stage] for stage in gentle],
        "fine-tuning, frozen batch norm, from solved heads": [[stage] for stage in probed],
        "SimCLR, then fine-tuning": [[first, second] for first in pretrained for second in (probed[2], probed[0])],
    }
    settings |= {  # the weight is that of the loss on images without labels
        "with SimCLR": [[f"{mixed} {contrast} -wls 0.1 --lr {rate}"] for rate in solved],
        "self-training": [
            [probed[2], "inference.py", f"{mixed} -wls 0 --pseudo-weight 1 --lr {rate}"] for rate in solved
        ],
        "fine-tuning at 224 pixels": [[teacher_224]],
        "self-training, teacher at 224 pixels": [
            [
                *(teacher_224, "inference.py --original", "relabel_copies.py"),
                f"{mixed} -wls 0 --pseudo-weight 1 --lr {rate}",
            ]
            for rate in solved
        ],
        "EMA teacher": [[f"{mixed} {teacher} -wls 0 --pseudo-weight 1 --lr {rate}"] for rate in solved],
        "EMA teacher with SimCLR": [
            [f"{mixed} {contrast} {teacher} -wls 0.1 --pseudo-weight {weight} --lr {solved[0]}"] for weight in (1, 0.3)
        ],
    }
    return {method: dict.fromkeys(LARGE, tried) for method, tried in settings.items()}


METHODS = _small_settings() | _large_settings()


def baseline_of(method: str) -> str:
    """Return the method that a method is compared with."""
    if method in METHODS:
        return "fine-tuning" if LARGE[0] in METHODS[method] else "classification"
    base = VARIANTS[method][0]
    if LARGE[0] in METHODS[base]:
        return "fine-tuning"
    return "joint" if base == "joint" else "classification for long"


def methods_of(start: str, named: Sequence[str] | None = None) -> list[str]:
    """Return the methods that have settings for a start: all but the variants, or the named ones."""
    chosen = METHODS if named is None else named
    return [method for method in chosen if start in METHODS[VARIANTS.get(method, (method,))[0]]]
