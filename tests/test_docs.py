"""The front page and the manual: links resolve, commands parse, examples run, recipes are what they say."""

import argparse
import ast
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from tiny_checkpoint import make_data, make_model, save_checkpoint

from options.app import app_parser, parse_app_args
from options.audit import audit_parser, parse_audit_args
from options.choose import choose_parser, parse_choose_args
from options.embed import embed_parser, parse_embed_args
from options.export import export_parser, parse_export_args
from options.fill import fill_parser, parse_fill_args
from options.inference import inference_parser, parse_inference_args
from options.refit import parse_refit_args, refit_parser
from options.report import parse_report_args, report_parser
from options.search import parse_search_args, search_parser
from options.split import parse_split_args, split_parser
from options.train import parse_train_args, train_parser
from options.validate import parse_validate_args, validate_parser

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MANUAL = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *MANUAL, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FOREIGN_FLAGS = {"--rdzv-backend", "--rdzv-endpoint"}  # torchrun's


PARSERS: dict[str, Callable[[list[str]], argparse.Namespace]] = {
    "train.py": parse_train_args,
    "validate.py": parse_validate_args,
    "inference.py": parse_inference_args,
    "refit.py": parse_refit_args,
    "report.py": parse_report_args,
    "export.py": parse_export_args,
    "choose.py": parse_choose_args,
    "split.py": parse_split_args,
    "audit.py": parse_audit_args,
    "embed.py": parse_embed_args,
    "search.py": parse_search_args,
    "fill.py": parse_fill_args,
    "app.py": parse_app_args,
}


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def links(page: Path) -> list[str]:
    """Return a page's relative links, those to pictures included."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of this project that a page shows, in a block or within a sentence."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ {4,}(.+)$", text, re.M) + re.findall(r"`([^`\n]+)`", text)
    for line in lines:
        words = shlex.split(line, comments=True) if re.search(r"python |distributed_train", line) else []
        while words and re.match(r"[A-Z_]+=", words[0]):  # NNODES=2 and the like
            words.pop(0)
        if words[:1] == ["./distributed_train.sh"] and len(words) > 2:
            yield ["train.py", *words[2:]]
        elif words[:1] == ["python"] and len(words) > 1:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_link_and_anchor_resolves(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in links(index)}
    assert {page for page in PAGES if page not in (index, README)} <= linked
    assert index in {(ROOT / link).resolve() for link in links(README)}


def test_a_page_shows_every_picture() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    pictures = {*(ROOT / "imgs").iterdir(), *(ROOT / "docs" / "scaling").iterdir()}
    assert pictures <= shown


def test_the_front_page_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 200
    assert len(text.encode()) <= 10 * 1024
    assert text.count("![") == 1


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_parses(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for program, *words in commands(page):
        if program == "-X" or not words or words == ["--help"]:  # an option of python itself, or no flags to parse
            continue
        if parse := PARSERS.get(program):
            parse(["recipes/demo.yaml" if re.search(r"RUN|recipe\.yaml", word) else word for word in words])
        elif program == "-m":
            module = ROOT / words[0].replace(".", "/")
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
        else:
            text = (ROOT / program).read_text(encoding="utf-8")
            assert all(word in text for word in words if word.startswith("--") and word != "--help"), words


@pytest.mark.parametrize("page", [README, *MANUAL], ids=names)
def test_every_flag_in_a_sentence_exists(page: Path) -> None:
    known = set(FOREIGN_FLAGS)
    parsers = (
        *(train_parser, validate_parser, inference_parser, refit_parser),
        *(export_parser, choose_parser, split_parser, audit_parser, report_parser),
        *(fill_parser, embed_parser, search_parser, app_parser),
    )
    for parser in parsers:
        known |= parser().flags.keys()
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "fashion-product-images").glob("*.py")]
    for script in scripts:
        known |= set(re.findall(r'"(--[a-z][\w-]*)"', script.read_text(encoding="utf-8")))
    spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    flags = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert flags - known <= {"--help"}


def test_the_front_page_and_the_design_name_every_room() -> None:
    rooms = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    tree = set(re.findall(r"^    ([\w-]+)/ ", README.read_text(encoding="utf-8"), re.M))
    assert rooms | {"recipes", "docs", "benchmarks", "tests"} <= tree
    assert all((ROOT / folder).is_dir() for folder in tree)
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert rooms == set(re.findall(r"^\| `(\w+)/`", design, re.M))


def test_the_front_page_trains_scores_and_labels_with_three_flags_each() -> None:
    shown = {program: words for program, *words in commands(README)}
    assert {"train.py", "validate.py", "inference.py"} <= shown.keys()
    for program in PARSERS:
        assert sum(word.startswith("-") for word in shown[program]) <= 3


def test_the_examples_in_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "output" / "train" / "mine" / "model_best.pth.tar", make_model())
    Image.new("L", (40, 30), 128).save(tmp_path / "photo.jpg")
    shutil.move(make_data(tmp_path, 20) / "val.csv", tmp_path / "table.csv")
    shutil.copytree(make_data(tmp_path / "DATA") / "images", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    examples = [block for page in PAGES for block in code_blocks(page.read_text(encoding="utf-8"), "python")]
    assert len(examples) >= 2
    for example in examples:
        exec(example.replace("color=Red", "color=red"), {})  # the class of the test's model


def test_the_example_of_the_front_page_prints_a_class_for_each_attribute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    save_checkpoint(tmp_path / "output" / "train" / "mine" / "model_best.pth.tar", model)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = code_blocks(README.read_text(encoding="utf-8"), "python")
    exec(example, {})
    shown = ast.literal_eval(capsys.readouterr().out)
    assert list(shown) == list(model.label_space.attributes)
    assert all(value in model.label_space.classes[name] for name, value in shown.items())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_parses_and_states_its_figure_cost_and_machine(recipe: Path) -> None:
    assert vars(PARSERS["train.py"](["DATA", "-c", str(recipe)]))["data_dir"] == "DATA"
    top = recipe.read_text(encoding="utf-8").partition("\nmodel:")[0]
    for word in ("Expect:", "Cost:", "Machine:", "CPU cores, 20"):
        assert word in top
    assert f"recipes/{recipe.name}" in README.read_text(encoding="utf-8")


def test_every_recipe_that_a_page_names_exists() -> None:
    named = {name for page in PAGES for name in re.findall(r"recipes/([\w-]+\.yaml)", page.read_text(encoding="utf-8"))}
    assert named == {recipe.name for recipe in RECIPES}


def test_the_first_recipe_is_measured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (measured,) = [
        words for _, *words in commands(ROOT / "docs" / "results.md") if "recipes/from-pretrained.yaml" in words
    ]
    parse = PARSERS["train.py"]
    expected, recipe = vars(parse(measured)), vars(parse(["DATA", "-c", "recipes/from-pretrained.yaml"]))
    assert {name for name in expected if expected[name] != recipe[name]} == {"pretrained_path"}


def test_the_demo_leaves_one_checkpoint_and_says_how_much(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    demo = tmp_path / "output" / "demo"
    demo.mkdir(parents=True)
    for name in ("checkpoint-34", "checkpoint-35", "last", "model_best"):
        (demo / f"{name}.pth.tar").write_bytes(bytes(2_000_000))
    images = tmp_path / "fashion-product-images" / "images"
    images.mkdir(parents=True)
    (images.parent / "train.csv").write_text("image_path\n")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\ntouch output/demo/test.json\n")
    python.chmod(0o755)
    made = [word for file in (".venv/.made", "sample", "output/demo/model_best.pth.tar") for word in ("-o", file)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", *made, "BIN=bin", "demo"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert sorted(file.name for file in demo.iterdir()) == ["model_best.pth.tar", "test.json"]
    assert re.search(r"On disk: +2 MB", done.stdout)


def test_make_clean_keeps_the_runs_that_make_did_not_start(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("output/demo", "output/train/run", ".mypy_cache"):
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, check=True)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["output", "run", "train"]
