"""What a molecule costs: steps, batch sizes and number formats of a model, beside RDKit on the same molecules.

CPU seconds of one thread, everything included: noise, network, decoding, hydrogens and the SDF text. Stability
from distances stands beside each row, so that a format that costs quality shows it.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from torch import Tensor, nn

from sciconsist.domains.molecules.metrics.stability import stability
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.generate import Molecules
from sciconsist.workflows.molecule_output import sdf_record

STEPS = (1, 2, 4, 50)
BATCHES = (1, 16, 64, 256)
FORMATS = ("bf16", "int8", "compiled")
STEPS_OF_OTHERS, BATCH_OF_OTHERS = 4, 64


@dataclass(frozen=True)
class Cost:
    """One row: CPU milliseconds a molecule and what came out."""

    what: str
    steps: int | None
    batch: int | None
    format: str
    n: int
    cpu_ms: float
    molecule_stable: float | None

    def row(self) -> dict[str, Any]:
        return {
            "what": self.what, "steps": self.steps, "batch": self.batch, "format": self.format, "n": self.n,
            "cpu_ms": round(self.cpu_ms, 3), "per_second": round(1000 / self.cpu_ms, 1),
            "molecule_stable": None if self.molecule_stable is None else round(self.molecule_stable, 4),
        }  # fmt: skip


class Narrow(nn.Module):
    """A network in bfloat16 between float32 states."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return {name: value.float() for name, value in self.net(*arguments).items()}


def check_formats(text: str) -> tuple[str, ...]:
    """ "bf16,int8" as a tuple, "none" as an empty one. Raises UserError."""
    names = () if text.strip() == "none" else tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in FORMATS]:
        raise UserError(f"formats {unknown[0]!r}: expected none, or some of {', '.join(FORMATS)}")
    return names


def in_format(model: FlowMap, name: str) -> FlowMap:
    """A copy of the model whose network computes in "bf16", "int8" (weights of linear layers) or is "compiled"."""
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    net = copy.deepcopy(model.net)
    if name == "bf16":
        twin.net = Narrow(net)
    elif name == "int8":
        with warnings.catch_warnings():  # torch announces the move of this function to torchao
            warnings.simplefilter("ignore")
            twin.net = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    else:
        net.compile(dynamic=True)
        twin.net = net
    return twin


def benchmark_molecules(
    model: FlowMap,
    n: int = 256,
    seed: int = 0,
    formats: Sequence[str] = FORMATS,
    tell: Callable[[Cost], None] = lambda cost: None,
) -> list[Cost]:
    """Rows of steps, of batch sizes, of formats and of RDKit; `tell` hears each when it is there.

    The number of torch threads is set to one and put back.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Cost] = []
    made: list[Chem.Mol] = []

    def add(cost: Cost) -> None:
        rows.append(cost)
        tell(cost)

    try:
        for steps in STEPS:
            cost, mols = measured(model, steps, BATCH_OF_OTHERS, "float32", n, seed)
            add(cost)
            made = mols if steps == STEPS_OF_OTHERS else made
        for batch in BATCHES:
            if batch != BATCH_OF_OTHERS:
                add(measured(model, STEPS_OF_OTHERS, batch, "float32", n, seed)[0])
        for name in formats:
            add(measured(in_format(model, name), STEPS_OF_OTHERS, BATCH_OF_OTHERS, name, n, seed)[0])
        for cost in rdkit_costs(made, seed):
            add(cost)
    finally:
        torch.set_num_threads(threads)
    return rows


def measured(model: FlowMap, steps: int, batch: int, format: str, n: int, seed: int) -> tuple[Cost, list[Chem.Mol]]:
    """The cost of `n` raw samples of a model that is warm, and the samples."""
    list(Molecules(model, steps=steps, seed=seed + 1, raw=True, batch_size=batch).take(min(n, 2 * batch)))
    begin = time.process_time()
    mols = list(Molecules(model, steps=steps, seed=seed, raw=True, batch_size=batch).take(n))
    text = [sdf_record(mol) for mol in mols]
    spent = time.process_time() - begin
    assert len(text) == n
    stable = stability(mols).molecule_stable
    return Cost("sciconsist", steps, batch, format, n, 1000 * spent / n, stable), mols


def rdkit_costs(mols: Sequence[Chem.Mol], seed: int) -> list[Cost]:
    """RDKit told what to build: ETKDGv3 alone, then with MMFF94, for the graphs of the same molecules.

    The median: a few strained graphs, which it tries over and over, would make the mean.
    """
    smiles = [Chem.MolToSmiles(Chem.RemoveHs(m)) for m in mols if m.GetNumBonds()]
    if not smiles:
        return []
    rows = []
    for optimise in (False, True):
        spent, built = [], []
        for text in smiles:
            begin = time.process_time()
            mol = Chem.AddHs(Chem.MolFromSmiles(text))
            parameters: Any = rdDistGeom.ETKDGv3()
            parameters.randomSeed = seed
            parameters.timeout = 5
            if rdDistGeom.EmbedMolecule(mol, parameters) == 0:
                if optimise and rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
                    rdForceFieldHelpers.MMFFOptimizeMolecule(mol)
                sdf_record(mol)
                built.append(mol)
            spent.append(time.process_time() - begin)
        stable = stability(built).molecule_stable * len(built) / len(smiles) if built else 0.0
        what = f"RDKit ETKDGv3{' + MMFF94' if optimise else ''} of the same graphs, median"
        rows.append(Cost(what, None, 1, "", len(smiles), 1000 * statistics.median(spent), stable))
    return rows


def table(rows: Sequence[Cost]) -> str:
    """Markdown."""
    lines = ["| what | steps | batch | format | cpu-ms a molecule | molecules a second a core | molecule-stable % |"]
    lines.append("|---|---|---|---|---|---|---|")
    for cost in rows:
        stable = "" if cost.molecule_stable is None else f"{100 * cost.molecule_stable:.1f}"
        cells = (cost.what, cost.steps or "", cost.batch or "", cost.format, f"{cost.cpu_ms:.2f}",
                 f"{1000 / cost.cpu_ms:.0f}", stable)  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
