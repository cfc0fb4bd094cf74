"""Heavy atoms that carry hydrogens, and what decides where these are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rdkit import Chem

SP, SP2 = Chem.HybridizationType.SP, Chem.HybridizationType.SP2


@dataclass(frozen=True)
class Site:
    """A heavy atom that carries hydrogens. `spread` is 1, 2, 3 for sp, sp2, sp3."""

    atom: int
    symbol: str
    spread: int
    double: bool  # has a double bond of its own: an imine, not an amide
    tilted: bool  # sp2 and a pyramid: an aniline, not an amide
    neighbours: list[int]
    hydrogens: list[int]


def hydrogen_sites(mol: Chem.Mol, heavy: int) -> Iterator[Site]:
    """The sites of a molecule whose first `heavy` atoms are heavy, hydrogens after them."""
    for atom in list(mol.GetAtoms())[:heavy]:
        around = [b.GetIdx() for b in atom.GetNeighbors()]
        hydrogens = [j for j in around if j >= heavy]
        if hydrogens:
            neighbours = [j for j in around if j < heavy]
            spread = {SP: 1, SP2: 2}.get(atom.GetHybridization(), 3)
            double = spread == 2 and any(b.GetBondTypeAsDouble() == 2 for b in atom.GetBonds())
            tilted = spread == 2 and not double and _pyramidal(atom, neighbours)
            yield Site(atom.GetIdx(), atom.GetSymbol(), spread, double, tilted, neighbours, hydrogens)


def _pyramidal(atom: Chem.Atom, neighbours: Sequence[int]) -> bool:
    """Whether an sp2 nitrogen is a pyramid all the same: an aniline's, enamine's or amidine's, but no amide's.

    An amide's lone pair is drawn into C=O (or C=S, C=N+), and one between two sp2 atoms, or in an aromatic ring, into both.
    """
    if atom.GetSymbol() != "N" or atom.GetIsAromatic() or atom.GetFormalCharge():
        return False
    near = [b for b in atom.GetNeighbors() if b.GetIdx() in neighbours]
    drawn = any(
        bond.GetBondTypeAsDouble() == 2 and (other.GetSymbol() in ("O", "S") or other.GetFormalCharge() > 0)
        for b in near for bond in b.GetBonds() for other in (bond.GetOtherAtom(b),)
    )  # fmt: skip
    return not drawn and sum(b.GetHybridization() == SP2 for b in near) < 2
