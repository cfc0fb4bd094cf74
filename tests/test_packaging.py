"""The package as it is built, what it imports, and which way its imports point."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sciconsist

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAPPED = ("domains", "datasets", "workflows")
CORE_NEEDS = {"torch", "numpy", "scipy", "safetensors", "pydantic", "sciconsist"}


def python(code: str, **environment: str) -> str:
    """Standard output of a fresh interpreter in the checkout."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def packages_in_tree() -> set[str]:
    found = {"sciconsist"}
    for top in ("sciconsist", *MAPPED):
        prefix = "" if top == "sciconsist" else "sciconsist."
        for file in (ROOT / top).rglob("*.py"):
            found.add(prefix + ".".join(file.parent.relative_to(ROOT).parts))
    return found | {f"sciconsist.{top}" for top in MAPPED}


def test_listed_packages_are_those_of_the_tree() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_in_tree()


def test_only_the_three_mapped_folders_lack_an_init() -> None:
    for name in packages_in_tree():
        parts = name.split(".")
        folder = ROOT.joinpath(*(parts[1:] if parts[1:2] and parts[1] in MAPPED else parts))
        is_mapped = len(parts) == 2 and parts[1] in MAPPED
        assert (folder / "__init__.py").exists() != is_mapped, folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of a copy of the checkout: building leaves files in the tree."""
    pytest.importorskip("setuptools")
    checkout = tmp_path_factory.mktemp("build") / "checkout"
    checkout.mkdir()
    for name in ("sciconsist", *MAPPED):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    command = [sys.executable, "-c", build]
    run = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return zipfile.ZipFile(next((checkout / "dist").glob("*.whl")))


def test_wheel_has_one_top_level(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"sciconsist", f"sciconsist-{sciconsist.__version__}.dist-info"}


def test_wheel_has_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    data = (".py", ".js", ".html", ".json", ".csv.gz", ".toml", ".safetensors")
    for top in ("sciconsist", *MAPPED):
        for file in (ROOT / top).rglob("*"):
            if file.name.endswith(data):
                inside = file.relative_to(ROOT).as_posix()
                assert (inside if top == "sciconsist" else f"sciconsist/{inside}") in names, inside


def test_weights_are_small_safetensors() -> None:
    for file in ROOT.rglob("sciconsist/weights/*"):
        assert file.suffix in (".safetensors", ".md"), file
        assert file.stat().st_size <= 16e6, file


def test_version_has_one_source(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(f"sciconsist-{sciconsist.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {sciconsist.__version__}\n" in metadata
    assert "version" not in PROJECT["project"]


def test_constraints_pin_what_is_declared() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(.+)$", text, re.MULTILINE))
    assert pins["torch"] == "2.13.0"
    assert not [v for v in pins.values() if "+" in v], "a local version fits one build of torch only"
    normal = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    from sciconsist import extras

    for requirement in extras.declared()["dev"] + extras.declared()[""]:
        assert re.sub(r"[-_.]+", "-", extras.distribution(requirement)).lower() in normal, requirement


def test_readme_has_the_two_commands_that_ci_runs() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("python -m pip install -c constraints.txt ")] == [
        "python -m pip install -c constraints.txt . && sciconsist demo",
        'python -m pip install -c constraints.txt ".[test]" && python -m pytest',
    ]


# --- what importing it does


def test_import_is_light_and_changes_nothing() -> None:
    before_and_after = """
import json, logging, os, random, sys, warnings
def state():
    settings = [repr(warnings.filters), repr(logging.root.handlers), sorted(os.environ.items())]
    return [hash(random.getstate()), settings]
before = state()
import sciconsist
heavy = {"torch", "numpy", "rdkit", "pymatgen", "xarray", "scipy", "e3nn", "typer", "rich", "pydantic"}
print(json.dumps([before == state(), sorted(heavy & set(sys.modules))]))
"""
    assert json.loads(python(before_and_after)) == [True, []]


def test_importing_the_core_draws_no_random_number() -> None:
    modules = [f"sciconsist.{file.stem}" for file in core_files() if file.parent.name == "sciconsist"]
    code = f"""
import importlib, torch, numpy
def state():
    return [torch.get_rng_state().tolist(), torch.get_default_dtype(), repr(numpy.random.get_state())]
before = state()
for name in {modules!r}:
    importlib.import_module(name)
assert before == state()
"""
    python(code)


def test_facade_lists_its_names() -> None:
    assert set(sciconsist.__all__) <= set(dir(sciconsist))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sciconsist.nonsense


@pytest.mark.parametrize("name", sorted(set(sciconsist.__all__) - {"__version__"}))
def test_facade_finds_every_name(name: str) -> None:
    assert getattr(sciconsist, name) is not None


def test_a_checkout_works_without_an_installation() -> None:
    code = "import sciconsist.domains.molecules as m; print(m.__file__)"
    assert python(code, PYTHONPATH="").strip().startswith(str(ROOT))


# --- which way the imports point


def core_files() -> list[Path]:
    """All of sciconsist/ but the roof: the facade, __main__ and the command line."""
    core = ROOT / "sciconsist"
    roof = ("__init__.py", "__main__.py")
    return sorted([f for f in core.glob("*.py") if f.name not in roof] + list((core / "nn").rglob("*.py")))


def imports(file: Path) -> Iterator[str]:
    """Dotted names a file imports, anywhere in it."""
    folders = file.parent.relative_to(ROOT).parts
    package = folders if folders[0] == "sciconsist" else ("sciconsist", *folders)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


# a bar only where rich is installed; the contract of domains is for test suites, which have pytest
OPTIONAL = {("progress.py", "rich"), ("testing.py", "pytest")}


@pytest.mark.parametrize("file", core_files(), ids=lambda f: f.relative_to(ROOT).as_posix())
def test_core_knows_no_domain(file: Path) -> None:
    for name in imports(file):
        top, second = (*name.split("."), "")[:2]
        assert (file.name, top) in OPTIONAL or top in CORE_NEEDS or top in sys.stdlib_module_names, name
        assert top != "sciconsist" or second not in (*MAPPED, "cli"), name


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [("domains", ("workflows", "datasets", "cli")), ("datasets", ("workflows", "cli"))],
)
def test_lower_layers_do_not_know_higher_ones(folder: str, forbidden: tuple[str, ...]) -> None:
    for file in sorted((ROOT / folder).rglob("*.py")):
        for name in imports(file):
            assert not name.startswith(tuple(f"sciconsist.{f}" for f in forbidden)), f"{file}: {name}"
