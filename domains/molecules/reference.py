"""What bond lengths and angles of real molecules look like, as a small table that travels with the package.

`python -m sciconsist.domains.molecules.reference --rebuild` makes it again from the training
split in SCICONSIST_DATA_DIR. The bins draw plots; figures come from `metrics.geometry_distance` and the molecules.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from sciconsist.errors import UserError

from .metrics.geometry import Geometry, measure
from .shells import close_shells

TABLE = "reference_qm9gfn2.json"
_SPLIT = "qm9_gfn2_train.npz"
_TYPES, _BINS = 12, 100
_MARGIN_LENGTHS, _MARGIN_ANGLES = 0.04, 8.0  # Å, degrees: what an axis shows beside the reference, at least
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Bins:
    """Counts of one type in equal bins from `start`; `n` and `mean` include the few values beyond them."""

    start: float
    width: float
    counts: tuple[int, ...]
    n: int
    mean: float

    @property
    def centres(self) -> np.ndarray:
        return self.start + self.width * (np.arange(len(self.counts)) + 0.5)

    def count(self, values: np.ndarray) -> tuple[list[int], int]:
        """Counts of other values in the same bins, and how many lie beyond them."""
        edges = self.start + self.width * np.arange(len(self.counts) + 1)
        counts = np.histogram(values, edges)[0]
        return counts.tolist(), len(values) - int(counts.sum())


@dataclass(frozen=True)
class ReferenceHistograms:
    """Binned lengths (Å) and angles (degrees) by type, most frequent first, and where they come from."""

    name: str
    source: str
    molecules: int
    lengths: Mapping[str, Bins]
    angles: Mapping[str, Bins]

    @classmethod
    def from_geometry(
        cls, geometry: Geometry, name: str = "reference molecules", source: str = ""
    ) -> ReferenceHistograms:
        """Bins of the most frequent types."""
        lengths = _frequent(geometry.lengths, _MARGIN_LENGTHS)
        angles = _frequent(geometry.angles, _MARGIN_ANGLES, end=180.0)
        return cls(name, source, geometry.molecules, lengths, angles)

    @classmethod
    def from_molecules(
        cls, molecules: Sequence[Chem.Mol], name: str = "reference molecules", source: str = ""
    ) -> ReferenceHistograms:
        return cls.from_geometry(measure(molecules), name, source)


@cache
def qm9_gfn2() -> ReferenceHistograms:
    """The table of the package: QM9 molecules at their GFN2-xTB minimum, the training split."""
    content = json.loads(resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))
    lengths, angles = (
        {kind: Bins(**{**row, "counts": tuple(row["counts"])}) for kind, row in content[key].items()}
        for key in ("lengths", "angles")
    )
    return ReferenceHistograms(content["name"], content["source"], content["molecules"], lengths, angles)


def _frequent(values: Mapping[str, np.ndarray], margin: float, end: float = np.inf) -> dict[str, Bins]:
    kinds = sorted(values, key=lambda kind: (-len(values[kind]), kind))[:_TYPES]
    return {kind: _bins(values[kind], margin, end) for kind in kinds}


def _bins(values: np.ndarray, margin: float, end: float) -> Bins:
    """About `_BINS` bins of round width over all but the outermost thousandths, and a margin up to `end`."""
    low, high = (float(q) for q in np.quantile(values, (0.001, 0.999)))
    margin = max(margin, (high - low) / 4)
    low, high = max(0.0, low - margin), min(end, high + margin)
    rough = (high - low) / _BINS
    power = 10.0 ** np.floor(np.log10(rough))
    width = float(next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9)))
    first, last = int(np.floor(low / width + 1e-6)), int(np.ceil(high / width - 1e-6))
    counts = np.histogram(values, width * np.arange(first, last + 1))[0]
    start, mean = round(first * width, 9), round(float(values.mean()), 5)
    return Bins(start, round(width, 9), tuple(counts.tolist()), len(values), mean)


def _training_molecules(path: Path) -> Iterator[Chem.Mol]:
    """Molecules whose relaxed bonds are those of their SMILES, shells closed."""
    with np.load(path, allow_pickle=False) as archive:
        smiles, numbers, positions = archive["smiles"], archive["numbers"], archive["positions"]
        rows = np.flatnonzero(archive["same_graph"])
    for row in rows.tolist():
        with rdBase.BlockLogs():
            mol = close_shells(Chem.AddHs(Chem.MolFromSmiles(str(smiles[row]))))
        count = int((numbers[row] > 0).sum())
        if [atom.GetAtomicNum() for atom in mol.GetAtoms()] != numbers[row, :count].tolist():
            raise UserError(f"{path}, record {row}: found atoms that are not those of {smiles[row]}")
        made = Chem.Conformer(count)
        made.SetPositions(positions[row, :count].astype(np.float64))
        mol.AddConformer(made)
        yield mol


def rebuild(path: Path, folder: Path) -> None:
    """Write this table from the training split at `path`; about two minutes."""
    mols = list(_training_molecules(path))
    found = ReferenceHistograms.from_geometry(measure(mols))
    about = {
        "name": "QM9-GFN2",
        "source": "QM9 molecules at their GFN2-xTB minimum, training split",
        "attribution": "SMILES: QM9, Ramakrishnan et al. 2014, doi:10.1038/sdata.2014.22, CC0. Geometries: "
        "GFN2-xTB (Bannwarth et al. 2019, doi:10.1021/acs.jctc.8b01176), computed for this project.",
        "licence": "CC0",
        "made_with": f"python -m {__spec__.name if __spec__ else __name__} --rebuild, from {path.name}",
    }
    content = {
        **about,
        "units": {"lengths": "Å", "angles": "degrees"},
        "molecules": found.molecules,
        "lengths": {kind: asdict(bins) for kind, bins in found.lengths.items()},
        "angles": {kind: asdict(bins) for kind, bins in found.angles.items()},
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    (folder / TABLE).write_text(text.replace(',"', ',\n"') + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rebuild", action="store_true", required=True, help="write the tables again")
    parser.parse_args()
    root = Path(os.environ.get("SCICONSIST_DATA_DIR", "."))
    path = next((p for p in (root / "molecules" / _SPLIT, root / _SPLIT) if p.is_file()), None)
    if path is None:
        raise SystemExit(f"no {_SPLIT} in {root}: set SCICONSIST_DATA_DIR to the folder that has it")
    rebuild(path, Path(__file__).parent)


if __name__ == "__main__":
    main()
