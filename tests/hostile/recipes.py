"""Hostile YAML: tags, anchors, odd types, encodings and damaged bytes in a file of flags."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from hostile.case import TINY, Case, copy_data
from hostile.flags import COST, PARSERS, PLAUSIBLE, surroundings
from hostile.odd import NUMBERS, TEXTS, damaged

BASE = "model: test_resnet\nbatch-size: 4\nepochs: 1\nwarmup-epochs: 0\ncooldown-epochs: 0\n"
BASE += "opt: adamw\nlr: 1e-3\nknn-interval: 0\n"
VALUES = (
    "", "~", "null", "yes", "no", "on", "off", "true", "False", "[]", "{}", "[[1]]", "{a: {b: 1}}",
    "[1, [2], {a: 3}]", "{1: 2}", "0o17", "017", "0x1F", "1_000", "1:30", "190:20:30", ".inf", "-.inf", ".nan", "1e3",
    "+1", "2001-01-01", "2001-01-01 10:00:00Z", "2001-99-99", "!!python/object/apply:os.system ['touch canary-yaml']",
    "!!python/name:os.system", "!!python/module:os", "!!python/object/new:os.system [touch canary-yaml]",
    "!!python/tuple [1, 2]", "!!binary aGFsbG8=", "!!binary '?'", "!!set {a, b}", "!!omap [a: 1]", "!!int x",
    "!!float x", "!!bool 7", "!!timestamp x", "!!str", "!x y", "!<tag:x> y", "*nowhere", "&a [*a]", "&a {b: *a}",
    "<<: *x", "|\n  text\n  more", ">-\n  folded", '"\\x00"', '"\\ud800"', "'it''s'", '"open', "[open", "{open", "@x",
    "`x`", "%x", "- a\n- b", "? a\n: b", "a: b: c", "#", "\t1", "--lr", "-c x", "$(touch canary-yaml)", "9" * 5000,
    "x" * 100_000, "[" * 200,
)  # fmt: skip


def make(rng: random.Random, place: Path, sound: Path) -> Case:
    """Return train.py with a hostile file of flags."""
    copy_data(sound, place)
    surroundings(place)
    file, way = place / "in" / "recipe.yaml", rng.choice((_keys, _keys, _keys, _keys, _frame, _damage, _encode))
    about = way(file, rng, sound)
    words = ["train.py", "in/data", "-c", "in/recipe.yaml", *TINY, "--epochs", "1", "--output", "out"]
    return Case(words, about, inside=(".",), draws=rng.random() < 0.05)


def _keys(file: Path, rng: random.Random, sound: Path) -> str:
    """Give one to five keys odd values."""
    actions = {action.dest: action for action in PARSERS["train.py"].flags.values()}
    dests = [dest for dest in sorted(actions) if dest not in COST | {"help", "log_wandb", "log_trackio"}]
    lines = []
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        dest = rng.choice(dests)
        key = rng.choice(
            (dest, dest.replace("_", "-"), dest.upper(), f"--{dest}", rng.choice(KEYS))
            if rng.random() < 0.3
            else (dest,)
        )
        action = actions[dest]
        pools = [VALUES, VALUES, NUMBERS, tuple(map(str, action.choices or PLAUSIBLE.get(dest, ("1",))))]
        value = rng.choice(rng.choice(pools))
        lines.append(f"{key}: {value}")
    text = BASE + "\n".join(lines) + "\n"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return "; ".join(line[:80] for line in lines)


KEYS = (
    "",
    "?",
    "1",
    "null",
    "[a]",
    "{a: 1}",
    "2001-01-01",
    "'lr'",
    '"\\u202elr"',
    "lr ",
    "<<",
    "=",
    "x" * 5000,
    "&a lr",
    "!!str lr",
    "lr.x",
    "-lr",
)


def _frame(file: Path, rng: random.Random, sound: Path) -> str:
    """Write something that is no mapping of flags."""
    about = rng.choice(list(FRAMES))
    file.write_text(FRAMES[about](BASE))
    return about


FRAMES: dict[str, Callable[[str], str]] = {
    "nothing": lambda base: "",
    "a comment": lambda base: "# nothing\n",
    "a list": lambda base: "- lr: 1\n",
    "a text": lambda base: "just words\n",
    "a number": lambda base: "42\n",
    "null": lambda base: "~\n",
    "two documents": lambda base: f"{base}---\n{base}",
    "an open document": lambda base: f"---\n{base}...\nrest: 1\n",
    "a directive": lambda base: f"%YAML 9.9\n---\n{base}",
    "a false directive": lambda base: f"%TAG ! x\n---\n{base}",
    "the same key twice": lambda base: f"{base}lr: 1\nlr: 2\n",
    "two spellings of a key": lambda base: f"{base}min-lr: 1\nmin_lr: 2\n",
    "merged keys": lambda base: f"x: &x\n  lr: 1\n<<: *x\n{base}",
    "a circle": lambda base: f"{base}opt-kwargs: &x\n  a: *x\n",
    "nested 2,000 deep": lambda base: f"{base}mean: " + "[" * 2000 + "]" * 2000,
    "indented 500 deep": lambda base: base + "".join(" " * i + "a:\n" for i in range(500)),
    "tabs": lambda base: base.replace(": ", ":\t"),
    "no spaces": lambda base: base.replace(": ", ":"),
    "Windows lines": lambda base: base.replace("\n", "\r\n"),
    "Mac lines": lambda base: base.replace("\n", "\r"),
    "JSON": lambda base: '{"lr": 0.001, "model": "test_resnet", "batch-size": 4, "opt": "adamw", "warmup-epochs": 0}',
    "TOML": lambda base: 'lr = 0.001\nmodel = "test_resnet"\n',
    "10,000 keys": lambda base: base + "".join(f"k{i}: 1\n" for i in range(10_000)),
    "itself": lambda base: f"{base}config: in/recipe.yaml\n",
    "another file": lambda base: f"{base}c: in/none.yaml\n",
    "an object": lambda base: "!!python/object/apply:os.system ['touch canary-yaml']\n",
    "an object as a key": lambda base: f"? !!python/object/apply:os.system ['touch canary-yaml']\n: 1\n{base}",
    "a set": lambda base: "!!set {lr, model}\n",
    "a flag per line": lambda base: "--lr 1\n--model x\n",
}


def _damage(file: Path, rng: random.Random, sound: Path) -> str:
    source = rng.choice((BASE.encode(), (sound / "out" / "run" / "args.yaml").read_bytes()))
    file.write_bytes(damaged(source, rng))
    return "damaged bytes"


def _encode(file: Path, rng: random.Random, sound: Path) -> str:
    name = rng.choice(("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp037", "gb18030"))
    text = f"# caf\u00e9\n{BASE}experiment: {rng.choice(TEXTS)!r}\n"
    file.write_bytes(text.encode(name, "replace"))
    return f"encoded in {name}"
