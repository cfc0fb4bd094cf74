"""Properties told and measured: units, records, quantiles, errors beside what the size alone tells."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.domains.molecules.metrics.conditional import baseline, conditional_errors, requests
from sciconsist.domains.molecules.properties import PROPERTIES, check_names, gfn2_results, measure, summarise
from sciconsist.errors import UserError


def molecule(smiles: str, **told: float) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    for name, value in told.items():
        mol.SetProp(f"requested_{name}", str(value))
    return mol


def test_values_and_units() -> None:
    names = list(PROPERTIES)
    recorded = {"energy_ev": -90.0, "homo_ev": -10.0, "lumo_ev": -4.0, "dipole_debye": 1.5}
    found = dict(zip(names, measure(molecule("CCO"), names, recorded)))
    assert found["gap"] == 6.0 and found["dipole"] == 1.5 and found["energy_per_atom"] == -10.0
    assert found["mw"] == pytest.approx(46.07, abs=0.01) and found["tpsa"] == pytest.approx(20.23, abs=0.01)
    assert -0.5 < found["logp"] < 0.5 and 0 < found["qed"] < 1 < found["sa"] < 3
    unknown = dict(zip(names, measure(molecule("CCO"), names)))
    assert {n for n, v in unknown.items() if np.isnan(v)} == {"gap", "dipole", "energy_per_atom"}


@pytest.mark.parametrize(
    ("smiles", "count"),
    [("CC#CC", 1), ("CC#C", 0), ("CC#N", 0), ("C#CC#CC", 1), ("CC#CC#CC", 2), ("C#C", 0), ("C1C#CC1", 1)],
)
def test_a_triple_bond_within_a_chain_goes_on_at_both_ends(smiles: str, count: int) -> None:
    measure = PROPERTIES["inner_triple_bonds"].computed
    assert measure is not None
    mol = Chem.MolFromSmiles(smiles)
    assert measure(mol) == measure(Chem.AddHs(mol)) == count


def test_gfn2_measures_water() -> None:
    pytest.importorskip("tblite")
    mol = molecule("O")
    gap, dipole = measure(mol, ["gap", "dipole"], gfn2_results(mol))
    assert gap == pytest.approx(14.5, abs=1.0) and dipole == pytest.approx(2.2, abs=0.3)


def test_what_a_model_remembers_of_a_property() -> None:
    values = np.append(np.random.default_rng(0).normal(5.0, 2.0, 4000), np.nan)
    known = summarise("gap", values)
    assert known.mean == pytest.approx(5.0, abs=0.1) and known.std == pytest.approx(2.0, abs=0.1)
    draws = np.array([known.draw(3.0, 7.0, u) for u in np.linspace(0, 0.999, 500)])
    inside = values[(values >= 3) & (values <= 7)]
    assert draws.min() >= 3 and draws.max() <= 7 and np.all(np.diff(draws) >= 0)
    assert np.quantile(draws, [0.25, 0.75]) == pytest.approx(np.quantile(inside, [0.25, 0.75]), abs=0.1)
    with pytest.raises(UserError, match="at least 2"):
        summarise("gap", np.array([1.0, 1.0]))
    for names, words in ((["colour"], "colour"), (["gap", "gap"], "twice")):
        with pytest.raises(UserError, match=words):
            check_names(names)


def test_errors_of_what_was_told() -> None:
    mw = {s: measure(molecule(s), ["mw"])[0] for s in ("CCO", "CCCO")}
    samples = [molecule("CCO", mw=mw["CCO"] + 2), molecule("CCCO", mw=mw["CCCO"] - 4), molecule("CC")]
    real = [molecule(s) for s in ("CC", "CO", "CCC", "CCO", "COC")]
    found = conditional_errors(samples, real)
    assert requests(samples[2]) == {} and list(found) == ["mw"]
    assert found["mw"]["mae"] == pytest.approx(3.0) and (found["mw"]["n"], found["mw"]["scored"]) == (2, 2)
    assert 0 < found["mw"]["atoms_only"] < found["mw"]["spread"]
    broken = Chem.RWMol(samples[0])
    broken.RemoveAtom(broken.GetNumAtoms() - 1)
    again = conditional_errors([broken.GetMol(), samples[1]], real)
    assert (again["mw"]["n"], again["mw"]["scored"]) == (2, 1)  # what is no molecule is counted and not scored


def test_baseline_is_exact_where_size_tells_all() -> None:
    sizes = np.array([1, 1, 2, 2, 3])
    assert baseline(10.0 * sizes, sizes) == (0.0, pytest.approx(6.0))
    assert np.isnan(baseline(np.full(5, np.nan), sizes)).all()
