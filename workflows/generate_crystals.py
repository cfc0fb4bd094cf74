"""Generating crystals: N samples as they come (`raw`), or N that can be worked with, with their origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Structure

from sciconsist import __version__
from sciconsist.domains.crystals.adapter import PROPERTIES, composition_of
from sciconsist.domains.crystals.composition import (
    atoms_of,
    charge_balanced,
    formula_units,
    known_elements,
)
from sciconsist.domains.crystals.crystals import structure_of
from sciconsist.domains.crystals.files import NOTE
from sciconsist.domains.crystals.generate import Plan, Request, Sample, draw_sizes
from sciconsist.domains.crystals.generate import generate as draw
from sciconsist.domains.crystals.hosts import Host
from sciconsist.domains.crystals.metrics.matching import Catalogue
from sciconsist.domains.crystals.symmetry import TOLERANCE, detect, plan_orbits
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.random import stream
from sciconsist.workflows.devices import on_device
from sciconsist.workflows.models import load_for

TRIES = 10  # samples drawn for each crystal asked for, before we give up
STALE = 20  # duplicates without a new crystal after which there seem to be no more
MORE = 16  # samples at least in a further batch, once some were rejected
NEAR = 0.5  # of the sum of two atomic radii: nearer atoms are no crystal
ATTEMPTS = 40  # sizes and compositions tried for a space group that cannot hold them
BALANCING = 50  # compositions drawn for one whose charges balance
LARGEST = 64  # atoms of one formula unit that we still try, though the model was trained on smaller cells
Advance = Callable[[int], None]


@dataclass
class Counts:
    """What became of the samples: drawn = written + rejected (by reason)."""

    requested: int = 0
    drawn: int = 0
    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        return {
            "requested": self.requested, "written": self.written, "drawn": self.drawn,
            "rejected": sum(self.rejected.values()), "rejected_why": dict(sorted(self.rejected.items())),
        }  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What is asked of the crystals; what is None is free.

    `elements`: symbols that may occur. `formula`: reduced formula. `atoms`: number or range, "4:20". `properties`:
    e_above_hull (eV/atom) and band_gap (eV), a number or a range (low, high). `charge_balanced` keeps compositions whose
    common oxidation states can add up to zero.
    """

    elements: Sequence[str] | None = None
    formula: str | None = None
    atoms: int | tuple[int, int] | str | None = None
    space_group: int | None = None
    properties: Mapping[str, float | tuple[float, float]] | None = None
    charge_balanced: bool = False
    host: Host | None = None


def crystals(
    n: int,
    steps: int = 8,
    seed: int = 0,
    raw: bool = False,
    model: FlowMap | str | Path | None = None,
    batch_size: int | None = None,
    device: str | None = "cpu",
    plan: Plan | None = None,
    progress: Advance = lambda n: None,
    **wish: Any,
) -> list[Structure]:
    """`n` crystals as pymatgen Structures, Niggli-reduced, their origin in `.properties`; `wish` as in `Wish`.

    The default returns usable crystals only, fewer than `n` where the request leaves too few; `raw` returns the first
    `n` samples in order. Raises UserError.
    """
    found = model if isinstance(model, FlowMap) else load_for("crystals", model)
    stream_ = Crystals(found, Wish(**wish), steps, seed, raw, batch_size, device, plan)
    return list(stream_.take(n, progress))


