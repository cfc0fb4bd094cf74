"""Molecules for the core's training loop: where they come from, and what a batch of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from sciconsist.datasets import qm9_gfn2, registry
from sciconsist.datasets.records import MoleculeRecord
from sciconsist.datasets.sdf import read_sdf
from sciconsist.domain import Batch
from sciconsist.domains.molecules.adapter import MoleculeDomain, draw_times
from sciconsist.domains.molecules.graphs import HeavyGraph, PaddedGraphs, heavy_graph, pad_graphs
from sciconsist.domains.molecules.properties import measure
from sciconsist.errors import UserError
from sciconsist.times import Split, split_point

UNTOLD = 0.2  # share of a batch that is told no property
ELEMENTS_TOLD = 0.75  # share whose atoms are told their element, where a model can be told
SKETCHED = 0.6  # share that is told a whole sketch where a model has sketches, half of it nothing else
NARROW = (0.08, 0.5)  # the split's share of the interval, log-uniform


@dataclass
class MoleculeData:
    """Heavy graphs in memory. A batch brings its own paired noise and times; `kind` None is the diagonal."""

    graphs: PaddedGraphs
    domain: MoleculeDomain
    given: float = 0.2
    anchor: float = 0.25
    kind: str | None = None
    values: Tensor | None = None  # `[M, P]` of the domain's properties, NaN where unknown

    def __len__(self) -> int:
        return len(self.graphs)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        graphs = self.graphs[indices]
        x0, condition, mask = self.domain.encode(graphs)
        count = len(indices)
        if self.values is not None:
            told = drop_out(self.values[indices], generator)
            if (sketched := self.domain.sketched).any():
                u = torch.rand(count, 1, generator=generator)
                told = told.masked_fill((u < SKETCHED / 2) & ~sketched, torch.nan)
                told = torch.where((u < SKETCHED) & sketched, self.values[indices], told)
            condition = self.domain.condition(mask["atoms"], told)
        given = torch.rand(count, generator=generator) < self.given
        if self.domain.config.network.elements:
            untold = given | (torch.rand(count, generator=generator) >= ELEMENTS_TOLD)
            condition["allowed"] = self.domain.same_element[graphs.classes] | untold[:, None, None]
        noise = self.domain.geometry.prior(x0, mask, generator=generator)
        noise = self.domain.couple(x0, noise, mask, given, condition.get("allowed"))  # type: ignore[arg-type]
        if self.kind is None:
            times: Any = draw_times(count, given, generator)
        else:
            times = split_times(count, given, self.anchor, self.kind, generator)
        return Batch(x0, noise, times, condition, mask)  # type: ignore[arg-type]


def drop_out(values: Tensor, generator: torch.Generator) -> Tensor:
    """Values `[B, P]` with NaN for what the network is not told this time.

    All are hidden in a share UNTOLD of the batch, which learns the unconditional model that guidance needs; else
    each is told with a chance drawn for the molecule, so that one property alone and all together both occur.
    """
    count = len(values)
    chance = torch.rand(count, 1, generator=generator)
    chance = torch.where(torch.rand(count, 1, generator=generator) < UNTOLD, torch.zeros(()), chance)
    hidden = torch.rand(values.shape, generator=generator) >= chance
    return values.masked_fill(hidden, torch.nan)


def split_times(count: int, given: Tensor, anchor: float, kind: str, generator: torch.Generator) -> Split:
    """Times of a distillation batch: many jumps start at 1 and many end at 0; where the graph is given,
    positions alone move, mostly from refinement's start. A share `anchor` stays on the diagonal.
    """
    u, v, source, target, split, stay = torch.rand(6, count, generator=generator)
    s = torch.where(source < 0.35, torch.ones_like(u), u ** (1 / 1.6))
    alone = torch.where(source < 0.6, 0.05 + 0.3 * u, torch.where(source < 0.75, torch.ones_like(u), u))
    s = torch.where(given, alone, s).clamp_min(2e-2)
    t = torch.where(target < 0.35, torch.zeros_like(s), v * s)
    low, high = NARROW
    alpha = 0.02 + 0.96 * split if kind == "progressive" else low * (high / low) ** split
    w = split_point(kind, s, t, alpha)
    diagonal = draw_times(count, given, generator)
    on, zero = stay < anchor, torch.zeros_like(s)

    def fields(value: Tensor) -> dict[str, Tensor]:
        graph = torch.where(given, zero, value)
        moving = {"positions": value, "atoms": graph, "bonds": graph}
        return {name: torch.where(on, diagonal[name], one) for name, one in moving.items()}

    return Split(fields(s), fields(w), fields(t))


def read_data(data: str | Sequence[Chem.Mol]) -> tuple[list[MoleculeRecord], dict[str, str]]:
    """Records of a data set's name (`NAME:SPLIT`, train by default), an .npz or .sdf; their origin."""
    if not isinstance(data, str):
        return [MoleculeRecord(mol, "") for mol in data], {"data": "your own molecules", "data_licence": "unknown"}
    path = Path(data)
    if path.exists():
        records = qm9_gfn2.read(path, None, True) if path.suffix == ".npz" else read_sdf(path)
        return records, {"data": path.name, "data_licence": "unknown"}
    if path.suffix in (".npz", ".sdf"):
        raise UserError(f"{data}: no such file; expected a data set's name, an .npz or an .sdf file")
    name, _, split = data.partition(":")
    entry = registry.entry(name)
    if entry.domain != "molecules" or entry.loader is None:
        raise UserError(f"{data}: is not a set of 3D molecules; expected qm9-gfn2, qm9, c7h10o2, qm7 or a file")
    split = split or ("train" if "train" in entry.files else next(iter(entry.files)))
    origin = {
        "data": f"{entry.title} ({name}:{split})",
        "data_licence": entry.licence,
        "data_citation": entry.citation,
    }
    return registry.load(name, split), origin


def property_values(records: Sequence[MoleculeRecord], names: Sequence[str]) -> np.ndarray:
    """Properties of molecules, `[M, P]`; NaN where a record does not have what GFN2-xTB would say."""
    return np.array([measure(r.mol, names, r.properties) for r in records]).reshape(len(records), len(names))


def training_set(
    records: Sequence[MoleculeRecord], domain: MoleculeDomain, values: np.ndarray | None = None, **options: Any
) -> tuple[MoleculeData, int]:
    """The records a model can hold, ready for `fit`, and how many it cannot (a radical, an unknown class).

    `values` `[M, P]` are the properties the domain knows, measured here when left out.
    """
    names = [p.name for p in domain.config.properties]
    if names and values is None:
        values = property_values(records, names)
    graphs: list[HeavyGraph] = []
    kept: list[int] = []
    for row, rec in enumerate(records):
        try:
            graphs.append(heavy_graph(rec.mol, domain.vocabulary))
        except (KeyError, ValueError):
            continue
        kept.append(row)
    if not graphs:
        known = ", ".join(domain.vocabulary.symbols)
        raise UserError(f"none of the {len(records)} molecules fits the model, which knows {known}")
    told = torch.from_numpy(values[kept]).float() if names and values is not None else None
    return MoleculeData(pad_graphs(graphs), domain, values=told, **options), len(records) - len(graphs)
