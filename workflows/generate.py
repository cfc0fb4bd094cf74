"""Generating molecules: N samples as they come (`raw`), or N a chemist can use, with their origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from sciconsist import __version__
from sciconsist.domains.molecules.generate import Plan, Sample
from sciconsist.domains.molecules.generate import generate as draw
from sciconsist.domains.molecules.gfn2 import CalculationFailed
from sciconsist.domains.molecules.hydrogens import FAILED
from sciconsist.domains.molecules.metrics.validity import canonical_smiles, known_smiles, strict_molecule
from sciconsist.domains.molecules.properties import PROPERTIES, gfn2_results, measure
from sciconsist.domains.molecules.wishes import Wish
from sciconsist.errors import UserError
from sciconsist.extras import need
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.devices import on_device
from sciconsist.workflows.models import load_for
from sciconsist.workflows.molecule_requests import (
    Range,
    check_guidance,
    element_mask,
    formula_counts,
    given_atoms,
    plan_for,
    property_ranges,
    size_range,
    sizes_beside,
)

NOTE = "computer-generated, not synthesised or tested"
CANDIDATES = 8  # usable samples that the one nearest to a checked value is chosen from
FARTHER = "farther from the value"
TRIES, TRIES_GIVEN = 10, 100  # samples drawn for each molecule asked for, before we give up
GENERATORS = {  # a domain's `function(n, **request)`, imported when it is asked
    "molecules": "sciconsist.workflows.generate:molecules",
    "crystals": "sciconsist.workflows.generate_crystals:crystals",
}
Advance = Callable[[int], None]


@dataclass
class Counts:
    """What became of the samples: drawn = written + rejected (by reason)."""

    requested: int = 0
    drawn: int = 0
    written: int = 0
    repaired: int = 0  # of those written: the decoder changed the likeliest graph to a consistent one
    rejected: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        return {
            "requested": self.requested, "written": self.written, "drawn": self.drawn,
            "repaired": self.repaired,
            "rejected": sum(self.rejected.values()), "rejected_why": dict(sorted(self.rejected.items())),
        }  # fmt: skip


def generate(domain: str, n: int, **request: Any) -> list[Any]:
    """`n` objects of a domain: RDKit molecules, pymatgen structures. `request` goes to the domain's own generator.

    `generate("molecules", n=100, steps=4, seed=0)`: see `molecules`. Raises UserError.
    """
    if domain not in GENERATORS:
        raise UserError(f"cannot generate {domain!r}; expected one of {', '.join(GENERATORS)}")
    module, function = GENERATORS[domain].split(":")
    return getattr(import_module(module), function)(n, **request)


def molecules(
    n: int, *, model: FlowMap | str | Path | None = None, progress: Advance = lambda n: None, **request: Any
) -> list[Chem.Mol]:
    """`n` molecules with explicit hydrogens, one conformer and their origin in properties.

    The default returns usable molecules only, fewer than `n` where the request leaves too few; with `raw=True`
    the first `n` samples as the network made them, in order. `request`: see `Molecules`. Raises UserError.
    """
    ready = model if isinstance(model, FlowMap) else load_for("molecules", model)
    return list(Molecules(ready, **request).take(n, progress))


class Molecules:
    """One request: `take(n)` yields its molecules, `counts` says what was drawn and rejected on the way.

    `atoms` counts heavy atoms (9 or "5:9"). `elements` are the only ones allowed (name H to have hydrogens); with
    `every_element` each must occur. `formula`, C7H10O2, says every atom. `properties` are what the model is told,
    {"gap": 6.5, "logp": "1:2"}, the more strongly the larger `guidance` (which doubles the evaluations of a jump); a
    range that RDKit can check is kept to, with `check` also one that takes GFN2-xTB, and a value is come near to: what
    comes out is the nearest of CANDIDATES samples. `scaffold`, an SDF file, or
    `linker`, several, are atoms that come out where they are. `novel_to` are SMILES to stay away from:
    a new graph nearly as likely is taken where there is one, and what is still known is left out (raw: not).
    """

    def __init__(
        self,
        model: FlowMap,
        steps: int = 4,
        seed: int = 0,
        raw: bool = False,
        atoms: int | tuple[int, int] | str | None = None,
        elements: Sequence[str] | None = None,
        every_element: bool = False,
        properties: Mapping[str, Range] | None = None,
        guidance: float = 1.0,
        check: bool = False,
        formula: str | None = None,
        scaffold: str | Path | None = None,
        linker: Sequence[str | Path] | None = None,
        batch_size: int | None = None,
        device: str | None = "cpu",
        novel_to: Collection[str] | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.model = on_device(model, device)
        self.seed, self.raw, self.check = check_seed(seed), raw, check
        if check:
            need("tblite", "molecules", "checking properties with GFN2-xTB")
            if raw or not properties:
                raise UserError(
                    "check: drops what misses the properties asked for; not with raw samples, nor without any"
                )
        counts = formula_counts(model, formula)
        if counts and not (atoms is None and elements is None and scaffold is None and linker is None):
            raise UserError("formula: says every atom; leave out atoms, elements, scaffold and linker")
        heavy = sum(n for symbol, n in counts.items() if symbol != "H")
        self.histogram = size_range(model.domain.config.size_histogram, heavy or atoms)
        self.wish = Wish(
            property_ranges(model, properties),
            check_guidance(guidance, properties),
            counts,
            element_mask(model.domain.vocabulary, elements),
            given_atoms(model, scaffold, linker),
            known_smiles(novel_to or ()),
        )
        if self.wish.given is not None:
            self.histogram = sizes_beside(self.histogram, self.wish.given)
        self.plan = plan or plan_for(model, steps, guided=self.wish.guidance != 1.0)
        self.every = {e.strip() for e in elements or ()} if every_element else set()
        self.values = {name: low for name, (low, high) in self.wish.properties.items() if low == high}
        self.candidates = CANDIDATES if check and self.values else 1
        self.batch_size = 64 if batch_size is None else batch_size
        if self.batch_size < 1:
            raise UserError(f"batch size {batch_size}: expected at least 1")
        self.counts = Counts()

    def take(self, n: int, progress: Advance = lambda n: None) -> Iterator[Chem.Mol]:
        """Molecules in the order of their sample indices; the same for any batch size."""
        if n < 1:
            raise UserError(f"{n} molecules: expected at least 1")
        counts = self.counts = Counts(requested=n)
        for index, sample in self.first(n) if self.raw else self.chosen(n):
            mol = _no_molecule() if sample is None else sample.mol
            counts.repaired += sample is not None and sample.graph.repaired
            counts.written += 1
            self.label(mol, index, sample)
            progress(1)
            yield mol

    def first(self, n: int) -> Iterator[tuple[int, Sample | None]]:
        """The first samples as they come."""
        for begin in range(0, n, self.batch_size):
            for index, sample in self.samples(begin, min(self.batch_size, n - begin)):
                self.counts.drawn += 1
                yield index, sample

    def chosen(self, n: int) -> Iterator[tuple[int, Sample]]:
        """Usable samples that are what was asked for; of so many `candidates` in turn the one nearest to the values."""
        counts, seen = self.counts, set[str]()
        pool: list[tuple[int, Sample, str]] = []
        limit = self.candidates * (TRIES if self.wish.given is None else TRIES_GIVEN) * n + 200
        while counts.written < n and counts.drawn < limit:
            size = min(self.batch_size, self.candidates * (n - counts.written), limit - counts.drawn)
            for index, sample in self.samples(counts.drawn, size):
                counts.drawn += 1
                reason, key = usable(sample, seen, self.wish.known)
                if not reason and sample is not None:
                    reason = self.unasked(sample)
                if reason or sample is None:
                    counts.rejected[reason] += 1
                else:
                    pool.append((index, sample, key))
                if len(pool) == self.candidates or (pool and counts.drawn == limit):
                    nearest = min(pool, key=lambda one: self.distance(one[1]))
                    if len(pool) > 1:
                        counts.rejected[FARTHER] += len(pool) - 1
                    pool.clear()
                    seen.add(nearest[2])
                    yield nearest[0], nearest[1]

    def unasked(self, sample: Sample) -> str:
        """Why a usable sample is not what was asked for, or ""."""
        if self.wish.formula and self.wish.formula != Counter(a.GetSymbol() for a in sample.mol.GetAtoms()):
            return "another formula"
        if self.every and self.every != {a.GetSymbol() for a in sample.mol.GetAtoms()}:
            return "an element is missing"
        try:
            sample.measured = self.measured(sample.mol)
        except CalculationFailed:
            return "GFN2-xTB did not converge"
        for name, (low, high) in self.wish.properties.items():
            if low < high and not low <= sample.measured.get(name, low) <= high:
                return f"{name} outside the range"
        return ""

    def distance(self, sample: Sample) -> float:
        """How far a sample is from the values asked for, in deviations of the training data."""
        std = {p.name: p.std for p in self.model.domain.config.properties}
        return sum(abs(sample.measured.get(name, value) - value) / std[name] for name, value in self.values.items())

    def measured(self, mol: Chem.Mol) -> dict[str, float]:
        """Properties asked for, of what came out: RDKit's, and GFN2-xTB's where they are checked."""
        names = list(self.wish.properties)
        asked = self.check and any(PROPERTIES[name].computed is None for name in names)
        values = measure(mol, names, gfn2_results(mol) if asked else None)
        return {name: float(value) for name, value in zip(names, values) if np.isfinite(value)}

    def samples(self, first: int, count: int) -> Iterator[tuple[int, Sample | None]]:
        """Samples of a run of indices; None where the network's output was not finite."""
        options: dict[str, Any] = {"seed": self.seed, "wish": self.wish, "histogram": self.histogram}
        try:
            made: list[Sample | None] = list(
                draw(self.model, count, self.plan, first=first, batch_size=count, **options)
            )
        except ValueError:  # some sample is not finite: find out which
            made = [self._alone(index, options) for index in range(first, first + count)]
        yield from enumerate(made, first)

    def _alone(self, index: int, options: dict[str, Any]) -> Sample | None:
        try:
            return next(iter(draw(self.model, 1, self.plan, first=index, **options)))
        except ValueError:
            return None

    def label(self, mol: Chem.Mol, index: int, sample: Sample | None) -> None:
        set_origin(mol, self.model, self.seed, index, self.plan.steps)
        if sample is not None:
            mol.SetProp("decoded", "repaired" if sample.graph.repaired else "as predicted")
            for name, value in sample.told.items():
                mol.SetProp(f"requested_{name}", f"{value:.6g}")
            if self.raw and sample.told and mol.GetNumBonds():
                sample.measured = self.measured(mol)
            for name, value in sample.measured.items():
                mol.SetProp(name, f"{value:.6g}")
            if self.wish.given is not None:
                mol.SetProp("given_atoms", str(len(self.wish.given)))
        mol.SetProp("selection", "raw" if self.raw else "usable")


