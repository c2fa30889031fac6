"""Imports point downwards only, from the scripts through the rooms to the bottom, and some rooms need no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {file.stem for file in ROOT.glob("*.py")}
ROOMS = {  # what each room may import of ours, besides itself
    "simclr": set(),
    "options": {"runtime"},
    "runtime": set(),
    "catalog": {"runtime"},
    "timm": {"catalog", "simclr", "runtime"},
    "reports": {"catalog", "runtime"},
    "training": {"catalog", "options", "reports", "runtime", "simclr", "timm"},
    "serving": {"catalog", "options", "reports", "runtime", "simclr", "timm"},
    "commands": {"catalog", "options", "reports", "runtime", "serving", "simclr", "timm", "training"},
}
FLOORS = {  # within timm/
    "timm/data": set(),
    "timm/models": {"timm/data"},
    "timm/task": {"timm/data", "timm/models"},
}
FILES = [(room, file) for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]


def imports(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, as dotted names; for `from a import b` also a.b, which may be one."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: upstream and ours are both imported absolutely"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_ours(module: str) -> bool:
    """Whether a dotted name is a file or a room of this checkout; upstream's modules of timm are not."""
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize(("room", "file"), FILES, ids=lambda x: x if isinstance(x, str) else x.stem)
def test_nothing_imports_upwards(room: str, file: Path) -> None:
    modules = {module for module in imports(file) if is_ours(module)}
    rooms = {module.partition(".")[0] for module in modules} - {"timm"}
    rooms |= {"timm" for module in modules if module.startswith("timm.")}
    assert not rooms & SCRIPTS
    assert rooms <= ROOMS[room] | {room}
    floor = str(file.parent.relative_to(ROOT))
    if floor in FLOORS:
        below = {module.replace(".", "/").rpartition("/")[0] for module in modules if module.startswith("timm.")}
        assert below <= FLOORS[floor] | {floor}


@pytest.mark.parametrize("folder", ["", "benchmarks", "fashion-product-images"])
def test_no_files_import_each_other_in_a_circle(folder: str) -> None:
    root = ROOT / folder  # a command finds the modules beside it by their stems
    files = [*root.glob("*.py"), *(file for _, file in FILES)] if not folder else sorted(root.glob("*.py"))
    names = {str(file.relative_to(root).with_suffix("")).replace("/", "."): file for file in files}
    graph = {name: names.keys() & set(imports(file)) - {name} for name, file in names.items()}
    assert sum(map(len, graph.values())) > 5
    assert len(list(TopologicalSorter(graph).static_order())) == len(files)  # raises CycleError


def test_the_contrastive_part_knows_only_torch() -> None:
    foreign = {module.partition(".")[0] for file in (ROOT / "simclr").glob("*.py") for module in imports(file)}
    assert foreign - sys.stdlib_module_names == {"torch", "simclr"}


@pytest.mark.parametrize("room", ["catalog", "options", "reports"])
def test_a_room_without_models_loads_without_torch(room: str) -> None:
    modules = [f"{room}.{file.stem}" for file in (ROOT / room).glob("*.py") if file.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'timm'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_package_has_its_place() -> None:
    packages = {file.relative_to(ROOT).parts[0] for file in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "benchmarks"} == set(ROOMS)
    assert {str(file.parent.relative_to(ROOT)) for file in (ROOT / "timm").glob("*/**/*.py")} <= set(FLOORS)


ARGPARSE = {
    "multi_label_checkpoint.py",  # checkpoints of timm and of the original hold an argparse.Namespace
    "curves.py",  # a command of its own
}


@pytest.mark.parametrize("room", ["catalog", "runtime", "simclr", "timm", "reports"])
def test_a_library_knows_nothing_of_command_lines(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert [text for text in texts if text.startswith("--")] == [], f"{file} names a flag"
        assert "argparse" not in imports(file) or file.name in ARGPARSE, f"{file} reads a command line"


@pytest.mark.parametrize("room", ["training", "serving"])
def test_a_room_below_the_scripts_takes_arguments_instead_of_all_flags(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        assert "Namespace" not in file.read_text(), file


@pytest.mark.parametrize("file", [*ROOT.glob("*.py"), *(file for _, file in FILES)], ids=lambda file: file.stem)
def test_no_file_changes_what_was_typed(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            assert ast.unparse(node.value) not in ("args", "vars(args)", "args.__dict__"), ast.unparse(node)
        if isinstance(node, ast.Call):
            call = ast.unparse(node)
            assert not call.startswith(("setattr(args,", "delattr(args,", "vars(args).update(", "vars(args).pop(")), (
                call
            )