class Crystals:
    """One request: `take(n)` yields its crystals, `counts` says what was drawn and rejected on the way."""

    def __init__(
        self, model: FlowMap, wish: Wish, steps: int = 8, seed: int = 0, raw: bool = False,
        batch_size: int | None = None, device: str | None = "cpu", plan: Plan | None = None,
    ) -> None:  # fmt: skip
        if seed < 0:
            raise UserError(f"seed {seed}: expected 0 or more")
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch size {batch_size}: expected at least 1")
        self.domain, self.model = model.domain, on_device(model, device)
        self.plan = plan or plan_for(model, steps, wish)
        self.seed, self.raw, self.wish = int(seed), raw, wish
        self.batch_size = batch_size or 256
        self.counts = Counts()
        self.units = None if wish.formula is None else formula_units(wish.formula)
        self.allowed = self._allowed()
        self.sizes = self._sizes()
        self.values = property_ranges(wish.properties)
        if wish.space_group is not None and not 1 <= wish.space_group <= 230:
            raise UserError(f"space group {wish.space_group}: expected 1 to 230")
        if wish.host is not None and (wish.space_group, wish.formula, wish.elements, wish.atoms) != (None,) * 4:
            raise UserError("a host brings its own elements, formula, size and symmetry: leave those out")

    # --- what is asked

    def _allowed(self) -> np.ndarray | None:
        known = self.domain.config.elements
        if self.units is not None:
            known_elements([symbol_of(z) for z in self.units], known, "formula")
        if self.wish.elements is None:
            return None
        numbers = known_elements(self.wish.elements, known)
        if self.units is not None and (beyond := sorted(set(self.units) - set(numbers))):
            raise UserError(f"formula {self.wish.formula}: has {symbol_of(beyond[0])}, which elements leaves out")
        return np.isin(known, numbers)

    def _sizes(self) -> dict[int, int]:
        """Histogram of atom counts that the request leaves."""
        histogram = size_range(self.domain.config.size_histogram, self.wish.atoms)
        if self.units is None:
            return histogram
        unit = sum(self.units.values())
        if fitting := {n: count for n, count in histogram.items() if n % unit == 0}:
            return fitting
        if self.wish.atoms is not None:
            raise UserError(
                f"atoms {self.wish.atoms}: {self.wish.formula} has {unit} a formula unit; ask for a multiple"
            )
        if unit > LARGEST:
            raise UserError(f"formula {self.wish.formula}: {unit} atoms a formula unit, expected at most {LARGEST}")
        return {unit: 1}

    def request(self, index: int, size: int, numbers: np.ndarray | None) -> Request:
        """Sample `index` of the seed, of `size` atoms, of the elements `numbers` where they are known."""
        rng = np.random.default_rng(stream(self.seed, "request", index).initial_seed())
        values = tuple(low if not low < high else float(rng.uniform(low, high)) for low, high in self.values)
        if self.wish.host is not None:
            return self.wish.host.request(rng, self.domain, values)  # type: ignore[arg-type]
        if self.wish.space_group is None:
            return Request(size, numbers, self.allowed, values)  # type: ignore[arg-type]
        orbits = plan_orbits(self.wish.space_group, size, numbers, rng)
        given = orbits.numbers if numbers is not None else None
        return Request(size, given, self.allowed, values, self.wish.space_group, orbits=orbits)  # type: ignore[arg-type]

    def requests(self, indices: Sequence[int]) -> list[Request]:
        """What the samples of these indices are asked to be: sizes, then compositions, then orbits of a space group."""
        sizes = draw_sizes(self.sizes, indices, self.seed)
        made: dict[int, Request] = {}
        failed: dict[tuple[int, int, str], UserError] = {}
        for attempt in range(1 if self.wish.space_group is None else ATTEMPTS):
            if not (left := [k for k in range(len(indices)) if k not in made]):
                break
            if attempt:  # a size or composition that the space group cannot hold gives way to another
                for k in left:
                    (sizes[k],) = draw_sizes(self.sizes, [indices[k]], self.seed, attempt)
            found = self.compositions([indices[k] for k in left], [sizes[k] for k in left], attempt)
            for k, numbers in zip(left, found):
                if (key := (k, sizes[k], str(numbers))) in failed:
                    continue
                try:
                    made[k] = self.request(indices[k], sizes[k], numbers)
                except UserError as error:
                    if self.wish.space_group is None:
                        raise
                    failed[key] = error
        if len(made) < len(indices):
            raise next(iter(failed.values()))
        return [made[k] for k in range(len(indices))]

    def compositions(self, indices: Sequence[int], sizes: Sequence[int], attempt: int = 0) -> list[np.ndarray | None]:
        """Atomic numbers `[N]` of each sample: the formula's, or drawn; None where each site shall choose its own."""
        if self.units is not None:
            return [atoms_of(self.units, n // sum(self.units.values())) for n in sizes]
        network, elements = composition_of(self.model), np.array(self.domain.config.elements)
        if self.wish.host is not None or network is None:
            return [None] * len(sizes)
        temperature = self.model.card.get("sampler", {}).get("composition", {}).get("temperature", 1.0)
        found: list[np.ndarray | None] = [None] * len(sizes)
        left = list(range(len(sizes)))
        for redrawn in range(BALANCING if self.wish.charge_balanced else 1):
            purpose = [stream(self.seed, "composition", attempt, redrawn, indices[k]) for k in left]
            u = torch.stack(
                [torch.rand(2 * network.config.largest + 1, generator=g, dtype=torch.float64) for g in purpose]
            )
            for k, classes in zip(left, network.draw([sizes[k] for k in left], self.allowed, u, temperature)):
                found[k] = elements[classes]
            if self.wish.charge_balanced:
                left = [k for k in left if not charge_balanced(found[k])]  # type: ignore[arg-type]
            if not left:
                break
        return found

    # --- what comes out

    def take(self, n: int, progress: Advance = lambda n: None) -> Iterator[Structure]:
        """Crystals in the order of their sample indices; the same for any batch size."""
        if n < 1:
            raise UserError(f"{n} crystals: expected at least 1")
        counts = self.counts = Counts(requested=n)
        seen = Catalogue()
        limit = n if self.raw else TRIES * n + 50
        stale = 0
        while counts.written < n and counts.drawn < limit and stale < STALE:
            size = min(self.batch_size, max(n - counts.written, MORE if counts.drawn else 1), limit - counts.drawn)
            indices = range(counts.drawn, counts.drawn + size)
            options: dict[str, Any] = {"seed": self.seed, "first": counts.drawn, "batch_size": size}
            for sample in draw(self.model, self.requests(indices), self.plan, **options):
                counts.drawn += 1
                structure = None if not sample.finite else self.structure(sample)
                reason = "not finite" if structure is None else "" if self.raw else self.fault(structure, sample, seen)
                if reason or structure is None:
                    counts.rejected[reason] += 1
                    stale += reason == "duplicate"
                    if stale == STALE:
                        break
                    continue
                counts.written, stale = counts.written + 1, 0
                structure.properties.update(self.origin(sample.index))
                progress(1)
                yield structure
                if counts.written == n:
                    break

    def structure(self, sample: Sample) -> Structure:
        if self.wish.host is not None:
            return self.wish.host.finish(sample)
        return structure_of(sample.numbers, sample.frac, sample.cell).get_reduced_structure("niggli")

    def fault(self, structure: Structure, sample: Sample, seen: Catalogue) -> str:
        """Why a crystal is left out, or "": atoms too near, another space group, charges, a duplicate."""
        if too_near(structure):
            return "atoms too near"
        if self.wish.charge_balanced and not charge_balanced(sample.numbers):
            return "charges do not balance"
        if (
            self.wish.space_group is not None
            and detect(sample.numbers, sample.frac, sample.cell) != self.wish.space_group
        ):
            return "another space group"
        if seen.find(structure) is not None:
            return "duplicate"
        seen.add(sample.index, structure)
        return ""

    def origin(self, index: int) -> dict[str, Any]:
        """What made a crystal, and from what."""
        card = self.model.card
        values = {
            "generator": f"sciconsist {__version__}", "model": card.get("name", "unnamed"),
            "model_version": card.get("version", __version__), "model_sha256": card.get("sha256", ""),
            "seed": self.seed, "index": index, "steps": self.plan.steps, "note": NOTE,
            "selection": "raw" if self.raw else "usable",
            "training_data": card.get("data", "unknown"),
            "training_data_licence": card.get("data_licence", "unknown"),
        }  # fmt: skip
        if self.wish.space_group is not None:
            values |= {"space_group_asked": self.wish.space_group, "space_group_tolerance": f"{TOLERANCE} Å"}
        if self.wish.host is not None:
            values["host"] = self.wish.host.name
        return values


def too_near(structure: Structure) -> bool:
    """Whether two atoms, images included, are nearer than half the sum of their atomic radii."""
    radii = np.array([float(site.specie.atomic_radius or 1.5) for site in structure])
    first, second, _, distance = structure.get_neighbor_list(2 * NEAR * float(radii.max()))
    return bool((distance < NEAR * (radii[first] + radii[second])).any())


def symbol_of(number: int) -> str:
    from pymatgen.core import Element

    return Element.from_Z(int(number)).symbol


def plan_for(model: FlowMap, steps: int, wish: Wish) -> Plan:
    """How a model divides so many evaluations: as its card says, for elements given or free, or a host."""
    if steps < 1:
        raise UserError(f"{steps} steps: expected at least 1")
    given = wish.formula is not None or composition_of(model) is not None
    kind = "host" if wish.host is not None else "prediction" if given else "de_novo"
    sampler = model.card.get("sampler", {})
    return Plan(steps, **sampler.get(kind, sampler.get("prediction", {}) if kind == "host" else {}))


def size_range(histogram: dict[int, int], atoms: int | tuple[int, int] | str | None) -> dict[int, int]:
    """The part of the training histogram that a request for atom counts leaves."""
    known = f"the model knows {min(histogram)} to {max(histogram)}"
    if atoms is None:
        return histogram
    try:
        parts = [int(p) for p in atoms.split(":")] if isinstance(atoms, str) else [int(v) for v in np.atleast_1d(atoms)]
        low, high = parts[0], parts[-1]
    except (ValueError, TypeError, IndexError):
        parts, low, high = [], 1, 0
    if not 1 <= len(parts) <= 2 or low > high or low < 1:
        raise UserError(f"atoms {atoms!r}: expected a number of atoms, 14, or a range, 4:20; {known}")
    if low < min(histogram) or high > max(histogram):
        raise UserError(f"atoms {atoms!r}: beyond what the model was trained on; {known}")
    return {n: histogram.get(n, 0) + 1 for n in range(low, high + 1)}


def property_ranges(properties: Mapping[str, float | tuple[float, float]] | None) -> list[tuple[float, float]]:
    """(low, high) of each property the network may be told, NaN where it is not. Raises UserError."""
    asked = dict(properties or {})
    if unknown := sorted(set(asked) - set(PROPERTIES)):
        raise UserError(f"property {unknown[0]!r}: expected one of {', '.join(PROPERTIES)}")
    ranges = []
    for name in PROPERTIES:
        value = asked.get(name, np.nan)
        low, high = (float(v) for v in (value if isinstance(value, tuple) else (value, value)))
        if name in asked and not (np.isfinite([low, high]).all() and low <= high):
            raise UserError(f"property {name}={value}: expected a number, or a range with its lower end first")
        ranges.append((low, high))
    return ranges
