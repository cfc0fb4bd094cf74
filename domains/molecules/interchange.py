"""Molecules as torch-geometric graphs, the form in which graph libraries exchange them.

A `Data` has, in the layout of torch-geometric's own QM9: `z` `[N]` atomic numbers, hydrogens among them; `pos`
`[N, 3]` in Å; `edge_index` `[2, E]`, every bond in both directions; `edge_attr` `[E, 4]`, one-hot over single,
double, triple, aromatic (written Kekulized). Beside it `charge` `[N]`, formal; where absent all are 0.
torch-geometric is imported when it is used: it costs seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rdkit import Chem, rdBase

from sciconsist.errors import UserError

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

BONDS = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)


def to_data(mol: Chem.Mol) -> Data:
    """The graph of a molecule with a conformer; hydrogens that are atoms of it become nodes. Raises UserError."""
    from torch_geometric.data import Data

    if mol.GetNumConformers() == 0:
        raise UserError("found a molecule without a conformer, expected 3D coordinates")
    mol = Chem.Mol(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    atoms, bonds = list(mol.GetAtoms()), list(mol.GetBonds())
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in bonds]
    kinds = torch.tensor([BONDS.index(b.GetBondType()) for b in bonds], dtype=torch.long)
    edges = torch.tensor(ends, dtype=torch.long).view(-1, 2)
    return Data(
        z=torch.tensor([a.GetAtomicNum() for a in atoms]),
        charge=torch.tensor([a.GetFormalCharge() for a in atoms]),
        pos=torch.tensor(mol.GetConformer().GetPositions(), dtype=torch.get_default_dtype()),
        edge_index=torch.cat([edges, edges.flip(1)]).t().contiguous(),
        edge_attr=torch.nn.functional.one_hot(torch.cat([kinds, kinds]), len(BONDS)).to(torch.get_default_dtype()),
    )


def to_batch(mols: Sequence[Chem.Mol]) -> Batch:
    """Molecules as one torch-geometric Batch."""
    from torch_geometric.data import Batch

    return Batch.from_data_list([to_data(mol) for mol in mols])


def from_data(data: Data) -> Chem.Mol:
    """The molecule of a graph, sanitised, no hydrogens but those given. Raises UserError."""
    missing = [name for name in ("z", "pos", "edge_index", "edge_attr") if getattr(data, name, None) is None]
    if missing:
        raise UserError(f"found a graph without {', '.join(missing)}, expected z, pos, edge_index and edge_attr")
    numbers, positions = data.z.tolist(), np.asarray(data.pos.tolist(), dtype=np.float64)
    if len(numbers) == 0 or positions.shape != (len(numbers), 3) or not np.isfinite(positions).all():
        raise UserError(f"found positions {positions.shape} of {len(numbers)} atoms, expected finite [N, 3] in Å")
    if data.edge_attr.dim() != 2 or data.edge_attr.shape[1] != len(BONDS):
        raise UserError(
            f"found edge_attr {list(data.edge_attr.shape)}, expected [E, 4]: single, double, triple, aromatic"
        )
    charges = data.charge.tolist() if getattr(data, "charge", None) is not None else [0] * len(numbers)
    mol = Chem.RWMol()
    try:
        with rdBase.BlockLogs():
            for number, charge in zip(numbers, charges, strict=True):
                atom = Chem.Atom(int(number))
                atom.SetFormalCharge(int(charge))
                atom.SetNoImplicit(True)
                mol.AddAtom(atom)
            for (i, j), kind in zip(data.edge_index.t().tolist(), data.edge_attr.argmax(1).tolist(), strict=True):
                if mol.GetBondBetweenAtoms(i, j) is None:
                    mol.AddBond(i, j, BONDS[kind])
                    if BONDS[kind] == Chem.BondType.AROMATIC:
                        for k in (i, j):
                            mol.GetAtomWithIdx(k).SetIsAromatic(True)
            Chem.SanitizeMol(mol)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"found a graph that makes no molecule: {' '.join(str(error).split())}") from error
    conformer = Chem.Conformer(len(numbers))
    conformer.SetPositions(positions)
    conformer.Set3D(True)
    mol.AddConformer(conformer, assignId=True)
    Chem.AssignStereochemistryFrom3D(mol)
    return mol.GetMol()


def unbatched(items: Any) -> list[Any]:
    """The members of a torch-geometric Batch; any other sequence as a list."""
    return items.to_data_list() if hasattr(items, "to_data_list") else list(items)


def is_data(item: Any) -> bool:
    return hasattr(item, "edge_index") and hasattr(item, "pos")
