"""Generating molecules: N samples as they come (`raw`), or N a chemist can use, with their origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from sciconsist import __version__
from sciconsist.domains.molecules.generate import Plan, Sample, draw_sizes, plan_steps
from sciconsist.domains.molecules.generate import generate as draw
from sciconsist.domains.molecules.hydrogens import FAILED
from sciconsist.domains.molecules.metrics.validity import canonical_smiles, known_smiles, strict_molecule
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.devices import on_device
from sciconsist.workflows.models import load_for

NOTE = "computer-generated, not synthesised or tested"
TRIES = 10  # samples drawn for each molecule asked for, before we give up
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


def generate(
    domain: str,
    n: int,
    steps: int = 4,
    seed: int = 0,
    raw: bool = False,
    atoms: int | tuple[int, int] | str | None = None,
    elements: Sequence[str] | None = None,
    model: FlowMap | str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = "cpu",
    novel_to: Collection[str] | None = None,
    plan: Plan | None = None,
    progress: Advance = lambda n: None,
) -> list[Chem.Mol]:
    """`n` molecules with explicit hydrogens, one conformer and their origin in properties.

    The default returns usable molecules only, fewer than `n` where the request leaves too few; `raw` returns
    the first `n` samples as the network made them, in order. `atoms` counts heavy atoms, `elements` are the
    only ones allowed (name H to have hydrogens), `novel_to` are SMILES to stay away from. Raises UserError.
    """
    if domain != "molecules":
        raise UserError(f"cannot generate {domain!r} yet; expected molecules")
    stream = Molecules(
        load_for(domain, model) if not isinstance(model, FlowMap) else model,
        steps=steps, seed=seed, raw=raw, atoms=atoms, elements=elements, batch_size=batch_size, device=device,
        novel_to=novel_to, plan=plan,
    )  # fmt: skip
    return list(stream.take(n, progress))


class Molecules:
    """One request: `take(n)` yields its molecules, `counts` says what was drawn and rejected on the way."""

    def __init__(
        self,
        model: FlowMap,
        steps: int = 4,
        seed: int = 0,
        raw: bool = False,
        atoms: int | tuple[int, int] | str | None = None,
        elements: Sequence[str] | None = None,
        batch_size: int | None = None,
        device: str | None = "cpu",
        novel_to: Collection[str] | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.model = on_device(model, device)
        self.plan = plan or plan_for(model, steps)
        self.seed, self.raw = check_seed(seed), raw
        self.histogram = size_range(model.domain.config.size_histogram, atoms)
        self.allowed = element_mask(model.domain.vocabulary, elements)
        self.batch_size = 64 if batch_size is None else batch_size
        if self.batch_size < 1:
            raise UserError(f"batch size {batch_size}: expected at least 1")
        self.avoid = known_smiles(novel_to) if novel_to is not None else None
        self.counts = Counts()

    def take(self, n: int, progress: Advance = lambda n: None) -> Iterator[Chem.Mol]:
        """Molecules in the order of their sample indices; the same for any batch size."""
        if n < 1:
            raise UserError(f"{n} molecules: expected at least 1")
        counts = self.counts = Counts(requested=n)
        seen: set[str] = set()
        limit = n if self.raw else TRIES * n + 200
        while counts.written < n and counts.drawn < limit:
            size = min(self.batch_size, n - counts.written, limit - counts.drawn)
            for index, sample in self.samples(counts.drawn, size):
                counts.drawn += 1
                reason, key = ("", "") if self.raw else usable(sample, seen, self.avoid)
                if reason or sample is None:
                    counts.rejected[reason] += 1
                    if not self.raw:
                        continue
                    mol = _no_molecule()
                else:
                    mol = sample.mol
                    counts.repaired += sample.graph.repaired
                seen.add(key)
                counts.written += 1
                self.label(mol, index, sample)
                progress(1)
                yield mol

    def samples(self, first: int, count: int) -> Iterator[tuple[int, Sample | None]]:
        """Samples of a run of indices; None where the network's output was not finite."""
        indices = range(first, first + count)
        drawn = draw_sizes(self.histogram, indices, self.seed)
        sizes = [0] * count
        for index, size in zip(indices, drawn):
            sizes[index % count] = size
        options: dict[str, Any] = {
            "seed": self.seed,
            "batch_size": count,
            "allowed": self.allowed,
            "sizes": sizes,
        }
        try:
            made: list[Sample | None] = list(draw(self.model, count, self.plan, first=first, **options))
        except ValueError:  # some sample is not finite: find out which
            made = [self._alone(index, size) for index, size in zip(indices, drawn)]
        yield from zip(indices, made)

    def _alone(self, index: int, size: int) -> Sample | None:
        options: dict[str, Any] = {"seed": self.seed, "allowed": self.allowed, "sizes": [size]}
        try:
            return next(iter(draw(self.model, 1, self.plan, first=index, **options)))
        except ValueError:
            return None

    def label(self, mol: Chem.Mol, index: int, sample: Sample | None) -> None:
        set_origin(mol, self.model, self.seed, index, self.plan.steps)
        if sample is not None:
            mol.SetProp("decoded", "repaired" if sample.graph.repaired else "as predicted")
        mol.SetProp("selection", "raw" if self.raw else "usable")


