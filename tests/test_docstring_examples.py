"""The examples in the docstrings of simclr print what they say."""

import doctest
from pathlib import Path

import pytest

import simclr

PUBLIC = [name for name in simclr.__all__ if name.endswith(("Loss", "_loss", "Meter"))]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_a_public_loss_or_meter_prints_what_it_says(name: str) -> None:
    examples = doctest.DocTestFinder(recurse=False).find(getattr(simclr, name), name, globs={})
    assert [len(example.examples) > 0 for example in examples] == [True]
    runner = doctest.DocTestRunner()
    for example in examples:
        output: list[str] = []
        assert runner.run(example, out=output.append).failed == 0, "".join(output)


def test_every_public_loss_and_meter_has_an_example() -> None:
    assert PUBLIC == [
        "DCLLoss",
        "NTXentLoss",
        "ProjectionMeter",
        "SupConLoss",
        "dcl_loss",
        "nt_xent_loss",
        "sup_con_loss",
    ]
    files = Path(simclr.__file__).parent.glob("*.py")
    assert {file.stem for file in files if ">>>" in file.read_text()} == {
        "dcl",
        "nt_xent",
        "projection_meter",
        "sup_con",
    }
