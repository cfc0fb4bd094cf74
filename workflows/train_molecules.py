"""Training molecule models: flow matching, and distillation to few steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field, field_validator
from rdkit import Chem
from torch import Tensor

from sciconsist import __version__
from sciconsist.checkpoint import read_checkpoint, save_model
from sciconsist.datasets.records import MoleculeRecord
from sciconsist.domains.molecules import distance_network, kinds, position_network
from sciconsist.domains.molecules.adapter import MoleculeConfig, MoleculeDomain
from sciconsist.domains.molecules.distance_network import DistanceNetwork
from sciconsist.domains.molecules.distances import nearest
from sciconsist.domains.molecules.graphs import close_shells
from sciconsist.domains.molecules.leanings import STEPS, lean
from sciconsist.domains.molecules.network import NetworkConfig
from sciconsist.domains.molecules.position_network import PositionNetwork
from sciconsist.domains.molecules.properties import Known, check_names, summarise
from sciconsist.domains.molecules.sketch import ELEMENTS, sketch
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.parallel import join
from sciconsist.progress import Progress
from sciconsist.random import fresh_weights
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.run_state import load_state
from sciconsist.times import Split
from sciconsist.training import FitResult
from sciconsist.workflows.models import build, load
from sciconsist.workflows.molecule_data import MoleculeData, property_values, read_data, training_set
from sciconsist.workflows.runs import RunConfig, Until, run

# The rows that suit a molecule teacher: the core's, and finite forms whose targets stay on the simplex.
LMD = replace(RECIPES["lmd"], through=False)  # a finite split regresses on its target
DISTILL: dict[str, Recipe] = {
    "lmd_fd": replace(LMD, name="lmd_fd", limit="finite", paper="Lagrangian map distillation, finite split"),
    "emd_fd": replace(
        LMD, name="emd_fd", kind="eulerian", limit="finite", paper="Eulerian map distillation, finite split"
    ),
    **{name: RECIPES[name] for name in ("psd", "lsd", "lsd_fd", "lmd", "cd", "ctm")},
}  # fmt: skip


ENOUGH = 30_000  # molecules to measure distances of
FEW, FEW_TO_CHANGE = 20, 1000  # molecules that say nothing of distances, or too little to change a model's
SAMPLES = 4000  # to see what kinds of atoms and rings a model draws


class TrainConfig(RunConfig):
    """What `--config FILE.toml` and `--set key=value` may say."""

    network: NetworkConfig = NetworkConfig()
    atom_scale: float = 2.0
    bond_scale: float = 2.0
    bond_classes: Literal[4, 5] = 5  # Kekulé orders; or these and aromatic
    length_factor: float = Field(default=0.4, gt=0)
    length_power: float = 0.5
    min_count: int = 2  # classes of atoms seen less often are left out, with their molecules
    given: float = 0.2  # share of the batch with the graph given: conformers and refinement
    properties: tuple[str, ...] = ()  # what the model can be told, such as gap,logp (domains/molecules/properties.py)
    sketch: tuple[str, ...] = ()  # whole-numbered properties that are drawn for each sample before the network is asked
    anchor: float = 0.25  # distillation: share of the batch on the diagonal

    @field_validator("bond_classes", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if value in ("4", "5") else value  # a Literal does not convert text

    @field_validator("properties", "sketch", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


DISTILL_DEFAULTS: dict[str, Any] = {"lr": 5e-4, "warmup": 100, "ema": 0.998}


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
    until: Until,
    init: str | Path | None = None,
) -> FitResult:
    """Flow matching on molecules; with `init` from a model's weights, of its sizes and classes.

    `config.properties` that the model of `init` does not know yet are added to it: what it can do stays as it is.
    """
    config = config or TrainConfig()
    records, source = read_data(data)
    names = check_names(list(dict.fromkeys((*config.properties, *config.sketch))))
    values = property_values(records, names)
    told = [summarise(name, values[:, k]) for k, name in enumerate(names)]
    with fresh_weights(until.seed):
        if init is None:
            model = new_model([r.mol for r in records], config, told)
        else:
            model = load(init)
            if told:
                model = with_properties(model, told, counts_elements(config.sketch))
    ready, skipped = training_set(records, model.domain, values if names else None, given=config.given)
    if config.sketch:
        remember_sketches(model, ready, config.sketch)
    remember_chemistry(model, ready, records, out, until)
    model.card = {**card_of(source, len(ready), skipped), "recipe": "fm"}
    result = run(model, RECIPES["fm"], ready, out, config, until, metric=endpoint_metric(model.domain))
    weigh_kinds(model, out, result, until)
    return result


def counts_elements(names: Sequence[str]) -> bool:
    """Whether a sketch says of what elements a molecule is, so that its atoms can be told theirs."""
    return any(ELEMENTS.get(name, "H") != "H" for name in names)


def remember(model: FlowMap, found: dict[str, Any]) -> None:
    """Put what was learned of the data into the model's config, which goes into its file."""
    model.domain.config = model.domain.config.model_copy(update=found)
    model.config = {**(model.config or {}), **model.domain.config.model_dump(mode="json")}


