"""Every flag of validate.py and of inference.py changes what its help says.

A table names the flags that test_validate.py and test_inference.py show. The other flags are shown here, on pictures
whose color encodes the place (flag_effects.draw_ramps). Refused flags are in test_options.py.
"""

import csv
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import test_calibration
import test_engine
import test_ensemble
import test_foreign_text
import test_inference
import test_multi_valued
import test_original_names
import test_report
import test_validate
import torch
import torch.nn.functional as F
from flag_effects import draw_ramps, silence, train_through
from table_files import draw_catalog, read_rows, write_table
from tiny_checkpoint import save_checkpoint
from torch import Tensor

import inference
import validate
from catalog.label_space import LabelSpace
from options.inference import inference_parser, parse_inference_args
from options.validate import parse_validate_args, validate_parser
from runtime.errors import UsageError
from serving import ensemble, scoring
from serving.loading import EvaluationModel
from timm.models.multi_label import create_multi_label_model

Test = Callable[..., None]
SCRIPTS = {"validate.py": validate, "inference.py": inference}
SHOWN: dict[str, dict[str, Test]] = {
    "validate.py": {
        "calibrate": test_calibration.test_calibrating_writes_a_copy_that_predicts_the_same,
        "checkpoint": test_validate.test_a_folder_is_scored_best_first_and_a_bad_file_is_skipped,
        "data": test_validate.test_metrics_equal_scikit_learn,
        "model": test_validate.test_a_model_pattern_selects_and_a_contradiction_is_refused,
        "no_latency": test_validate.test_latency_is_measured_unless_a_flag_disables_it,
        "per_class": test_validate.test_tables_of_classes_lie_beside_the_checkpoint_or_the_results,
        "report": test_report.test_validating_leaves_a_page_of_the_split,
        "results_file": test_validate.test_a_folder_is_scored_best_first_and_a_bad_file_is_skipped,
        "separator": test_multi_valued.test_another_separator_is_saved_with_the_run_and_used_by_every_command,
        "spreadsheet_safe": test_foreign_text.test_spreadsheet_safe_names_are_written_with_an_apostrophe,
        "split": test_validate.test_a_class_that_the_model_does_not_know_is_wrong_and_has_a_row,
        "use_ema": test_validate.test_averaged_weights_are_scored_where_there_are_any,
    },
    "inference.py": {
        "probabilities": test_ensemble.test_the_file_has_the_mean_of_the_calibrated_probabilities,
        "data": test_original_names.test_classes_of_the_original_have_the_names_of_the_table,
        "checkpoint": test_inference.test_predictions_agree_with_the_scores_of_validate,
        "engine": test_engine.test_the_commands_give_equal_files_with_both_engines,
        "input": test_inference.test_a_folder_and_its_files_have_equal_labels,
        "spreadsheet_safe": test_foreign_text.test_spreadsheet_safe_names_are_written_with_an_apostrophe,
        "output": test_inference.test_the_formats_have_the_same_content,
        "topk": test_inference.test_the_formats_have_the_same_content,
    },
}
BOTH = pytest.mark.parametrize("script", SCRIPTS)


def shows(*dests: str, scripts: tuple[str, ...] = tuple(SCRIPTS)) -> Callable[[Test], Test]:
    """Enter a test into the table that maps each option to the test of its effect."""

    def enter(test: Test) -> Test:
        for script in scripts:
            assert not SHOWN[script].keys() & set(dests)
            SHOWN[script].update(dict.fromkeys(dests, test))
        return test

    return enter


def test_every_flag_of_validate_and_inference_has_a_test_that_shows_its_effect() -> None:
    rules = validate_parser().rules.declared
    assert set(SHOWN["validate.py"]) == {dest for dest, rule in rules.items() if not rule.refused}
    assert set(SHOWN["inference.py"]) == set(inference_parser().defaults)


@BOTH
@shows("image_root")
def test_image_paths_are_relative_to_the_folder_asked_for(script: str, tmp_path: Path) -> None:
    drawn = draw_catalog(tmp_path / "drawn", train=1, val=4)
    rows = read_rows(drawn / "val.csv")
    folder = tmp_path / "tables"
    folder.mkdir()
    write_table(folder / "val.csv", [row | {"image_path": Path(row["image_path"]).name} for row in rows])
    classes = {name: tuple(sorted({row[name] for row in rows if row[name]} | {"other"})) for name in ("color", "shape")}
    model = create_multi_label_model("test_resnet", LabelSpace(classes), image_size=(3, 32, 32))
    checkpoint = save_checkpoint(tmp_path / "model.pth.tar", model)
    place = {"validate.py": [folder, "--no-latency"], "inference.py": [folder / "val.csv", "-o", tmp_path / "out.csv"]}
    words = [*place[script], "--checkpoint", checkpoint, "--device", "cpu", "-j", 0]
    root = (drawn / rows[0]["image_path"]).parent
    SCRIPTS[script].main([str(word) for word in (*words, "--image-root", root)])
    with pytest.raises(SystemExit):
        SCRIPTS[script].main([str(word) for word in words])


