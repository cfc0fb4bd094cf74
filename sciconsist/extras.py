"""Optional requirements: which are declared, which are missing, and the line that installs them."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from sciconsist.errors import UserError


def declared() -> dict[str, list[str]]:
    """Requirements of each extra, those of the package itself under "".

    Read from the checkout's pyproject.toml, or else from the installed metadata: there is no third list.
    """
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        groups = {"": project["dependencies"], **project["optional-dependencies"]}
    else:
        groups = {"": []}
        for line in metadata.requires("sciconsist") or []:
            requirement, _, marker = (part.strip() for part in line.partition(";"))
            extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
            groups.setdefault(extra.group(1) if extra else "", []).append(requirement)
    return {name: _expand(name, groups) for name in groups}


def _expand(name: str, groups: dict[str, list[str]]) -> list[str]:
    """Requirements with `sciconsist[a,b]` replaced by what a and b ask for, in order, without repeats."""
    found: dict[str, None] = {}
    for requirement in groups[name]:
        if own := re.match(r"sciconsist\[([\w,-]+)\]", requirement):
            for extra in own.group(1).split(","):
                found.update(dict.fromkeys(_expand(extra, groups)))
        else:
            found[requirement] = None
    return list(found)


def version_of(requirement: str) -> str | None:
    """Installed version of a requirement such as `torch>=2.10`, None when it is not installed."""
    try:
        return metadata.version(distribution(requirement))
    except metadata.PackageNotFoundError:
        return None


def distribution(requirement: str) -> str:
    """`torch` of `torch>=2.10`."""
    return re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]


def missing(extra: str) -> list[str]:
    """Requirements of an extra that are not installed."""
    return [r for r in declared()[extra] if version_of(r) is None]


def install_line(requirements: list[str]) -> str:
    """The command that installs requirements for the Python that is running."""
    return shlex.join([sys.executable or "python", "-m", "pip", "install", *requirements])


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports a module of an extra. `purpose` starts the message: "relaxing crystals".

    Raises UserError with the line that installs the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        line = install_line(missing(extra) or declared()[extra])
        raise UserError(f"{purpose} needs {error.name}, which is not installed: {line}") from error
