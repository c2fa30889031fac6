"""The installed timm, with the modules of this folder added to its packages.

`import timm` in this checkout finds this file. It executes the installed timm's `__init__` as its own code, and appends
each subfolder here to the `__path__` of the installed package of the same name. `timm.create_model` is then upstream's,
and `timm.models.multi_label` is ours. If both sides have a module of one name, the import fails and names both files.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

_here = Path(__file__).resolve().parent
# Recognize upstream by version.py, which this folder never has. To skip only this folder would recurse if the path also
# holds a second clone.
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
__spec__ = _spec  # so that importlib.resources and inspect see the installed package
