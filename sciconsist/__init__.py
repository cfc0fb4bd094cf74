"""sciconsist: scientific objects in any number of steps, from one model."""

import sys as _sys
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path
from typing import Any as _Any

__version__ = "0.1.0"

# In a checkout domains/, datasets/ and workflows/ lie beside this folder; installed, they lie inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "domains").is_dir():
    __path__.append(str(_root))

# Public name -> (module, attribute; None is the module itself), imported on first use: torch costs seconds.
_FACADE: dict[str, tuple[str, str | None]] = {
    "generate": ("sciconsist.workflows.generate", "generate"),
    "downscale": ("sciconsist.workflows.downscale", "downscale"),
    "load": ("sciconsist.workflows.models", "load"),
    "sample": ("sciconsist.sampling", "sample"),
    "uniform": ("sciconsist.sampling", "uniform"),
    "FlowMap": ("sciconsist.flowmap", "FlowMap"),
    "Linear": ("sciconsist.paths", "Linear"),
    "Euclidean": ("sciconsist.geometry", "Euclidean"),
    "RECIPES": ("sciconsist.recipes", "RECIPES"),
    "fit": ("sciconsist.training", "fit"),
    "sampling": ("sciconsist.sampling", None),
}
__all__ = ["__version__", *_FACADE]


def __getattr__(name: str) -> object:
    try:
        module, attribute = _FACADE[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    found = _import_module(module)
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _WhenXarrayComes:
    """Gives xarray's datasets `.sciconsist` whichever of the two is imported first, and imports nothing itself."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> _Any:
        if name != "xarray":
            return None
        _sys.meta_path.remove(self)
        spec: _Any = _find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module: object) -> None:
                execute(module)
                _import_module("sciconsist.workflows.accessor")

            spec.loader.exec_module = exec_module
        return spec


if "xarray" in _sys.modules:
    _import_module("sciconsist.workflows.accessor")
else:
    _sys.meta_path.insert(0, _WhenXarrayComes())