class Ready(Exception):
    """A script is ready for the first batch."""

    def __init__(self, model: EvaluationModel, loader: Any) -> None:
        super().__init__()
        self.model, self.loader = model, loader

    def images(self) -> Tensor:
        """Return the first batch as 0-255."""
        mean, std = (torch.tensor(self.model.data_config[name]).view(-1, 1, 1) for name in ("mean", "std"))
        pixels: Tensor = (self.raw().float() * std + mean) * 255
        return pixels

    def raw(self) -> Tensor:
        """Return the first batch as the model sees it."""
        images: Tensor = next(iter(self.loader))[0]
        return images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_ramps(tmp_path_factory.mktemp("ramps") / "data")


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["--smoothing", 0, "--interpolation", "bilinear", "--crop-pct", 1, "--model-ema", "--lr", 0.1]
    folder, _ = train_through(data, tmp_path_factory.mktemp("run"), *words)
    return folder / "last.pth.tar"


@pytest.fixture
def words(data: Path, checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that makes a command line from flags."""

    def command(script: str, *flags: object) -> list[str]:
        words = [data, "--no-latency"] if script == "validate.py" else [data / "val.csv", "-o", tmp_path / "labels.csv"]
        return [str(word) for word in (*words, "--checkpoint", checkpoint, "--device", "cpu", "-j", 0, *flags)]

    return command


@pytest.fixture
def prepare(words: Callable[..., list[str]]) -> Callable[..., Ready]:
    """Return a function that runs a script up to its first batch."""

    def make(script: str, *flags: object) -> Ready:
        module: ModuleType = SCRIPTS[script]
        caller: ModuleType = scoring if script == "validate.py" else ensemble
        make_loader = caller.make_loader

        def stop(model: EvaluationModel, dataset: Any, **kwargs: Any) -> None:
            raise Ready(model, make_loader(model, dataset, **kwargs))

        parse = parse_validate_args if script == "validate.py" else parse_inference_args
        args = parse(words(script, *flags))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(caller, "make_loader", stop)
            with pytest.raises(Ready) as ready, silence():
                getattr(module, script.removesuffix(".py"))(args)
        return ready.value

    return make


@pytest.fixture
def score(words: Callable[..., list[str]]) -> Callable[..., tuple[dict[str, Any], str]]:
    """Return a function that runs validate.py and returns the result and the output."""

    def run(*flags: object) -> tuple[dict[str, Any], str]:
        with silence() as text:
            validate.main(words("validate.py", *flags))
        output = text.getvalue()
        result, _ = json.JSONDecoder().raw_decode(output.partition("--result\n")[2])
        return result, output

    return run


def share(images: Tensor, channel: int) -> float:
    """Return the visible share of a ramp."""
    values = images[:, channel].flatten(1)
    return ((values.amax(1) - values.amin(1)).mean() / 255).item()


# Preprocessing


@BOTH
@shows("img_size", "input_size")
def test_images_have_the_size_asked_for(prepare: Any, script: str) -> None:
    for flags, size in ([], (32, 32)), (["--img-size", 48], (48, 48)), (["--input-size", 3, 24, 40], (24, 40)):
        assert prepare(script, *flags).images().shape == (16, 3, *size)


@BOTH
@shows("crop_pct", "crop_mode")
def test_images_are_cropped_squeezed_or_padded(prepare: Any, script: str) -> None:
    def shares(*flags: object) -> list[float]:
        images = prepare(script, *flags).images()
        return [share(images, 0), share(images, 1)]  # width and height

    assert shares() == pytest.approx([0.75, 1], abs=0.05)
    assert shares("--crop-pct", 0.5) == pytest.approx([0.75 / 2, 1 / 2], abs=0.05)
    assert shares("--crop-mode", "squash") == pytest.approx([1, 1], abs=0.05)
    border = prepare(script, "--crop-mode", "border").images()[0, :, (1, -2)]  # rows outside the picture
    assert border.std(dim=2).max() < 1


@BOTH
@shows("mean", "std")
def test_the_mean_is_subtracted_and_the_deviation_divided_by(prepare: Any, script: str) -> None:
    images = prepare(script).images() / 255
    torch.testing.assert_close(prepare(script, "--mean", 0, "--std", 1).raw(), images, atol=1e-5, rtol=0)
    each = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    changed = prepare(script, "--mean", 0.1, 0.2, 0.3, "--std", 0.5).raw()
    torch.testing.assert_close(changed, (images - each) / 0.5, atol=1e-5, rtol=0)


@BOTH
@shows("interpolation")
def test_images_are_resized_as_asked(prepare: Any, script: str) -> None:
    blues = [
        set(prepare(script, *flags).images()[:, 2].round().unique().tolist())
        for flags in ([], ["--interpolation", "nearest"])
    ]
    assert len(blues[0]) > 2
    assert blues[1] == {50, 200}  # the picture's values


# Device and precision


@BOTH
@shows("device")
def test_the_model_is_on_the_device_asked_for(prepare: Any, script: str) -> None:
    assert prepare(script).model.device.type == "cpu"
    if torch.cuda.is_available():
        ready = prepare(script, "--device", "cuda")
        assert next(ready.model.model.parameters()).is_cuda
        assert ready.raw().is_cuda
    else:
        with pytest.raises(UsageError, match="device cuda: PyTorch finds no GPU here"):
            prepare(script, "--device", "cuda")


def dtypes(ready: Ready) -> tuple[torch.dtype, torch.dtype]:
    """Return the format of the weights and of the logits."""
    with torch.inference_mode(), ready.model.autocast():
        logits = ready.model.run(ready.model.to_device(ready.raw()))
    return next(ready.model.model.parameters()).dtype, logits["color"].dtype


@BOTH
@shows("amp", "amp_dtype")
def test_mixed_precision_has_the_format_of_the_device_or_the_flag(prepare: Any, script: str) -> None:
    assert dtypes(prepare(script)) == (torch.float32, torch.float32)
    for flags in ([], ["--amp-dtype", "bfloat16"]):
        assert dtypes(prepare(script, "--amp", *flags)) == (torch.float32, torch.bfloat16)
    with pytest.raises(UsageError, match=r"amp.dtype float16 needs a GPU"):
        prepare(script, "--amp", "--amp-dtype", "float16")
    if torch.cuda.is_available():
        assert dtypes(prepare(script, "--amp", "--device", "cuda")) == (torch.float32, torch.float16)


@shows("model_dtype", scripts=("validate.py",))
def test_weights_have_the_format_asked_for(prepare: Any) -> None:
    for name in ("bfloat16", "float16"):
        for flags in ([], ["--no-prefetcher"]):
            ready = prepare("validate.py", "--model-dtype", name, *flags)
            assert dtypes(ready) == (getattr(torch, name), getattr(torch, name))


@BOTH
@shows("torchcompile")
def test_the_model_is_compiled_by_the_backend_asked_for(prepare: Any, script: str) -> None:
    compiled: list[object] = []

    def note(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(compiler_fn=note, name=f"note_{script.removesuffix('.py')}")
    dtypes(prepare(script))
    assert not compiled
    dtypes(prepare(script, "--torchcompile", f"note_{script.removesuffix('.py')}"))
    assert compiled
    with pytest.raises(UsageError, match=r"--torchcompile pencil cannot be used \(Invalid backend: 'pencil'"):
        prepare(script, "--torchcompile", "pencil")


@BOTH
@shows("channels_last")
def test_channels_are_last_in_memory(prepare: Any, script: str) -> None:
    for flags, last in ([], True), (["--no-channels-last"], False):
        ready = prepare(script, *flags)
        for tensor in (ready.model.to_device(ready.raw()), ready.model.model.backbone.conv_stem.weight):
            assert tensor.is_contiguous(memory_format=torch.channels_last) == last


# Loading


@BOTH
@shows("batch_size")
def test_batches_have_the_size_asked_for(prepare: Any, script: str) -> None:
    assert len(prepare(script).raw()) == 16
    assert len(prepare(script, "-b", 5).raw()) == 5


@BOTH
@shows("workers")
def test_the_number_of_workers_is_chosen(prepare: Any, script: str) -> None:
    for count in (0, 1):
        before = set(multiprocessing.active_children())
        batches = iter(prepare(script, "-b", 5, "-j", count).loader)
        next(batches)
        assert len(set(multiprocessing.active_children()) - before) == count
        list(batches)  # ends them


@BOTH
@shows("pin_mem")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_batches_are_loaded_into_page_locked_memory(prepare: Any, script: str) -> None:
    for flags, pinned in ([], False), (["--pin-mem"], True):
        loader = prepare(script, *flags).loader.loader
        assert loader.pin_memory == pinned
        assert next(iter(loader))[0].is_pinned() == (pinned and torch.cuda.is_available())


@BOTH
@shows("no_prefetcher")
def test_images_normalized_on_the_cpu_equal_the_prefetched_ones(prepare: Any, script: str) -> None:
    plain, alone = prepare(script), prepare(script, "--no-prefetcher")
    assert not hasattr(alone.loader, "loader")
    assert next(iter(plain.loader.loader))[0].dtype == torch.uint8  # normalized on the device
    torch.testing.assert_close(alone.raw(), plain.raw(), atol=1e-5, rtol=1e-5)


# Log and scores


@BOTH
@shows("log_freq")
def test_batches_are_logged_at_intervals(words: Any, tmp_path: Path, script: str) -> None:
    for flags, lines in ([], 1), (["--log-freq", 2], 2), (["--log-freq", 1], 4):
        with silence() as text:
            SCRIPTS[script].main(words(script, "-b", 4, *flags))
        assert text.getvalue().count("/4]  Time: ") == lines


@shows("tta")
def test_an_image_and_its_mirror_image_are_averaged(prepare: Any, score: Any, words: Any, tmp_path: Path) -> None:
    ready = prepare("validate.py")
    with torch.inference_mode():
        one, other = ready.model.run(ready.raw()), ready.model.run(ready.raw().flip(-1))
    target, temperature = next(iter(ready.loader))[1], ready.model.temperatures["color"]
    for copies in (0, 2):
        logits = {name: (one[name] + other[name]) / 2 if copies else one[name] for name in one}
        expected = sum(F.cross_entropy(values, target[:, i]) for i, values in enumerate(logits.values())) / 2
        assert score("--tta", copies)[0]["loss"] == pytest.approx(float(expected), rel=1e-5)
        with silence():
            inference.main(words("inference.py", "--tta", copies))
        with (tmp_path / "labels.csv").open(newline="") as file:
            given = [float(row["color_probability"]) for row in csv.DictReader(file)]
        assert given == pytest.approx((logits["color"] / temperature).softmax(dim=1).amax(dim=1).tolist(), abs=1e-5)
    assert not torch.allclose(one["color"].softmax(dim=1), other["color"].softmax(dim=1), atol=1e-4)


@shows("use_ema", scripts=("inference.py",))
def test_averaged_weights_label_the_images_with_use_ema(prepare: Any, checkpoint: Path) -> None:
    saved = torch.load(checkpoint)
    for flags, key in ([], "state_dict"), (["--use-ema"], "state_dict_ema"):
        weight = prepare("inference.py", *flags).model.model.heads[0].weight
        assert torch.equal(weight, saved[key]["heads.0.weight"])
    assert not torch.equal(saved["state_dict"]["heads.0.weight"], saved["state_dict_ema"]["heads.0.weight"])


@shows("max_unreadable", scripts=("validate.py",))
def test_more_unreadable_images_than_tolerated_are_an_error(
    data: Path, score: Any, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "images").symlink_to(data / "images")
    missing = [f"images/missing-{row}.png,blue,disc" for row in range(12)]
    (tmp_path / "val.csv").write_text((data / "val.csv").read_text() + "\n".join(missing) + "\n")
    with silence() as text, pytest.raises(SystemExit):
        validate.main(words("validate.py", "--data-dir", tmp_path, "--max-unreadable", 0.4))
    assert text.getvalue().endswith("or raise --max-unreadable (0.4)\n")
    result, said = score("--data-dir", tmp_path, "--max-unreadable", 0.5)
    assert (result["images"], result["color_labels"]) == (28, 16)
    assert "12 of 28 images unreadable" in said


@shows("no_test_pool", scripts=("validate.py",))
def test_a_flag_of_older_commands_changes_nothing_and_is_logged(score: Any) -> None:
    (plain, quiet), (older, said) = score(), score("--no-test-pool")
    assert "--no-test-pool has no effect here" in said
    assert "no effect" not in quiet
    assert {**plain, "images_per_second": 0} == {**older, "images_per_second": 0}
