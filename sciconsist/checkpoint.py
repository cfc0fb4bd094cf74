"""One `.safetensors` file is a model: weights, and in its metadata the config, the recipe and the card.

safetensors does not notice a flipped bit, so a sha256 over tensors and metadata is stored and checked at
load. The core knows no domain: `load_model` takes the function that builds the model from the config.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sciconsist import __version__
from sciconsist.errors import UserError
from sciconsist.files import atomic_path
from sciconsist.flowmap import FlowMap

FORMAT = "sciconsist-model"
FORMAT_VERSION = 1
HALF_MAX = 65504.0


@dataclass
class Checkpoint:
    """What a file holds. `card` has provenance, licence and measured metrics; `version` wrote it."""

    weights: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    version: str = __version__
    sha256: str = ""


def save_model(
    path: str | os.PathLike[str],
    model: FlowMap,
    card: Mapping[str, Any] | None = None,
    *,
    recipe: Any = None,
    weights: Mapping[str, Tensor] | None = None,
    half: bool = False,
) -> str:
    """Write `model` (or other `weights` for it, an EMA's) to one file, whole or not at all: its sha256.

    `half` stores float32 as float16 where it fits its range; the model is float32 again when loaded.
    """
    source = model.state_dict() if weights is None else weights
    tensors = {name: stored(value, half) for name, value in source.items()}
    meta = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "version": __version__,
        "config": to_json(model.config, path),
        "recipe": to_json(
            asdict(recipe) if is_dataclass(recipe) and not isinstance(recipe, type) else recipe or {}, path
        ),
        "card": to_json(dict(model.card if card is None else card), path),
    }
    meta["sha256"] = digest(tensors, meta)
    with atomic_path(path) as temporary:
        write_tensors(tensors, temporary, meta)
    return meta["sha256"]


def write_tensors(tensors: dict[str, Tensor], path: Path, meta: dict[str, str] | None = None) -> None:
    """safetensors' `save_file` whose failure to write is the OSError it stands for."""
    try:
        save_file(tensors, path, meta)
    except SafetensorError as error:
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), os.fspath(path)) from error
        raise


def stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    if half and value.dtype == torch.float32 and bool((value.abs() <= HALF_MAX).all()):
        value = value.half()
    return value.clone(memory_format=torch.contiguous_format)  # tied weights become two, as safetensors wants


def to_json(value: Any, path: object) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: config, recipe or card is not plain JSON: {error}") from error


def digest(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    """sha256 over the metadata and every tensor's name, dtype, shape and bytes."""
    total = hashlib.sha256(json.dumps({k: v for k, v in meta.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The contents of a file, checked. Raises UserError for anything but a whole file of ours."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such model file; `sciconsist models list` shows the names that come with the package"
        )
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            if meta.get("format") != FORMAT:
                raise UserError(f"{path}: a safetensors file, but not a sciconsist model; expected one of save_model")
            if not meta.get("format_version", "").isdecimal() or int(meta["format_version"]) > FORMAT_VERSION:
                raise UserError(
                    f"{path}: model format {meta.get('format_version')} of sciconsist {meta.get('version')}, "
                    f"this is {__version__} with format {FORMAT_VERSION}; update sciconsist to read it"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise UserError(
            f"{path}: not a whole safetensors file ({size} bytes: {error}); fetch or copy it again"
        ) from error
    if digest(tensors, meta) != meta.get("sha256"):
        raise UserError(f"{path}: its sha256 does not match its contents: the file is damaged; fetch or copy it again")
    config, recipe, card = (json.loads(meta[key]) for key in ("config", "recipe", "card"))
    return Checkpoint(tensors, config, recipe, card, meta["version"], meta["sha256"])


def load_model(path: str | os.PathLike[str], build: Callable[[dict[str, Any]], FlowMap]) -> FlowMap:
    """The model of a file, ready: `build(config)` makes it, the file's weights fill it."""
    checkpoint = read_checkpoint(path)
    model = build(checkpoint.config)
    fill(model, checkpoint.weights, path)
    model.config, model.card = checkpoint.config, {**checkpoint.card, "sha256": checkpoint.sha256}
    return model.eval()


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: object) -> None:
    """Copy weights into a model in the model's own dtypes; UserError when they do not belong to it."""
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        first, *others = [line.strip() for line in str(error).split("\n")[1:]]
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{path}: the weights do not fit the model its config describes: {first}{more}") from error
