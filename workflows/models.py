"""Models by name or file: what is shipped in the package, and how a file becomes a model again."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import sciconsist
from sciconsist.checkpoint import Checkpoint, fill, read_checkpoint
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap

WEIGHTS = Path(sciconsist.__file__).resolve().parent / "weights"
# A domain's adapter: `from_config(config)` gives its Domain; imported when one of its models is wanted.
DOMAINS = {name: f"sciconsist.domains.{name}.adapter" for name in ("molecules", "crystals", "climate")}
DEFAULTS = {  # the model of a domain when none is named
    "molecules": "molecules-qm9gfn2",
    "crystals": "crystals-mp20bt",
    "climate": "climate-zeroshot",
}


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def locate(name: str | Path) -> Path:
    """The file of a shipped name, or the path itself. Raises UserError that lists the names."""
    known = shipped()
    if str(name) in known:
        return WEIGHTS / f"{name}.safetensors"
    path = Path(name)
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"  # a run's folder
    if path.is_file():
        return path
    if path.exists():
        raise UserError(f"{name}: is a folder without model.safetensors; expected a model's file or a training run")
    raise UserError(f"no model {str(name)!r}; expected a file or one of: {', '.join(known) or 'none is shipped'}")


def describe(name: str | Path) -> dict[str, Any]:
    """Everything a model's file says about itself."""
    path = locate(name)
    checkpoint = read_checkpoint(path)
    return {
        "name": checkpoint.card.get("name", path.stem),
        "file": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "parameters": sum(w.numel() for w in checkpoint.weights.values()),
        "sha256": checkpoint.sha256,
        "written_by": f"sciconsist {checkpoint.version}",
        "card": checkpoint.card,
        "recipe": checkpoint.recipe,
        "config": checkpoint.config,
    }


def load(name: str | Path) -> FlowMap:
    """A model ready to use, with `.domain`, `.config` and `.card`, by its shipped name or its file.

    Raises UserError: no such model, a damaged or truncated file, a config that no domain of ours knows.
    """
    path = locate(name)
    return from_checkpoint(read_checkpoint(path), path)


def load_for(domain: str, name: str | Path | None) -> FlowMap:
    """The named model, or the default of a domain. Raises UserError when it belongs to another domain."""
    model = load(name if name is not None else DEFAULTS[domain])
    if (found := model.config.get("domain")) != domain:
        raise UserError(f"{name}: is a model of {found}, expected one of {domain}")
    return model


def from_checkpoint(checkpoint: Checkpoint, path: Path) -> FlowMap:
    """The model a checked file describes, filled with its weights."""
    model = build(checkpoint.config, path)
    fill(model, checkpoint.weights, path)
    model.config = checkpoint.config
    model.card = {"name": path.stem, **checkpoint.card, "sha256": checkpoint.sha256}
    model.card.setdefault("version", checkpoint.version)
    return model.eval()


def build(config: dict[str, Any], path: object = "config") -> FlowMap:
    """A fresh model of a config. Raises UserError when its domain or a key is unknown."""
    domain, rest = config.get("domain"), {k: v for k, v in config.items() if k != "domain"}
    if domain not in DOMAINS:
        raise UserError(f"{path}: found a model of domain {domain!r}, expected one of {', '.join(DOMAINS)}")
    try:
        model = import_module(DOMAINS[domain]).from_config(rest).model()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: its config does not fit this version: {where}: {first['msg']}") from error
    model.config = {"domain": domain, **model.config}
    return model