def remember_sketches(model: FlowMap, data: MoleculeData, names: Sequence[str]) -> None:
    """Let the model keep the sketches of its training data. Raises UserError where they are not whole numbers."""
    assert data.values is not None
    known = [p.name for p in model.domain.config.properties]
    columns = [known.index(name) for name in names]
    values = data.values[:, columns].numpy()
    if not (values == values.round()).all():
        raise UserError(f"sketch {', '.join(names)}: expected properties in whole numbers, such as C_atoms,rings")
    others = [k for k in range(len(known)) if k not in columns]
    sizes = data.graphs.mask.sum(1).tolist()
    unsketched = data.values[:, others].double().numpy()
    sketches = sketch(sizes, values, names, unsketched, [known[k] for k in others])
    remember(model, {"sketches": sketches})


def remember_chemistry(
    model: FlowMap, data: MoleculeData, records: Sequence[MoleculeRecord], out: str | Path, until: Until
) -> None:  # fmt: skip
    """Let the model keep what kinds of atoms and rings its training data have, what distances, and where atoms are (of
    `ENOUGH` molecules, evenly taken, each in at most a tenth of the minutes and as many steps as its training); of few those
    that it knows stay."""
    vocabulary = model.domain.vocabulary
    found: dict[str, Any] = {"kinds": kinds.learn(map(data.graphs.graph, range(len(data))), vocabulary)}
    if len(data) >= (FEW if model.domain.config.nearest is None else FEW_TO_CHANGE):
        some = data.graphs[torch.linspace(0, len(data) - 1, min(ENOUGH, len(data))).round().long()]
        found["nearest"] = least = nearest(some)
        if load_state(Path(out)) is None:  # a run that goes on has them among its weights
            minutes = None if until.minutes is None else until.minutes / 10
            effort = (until.seed, until.steps, minutes, not until.quiet)
            distances, positions = cast(DistanceNetwork, model.distances), cast(PositionNetwork, model.positions)
            distance_network.fit(distances, some, *effort)
            mols = [record.mol for record in records[:: -(-len(records) // ENOUGH)]]
            position_network.fit(positions, mols, vocabulary, distances, least, *effort)
    remember(model, found)


def weigh_kinds(model: FlowMap, out: str | Path, result: FitResult, until: Until) -> None:
    """Let the model keep what kinds of atoms and rings it draws too often, seen on samples (two a step of its training, at
    most `SAMPLES`); not where it was trained too little or on too little to say, or a fifth of that time is not enough."""
    samples = min(SAMPLES, 2 * result.steps)
    if join()[0] > 0 or samples < FEW_TO_CHANGE or model.domain.config.kinds.molecules < FEW_TO_CHANGE:
        return
    end = time.monotonic() + result.seconds / 5
    with Progress(not until.quiet, samples * len(STEPS), None, "weighing kinds of atoms and rings") as bar:

        def goes_on(done: int) -> bool:
            bar.update(done, 0.0, {})
            return time.monotonic() < end

        found = lean(model.to("cpu"), samples, until.seed, goes_on)
    remember(model, {"kinds": found})
    written = Path(out) / "model.safetensors"
    save_model(written, model, recipe=read_checkpoint(written).recipe)


def with_properties(model: FlowMap, told: Sequence[Known], elements: bool = False) -> FlowMap:
    """The model with a branch for properties, silent at first; its own branch where it has the same names."""
    old = [p.name for p in model.domain.config.properties]
    names = [p.name for p in told]
    if old == names and (model.domain.config.network.bookkeeping or not elements):
        return model
    if old not in ([], names):
        raise UserError(f"properties {', '.join(names)}: the model to start from has {', '.join(old)}; name the same")
    config = {k: v for k, v in model.config.items() if k != "domain"}
    config = {**config, "properties": [p.model_dump() for p in told]}
    config["network"] = {**config["network"], "conditions": len(told), "elements": elements, "bookkeeping": elements}
    wider = build({"domain": "molecules", **config})
    absent, strange = wider.load_state_dict(model.state_dict(), strict=False)
    if strange or not all(name.startswith(("net.condition.", "net.forbidden_in.", "net.books.")) for name in absent):
        raise UserError(f"the weights to start from lack {', '.join(absent)}")
    return wider


def distill(
    teacher: str | Path,
    data: str | Sequence[Chem.Mol],
    out: str | Path,
    recipe: str = "lmd_fd",
    config: TrainConfig | None = None,
    *,
    until: Until,
    init: str | Path | None = None,
) -> FitResult:
    """A student that jumps as far as `teacher` walks, starting from the teacher's weights (or `init`)."""
    if recipe not in DISTILL:
        raise UserError(f"recipe {recipe!r}: expected one of {', '.join(DISTILL)}")
    config = config or TrainConfig(**DISTILL_DEFAULTS)
    row, old = DISTILL[recipe], load(teacher)
    model = load(init if init is not None else teacher)
    records, source = read_data(data)
    options: dict[str, Any] = {"given": config.given, "anchor": config.anchor, "kind": row.kind}
    ready, skipped = training_set(records, model.domain, **options)
    model.card = {
        **card_of(source, len(ready), skipped), "recipe": recipe, "teacher": old.card.get("name"),
        "teacher_sha256": old.card.get("sha256"),
    }  # fmt: skip
    if model.domain.config.nearest is None or not model.domain.config.kinds.keys:
        remember_chemistry(model, ready, records, out, until)
    old.to(until.device)
    result = run(model, row, ready, out, config, until, teacher=old, metric=endpoint_metric(model.domain))
    weigh_kinds(model, out, result, until)
    return result


def new_model(mols: Sequence[Chem.Mol], config: TrainConfig, told: Sequence[Known] = ()) -> FlowMap:
    """A fresh model whose classes and sizes are those of the molecules."""
    bare = []
    for mol in mols:
        closed = close_shells(Chem.RemoveAllHs(mol))
        if not any(a.GetNumRadicalElectrons() for a in closed.GetAtoms()):
            bare.append(closed)
    vocabulary = Vocabulary.from_molecules(bare, config.min_count)
    if not len(vocabulary):
        raise UserError("the training data have no atom class often enough; lower min_count")
    sizes, elements = [mol.GetNumAtoms() for mol in bare], counts_elements(config.sketch)
    names = ("atom_scale", "bond_scale", "bond_classes", "length_factor", "length_power")
    whole = MoleculeConfig(
        vocabulary=vocabulary.to_config(),
        size_histogram={n: sizes.count(n) for n in sorted(set(sizes))},
        network=config.network.model_copy(
            update={"conditions": len(told), "elements": elements, "bookkeeping": elements}
        ),
        properties=list(told),
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
