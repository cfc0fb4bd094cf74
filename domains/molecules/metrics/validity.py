"""Validity, uniqueness and novelty, with every denominator spelt out.

Three readings of "valid", because papers mix them up:

- `edm`: bonds inferred from distances, RDKit adds whatever hydrogens are missing, the largest fragment is
  kept (Hoogeboom et al. 2022). A cloud of lone carbon atoms passes: it is read as methane.
- `strict_distance`: the same bonds, but no hydrogen may be added, no radical remain, and all be one fragment.
- `strict_bonds`: as strict, on the bonds the model decoded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rdkit import Chem, rdBase

from sciconsist.domains.molecules.shells import close_shells

from .stability import arrays, bond_orders

_BOND_TYPES = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


@dataclass(frozen=True)
class Validity:
    """Counts behind the fractions; `samples` is every sample asked for, valid or not."""

    samples: int
    valid: int
    unique: int
    novel: int | None

    def figures(self) -> dict[str, float | int | None]:
        """Fractions in [0, 1]: of all samples, but `uniqueness` of the valid and `novelty` of the unique."""
        n, novel = max(self.samples, 1), self.novel
        return {
            "n": self.samples,
            "valid": self.valid / n,
            "uniqueness": self.unique / max(self.valid, 1),
            "valid_unique": self.unique / n,
            "novelty": None if novel is None else novel / max(self.unique, 1),
            "valid_unique_novel": None if novel is None else novel / n,
        }


def molecule_from_distances(mol: Chem.Mol) -> Chem.Mol:
    """The same atoms, uncharged, with the bonds that distances suggest; not sanitised, no conformer."""
    numbers, positions = arrays(mol)
    orders = bond_orders(numbers, positions)
    built = Chem.RWMol()
    for number in numbers.tolist():
        built.AddAtom(Chem.Atom(number))
    for i, j in zip(*orders.nonzero(), strict=True):
        if i < j:
            built.AddBond(int(i), int(j), _BOND_TYPES[int(orders[i, j])])
    return built.GetMol()


def canonical_smiles(mol: Chem.Mol) -> str | None:
    """Canonical SMILES of a sanitised molecule, no hydrogens, stereo or isotopes; None when RDKit refuses.

    No hydrogens at all: RDKit otherwise keeps that of a C=N-H whose side is known, and the same graph has two SMILES.
    """
    try:
        with rdBase.BlockLogs():
            return Chem.MolToSmiles(Chem.RemoveAllHs(mol), isomericSmiles=False)
    except (ValueError, RuntimeError):
        return None


def known_smiles(smiles: Iterable[str]) -> set[str]:
    """SMILES in the form `canonical_smiles` gives, for novelty; what RDKit cannot read is left out.

    A SMILES with radicals on neighbouring atoms enters in its closed-shell form as well.
    """
    known: set[str | None] = set()
    with rdBase.BlockLogs():
        for text in smiles:
            if (mol := Chem.MolFromSmiles(text)) is not None:
                known.add(canonical_smiles(mol))
                if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
                    known.add(canonical_smiles(close_shells(mol)))
    return {text for text in known if text is not None}


def edm_molecule(mol: Chem.Mol) -> Chem.Mol | None:
    """The largest fragment of the distance bonds, hydrogens added by RDKit; None if it does not sanitise."""
    try:
        with rdBase.BlockLogs():
            built = molecule_from_distances(mol)
            Chem.SanitizeMol(built)
            largest = max(Chem.GetMolFrags(built, asMols=True), key=lambda m: m.GetNumAtoms(), default=None)
            if largest is not None:
                Chem.SanitizeMol(largest)
            return largest
    except (ValueError, RuntimeError):
        return None


def strict_molecule(mol: Chem.Mol) -> Chem.Mol | None:
    """A sanitised copy if the molecule's own bonds need no hydrogen, leave no radical and join all atoms."""
    copy = Chem.RWMol(mol)
    for atom in copy.GetAtoms():
        atom.SetNoImplicit(True)  # what is missing then shows up as a radical
    try:
        with rdBase.BlockLogs():
            Chem.SanitizeMol(copy)
    except (ValueError, RuntimeError):
        return None
    complete = all(a.GetNumRadicalElectrons() == 0 and a.GetTotalNumHs() == 0 for a in copy.GetAtoms())
    if not complete or len(Chem.GetMolFrags(copy)) != 1:
        return None
    return copy.GetMol()


def count_validity(valid: Sequence[Chem.Mol | None], known: Collection[str] | None = None) -> Validity:
    """Counts over one entry a sample, None where the sample is not valid."""
    smiles = [canonical_smiles(mol) for mol in valid if mol is not None]
    smiles = [s for s in smiles if s is not None]
    unique = set(smiles)
    novel = None if known is None else len(unique.difference(known))
    return Validity(len(valid), len(smiles), len(unique), novel)


def validity(samples: Sequence[Chem.Mol], known: Collection[str] | None = None) -> dict[str, Validity]:
    """The three readings `edm`, `strict_distance` and `strict_bonds` over all samples."""
    return {
        "edm": count_validity([edm_molecule(m) for m in samples], known),
        "strict_distance": count_validity([strict_molecule(molecule_from_distances(m)) for m in samples], known),
        "strict_bonds": count_validity([strict_molecule(m) for m in samples], known),
    }
