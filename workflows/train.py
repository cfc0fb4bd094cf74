"""Training molecule models: flow matching, and distillation to few steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from rdkit import Chem
from torch import Tensor

from sciconsist import __version__
from sciconsist.domains.molecules.adapter import MoleculeConfig, MoleculeDomain
from sciconsist.domains.molecules.graphs import close_shells, pad_graphs
from sciconsist.domains.molecules.network import NetworkConfig
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.ema import Decay
from sciconsist.errors import UserError
from sciconsist.files import atomic_path
from sciconsist.flowmap import FlowMap
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.times import Split
from sciconsist.training import FitResult, TrainingDiverged, fit
from sciconsist.workflows.models import build, load
from sciconsist.workflows.molecule_data import MoleculeData, heavy_graphs, read_data

# The rows that suit a molecule teacher: the core's, and finite forms whose targets stay on the simplex.
LMD = RECIPES["lmd"]
DISTILL: dict[str, Recipe] = {
    "lmd_fd": replace(LMD, name="lmd_fd", limit="finite", paper="Lagrangian map distillation, finite split"),
    "emd_fd": replace(
        LMD, name="emd_fd", kind="eulerian", limit="finite", paper="Eulerian map distillation, finite split"
    ),
    **{name: RECIPES[name] for name in ("psd", "lsd", "lsd_fd", "lmd", "cd", "ctm")},
}  # fmt: skip


class TrainConfig(BaseModel):
    """What `--config FILE.toml` and `--set key=value` may say; `network.width=64` reaches into `network`."""

    model_config = ConfigDict(extra="forbid")

    network: NetworkConfig = NetworkConfig()
    atom_scale: float = 2.0
    bond_scale: float = 2.0
    length_factor: float = 0.4
    length_power: float = 0.5
    min_count: int = 2  # classes of atoms seen less often are left out, with their molecules
    given: float = 0.2  # share of the batch with the graph given: conformers and refinement
    anchor: float = 0.25  # distillation: share of the batch on the diagonal
    batch_size: int = 64
    lr: float = 1.2e-3
    warmup: int = 300
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    bf16: bool = False
    compile: bool = False


def endpoint_metric(domain: MoleculeDomain) -> Callable[..., Tensor]:
    """The domain's loss as the hook of `flow_map_loss`."""

    def metric(output: Any, target: Any, times: Split, mask: Any) -> Tensor:
        scale = domain.length_scale(mask["atoms"])
        return domain.endpoint_loss(output, target, times.s, mask, scale)[0]  # type: ignore[arg-type]

    return metric


def train(
    data: str | Sequence[Chem.Mol],
    out: str | Path,
    config: TrainConfig | None = None,
    *,
    init: str | Path | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str = "cpu",
    quiet: bool = True,
) -> FitResult:
    """Flow matching on molecules; with `init` from a model's weights, of its sizes and classes."""
    config = config or TrainConfig()
    mols, source = read_data(data)
    if init is not None:
        model = load(init)
    else:
        model = new_model(mols, config)
    graphs, skipped = heavy_graphs(mols, model.domain)
    model.card = {**card_of(source, len(graphs), skipped), "recipe": "fm"}
    ready = MoleculeData(pad_graphs(graphs), model.domain, config.given)
    return _fit(model, RECIPES["fm"], ready, Path(out), config, device, quiet, steps, minutes, seed, resume)


def distill(
    teacher: str | Path,
    data: str | Sequence[Chem.Mol],
    out: str | Path,
    recipe: str = "lmd_fd",
    config: TrainConfig | None = None,
    *,
    init: str | Path | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str = "cpu",
    quiet: bool = True,
) -> FitResult:
    """A student that jumps as far as `teacher` walks, starting from the teacher's weights (or `init`)."""
    if recipe not in DISTILL:
        raise UserError(f"recipe {recipe!r}: expected one of {', '.join(DISTILL)}")
    config = config or TrainConfig(lr=5e-4, warmup=100, ema=0.998)
    row, old = DISTILL[recipe], load(teacher)
    model = load(init if init is not None else teacher)
    mols, source = read_data(data)
    graphs, skipped = heavy_graphs(mols, model.domain)
    model.card = {
        **card_of(source, len(graphs), skipped), "recipe": recipe, "teacher": old.card.get("name"),
        "teacher_sha256": old.card.get("sha256"),
    }  # fmt: skip
    ready = MoleculeData(pad_graphs(graphs), model.domain, config.given, config.anchor, row.kind)
    old.to(device)
    return _fit(model, row, ready, Path(out), config, device, quiet, steps, minutes, seed, resume, old)


def _fit(
    model: FlowMap, recipe: Recipe, data: MoleculeData, out: Path, config: TrainConfig, device: str,
    quiet: bool, steps: int | None, minutes: float | None, seed: int, resume: bool,
    teacher: FlowMap | None = None,
) -> FitResult:  # fmt: skip
    model.card["name"] = out.resolve().name
    out.mkdir(exist_ok=True)
    with atomic_path(out / "config.json") as temporary:
        temporary.write_text(json.dumps(config.model_dump(), indent=1) + "\n", encoding="utf-8")
    try:
        return fit(
            model.to(device), recipe, data, steps=steps, minutes=minutes, batch_size=config.batch_size,
            lr=config.lr, warmup=config.warmup, weight_decay=config.weight_decay, ema=Decay(config.ema),
            clip=config.clip, bf16=config.bf16, compile=config.compile, seed=seed, out=out, resume=resume,
            teacher=teacher, metric=endpoint_metric(model.domain), progress=not quiet,
        )  # fmt: skip
    except TrainingDiverged as error:
        raise UserError(f"{out}: {error}") from error


def new_model(mols: Sequence[Chem.Mol], config: TrainConfig) -> FlowMap:
    """A fresh model whose classes and sizes are those of the molecules."""
    bare = []
    for mol in mols:
        closed = close_shells(Chem.RemoveAllHs(mol))
        if not any(a.GetNumRadicalElectrons() for a in closed.GetAtoms()):
            bare.append(closed)
    vocabulary = Vocabulary.from_molecules(bare, config.min_count)
    if not len(vocabulary):
        raise UserError("the training data have no atom class often enough; lower min_count")
    sizes = [mol.GetNumAtoms() for mol in bare]
    names = ("network", "atom_scale", "bond_scale", "length_factor", "length_power")
    whole = MoleculeConfig(
        vocabulary=vocabulary.to_config(),
        size_histogram={n: sizes.count(n) for n in sorted(set(sizes))},
        **{name: getattr(config, name) for name in names},
    )
    return build({"domain": "molecules", **json.loads(whole.model_dump_json())})


def card_of(source: dict[str, str], used: int, skipped: int) -> dict[str, Any]:
    return {
        **source,
        "domain": "molecules",
        "molecules": used,
        "molecules_left_out": skipped,
        "version": __version__,
    }


def read_config(path: str | Path | None, settings: Sequence[str] = (), **defaults: Any) -> TrainConfig:
    """A TOML file, then `key=value` settings on top. Raises UserError that names the key."""
    import tomllib

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
        place[name] = text.strip()
    try:
        config = TrainConfig(**values)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("?",), "msg": str(error)}
        known = ", ".join(TrainConfig.model_fields)
        raise UserError(
            f"training setting {'.'.join(map(str, first['loc']))}: {first['msg']}; there are {known}"
        ) from error
    if not all(math.isfinite(v) and v > 0 for v in (config.lr, config.batch_size, config.length_factor)):
        raise UserError("training settings: lr, batch_size and length_factor must be positive")
    return config
