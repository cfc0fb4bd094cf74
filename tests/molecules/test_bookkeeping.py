"""Totals of a noisy graph: exact at the data's end, Bayes' rule before it, and seen by the network."""

from __future__ import annotations

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem
from torch import Tensor

from sciconsist.domains.molecules.adapter import MoleculeConfig, MoleculeDomain
from sciconsist.domains.molecules.bookkeeping import FEATURES, Bookkeeping, posterior
from sciconsist.domains.molecules.graphs import heavy_graph, pad_graphs
from sciconsist.domains.molecules.vocabulary import Vocabulary

SMILES = ("CC(=O)O", "C1CC1", "N#CC1CO1", "c1ccoc1")


def shaped(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return mol


@pytest.fixture(scope="module")
def domain() -> MoleculeDomain:
    mols = [Chem.MolFromSmiles(s) for s in SMILES]
    for mol in mols:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    return MoleculeDomain(MoleculeConfig(vocabulary=Vocabulary.from_molecules(mols).to_config()))


def features(domain: MoleculeDomain, s: float, totals: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All features of the molecules' clean states carried to time s, and the node mask."""
    graphs = pad_graphs([heavy_graph(shaped(m), domain.vocabulary) for m in SMILES])
    x0, _, mask = domain.encode(graphs)
    noise = domain.geometry.prior(x0, mask, generator=torch.Generator().manual_seed(0))
    x = {name: (1 - s) * x0[name] + s * noise[name] for name in ("atoms", "bonds")}
    books = Bookkeeping(domain.vocabulary, domain.config.atom_scale, domain.config.bond_scale, FEATURES)
    books.out.weight.data = torch.eye(FEATURES)
    clock = torch.full((len(SMILES),), s)
    every = torch.ones(*mask["atoms"].shape, len(domain.vocabulary), dtype=torch.bool)
    node, pair = mask["atoms"].float(), mask["bonds"].float()[..., None]
    totals = torch.full((len(SMILES), 2), torch.nan) if totals is None else totals
    return books(x["atoms"], x["bonds"], clock, clock, every, totals, node, pair).detach(), mask["atoms"]


def test_the_totals_of_data_are_exact(domain: MoleculeDomain) -> None:
    mols = [shaped(s) for s in SMILES]
    hydrogens = [sum(a.GetSymbol() == "H" for a in m.GetAtoms()) for m in mols]
    bonds = [Chem.RemoveHs(m).GetNumBonds() for m in mols]
    told = torch.tensor([[h + 3.0, b - 1.0] for h, b in zip(hydrogens, bonds)])
    found, node = features(domain, 0.0, told)
    assert found[..., 0].masked_fill(~node, 0).sum(1).mul(2).tolist() == pytest.approx(hydrogens, abs=1e-4)
    assert found[..., 3][node].abs().max() < 1e-4  # every valence is spent
    assert found[:, 0, 4].mul(2).tolist() == pytest.approx([3.0] * 4, abs=1e-4)  # hydrogens lacking
    assert found[:, 0, 5].mul(2).tolist() == pytest.approx([-1.0] * 4, abs=1e-4)  # bonded pairs lacking
    assert found[:, 0, 6:8].eq(1).all() and found[:, 0, 8].abs().max() < 1e-4
    untold, _ = features(domain, 0.0)
    assert untold[..., 4:8].eq(0).all()


def test_the_posterior_is_bayes_rule() -> None:
    generator, s, scale = torch.Generator().manual_seed(1), 0.6, 2.0
    x = torch.randn(1, 50, 5, generator=generator, dtype=torch.float64)
    a, b = (1 - s) * scale, s
    log = torch.stack(
        [-((x - a * torch.eye(5, dtype=torch.float64)[k]) ** 2).sum(-1) / (2 * b * b) for k in range(5)], -1
    )
    assert posterior(x, torch.tensor([[[s]]]), scale).sub(torch.softmax(log, -1)).abs().max() < 1e-6
    only = torch.zeros(1, 50, 5, dtype=torch.bool)
    only[..., 2] = True
    assert posterior(x, torch.tensor([[[s]]]), scale, only)[..., 2].eq(1).all()


def test_noise_says_little_and_nothing_is_not_finite(domain: MoleculeDomain) -> None:
    for s in (0.0, 1e-4, 0.5, 1.0):
        found, _ = features(domain, s)
        assert torch.isfinite(found).all()
    even, node = features(domain, 1.0)
    assert even[..., 0][node].std() < 1e-6  # all classes as likely
