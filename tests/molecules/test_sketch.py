"""Sketches: drawn as often as the training data have them, within what was asked, and heard by the network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem, Descriptors
from scipy.stats import norm

from sciconsist.domains.molecules.generate import generate as draw
from sciconsist.domains.molecules.generate import plan_steps
from sciconsist.domains.molecules.graphs import heavy_graph, pad_graphs
from sciconsist.domains.molecules.properties import measure
from sciconsist.domains.molecules.sketch import Sketches, pick, sketch
from sciconsist.domains.molecules.wishes import Wish, draw_told
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.generate import Molecules
from sciconsist.workflows.models import load
from sciconsist.workflows.runs import Until
from sciconsist.workflows.train_molecules import TrainConfig, train

NAMES = ("H_atoms", "C_atoms", "O_atoms", "rings")
SMILES = ("CCO", "CCO", "CCO", "COC", "C1CC1", "CC=O", "C1CO1", "CCC", "CC", "CO")


def shaped(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return mol


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FlowMap:
    folder: Path = tmp_path_factory.mktemp("sketched")
    config = TrainConfig(sketch=NAMES, min_count=1, network={"layers": 1, "width": 32, "heads": 4})  # type: ignore[arg-type]
    train([shaped(s) for s in SMILES], folder / "run", config, until=Until(steps=3))
    return load(folder / "run")


def kept_sketches() -> Sketches:
    rows = np.array([measure(shaped(s), NAMES) for s in SMILES])
    weight = np.array([[Descriptors.MolWt(Chem.MolFromSmiles(s))] for s in SMILES])  # type: ignore[attr-defined]
    return sketch([Chem.MolFromSmiles(s).GetNumAtoms() for s in SMILES], rows, NAMES, weight, ["mw"])


def test_draws_are_as_often_as_in_the_data() -> None:
    kept = kept_sketches()
    weights = kept.weights(kept.table[:, 0] == 3)
    draws = Counter(tuple(kept.values[pick(np.cumsum(weights), u)].tolist()) for u in (np.arange(8) + 0.5) / 8)
    real = Counter(tuple(measure(shaped(s), NAMES).astype(int).tolist()) for s in SMILES[:8])
    assert draws == real  # eight of three heavy atoms
    assert Sketches.model_validate_json(kept.model_dump_json()) == kept


def test_draws_keep_to_elements_ranges_and_properties() -> None:
    kept = kept_sketches()
    assert (kept.values[kept.fitting({"C", "H"})][:, 2] == 0).all() and kept.fitting({"C", "H"}).sum() == 3
    assert kept.fitting(None, {"rings": (1.0, 1.0)}).sum() == 2
    heaviest = kept.weights(kept.fitting(), {"mw": 46.07})
    assert kept.values[heaviest.argmax()].tolist() == [6, 2, 1, 0]  # ethanol or its ether
    assert heaviest[kept.table[:, 0] == 2].max() < 0.3 * heaviest.max()
    assert kept.weights(kept.fitting({"O", "H"})).sum() == 0


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.floats(-5, 5)), min_size=2, max_size=30))
@settings(max_examples=30, deadline=None)
def test_weights_are_bayes_rule(molecules: list[tuple[int, int, float]]) -> None:
    sizes, rings, logp = (np.array(column) for column in zip(*molecules))
    kept = sketch(sizes.tolist(), rings[:, None], ["rings"], logp[:, None], ["logp"])
    assert sum(kept.counts) == len(molecules) and (np.array(kept.stds) > 0).all()
    every = kept.fitting()
    assert kept.weights(every) == pytest.approx(np.array(kept.counts) / max(kept.counts))
    mean, std = (np.array(m)[:, 0] for m in (kept.means, kept.stds))
    posterior = np.array(kept.counts) * norm.pdf(0.5, mean, std)
    found = kept.weights(every, {"logp": 0.5})
    if posterior.max() > 1e-250:
        assert found / found.sum() == pytest.approx(posterior / posterior.sum(), abs=1e-9)


def test_a_sample_is_told_by_its_seed_and_index_alone(model: FlowMap) -> None:
    domain, histogram = model.domain, model.domain.config.size_histogram
    told = draw_told(domain, Wish(), histogram, range(40), seed=3)
    assert draw_told(domain, Wish(), histogram, [17], seed=3) == [told[17]]
    assert all(one.values["C_atoms"] + one.values["O_atoms"] == one.size for one in told)
    assert {one.size for one in draw_told(domain, Wish(), {2: 1}, range(9), seed=3)} == {2}
    whole = [m.GetConformer().GetPositions() for m in Molecules(model, raw=True, seed=3).take(4)]
    alone = [m.GetConformer().GetPositions() for m in Molecules(model, raw=True, seed=3, batch_size=1).take(4)]
    for a, b in zip(whole, alone):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("first", [0, 12_345])
def test_a_few_samples_have_the_proportions_of_the_data(model: FlowMap, first: int) -> None:
    """Chance would be off by some 4 % of 150; even steps by no more than some ends of their runs."""
    domain, kept = model.domain, model.domain.config.sketches
    shares = np.array(kept.counts) / sum(kept.counts)
    others = set()
    for seed in range(5):
        told = draw_told(domain, Wish(), domain.config.size_histogram, range(first, first + 150), seed)
        rows = [(one.size, *(int(v) for v in one.values.values())) for one in told]
        found = np.array([rows.count(tuple(row)) for row in kept.table.tolist()]) / 150
        assert np.abs(found - shares).max() < 0.02 and found.sum() == pytest.approx(1)
        others.add(tuple(rows[:9]))
    assert len(others) > 1  # a seed begins elsewhere


def test_the_network_hears_the_sketch(model: FlowMap) -> None:
    node = torch.ones(2, 3, dtype=torch.bool)
    with torch.no_grad():
        for parameter in model.net.condition[2].parameters():
            parameter.normal_()
    told = torch.tensor([[6.0, 2.0, 1.0, 0.0], [4.0, 1.0, 2.0, 1.0]])
    mask = model.domain.masks(node)
    state = {
        "positions": torch.randn(1, 3, 3).expand(2, -1, -1), "atoms": torch.zeros(2, 3, len(model.domain.vocabulary)),
        "bonds": torch.zeros(2, 3, 3, model.domain.config.bond_classes),
    }  # fmt: skip
    one = torch.ones(2)
    out = model.raw(state, one, one, model.domain.condition(node, told), mask)
    assert not torch.allclose(out["atoms"][0], out["atoms"][1])  # type: ignore[index]


def test_usable_molecules_do_not_say_that_a_property_was_requested(model: FlowMap) -> None:
    for sample in draw(model, 2, plan_steps(2), seed=1):
        assert sample.told == {}


def test_sketches_are_whole_numbers(tmp_path: Path) -> None:
    mols = [shaped(s) for s in SMILES]
    with pytest.raises(UserError, match="whole numbers"):
        train(mols, tmp_path / "run", TrainConfig(sketch=("logp",), min_count=1), until=Until(steps=1))
    with pytest.raises(UserError, match="colour"):
        train(mols, tmp_path / "run", TrainConfig(sketch=("colour",)), until=Until(steps=1))


def test_a_sketch_fixes_the_elements_of_every_raw_sample(model: FlowMap) -> None:
    samples = list(draw(model, 12, plan_steps(2), seed=5))
    told = draw_told(model.domain, Wish(), model.domain.config.size_histogram, range(12), seed=5)
    for sample, one in zip(samples, told):
        found = Counter(a.GetSymbol() for a in sample.mol.GetAtoms())
        assert (found["C"], found["O"]) == (one.values["C_atoms"], one.values["O_atoms"])


def test_a_formula_is_kept(model: FlowMap) -> None:
    for raw in (True, False):
        for mol in Molecules(model, formula="C2H6O", raw=raw, seed=1).take(2):
            found = Counter(a.GetSymbol() for a in mol.GetAtoms())
            assert (found["C"], found["O"]) == (2, 1)
            assert found["H"] == 6


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("C2H6S", "does not know S"),
        ("H2", "heavier"),
        ("C0H4", "whole numbers"),
        ("c2h6", "like C7"),
        ("C40H2", "beyond"),
    ],
)
def test_formulas_that_cannot_be(model: FlowMap, formula: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Molecules(model, formula=formula)


def test_a_formula_says_it_all(model: FlowMap, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out"):
        Molecules(model, formula="C2H6O", elements=["C", "O", "H"])
    config = TrainConfig(min_count=1, network={"layers": 1, "width": 32, "heads": 4})  # type: ignore[arg-type]
    train([shaped(s) for s in SMILES], tmp_path / "run", config, until=Until(steps=1))
    with pytest.raises(UserError, match="cannot be told"):
        Molecules(load(tmp_path / "run"), formula="C2H6O")


def test_noise_stays_with_its_element_where_elements_are_told(model: FlowMap) -> None:
    domain = model.domain
    state, _, mask = domain.encode(pad_graphs([heavy_graph(shaped(s), domain.vocabulary) for s in ("CCO", "C1CO1")]))
    noise = domain.geometry.prior(state, mask, generator=torch.Generator().manual_seed(0))
    classes = state["atoms"].argmax(-1)
    allowed, told = domain.same_element[classes], torch.ones(2, dtype=torch.bool)
    paired = domain.couple(state, noise, mask, ~told, allowed)
    same = domain.same_element[classes[:, :, None], classes[:, None]]
    for own, new, kin in zip(noise["atoms"], paired["atoms"], same):
        origin = [int((own == row).all(-1).nonzero()) for row in new]
        assert all(kin[i, j] for i, j in enumerate(origin)) and sorted(origin) == [0, 1, 2]


def test_first_weights_follow_from_the_seed(tmp_path: Path) -> None:
    config = TrainConfig(min_count=1, network={"layers": 1, "width": 32, "heads": 4})  # type: ignore[arg-type]
    weights = []
    for k, (noise, seed) in enumerate(((1, 0), (2, 0), (3, 1))):
        torch.random.default_generator.manual_seed(noise)
        train([shaped(s) for s in SMILES], tmp_path / str(k), config, until=Until(steps=1, seed=seed))
        weights.append(load(tmp_path / str(k)).state_dict()["net.atom_in.weight"])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
