"""Generating crystals: N samples as they come (`raw`), or N that can be worked with, with their origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from sciconsist import __version__
from sciconsist.domains.crystals.composition import charge_balanced
from sciconsist.domains.crystals.crystals import structure_of
from sciconsist.domains.crystals.files import NOTE
from sciconsist.domains.crystals.generate import Plan, Sample
from sciconsist.domains.crystals.generate import generate as draw
from sciconsist.domains.crystals.metrics.matching import Catalogue
from sciconsist.domains.crystals.symmetry import TOLERANCE, detect
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.crystal_requests import Requests, Wish, plan_for
from sciconsist.workflows.devices import on_device
from sciconsist.workflows.models import load_for

TRIES = 10  # samples drawn for each crystal asked for, before we give up
STALE = 20  # duplicates without a new crystal after which there seem to be no more
MORE = 16  # samples at least in a further batch, once some were rejected
NEAR = 0.5  # of the sum of two atomic radii: nearer atoms are no crystal
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
        self.asked = Requests(self.model, wish, self.seed)

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
            for sample in draw(self.model, self.asked.of(indices), self.plan, **options):
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
                structure.properties.update(self.origin(sample))
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

    def origin(self, sample: Sample) -> dict[str, Any]:
        """What made a crystal, and from what."""
        card = self.model.card
        values = {
            "generator": f"sciconsist {__version__}", "model": card.get("name", "unnamed"),
            "model_version": card.get("version", __version__), "model_sha256": card.get("sha256", ""),
            "seed": self.seed, "index": sample.index, "steps": self.plan.steps, "note": NOTE,
            "selection": "raw" if self.raw else "usable",
            "training_data": card.get("data", "unknown"),
            "training_data_licence": card.get("data_licence", "unknown"),
        }  # fmt: skip
        if sample.request.orbits is not None:
            values["kept_space_group"] = sample.request.space_group
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
