"""Scoring generated crystals, with real ones scored the same way beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from sciconsist import __version__
from sciconsist.domains.crystals.files import CrystalRecord, read_readable
from sciconsist.domains.crystals.metrics.distributions import distributions
from sciconsist.domains.crystals.metrics.matching import novelty
from sciconsist.domains.crystals.metrics.prediction import chance_level, match_figures, match_row
from sciconsist.domains.crystals.metrics.validity import smact_valid, structurally_valid, validity
from sciconsist.domains.crystals.prototypes import Prototypes
from sciconsist.domains.crystals.thermo import Hull, shipped_hull
from sciconsist.errors import UserError
from sciconsist.workflows.crystal_reference import read_reference

KNOWN = "mp-20-bt:train"
Advance = Callable[[int], None]


@dataclass
class Evaluation:
    """Figures of samples and of the reference, what they are of, and the samples that could be read."""

    samples: dict[str, Any]
    ceiling: dict[str, Any]
    about: dict[str, Any]
    structures: list[Structure]
    reference: list[Structure]

    def to_json(self) -> dict[str, Any]:
        return {**self.about, "samples": self.samples, "ceiling": self.ceiling}

    def table(self) -> list[tuple[str, float, float | None]]:
        """(figure, samples, ceiling) of all numbers, in order, tolerances left out; baselines after the samples'."""
        beside = dict(_flat(self.ceiling))
        rows = [(name, value, beside.get(name)) for name, value in _flat(self.samples)]
        rows += [(name, value, None) for name, value in _flat(self.about.get("baselines", {})) if ".all_rows." in name]
        return [row for row in rows if ".tolerances." not in row[0]]


def evaluate_crystals(
    samples: str | Path | Sequence[Structure],
    reference: str = "mp-20-bt:test",
    *,
    known: str | None = None,
    match: bool = False,
    limit: int | None = None,
    seed: int = 0,
    advance: Advance = lambda n: None,
) -> Evaluation:
    """Score structures (a file, a folder, or in memory) against a data set's split or files of real crystals.

    Files that cannot be read count as samples that are not valid. `known` is what novelty is against, by default
    MP-20-BT's train split where it is on the machine. With `match` the samples are guesses of the reference's crystals
    (`origin` "target" names one, or else the composition does): match rate at k = 1 and 5, beside chance and the
    nearest prototype of `known`. `limit` bounds the reference. Raises UserError.
    """
    records, broken, source = _read(samples)
    truths, name = read_reference(reference, limit)
    other, other_name = _known(known)
    structures, total = [r.structure for r in records], len(records) + broken
    real = [r.structure for r in truths]
    fine = [structurally_valid(s) for s in structures]
    both = [ok and smact_valid(s.composition) for ok, s in zip(fine, structures)]
    hull = shipped_hull()
    figures: dict[str, Any] = {"n": total, "unreadable": broken, "validity": validity(structures, total)}
    if other_name is not None:
        figures["novelty"] = novelty(structures, ((r.name, r.structure) for r in other), both, total)
    figures["distribution"] = distributions([s for s, ok in zip(structures, fine) if ok], real)
    figures["hull"] = hull_coverage(structures, hull)
    if match:
        figures["match"] = match_figures(_match(records, truths, advance))
    ceiling: dict[str, Any] = {
        "n": len(real), "validity": validity(real), "distribution": distributions(real[::2], real[1::2]),
        "hull": hull_coverage(real, hull),
    }  # fmt: skip
    about = {
        "sciconsist": __version__, "source": source, "reference": name, "reference_crystals": len(real),
        "novelty_against": other_name, "origin": records[0].origin if records else {}, "hull": hull.about(),
        "ceiling_is": "reference crystals scored the same way; distances are between two halves of them",
    }  # fmt: skip
    if match:
        about["baselines"] = baselines(truths, [r.structure for r in other], seed, advance)
    return Evaluation(figures, ceiling, about, structures, real)


def baselines(
    truths: Sequence[CrystalRecord], known: Sequence[Structure], seed: int = 0, advance: Advance = lambda n: None
) -> dict[str, Any]:
    """What structure prediction scores without a model: random coordinates, and the nearest known prototypes."""
    real, names = [r.structure for r in truths], [r.name for r in truths]
    chance = {
        "what": "uniform coordinates in the true cell", "seed": seed, **chance_level(real, names, seed, advance)
    }  # fmt: skip
    prototypes, rows = Prototypes.of(known), []
    for truth in real:
        rows.append(match_row(prototypes.predict(truth.composition, 5), truth))
        advance(1)
    what = "nearest known crystals of the same anonymous formula and size, atoms swapped, scaled"
    return {"chance": chance, "substitution": {"what": what, "known": len(known), **match_figures(rows)}}


def hull_coverage(structures: Sequence[Structure], hull: Hull) -> dict[str, Any]:
    """Shares of crystals in systems where the hull has a compound, and whose elements all have a reference energy."""
    if not structures:
        return {"known_system": None, "all_elements": None}
    return {
        "known_system": sum(hull.knows(s.composition) for s in structures) / len(structures),
        "all_elements": sum(hull.covers(s.composition) for s in structures) / len(structures),
    }


def _read(samples: str | Path | Sequence[Structure]) -> tuple[list[CrystalRecord], int, str]:
    """Records, how many could not be read, and what to call the source."""
    if not isinstance(samples, str | Path):
        origins = [{k: str(v) for k, v in s.properties.items()} for s in samples]
        records = [CrystalRecord(s, str(k), {}, o) for k, (s, o) in enumerate(zip(samples, origins))]
        return records, 0, f"{len(records)} structures"
    found = list(read_readable(samples))
    records = [item for _, item in found if isinstance(item, CrystalRecord)]
    if not records:
        raise UserError(f"{samples}: none of {len(found)} structures can be read; the first: {found[0][1]}")
    return records, len(found) - len(records), str(samples)


def _known(name: str | None) -> tuple[list[CrystalRecord], str | None]:
    try:
        return read_reference(name or KNOWN)
    except UserError:
        if name is not None:
            raise
        return [], None


def _match(records: Sequence[CrystalRecord], truths: Sequence[CrystalRecord], advance: Advance) -> list[Any]:
    """A row for each true crystal, its guesses in the samples' order."""
    by_target: dict[str, list[Structure]] = defaultdict(list)
    by_formula: dict[str, list[Structure]] = defaultdict(list)
    for record in records:
        if "target" in record.origin:
            by_target[record.origin["target"]].append(record.structure)
        else:
            by_formula[record.structure.composition.formula].append(record.structure)
    rows = []
    for truth in truths:
        guesses = by_target.get(truth.name) or by_formula.get(truth.structure.composition.formula, [])
        rows.append(match_row(guesses, truth.structure))
        advance(1)
    if not any(row.rms[5] is not None for row in rows) and not by_target:
        shared = sum(truth.structure.composition.formula in by_formula for truth in truths)
        if not shared:
            raise UserError("no sample has the composition of a reference crystal: these are no predictions of it")
    return rows


def _flat(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in report.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
