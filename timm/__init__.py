"""Joins this folder's modules to the installed timm: `timm.create_model` is upstream's, `timm.models.multi_label` ours.

Upstream runs inside this very module, then each of our subfolders is appended to the `__path__` of the package of the
same name. A module that exists on both sides is an error that names both files, never a silent override.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

_here = Path(__file__).resolve().parent
# Upstream is known by a file that this folder never has: comparing folders would recurse with two clones on the path.
_spec = PathFinder.find_spec("timm", [p for p in sys.path if Path(p, "timm/version.py").is_file()])
if not (_spec and _spec.loader and _spec.origin and _spec.submodule_search_locations):
    raise ModuleNotFoundError("timm is not installed: pip install 'timm>=1.0.31'", name="timm")
if not Path(_spec.origin).with_name("task").joinpath("evaluator.py").is_file():
    raise ImportError(f"the timm at {_spec.origin} is too old: pip install --upgrade 'timm>=1.0.31'", name="timm")
__file__, __path__ = _spec.origin, _spec.submodule_search_locations
_spec.loader.exec_module(sys.modules[__name__])

for _folder in sorted({file.parent for file in _here.glob("*/**/*.py")}):
    _package = import_module(".".join(["timm", *_folder.relative_to(_here).parts]))
    for _file in sorted(_folder.glob("*.py")):
        if _taken := find_spec(f"{_package.__name__}.{_file.stem}"):
            raise ImportError(f"the installed timm has its own {_taken.name} at {_taken.origin}: rename ours, {_file}")
    _package.__path__.append(str(_folder))
__spec__ = _spec  # from here on, importlib.resources and inspect see the installed package
