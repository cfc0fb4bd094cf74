"""Molecules for the core's training loop: where they come from, and what a batch of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rdkit import Chem
from torch import Tensor

from sciconsist.datasets import qm9_gfn2, registry
from sciconsist.datasets.sdf import read_sdf
from sciconsist.domain import Batch
from sciconsist.domains.molecules.adapter import MoleculeDomain, draw_times
from sciconsist.domains.molecules.graphs import HeavyGraph, PaddedGraphs, heavy_graph
from sciconsist.errors import UserError
from sciconsist.times import Split, split_point

NARROW = (0.08, 0.5)  # the split's share of the interval, log-uniform


@dataclass
class MoleculeData:
    """Heavy graphs in memory. A batch brings its own paired noise and times; `kind` None is the diagonal."""

    graphs: PaddedGraphs
    domain: MoleculeDomain
    given: float = 0.2
    anchor: float = 0.25
    kind: str | None = None

    def __len__(self) -> int:
        return len(self.graphs)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        x0, condition, mask = self.domain.encode(self.graphs[indices])
        count = len(indices)
        given = torch.rand(count, generator=generator) < self.given
        noise = self.domain.geometry.prior(x0, mask, generator=generator)
        noise = self.domain.couple(x0, noise, mask, given)  # type: ignore[arg-type]
        if self.kind is None:
            times: Any = draw_times(count, given, generator)
        else:
            times = split_times(count, given, self.anchor, self.kind, generator)
        return Batch(x0, noise, times, condition, mask)  # type: ignore[arg-type]


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


def read_data(data: str | Sequence[Chem.Mol]) -> tuple[list[Chem.Mol], dict[str, str]]:
    """Molecules of a data set's name (`NAME:SPLIT`, train by default), an .npz or .sdf; their origin."""
    if not isinstance(data, str):
        return list(data), {"data": "your own molecules", "data_licence": "unknown"}
    path = Path(data)
    if path.exists():
        records = qm9_gfn2.read(path, None, True) if path.suffix == ".npz" else read_sdf(path)
        return [r.mol for r in records], {"data": path.name, "data_licence": "unknown"}
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
    return [r.mol for r in registry.load(name, split)], origin


def heavy_graphs(mols: Sequence[Chem.Mol], domain: MoleculeDomain) -> tuple[list[HeavyGraph], int]:
    """Graphs of molecules the model can hold, and how many it cannot (a radical, an unknown class)."""
    graphs = []
    for mol in mols:
        try:
            graphs.append(heavy_graph(mol, domain.vocabulary))
        except (KeyError, ValueError):
            continue
    if not graphs:
        known = ", ".join(domain.vocabulary.symbols)
        raise UserError(f"none of the {len(mols)} molecules fits the model, which knows {known}")
    return graphs, len(mols) - len(graphs)
