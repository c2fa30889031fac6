"""The benchmark for a GPU runs whole on a CPU at tiny sizes, and a section that fails does not stop the others."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import gpu
from gpu_timing import Settings, compare, seconds
from harness import Result, machine

SMOKE = Settings("cpu", smoke=True)
EXPECTED = {  # a part of each section's results
    "checks": ["DCL, N=8", "SupCon, N=8", "gradients of a step", "the original's command, one epoch"],
    "step": ["step, batch 2"],
    "step-compiled": ["compiled step, batch 2"],
    "end-to-end": ["training, from files, views by workers", "training, --cache device, views on the device"],
    "losses": ["NT-Xent, N=8", "SupCon, three attributes, N=8"],
    "labeling": ["labeling from files", "evaluation from files", "the model alone", "recipes/pretrain.yaml"],
    "optimizers": ["update of all weights"],
}


@pytest.mark.parametrize("name", gpu.SECTIONS)
def test_every_section_runs_on_a_cpu(name: str) -> None:
    found = gpu.run_sections([name], SMOKE, machine())[name]
    assert found["error"] is None
    names = [result["name"] for result in found["results"]]
    assert set(EXPECTED[name]) <= set(names)
    for result in found["results"]:
        assert next(iter(result["figures"])).startswith(("ours", "adamw, fused"))
        assert all(value >= 0 for value in result["figures"].values())


def test_a_section_that_fails_keeps_its_results_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        @staticmethod
        def run(settings: Settings) -> Any:
            yield Result("before", "ms", {"ours": 1.0}, {})
            raise RuntimeError("no such kernel\nand a long story")

    sections: dict[str, Any] = {"first": Failing, "second": Failing}
    monkeypatch.setattr(gpu, "_section", sections.__getitem__)
    found = gpu.run_sections(["first", "second"], SMOKE, {})
    for section in found.values():
        assert section["error"] == "RuntimeError: no such kernel"
        assert [result["name"] for result in section["results"]] == ["before"]


def test_a_contender_that_fails_is_named_and_left_out() -> None:
    def broken() -> Any:
        raise ImportError("no lightly here")

    result = compare("x", {"ours": lambda: int, "lightly": broken}, SMOKE, note="D=8")
    assert (list(result.figures), result.note) == (["ours"], "D=8; lightly: no lightly here")
    with pytest.raises(ImportError, match="no lightly"):
        compare("x", {"ours": broken}, SMOKE)


def test_time_is_the_mean_of_the_calls() -> None:
    calls: list[int] = []
    assert seconds(lambda: calls.append(1), "cpu", 5) > 0
    assert len(calls) == 5


def test_the_limits_fit_ten_minutes() -> None:
    assert sum(gpu.SECTIONS.values()) <= 600
    assert max(gpu.SECTIONS.values()) < 120
