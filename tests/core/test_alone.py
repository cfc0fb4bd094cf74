"""The core needs torch, numpy, scipy, safetensors and pydantic, and nothing else: proved by taking the rest away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import sys
ALLOWED = {"torch", "numpy", "scipy", "safetensors", "pydantic", "sciconsist"}
# what those need themselves
ALLOWED |= {"pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "sympy", "mpmath", "filelock",
    "networkx", "jinja2", "markupsafe", "fsspec", "functorch", "torchgen", "packaging", "setuptools", "pkg_resources",
    "cuda", "nvidia", "triton", "_distutils_hack", "six", "torch_shm_manager"}

class Filter:
    # a finder that does not see what is not allowed

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        seen = top in ALLOWED or top in sys.stdlib_module_names or top.startswith(("_", "__editable__"))
        return self.finder.find_spec(name, path, target) if seen else None

sys.meta_path[:] = [Filter(f) for f in sys.meta_path]
for name in ("rdkit", "xarray", "typer", "rich", "e3nn", "ot", "torchdiffeq", "pymatgen"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit(f"{name} is not blocked")
"""

WORK = """
import importlib, pathlib, torch
import sciconsist
folder = pathlib.Path(sciconsist.__file__).parent
for file in sorted([*folder.glob("*.py"), *(folder / "nn").glob("*.py")]):
    if file.stem not in ("__init__", "__main__", "testing"):  # testing is pytest's
        importlib.import_module(".".join(("sciconsist", *file.relative_to(folder).with_suffix("").parts)))
from sciconsist import RECIPES, FlowMap, fit, sample, uniform
from sciconsist.nn.mlp import MLP
model = FlowMap(MLP(2, 16))
fit(model, RECIPES["lsd"], torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), steps=3, batch_size=32)
x = sample(model, (4, 2), uniform(2), torch.Generator().manual_seed(0))
assert x.shape == (4, 2) and bool(x.isfinite().all())
print("works")
"""


def test_the_core_trains_and_samples_with_five_packages() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED + WORK], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "works"
