"""What training shares in every domain: settings from a file and the command line, and a run in its folder.

`workflows/train_<domain>.py` has the domain's `TrainConfig`, `train` and `distill`.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sciconsist.domain import Data
from sciconsist.ema import Decay
from sciconsist.errors import UserError
from sciconsist.files import atomic_path
from sciconsist.flowmap import FlowMap
from sciconsist.recipes import Recipe
from sciconsist.training import FitResult, TrainingDiverged, fit

TRAINERS = {name: f"sciconsist.workflows.train_{name}" for name in ("molecules", "crystals", "climate")}


class RunConfig(BaseModel):
    """Settings of `fit` that every domain has; a domain's `TrainConfig` adds its own."""

    model_config = ConfigDict(extra="forbid")

    batch_size: int = 64
    lr: float = 1.2e-3
    warmup: int = 300
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    bf16: bool = False
    compile: bool = False
    workers: int = Field(default=0, ge=0)  # processes that make batches ahead: for a GPU


@dataclass(frozen=True)
class Until:
    """When a run stops, and how it goes: `steps` or `minutes`, whichever comes first."""

    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    resume: bool = False
    device: str = "cpu"
    quiet: bool = True


Config = TypeVar("Config", bound=RunConfig)


def trainer(domain: str) -> Any:
    """The module that trains a domain's models. Raises UserError for a domain that has none."""
    if domain not in TRAINERS:
        raise UserError(f"domain {domain!r}: expected one of {', '.join(TRAINERS)}")
    return import_module(TRAINERS[domain])


def read_config(kind: type[Config], path: str | Path | None, settings: Sequence[str] = (), **defaults: Any) -> Config:
    """A TOML file, then `key=value` settings on top; `network.width=64` reaches into `network`.

    Raises UserError that names the key.
    """
    values: dict[str, Any] = dict(defaults)
    if path is not None:
        try:
            values |= tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UserError(f"{path}: cannot be read as TOML: {error}") from error
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: expected key=value")
        *parents, name = key.strip().split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UserError(f"--set {setting}: {parent} is one value and has no parts")
        place[name] = parsed(text.strip())
    try:
        config = kind(**values)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("?",), "msg": str(error)}
        known = ", ".join(kind.model_fields)
        raise UserError(
            f"training setting {'.'.join(map(str, first['loc']))}: {first['msg']}; there are {known}"
        ) from error
    if not all(math.isfinite(v) and v > 0 for v in (config.lr, config.batch_size, config.clip)):
        raise UserError("training settings: lr, batch_size and clip must be positive")
    return config


def parsed(text: str) -> Any:
    """A list where the text is one, `[1, 2]` or `["gap", "logp"]`; else the text, which pydantic converts."""
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def run(
    model: FlowMap,
    recipe: Recipe,
    data: Data,
    out: str | Path,
    config: RunConfig,
    until: Until,
    **extra: Any,
) -> FitResult:
    """`fit` in the folder `out`, which also gets config.json. `extra` goes to `fit` (teacher, metric, validate).

    Raises UserError where the run diverged.
    """
    out = Path(out)
    model.card["name"] = out.resolve().name
    out.mkdir(exist_ok=True)
    with atomic_path(out / "config.json") as temporary:
        temporary.write_text(json.dumps(config.model_dump(), indent=1) + "\n", encoding="utf-8")
    try:
        return fit(
            model.to(until.device), recipe, data, steps=until.steps, minutes=until.minutes, seed=until.seed,
            resume=until.resume, out=out, progress=not until.quiet, batch_size=config.batch_size, lr=config.lr,
            warmup=config.warmup, weight_decay=config.weight_decay, ema=Decay(config.ema), clip=config.clip,
            bf16=config.bf16, compile=config.compile, workers=config.workers, **extra,
        )  # fmt: skip
    except TrainingDiverged as error:
        raise UserError(f"{out}: {error}") from error
