"""The molecule domain keeps the contract of every domain, and exchanges molecules with torch-geometric."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem
from torch import Tensor

from sciconsist.domain import Batch
from sciconsist.domains.molecules.adapter import MoleculeDomain, from_config
from sciconsist.domains.molecules.graphs import heavy_graph
from sciconsist.domains.molecules.interchange import from_data, to_batch, to_data
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.errors import UserError
from sciconsist.testing import DomainContract, with_state

SMILES = ("CCO", "c1ccncc1", "[NH3+]CC(=O)[O-]", "C#N", "C[C@H](O)C=O")


def molecule(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return mol


def bare(smiles: str) -> Chem.Mol:
    mol = Chem.MolFromSmiles(smiles)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return mol


def domain() -> MoleculeDomain:
    vocabulary = Vocabulary.from_molecules(bare(s) for s in SMILES)
    small = {"layers": 2, "width": 32, "pair_width": 8, "vectors": 4, "heads": 2}
    return from_config({"vocabulary": vocabulary.to_config(), "network": small})


def turned(batch: Batch, matrix: Tensor) -> Batch:
    assert isinstance(batch.x0, dict)
    positions = batch.x0["positions"]
    return with_state(batch, {**batch.x0, "positions": positions @ matrix.to(positions.dtype)})


def turn(batch: Batch, generator: torch.Generator) -> Batch:
    """A rotation as e3nn represents it on polar vectors."""
    from e3nn import o3

    w = torch.randn(4, generator=generator, dtype=torch.float64)
    rotation = o3.quaternion_to_matrix(w / w.norm())
    return turned(batch, o3.Irreps("1o").D_from_matrix(rotation))


def mirror(batch: Batch, generator: torch.Generator) -> Batch:
    """An improper rotation: `1o` is odd."""
    from e3nn import o3

    w = torch.randn(4, generator=generator, dtype=torch.float64)
    return turned(batch, o3.Irreps("1o").D_from_matrix(-o3.quaternion_to_matrix(w / w.norm())))


def permute(batch: Batch, generator: torch.Generator) -> Batch:
    """Another order of each molecule's atoms, the padding among them."""
    assert isinstance(batch.x0, dict) and isinstance(batch.mask, dict)
    order = torch.randperm(batch.x0["atoms"].shape[1], generator=generator)

    def mixed(fields: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: x[:, order][:, :, order] if n == "bonds" else x[:, order] for n, x in fields.items()}

    return Batch(mixed(batch.x0), condition=batch.condition, mask=mixed(batch.mask))


class TestMoleculeDomain(DomainContract):
    symmetries: ClassVar = {"turned": turn, "mirrored": mirror, "permuted": permute}

    def make(self) -> MoleculeDomain:
        return domain()

    def items(self) -> list[Chem.Mol]:
        return [molecule(s) for s in SMILES]

    def bad_items(self) -> dict[str, Any]:
        broken = to_data(molecule("CCO"))
        broken.edge_attr = broken.edge_attr[:, :2]
        return {
            "an unknown element": molecule("CS"),
            "a radical": molecule("[CH2]C"),
            "no conformer": Chem.MolFromSmiles("CCO"),
            "hydrogen alone": molecule("[H][H]"),
            "a graph in another layout": broken,
        }

    def request(self) -> Tensor:
        return torch.tensor([3, 6, 2])

    def same(self, item: Chem.Mol, decoded: Chem.Mol) -> bool:
        if Chem.MolToSmiles(Chem.RemoveHs(item)) != Chem.MolToSmiles(Chem.RemoveHs(decoded)):
            return False
        n = item.GetNumHeavyAtoms()
        shift = item.GetConformer().GetPositions()[:n] - decoded.GetConformer().GetPositions()[:n]
        return bool(np.ptp(shift, axis=0).max() < 1e-5)


def test_a_request_that_is_no_sizes_is_refused() -> None:
    for request in (torch.tensor([3.0]), torch.tensor([0, 2]), torch.tensor([[2]]), []):
        with pytest.raises(UserError, match="heavy atoms"):
            domain().template(request)


# --- torch-geometric


def test_molecules_come_back_from_torch_geometric() -> None:
    mols = [molecule(s) for s in SMILES]
    batch = to_batch(mols)
    assert batch.num_graphs == len(mols) and batch.num_nodes == sum(m.GetNumAtoms() for m in mols)
    for mol, data in zip(mols, batch.to_data_list()):
        assert data.validate() and data.is_undirected() and not data.has_self_loops()
        back = from_data(data)
        assert Chem.MolToSmiles(back) == Chem.MolToSmiles(mol)
        assert [a.GetAtomicNum() for a in back.GetAtoms()] == [a.GetAtomicNum() for a in mol.GetAtoms()]
        np.testing.assert_allclose(back.GetConformer().GetPositions(), mol.GetConformer().GetPositions(), atol=1e-5)


def test_a_torch_geometric_batch_is_collated_like_its_molecules() -> None:
    mols = [molecule(s) for s in SMILES]
    plain, exchanged = domain().collate(mols), domain().collate(to_batch(mols))
    graphs = domain().collate([heavy_graph(m, domain().vocabulary) for m in mols])
    for other in (exchanged, graphs):
        assert isinstance(plain.x0, dict) and isinstance(other.x0, dict)
        for name, value in plain.x0.items():
            torch.testing.assert_close(other.x0[name], value, atol=1e-5, rtol=0)


def test_bonds_of_torch_geometrics_own_qm9_may_be_aromatic() -> None:
    data = to_data(molecule("c1ccncc1"))
    mol = Chem.MolFromSmiles("c1ccncc1")
    ring = [
        mol.GetBondBetweenAtoms(i, j) is not None if max(i, j) < 6 else False for i, j in data.edge_index.t().tolist()
    ]
    data.edge_attr[torch.tensor(ring)] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    del data.charge  # theirs has none
    assert Chem.MolToSmiles(Chem.RemoveHs(from_data(data))) == "c1ccncc1"