def usable(sample: Sample | None, seen: Collection[str], known: Collection[str]) -> tuple[str, str]:
    """Why a sample is left out, or "" with its SMILES: sanitised, one fragment, no radical, no duplicate."""
    if sample is None or not np.isfinite(sample.mol.GetConformer().GetPositions()).all():
        return "not finite", ""
    if not sample.graph.consistent or sample.mol.HasProp(FAILED):
        return "no valid graph", ""
    if sample.wrong:
        return sample.wrong, ""
    if strict_molecule(sample.mol) is None:
        return "radical or fragments", ""
    key = canonical_smiles(sample.mol)
    if key is None:
        return "no SMILES", ""
    if key in seen:
        return "duplicate", key
    if key in known:
        return "known", key
    return "", key


def set_origin(mol: Chem.Mol, model: FlowMap, seed: int, index: int, steps: int) -> None:
    """Properties that say what made a molecule, and from what."""
    card = model.card
    name = str(card.get("name", "unnamed"))
    mol.SetProp("_Name", f"{name}-{seed}-{index}")
    values = {
        "generator": f"sciconsist {__version__}", "model": name,
        "model_version": card.get("version", __version__),
        "model_sha256": card.get("sha256", ""), "seed": seed, "index": index, "steps": steps, "note": NOTE,
        "training_data": card.get("data", "unknown"),
        "training_data_licence": card.get("data_licence", "unknown"),
    }  # fmt: skip
    for key, value in values.items():
        if str(value):
            mol.SetProp(key, str(value))


def check_seed(seed: int) -> int:
    if seed < 0:
        raise UserError(f"seed {seed}: expected 0 or more")
    return int(seed)


def _no_molecule() -> Chem.Mol:
    mol = Chem.Mol()
    mol.AddConformer(Chem.Conformer(0))
    mol.SetProp(FAILED, "the network's output is not finite")
    return mol
