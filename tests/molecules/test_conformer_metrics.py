"""Coverage and matching of conformers: a set covers itself, a part covers a part, mirror images are apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from sciconsist.cli import main
from sciconsist.domains.molecules.metrics.conformers import (
    distances,
    embedded,
    gfn2_ensemble,
    score,
    stereo_right,
)


def mol(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def test_a_set_covers_itself_and_a_part_covers_a_part() -> None:
    confs = embedded(mol("CCCCO"), 12, 0)
    assert len(confs) == 12 and distances(confs[:1], confs).max() > 0.5  # they differ
    whole = score(confs, confs)
    assert whole.coverage_recall == whole.coverage_precision == 1.0 and whole.matching_recall < 1e-3
    part = score(confs[:1], confs)
    assert part.coverage_recall < 1.0 and part.coverage_precision == 1.0 and part.matching_recall > 0.1


def test_turned_and_renumbered_is_the_same_and_mirrored_is_not() -> None:
    (one,) = embedded(mol("C[C@H](O)C(F)=O"), 1, 0)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    turned, mirrored = Chem.Mol(one), Chem.Mol(one)
    turned.GetConformer().SetPositions(one.GetConformer().GetPositions() @ turn + 3.0)
    turned = Chem.RenumberAtoms(turned, list(reversed(range(turned.GetNumAtoms()))))
    mirrored.GetConformer().SetPositions(one.GetConformer().GetPositions() * [1.0, 1.0, -1.0])
    assert distances([turned], [one])[0, 0] < 1e-3 < 0.1 < distances([mirrored], [one])[0, 0]
    assert stereo_right(turned, "C[C@H](O)C(F)=O") and not stereo_right(mirrored, "C[C@H](O)C(F)=O")


def test_a_reference_ensemble_has_different_minima() -> None:
    pytest.importorskip("tblite")
    minima = gfn2_ensemble(mol("CCCO"), 8, 0)
    d = distances(minima, minima)
    assert len(minima) > 1 and d[np.triu_indices(len(minima), 1)].min() > 0.1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tblite")
    confs, report = tmp_path / "c.sdf", tmp_path / "c.json"
    assert main(["generate", "conformers", "C[C@H](O)C=O", "-n", "4", "-o", str(confs), "--quiet"]) == 0
    assert main(["evaluate", "conformers", str(confs), "--starts", "4", "-o", str(report), "--quiet"]) == 0
    assert "coverage_recall" in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["stereo_right"] == 1.0 and found["molecules"] == 1 and found["conformers"] == 4
    assert 0 <= found["samples"]["coverage_recall"] <= 1 and found["etkdg_mmff94"]["matching_recall"] > 0


def test_a_hydrogen_that_makes_stereo_is_not_kept_on_one_side() -> None:
    """RDKit's RemoveHs leaves the hydrogen of an imine whose double bond is marked, and takes that of one unmarked."""
    marked, plain = (embedded(Chem.AddHs(Chem.MolFromSmiles(s)), 1, 0) for s in ("[H]/N=C/OC", "N=COC"))
    assert Chem.RemoveHs(marked[0]).GetNumAtoms() > Chem.RemoveHs(plain[0]).GetNumAtoms()
    assert distances(marked, plain).shape == (1, 1)
