"""What a user may ask of molecules, in words, checked against a model: sizes, elements, properties, given atoms."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rdkit import Chem

from sciconsist.datasets.sdf import read_sdf
from sciconsist.domains.molecules.completion import Given, read_given
from sciconsist.domains.molecules.generate import Plan, plan_steps
from sciconsist.domains.molecules.properties import PROPERTIES
from sciconsist.domains.molecules.sketch import ELEMENTS
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap

Range = float | tuple[float, float] | str


def plan_for(model: FlowMap, steps: int, guided: bool = False) -> Plan:
    """How a model divides so many network evaluations: as its card says, or else as measured best."""
    if steps < 1:
        raise UserError(f"{steps} steps: expected at least 1")
    if guided and steps < 2:
        raise UserError("1 step: guidance asks the network twice, expected at least 2")
    own = None if guided else model.card.get("plans", {}).get(str(steps))
    return Plan(**own) if own else plan_steps(steps, guided)


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


def formula_counts(model: FlowMap, formula: str | None) -> dict[str, int]:
    """Atoms of each element in a formula such as C7H10O2, hydrogens too. Raises UserError."""
    if formula is None:
        return {}
    parts = re.findall(r"([A-Z][a-z]?)([0-9]*)", formula)
    if not parts or "".join(s + n for s, n in parts) != formula or any(n and int(n) == 0 for _, n in parts):
        raise UserError(f"formula {formula!r}: expected element symbols and whole numbers, like C7H10O2")
    counts: Counter[str] = Counter()
    for symbol, number in parts:
        counts[symbol] += int(number or 1)
    known = {ELEMENTS[p.name] for p in model.domain.config.properties if p.name in ELEMENTS}
    if not model.domain.config.network.elements:
        raise UserError("formula: this model cannot be told one; train one with --set sketch=H_atoms,C_atoms,...")
    if unknown := sorted(set(counts) - known):
        raise UserError(f"formula {formula}: the model does not know {unknown[0]}; it knows {', '.join(sorted(known))}")
    if not set(counts) - {"H"}:
        raise UserError(f"formula {formula}: expected an element heavier than H")
    return dict(counts)


def property_ranges(model: FlowMap, wanted: Mapping[str, Range] | None) -> dict[str, tuple[float, float]]:
    """Checked requests {"gap": "5:7"}, {"gap": 6.5}: from low to high, equal for one value. Raises UserError."""
    if not wanted:
        return {}
    known = {p.name: p for p in model.domain.config.properties}
    found = {}
    for name, value in wanted.items():
        if name not in known:
            have = ", ".join(known) or "none"
            cure = "" if known else "; train one with --set properties=gap,logp"
            raise UserError(f"property {name!r}: this model can be told {have}{cure}")
        try:
            parts = [float(p) for p in value.split(":")] if isinstance(value, str) else np.atleast_1d(value).tolist()
            low, high = parts[0], parts[-1]
            good = len(parts) <= 2 and low <= high and math.isfinite(low) and math.isfinite(high)
        except (ValueError, TypeError, IndexError):
            good = False
        least, most = known[name].quantiles[0], known[name].quantiles[-1]
        unit = f" {PROPERTIES[name].unit}" if PROPERTIES[name].unit else ""
        expected = f"a number or a range low:high within the training data's {least:.4g} to {most:.4g}{unit}"
        if not good:
            raise UserError(f"property {name}={value}: expected {expected}")
        if low > most or high < least:
            raise UserError(f"property {name}={value}: beyond what the model was trained on; expected {expected}")
        found[name] = (low, high)
    return found


def given_atoms(model: FlowMap, scaffold: str | Path | None, linker: Sequence[str | Path] | None) -> Given | None:
    """The atoms of a scaffold's SDF file, or of several files' fragments where they lie. Raises UserError."""
    if scaffold is None and linker is None:
        return None
    if scaffold is not None and linker is not None:
        raise UserError("scaffold and linker: give one of them")
    paths = [scaffold] if scaffold is not None else list(linker or ())
    where = ", ".join(map(str, paths))
    if linker is not None and len(paths) < 2:
        raise UserError(f"linker {where}: expected two SDF files or more, a.sdf,b.sdf")
    given = read_given([_one_molecule(path) for path in paths if path is not None], model.domain.vocabulary, where)
    gaps = np.linalg.norm(given.positions[:, None] - given.positions[None], axis=-1)
    apart = gaps[np.triu(given.orders == 0, 1)]
    if len(apart) and apart.min() < 1.0:
        raise UserError(f"{where}: found atoms that are not bonded {apart.min():.2f} Å apart, expected 1 Å or more")
    return given


def _one_molecule(path: str | Path) -> Chem.Mol:
    records = read_sdf(path)
    if len(records) != 1:
        raise UserError(f"{path}: found {len(records)} records, expected the one molecule to keep")
    return records[0].mol


def sizes_beside(histogram: dict[int, int], given: Given) -> dict[int, int]:
    """The sizes that leave room for a new atom beside the given ones. Raises UserError."""
    if kept := {n: count for n, count in histogram.items() if n > len(given)}:
        return kept
    raise UserError(f"found {len(given)} given heavy atoms, expected fewer than the {max(histogram)} of the whole")


def check_guidance(guidance: float, properties: Mapping[str, Range] | None) -> float:
    if not (math.isfinite(guidance) and guidance >= 0):
        raise UserError(f"guidance {guidance}: expected a number from 0; 1 is none")
    if guidance != 1.0 and not properties:
        raise UserError("guidance: steers towards a property; give one")
    return guidance
