"""`sciconsist doctor`: what is installed, what is missing, and the line that installs it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import typer

from sciconsist import __version__, extras
from sciconsist.cli.options import Json

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def doctor(as_json: Json = False) -> None:
    """Show versions, device, extras and shipped models.

    Exit status 2 when a requirement of the package itself is missing.

    \b
    Example:
      sciconsist doctor --json
    """
    found = examine()
    typer.echo(json.dumps(found) if as_json else _text(found))
    if found["install"]:
        raise typer.Exit(2)


def examine() -> dict[str, Any]:
    """Everything `doctor` shows, in JSON's types."""
    declared = extras.declared()
    absent = extras.missing("")
    return {
        "sciconsist": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": _torch(),
        "requirements": _versions(declared[""]),
        "install": extras.install_line(absent) if absent else None,
        "extras": {name: _extra(name) for name in sorted(declared) if name not in ("", "all")},
        "models": [_model(path) for path in sorted(WEIGHTS.glob("*.safetensors"))],
        "data_dir": _data_dir(),
    }


def _versions(requirements: list[str]) -> dict[str, str | None]:
    return {extras.distribution(r): extras.version_of(r) for r in requirements}


def _extra(name: str) -> dict[str, Any]:
    absent = extras.missing(name)
    return {
        "versions": _versions(extras.declared()[name]),
        "missing": [extras.distribution(r) for r in absent],
        "install": extras.install_line(absent) if absent else None,
    }


def _torch() -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:  # absent, or a build that does not fit this machine
        return {"error": str(error)}
    cuda = torch.cuda.is_available()
    version = torch.version
    hip = getattr(version, "hip", None)
    return {
        "version": torch.__version__,
        "build": f"CUDA {version.cuda}" if version.cuda else f"ROCm {hip}" if hip else "CPU",
        "device": "cuda" if cuda else "cpu",
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _model(path: Path) -> dict[str, Any]:
    return {
        "name": path.stem,
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _data_dir() -> dict[str, Any]:
    name = os.environ.get("SCICONSIST_DATA_DIR")
    return {"path": name, "exists": bool(name and Path(name).is_dir())}


def _text(found: dict[str, Any]) -> str:
    torch, data = found["torch"], found["data_dir"]
    lines = [f"sciconsist {found['sciconsist']}, Python {found['python']}, {found['platform']}"]
    if "error" in torch:
        lines.append(f"torch does not import: {torch['error']}")
    else:
        gpus = f" ({', '.join(torch['gpus'])})" if torch["gpus"] else ""
        lines.append(
            f"torch {torch['version']}, {torch['build']} build, device {torch['device']}{gpus}, "
            f"{torch['threads']} threads on {torch['cores']} cores"
        )
    lines += ["", "requirements", *_rows(found["requirements"])]
    if found["install"]:
        lines.append(f"  install what is missing: {found['install']}")
    for name, extra in found["extras"].items():
        if extra["install"]:
            lines += ["", f"extra {name}: missing {', '.join(extra['missing'])}"]
            lines.append(f"  install it: {extra['install']}")
        else:
            lines += ["", f"extra {name}: present"]
    lines += ["", "shipped models"]
    lines += [f"  {m['name']:<24} {m['megabytes']:>6} MB  sha256 {m['sha256'][:16]}" for m in found["models"]]
    lines += ["  none"] * (not found["models"])
    if data["path"]:
        lines += ["", f"data folder: {data['path']}{'' if data['exists'] else ' (no such folder)'}"]
    else:
        lines += ["", "data folder: SCICONSIST_DATA_DIR is not set"]
    return "\n".join(lines)


def _rows(versions: dict[str, str | None]) -> list[str]:
    return [f"  {name:<24} {version or 'missing'}" for name, version in versions.items()]
