"""The join of this checkout's timm/ to the installed timm, with a small upstream first and then the real one."""

import importlib.resources
import inspect
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import timm
from catalog.label_space import LabelSpace

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("data", "models", "task", "utils")
OURS = """
class Ours:
    def __init__(self, value):
        self.value = value

def double(ours):
    return Ours(2 * ours.value)
"""


def write(folder, files):
    """Write files, given as `{path: text}`, below a folder; return the folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def upstream(folder, without="none", more=None):
    """Write a small package that looks like the installed timm; return the folder that holds it."""
    files = {f"{name}/__init__.py": "" for name in PACKAGES}
    files |= {"__init__.py": "from .version import __version__\nfrom .models import *\n", "task/evaluator.py": ""}
    files |= {
        "version.py": "__version__ = '9.9'\n",
        "models/__init__.py": "def create_model():\n    return 'upstream'\n",
    }
    files |= more or {}
    return write(folder, {f"timm/{name}": text for name, text in files.items() if not name.startswith(without)})


def clone(folder):
    """Write a checkout whose timm/ has the real __init__.py and one module; return the folder."""
    write(folder, {"timm/models/multi_label.py": OURS, "catalog/table.py": ""})
    shutil.copy(CHECKOUT / "timm/__init__.py", folder / "timm/__init__.py")
    return folder


def run(code, *path, cwd=None):
    """Run code in a new Python whose path holds only the standard library and these folders."""
    return subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=cwd or path[0].parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def output(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


LOOK = "import timm, timm.models.multi_label as m; print(timm.create_model(), timm.__version__, m.__file__)"


def test_timm_is_upstreams_with_our_modules(tmp_path):
    ours, installed = clone(tmp_path / "ours"), upstream(tmp_path / "installed")
    code = """
        import importlib.resources, inspect, timm, timm.models.multi_label
        print(timm.create_model(), timm.__version__, timm.models.multi_label.Ours(3).value)
        print(timm.__file__, timm.__spec__.origin, inspect.getsourcefile(timm), importlib.resources.files("timm"))
        print(timm.models.multi_label.__file__, *timm.models.__path__)
    """
    init = installed / "timm/__init__.py"
    assert output(run(code, ours, installed)) == [
        *("upstream", "9.9", "3"),
        *map(str, (init, init, init, init.parent)),
        *map(str, (ours / "timm/models/multi_label.py", installed / "timm/models", ours / "timm/models")),
    ]


def test_the_working_directory_does_not_matter(tmp_path):
    ours, installed = clone(tmp_path / "ours"), upstream(tmp_path / "installed")
    expected = ["upstream", "9.9", str(ours / "timm/models/multi_label.py")]
    assert output(run(LOOK, installed, cwd=ours)) == expected  # the working directory is the first entry of the path
    assert output(run(LOOK, ours, installed, cwd=tmp_path)) == expected
    (tmp_path / "elsewhere/timm").mkdir(parents=True)  # an unrelated folder of that name
    assert output(run(LOOK, ours, tmp_path / "elsewhere", installed, cwd=tmp_path / "elsewhere")) == expected


def test_the_first_of_two_clones_on_the_path_is_used(tmp_path):
    one, two, installed = clone(tmp_path / "one"), clone(tmp_path / "two"), upstream(tmp_path / "installed")
    for path in ((one, two, installed), (one, installed, two)):
        assert output(run(LOOK, *path))[2] == str(one / "timm/models/multi_label.py")


def test_eight_threads_may_import_at_once(tmp_path):
    slow = "import time\ntime.sleep(0.1)\n"
    installed = upstream(tmp_path / "installed", more={"task/__init__.py": slow, "data/__init__.py": slow})
    code = """
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier
        barrier = Barrier(8)
        def load(_):
            barrier.wait()
            from timm.models.multi_label import Ours
            import timm
            return timm.create_model(), Ours
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(load, range(8)))
        print(len(results), len(set(results)))
    """
    assert output(run(code, clone(tmp_path / "ours"), installed)) == ["8", "1"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_other_processes_find_our_classes(tmp_path, method):
    code = f"""
        import multiprocessing
        from timm.models.multi_label import Ours, double
        with multiprocessing.get_context("{method}").Pool(1) as pool:
            print(pool.map(double, [Ours(21)])[0].value)
    """
    assert output(run(code, clone(tmp_path / "ours"), upstream(tmp_path / "installed"))) == ["42"]


def last_line(done):
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_without_timm_the_error_says_what_to_install(tmp_path):
    done = run("import timm", clone(tmp_path / "ours"))
    assert last_line(done) == "ModuleNotFoundError: timm is not installed: pip install 'timm>=1.0.31'"


@pytest.mark.parametrize("without", ["task/evaluator.py", "task/"])
def test_with_an_old_timm_the_error_says_what_to_install(tmp_path, without):
    installed = upstream(tmp_path / "installed", without=without)
    message = f"the timm at {installed}/timm/__init__.py is too old: pip install --upgrade 'timm>=1.0.31'"
    assert last_line(run("import timm", clone(tmp_path / "ours"), installed)) == f"ImportError: {message}"


@pytest.mark.parametrize("name", ["models/multi_label.py", "models/multi_label/__init__.py"], ids=["module", "package"])
def test_a_module_that_upstream_also_has_is_an_error_that_names_both_files(tmp_path, name):
    ours, installed = clone(tmp_path / "ours"), upstream(tmp_path / "installed", more={name: ""})
    message = last_line(run("import timm.models.multi_label", ours, installed))
    assert message == (
        f"ImportError: the installed timm has its own timm.models.multi_label at {installed}/timm/{name}: "
        f"rename ours, {ours}/timm/models/multi_label.py"
    )


# With the installed timm


def test_timm_looks_like_the_installed_package():
    assert Path(timm.__file__).parent != CHECKOUT / "timm"
    assert Path(timm.__file__) == Path(inspect.getsourcefile(timm)) == importlib.resources.files("timm") / "__init__.py"
    assert callable(timm.create_model)
    assert inspect.getsourcefile(LabelSpace) == str(CHECKOUT / "catalog/label_space.py")
    assert pickle.loads(pickle.dumps(LabelSpace)) is LabelSpace


def test_our_folders_have_no_init_file():
    assert not list((CHECKOUT / "timm").glob("*/**/__init__.py"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from modules that dynamo imports
def test_compiling_works():
    assert torch.compile(lambda x: x * 2, backend="eager")(torch.ones(1)) == 2


def test_loader_workers_find_our_classes():
    for method in ("fork", "spawn"):
        loader = DataLoader(
            [{"color": 2}],
            batch_size=None,
            num_workers=1,
            collate_fn=LabelSpace.numbered,
            multiprocessing_context=method,
        )
        assert list(loader) == [LabelSpace.numbered({"color": 2})]
