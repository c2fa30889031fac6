"""Nothing imports upwards: simclr knows torch alone; above it are utils, data, models, task, and then the scripts."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {file.stem for file in ROOT.glob("*.py")}
BELOW = {  # of our own, what each package may import besides itself
    "simclr": set(),
    "timm/utils": set(),
    "timm/data": {"timm/utils"},
    "timm/models": {"timm/utils", "timm/data"},
    "timm/task": {"timm/utils", "timm/data", "timm/models", "simclr"},
}
FILES = [(package, file) for package in BELOW for file in sorted((ROOT / package).glob("*.py"))]


def imports(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, as dotted names; of `from a import b` also a.b, which may be one."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: upstream and ours are both imported absolutely"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str | None:
    """Return which package of ours a module is of; None for upstream's and others'."""
    if module.partition(".")[0] == "simclr":
        return "simclr"
    path = module.replace(".", "/")
    return path.rpartition("/")[0] if (ROOT / f"{path}.py").is_file() and path.startswith("timm/") else None


@pytest.mark.parametrize(("package", "file"), FILES, ids=lambda x: x if isinstance(x, str) else x.stem)
def test_nothing_imports_upwards(package: str, file: Path) -> None:
    modules = set(imports(file))
    assert not {module.partition(".")[0] for module in modules} & SCRIPTS
    assert {found for module in modules if (found := package_of(module))} <= BELOW[package] | {package}


def test_the_contrastive_part_knows_only_torch() -> None:
    foreign = {module.partition(".")[0] for file in (ROOT / "simclr").glob("*.py") for module in imports(file)}
    assert foreign - sys.stdlib_module_names == {"torch", "simclr"}


def test_every_package_of_ours_has_its_place() -> None:
    assert {str(file.parent.relative_to(ROOT)) for file in (ROOT / "timm").glob("*/**/*.py")} <= set(BELOW)
