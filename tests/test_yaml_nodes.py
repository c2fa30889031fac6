"""A YAML file of any size or form is read within bounds, or refused in one sentence."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import options.yaml_nodes
from options.train import parse_train_args
from options.yaml_nodes import YamlError, read_nodes

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
LAUGHING_MAPPINGS = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 60)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "line 6: with its aliases, this holds more than 250,000 values: name a file of flags"),
        (LAUGHING_MAPPINGS, "line 15: with its aliases, this holds more than 250,000 values: name a file of flags"),
        (f"model-kwargs: {{x: {LAUGHS.splitlines()[0][4:]}}}\n" + LAUGHS, "line 7: with its aliases, this holds more"),
        ("a: &a [*a]", "line 1: *a repeats itself without end: write its values out"),
        ("a: &a {b: &b [*a]}", "line 1: *a repeats itself without end: write its values out"),
        ("a: [*b]", "line 1: this is not YAML (found undefined alias"),
        ("[" * 500, "line 1: this nests more than 16 lists: name a file of flags"),
        ("[" * 100_000, "line 1: this "),
        ("- " * 100_000 + "a", "line 1: this nests more than 16 lists"),
        ("{a: " * 5000 + "}" * 5000, "line 1: this nests more than 16 lists"),
        ("".join(f"a{i}: &a{i} [{f'*a{i - 1}' * (i > 0)}]\n" for i in range(50)), "line 17: this nests more than 16"),
        ("a: [" + "1," * 300_000 + "]", "line 1: with its aliases, this holds more than 250,000 values"),
        ("lr: !!python/object/apply:os.system [ls]", "line 1: the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("amp: !!bool perhaps", "line 1: the tag tag:yaml.org,2002:bool is not read: write the value alone"),
        ("model-kwargs: {a: !!int x}", "line 1: the tag tag:yaml.org,2002:int is not read"),
        ("a: !own 1", "line 1: the tag !own is not read"),
        ("? [lr, b]\n: 1", "line 1: a key is the name of a flag, not a list"),
        ("a: 1\n---\nb: 2", "line 2: this is not YAML (but found another document"),
        ("? " + "x" * 1_000_000 + "\n: 1", "unknown key 'xxxxxx"),
        ("\0", "this is not YAML (unreadable characters)"),
        ("# " + "x" * (8 << 20), "this takes more than 8 MiB, and flags take less: name a file of flags"),
    ],
    ids=lambda value: value[:20],
)
def test_what_would_take_all_memory_or_time_is_one_sentence(
    text: str, expected: str, recipe: Callable[[str], str], mistake: Callable[..., str]
) -> None:
    file = recipe(text)
    sentence = mistake("-c", file)
    assert sentence.startswith(f"{file}: {expected}")
    assert len(sentence) < 500


def test_the_bounds_hold_without_the_parser_in_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.yaml_nodes, "_LOADER", yaml.SafeLoader)
    file = tmp_path / "a.yaml"
    for text, expected in ((LAUGHS, "more than 250,000 values"), ("[" * 10_000, "nests more than 16 lists")):
        file.write_text(text)
        with pytest.raises(YamlError, match=expected):
            read_nodes(str(file))


def test_honest_anchors_and_lists_are_read(recipe: Callable[[str], str]) -> None:
    shared = "mean: &half [0.5, 0.5, 0.5]\nstd: *half\nmodel-kwargs: {a: [[1, [2]], {b: 3}], c: *half}\nlr: &lr 0.1"
    args = parse_train_args(["data", "-c", recipe(shared + "\nmin-lr: *lr\nsched: cosine")])
    assert (args.mean, args.std, args.lr, args.min_lr) == ([0.5] * 3, [0.5] * 3, 0.1, 0.1)
    assert args.model_kwargs == {"a": [[1, [2]], {"b": 3}], "c": [0.5] * 3}
    names = [f"images/{i:040}.jpg" for i in range(20_000)]
    assert parse_train_args(["data", "-c", recipe(yaml.safe_dump({"unlabeled": names}))]).unlabeled == names


def test_a_pipe_and_a_device_are_not_opened(tmp_path: Path, mistake: Callable[..., str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        expected = f"{path}: this is {kind}, not a regular file: save the flags as a file, and name that"
        assert mistake("-c", str(path)) == expected


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path, mistake: Callable[..., Any]) -> None:
    file = tmp_path / "huge.yaml"
    file.touch()
    os.truncate(file, 1 << 40)
    assert "this takes more than 8 MiB" in mistake("-c", str(file))
