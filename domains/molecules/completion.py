"""Atoms that are given: scaffolds to complete and fragments to link.

Every sample holds the given heavy atoms first. At each step the network's endpoint gets them back: their
classes as far as they are known, their bonds, and their coordinates, turned as a rigid body onto the place
the network gives them (replacement with re-alignment). The decoder joins all atoms, so fragments get linked.
The last endpoint has the given atoms exactly; `finish` moves the molecule to where they were read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sciconsist.domains.molecules.decode import DecodedGraph
from sciconsist.domains.molecules.graphs import aromatic_bonds
from sciconsist.domains.molecules.vocabulary import Vocabulary, atom_classes
from sciconsist.errors import UserError

CLASH = 0.75  # radians; a new bond this near to the direction of a kept neighbour is none
STRETCH = (0.75, 1.30)  # bonds between given and new atoms, in sums of covalent radii
NEAR = 1.35  # atoms two or more bonds apart may not come nearer, in sums of covalent radii
ROUNDS = 4


@dataclass(frozen=True)
class Given:
    """M heavy atoms that come out as they are: `positions` `[M, 3]` Å, Kekulé `orders` `[M, M]`.

    `aromatic` `[M, M]`: which bonds are (None: none),
    `allowed` `[M, K]`: the classes each may take (its own, or with hydrogens given up for new bonds), `hydrogens`:
    coordinates `[h, 3]` of each atom's own.
    """

    positions: np.ndarray
    orders: np.ndarray
    allowed: np.ndarray
    hydrogens: tuple[np.ndarray, ...]
    charge: int  # net charge, which the whole molecule gets
    aromatic: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def open(self) -> np.ndarray:
        """Atoms that can bond to new ones, `[M]`: they have a hydrogen to give up and a class without it."""
        return self.allowed.sum(1) > 1

    def couple(self, noise: dict[str, Tensor]) -> dict[str, Tensor]:
        """Noise whose first M nodes lie as the given atoms do: a rigid matching, as pairing does in training.

        `noise` are one sample's fields `[N, ...]`; nodes are permuted and positions turned.
        """
        x = noise["positions"].double().numpy()
        core = self.positions - self.positions.mean(0)
        core = core * (np.sqrt((x * x).sum(1).mean()) / max(1e-6, np.sqrt((core * core).sum(1).mean())))
        rows = np.arange(len(self))
        for _ in range(ROUNDS):
            cost = ((core[:, None] - x[None]) ** 2).sum(-1)
            rows = linear_sum_assignment(cost)[1]
            turn, shift = rigid(core, x[rows])
            core = core @ turn + shift
        rest = np.setdiff1d(np.arange(len(x)), rows)
        order = torch.from_numpy(np.concatenate([rows, rest]))
        return {n: v[order][:, order] if n == "bonds" else v[order] for n, v in noise.items()}

    def impose(
        self, x: dict[str, Tensor], f: dict[str, Tensor], scale: Tensor, sizes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The state and its endpoint with the given atoms in it; a mirrored sample is mirrored back, state and all.

        `scale` `[B]` is Å per unit of position.
        """
        m, x, f = len(self), dict(x), {name: value.clone() for name, value in f.items()}
        f["atoms"][:, :m] = among(f["atoms"][:, :m], self.allowed)
        f["bonds"] = among(f["bonds"], self.class_choices(*f["bonds"].shape[2:]))
        positions = f["positions"].double()
        state = x["positions"].clone()
        for k, n in enumerate(sizes.tolist()):
            core, place = self.positions / float(scale[k]), positions[k, :m].numpy()
            if misfit(core, -place) < misfit(core, place) - 1e-6:
                positions[k], state[k] = -positions[k], -state[k]
                place = -place
            turn, shift = rigid(core, place)
            positions[k, :m] = torch.from_numpy(core @ turn + shift)
            positions[k, :n] -= positions[k, :n].mean(0)
        x["positions"], f["positions"] = state, positions.to(f["positions"].dtype)
        return x, f

    def bond_choices(self, size: int) -> np.ndarray:
        """Orders `[N, N, 4]` that pairs may have: the given ones, none to a closed atom, any between new atoms."""
        m = len(self)
        choices = np.ones((size, size, 4), dtype=bool)
        choices[:m, :m] = np.eye(4, dtype=bool)[self.orders]
        closed = np.flatnonzero(~self.open)
        choices[:m, m:, 2:] = choices[m:, :m, 2:] = False  # a double bond would bend what is given
        choices[closed, m:, 1:] = False
        choices[m:, closed, 1:] = False
        return choices

    def class_choices(self, size: int, classes: int) -> np.ndarray:
        """Classes `[N, N, classes]` that pairs may have: `bond_choices`, and of five the given aromatic bonds as such."""
        orders, m = self.bond_choices(size), len(self)
        if classes == orders.shape[-1]:
            return orders
        aromatic = np.ones((size, size, 1), dtype=bool)
        aromatic[:m] = aromatic[:, :m] = False
        if self.aromatic is not None:
            aromatic[:m, :m, 0] = self.aromatic
            orders[:m, :m] &= ~self.aromatic[..., None]
        return np.concatenate([orders, aromatic], -1)

    def constrain(
        self, atoms: np.ndarray, bonds: np.ndarray, permitted: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the decoder may choose: classes `[N, K]`, and log-probabilities `[N, N, 4]` that forbid other bonds."""
        m = len(self)
        allowed = np.ones(atoms.shape, dtype=bool) if permitted is None else np.array(permitted)
        allowed[:m] = self.allowed
        return allowed, np.where(self.bond_choices(len(atoms)), bonds, -1e9)

    def kept(self, graph: DecodedGraph) -> bool:
        """Whether a decoded graph has the given atoms and bonds, and joins new atoms to open ones alone."""
        m = len(self)
        rows = np.arange(m)
        chosen = np.take_along_axis(self.bond_choices(len(graph.classes)), graph.orders[..., None], 2)[..., 0]
        np.fill_diagonal(chosen, True)
        return bool(graph.consistent and self.allowed[rows, graph.classes[:m]].all() and chosen.all())

    def finish(self, mol: Chem.Mol) -> str:
        """Move a made molecule to where the given atoms were read; "" or what is wrong with it.

        Heavy atoms and the hydrogens of atoms without a new bond get their very coordinates; the hydrogens that
        remain beside a new bond turn away from it.
        """
        m, heavy, conformer = len(self), mol.GetNumHeavyAtoms(), mol.GetConformer()
        x = conformer.GetPositions()
        turn, shift = rigid(x[:m], self.positions)
        x = x @ turn + shift
        if np.abs(x[:m] - self.positions).max() > 0.01:
            return "given atoms moved"
        x[:m] = self.positions
        for i, own in enumerate(self.hydrogens):
            around = [a.GetIdx() for a in mol.GetAtomWithIdx(i).GetNeighbors()]
            new = [j for j in around if m <= j < heavy]
            kept = [j for j in around if j < m]
            places = [j for j in around if j >= heavy]
            if len(places) + len(new) != len(own):
                return "hydrogens of given atoms changed"
            if not new:
                x[places] = own
            for j in new:
                cosines = [_cosine(x[j] - x[i], x[k] - x[i]) for k in kept]
                if any(c > np.cos(CLASH) for c in cosines):
                    return "new bond through a kept atom"
                # opposite the kept neighbours: on their side it would invert a centre or bend a plane
                if len(kept) >= 2 and sum(cosines) > (0.0 if len(kept) > 2 else 0.35):
                    return "new bond on the wrong side"
        conformer.SetPositions(x)
        return self._strained(mol, x)

    def _strained(self, mol: Chem.Mol, x: np.ndarray) -> str:
        """Whether new atoms fit the given ones: bond lengths, and distances of atoms three or more bonds apart."""
        m, heavy = len(self), mol.GetNumHeavyAtoms()
        table = Chem.GetPeriodicTable()
        radii = np.array([table.GetRcovalent(a.GetAtomicNum()) for a in mol.GetAtoms()])
        apart = Chem.GetDistanceMatrix(mol)
        ratio = np.linalg.norm(x[:, None] - x[None], axis=-1) / (radii[:, None] + radii[None])
        across = np.zeros_like(ratio, dtype=bool)
        across[:m, m:heavy] = True
        bonded = ratio[across & (apart == 1)]
        if len(bonded) and not (STRETCH[0] < bonded.min() and bonded.max() < STRETCH[1]):
            return "strained bond"
        return "clash" if (ratio[apart >= 3] < NEAR).any() else ""


def read_given(mols: list[Chem.Mol], vocabulary: Vocabulary, where: str) -> Given:
    """The given atoms of molecules with one conformer each, in their own coordinates. Raises UserError.

    Hydrogens that a file leaves out are added. New atoms take the place of hydrogens.
    """
    whole = mols[0]
    for other in mols[1:]:
        whole = Chem.CombineMols(whole, other)
    whole = Chem.Mol(whole)
    Chem.SanitizeMol(whole)
    whole = Chem.AddHs(whole, addCoords=True)
    bare = Chem.RemoveAllHs(whole)
    if bare.GetNumAtoms() == 0 or any(a.GetNumRadicalElectrons() for a in bare.GetAtoms()):
        raise UserError(f"{where}: found a radical or no heavy atom, expected closed shells")
    Chem.Kekulize(bare, clearAromaticFlags=True)
    orders = np.zeros((bare.GetNumAtoms(),) * 2, dtype=np.int64)
    for bond in bare.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        orders[i, j] = orders[j, i] = int(bond.GetBondTypeAsDouble())
    rows = []
    for i, own in enumerate(atom_classes(bare)):
        row = np.array(
            [(c.symbol, c.charge, c.valence) == (own.symbol, own.charge, own.valence) and c.hydrogens <= own.hydrogens
             for c in vocabulary.classes]
        )  # fmt: skip
        if not row.any():
            raise UserError(
                f"{where}: found {own.symbol} with charge {own.charge:+d} and {own.hydrogens} hydrogens (heavy atom "
                f"{i + 1}), which the model does not know; elements: {', '.join(vocabulary.symbols)}"
            )
        rows.append(row)
    x = whole.GetConformer().GetPositions()
    hydrogens = tuple(
        x[[n.GetIdx() for n in a.GetNeighbors() if n.GetAtomicNum() == 1]].reshape(-1, 3)
        for a in whole.GetAtoms() if a.GetAtomicNum() > 1
    )  # fmt: skip
    positions = bare.GetConformer().GetPositions()
    given = Given(positions, orders, np.array(rows), hydrogens, Chem.GetFormalCharge(bare), aromatic_bonds(bare))
    if not given.open.any():
        raise UserError(f"{where}: found no hydrogen that a new atom could replace, expected at least one")
    return given


def among(probabilities: Tensor, choices: np.ndarray) -> Tensor:
    """Probabilities times a scale `[B, ..., K]`, the whole on the choices `[..., K]`; zero stays zero."""
    total = probabilities.sum(-1, keepdim=True)
    kept = (probabilities + 1e-9 * total) * torch.from_numpy(choices).to(probabilities.dtype)
    return kept / kept.sum(-1, keepdim=True).clamp_min(1e-12) * total


def rigid(x: np.ndarray, y: np.ndarray, stay: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Proper rotation R and shift t that minimise |x R + t - y|^2 + `stay` |R - 1|^2, points `[M, 3]` (Kabsch 1976)."""
    a, b = x - x.mean(0), y - y.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b + stay * np.eye(3))
    u[:, -1] *= np.sign(np.linalg.det(u @ vt)) or 1.0
    turn = u @ vt
    return turn, y.mean(0) - x.mean(0) @ turn


def misfit(x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance after the best proper rotation and shift."""
    turn, shift = rigid(x, y)
    return float(((x @ turn + shift - y) ** 2).sum(1).mean())


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(1e-9, float(np.linalg.norm(a) * np.linalg.norm(b))))