def usable(sample: Sample | None, seen: Collection[str], avoid: Collection[str] | None) -> tuple[str, str]:
    """Why a sample is left out, or "" with its SMILES: sanitised, one fragment, no radical, no duplicate."""
    if sample is None or not np.isfinite(sample.mol.GetConformer().GetPositions()).all():
        return "not finite", ""
    if not sample.graph.consistent or sample.mol.HasProp(FAILED):
        return "no valid graph", ""
    if strict_molecule(sample.mol) is None:
        return "radical or fragments", ""
    key = canonical_smiles(sample.mol)
    if key is None:
        return "no SMILES", ""
    if key in seen:
        return "duplicate", key
    if avoid is not None and key in avoid:
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


def plan_for(model: FlowMap, steps: int) -> Plan:
    """How a model divides so many network evaluations: as its card says, or else as measured best."""
    if steps < 1:
        raise UserError(f"{steps} steps: expected at least 1")
    own = model.card.get("plans", {}).get(str(steps))
    return Plan(**own) if own else plan_steps(steps)


def check_seed(seed: int) -> int:
    if seed < 0:
        raise UserError(f"seed {seed}: expected 0 or more")
    return int(seed)


def size_range(histogram: dict[int, int], atoms: int | tuple[int, int] | str | None) -> dict[int, int]:
    """The part of the training histogram that a request for heavy-atom counts leaves."""
    known = f"the model knows {min(histogram)} to {max(histogram)}"
    if atoms is None:
        return histogram
    try:
        parts = [int(p) for p in atoms.split(":")] if isinstance(atoms, str) else list(np.atleast_1d(atoms))
        low, high = int(parts[0]), int(parts[-1])
    except (ValueError, TypeError, IndexError):
        parts, low, high = [], 1, 0
    if not 1 <= len(parts) <= 2 or low > high:
        raise UserError(f"atoms {atoms!r}: expected a number of heavy atoms, 9, or a range, 5:9; {known}")
    if low < min(histogram) or high > max(histogram):
        raise UserError(f"atoms {atoms!r}: heavy atoms beyond what the model was trained on; {known}")
    if kept := {n: count for n, count in histogram.items() if low <= n <= high}:
        return kept
    raise UserError(f"atoms {atoms!r}: no such size in the training data; {known}")


def element_mask(vocabulary: Vocabulary, elements: Sequence[str] | None) -> np.ndarray | None:
    """Classes `[K]` made of these elements alone; without H only atoms that bear no hydrogen."""
    if elements is None:
        return None
    wanted = {str(e).strip() for e in elements}
    known = {*vocabulary.symbols, "H"}
    if unknown := sorted(wanted - known):
        raise UserError(f"elements {', '.join(map(repr, unknown))}: the model knows {', '.join(sorted(known))}")
    if not wanted - {"H"}:
        raise UserError("elements: at least one heavier than H is needed")
    return np.array([c.symbol in wanted and ("H" in wanted or c.hydrogens == 0) for c in vocabulary.classes])


def _no_molecule() -> Chem.Mol:
    mol = Chem.Mol()
    mol.AddConformer(Chem.Conformer(0))
    mol.SetProp(FAILED, "the network's output is not finite")
    return mol
