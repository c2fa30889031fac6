"""The measurement of --refit-heads: which checkpoint is the recipe's own, and the interval of the difference."""

import sys
from pathlib import Path

import pytest
import torch
from scipy import stats

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import refit_heads


def test_the_best_trained_checkpoint_is_the_best_before_the_refit(tmp_path: Path) -> None:
    for name, epoch, metric in (("checkpoint-3", 3, 70.0), ("checkpoint-5", 5, 80.0), ("checkpoint-9", 9, 90.0)):
        torch.save({"epoch": epoch, "metric": metric}, tmp_path / f"{name}.pth.tar")
    torch.save({"epoch": 9, "metric": 90.0}, tmp_path / "last.pth.tar")
    assert refit_heads.best_trained(tmp_path).name == "checkpoint-5.pth.tar"


def test_the_interval_is_students(capsys: pytest.CaptureFixture[str]) -> None:
    gains = [1.0, 2.0, 4.0]
    lines = [
        {
            "seed": seed,
            "trained": dict.fromkeys(refit_heads.METRICS, 80.0),
            "refitted": dict.fromkeys(refit_heads.METRICS, 80.0 + gain),
        }
        for seed, gain in enumerate(gains)
    ]
    refit_heads.report(lines)
    expected = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    row = capsys.readouterr().out.splitlines()[2]
    assert row == f"| top1 | 80.0 | 82.3 | +2.3 ({expected.low:+.1f} to {expected.high:+.1f}) |"
    with pytest.raises(SystemExit, match="needs two"):
        refit_heads.report(lines[:1])
