"""Every import has a requirement, every requirement a reason, and the locked versions satisfy them."""

import ast
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {file.parent.name for file in ROOT.glob("*/__init__.py")}
OURS = {*ROOMS, "hostile", *(file.stem for file in ROOT.glob("*.py")), *(file.stem for file in ROOT.glob("*/*.py"))}
OPTIONAL = {
    "wandb",
    "trackio",
    "tensorboard",
    "faiss",
    "starlette",
    "uvicorn",
}  # their flags name them


def requirements(name: str) -> dict[str, Requirement]:
    """Return the requirements of a file by normalized name."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    parsed = [Requirement(line) for line in lines if line]
    return {normal(requirement.name): requirement for requirement in parsed}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(files: list[Path]) -> dict[str, Path]:
    """Return the top-level packages that files import anywhere, each with one importing file."""
    found: dict[str, Path] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.partition(".")[0]: file for name in names}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names}


installed = cache(packages_distributions)  # it reads the metadata of every package


def distributions(package: str) -> set[str]:
    return {normal(name) for name in installed().get(package, [package])}


SCRIPTS = [*ROOT.glob("*.py"), *ROOT.glob("fashion-product-images/*.py")]
SOURCES = [*SCRIPTS, *(file for room in ROOMS | {"timm"} for file in (ROOT / room).rglob("*.py"))]


def test_the_requirements_name_every_package_that_the_product_imports() -> None:
    required = set(requirements("requirements.txt"))
    missing = {
        name: file.name
        for name, file in imported(SOURCES).items()
        if name not in OURS | OPTIONAL and not distributions(name) & required
    }
    assert missing == {}


def test_the_requirements_name_timm_despite_the_folder_of_that_name() -> None:
    assert "timm" in requirements("requirements.txt")


def test_the_requirements_name_every_package_that_the_tests_import() -> None:
    required = set(requirements("requirements.txt")) | set(requirements("requirements-dev.txt"))
    missing = {
        name: file.name
        for name, file in imported(list((ROOT / "tests").glob("*.py"))).items()
        if name not in OURS and not distributions(name) & required
    }
    assert missing == {}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_a_range_and_a_reason(name: str) -> None:
    for line in (ROOT / name).read_text().splitlines():
        requirement, _, reason = line.partition("#")
        if requirement.strip():
            assert ">=" in requirement, line
            assert reason.strip(), line


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_file_pins_every_requirement_within_its_range(name: str) -> None:
    pinned = requirements("requirements-lock.txt")
    for package, requirement in requirements(name).items():
        [pin] = pinned[package].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), package
