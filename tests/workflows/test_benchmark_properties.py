"""Asked properties are measured on what came out, and the baselines are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from sciconsist.cli.app import main
from sciconsist.errors import UserError
from sciconsist.workflows.benchmark_properties import (
    ATOMS,
    CHECKED,
    CONSTANT,
    TOLD,
    _baselines,
    benchmark_properties,
    table,
)
from sciconsist.workflows.models import load_for


def molecules(*smiles: str) -> list[Chem.Mol]:
    found = [Chem.AddHs(Chem.MolFromSmiles(s)) for s in smiles]
    for mol in found:
        rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    return found


def test_baselines_by_hand() -> None:
    values, sizes = np.array([1.0, 3.0, 10.0, np.nan]), np.array([5, 5, 9, 9])
    by_size, constant = _baselines("logp", values, sizes)
    assert (by_size.what, by_size.n, by_size.mae) == (ATOMS, 3, pytest.approx(2 / 3))  # around 2: 1, 1; around 10: 0
    assert (constant.what, constant.mae) == (CONSTANT, pytest.approx(3.0))  # around 3: 2, 0, 7


def test_checked_molecules_are_nearer_than_told_ones() -> None:
    pytest.importorskip("tblite")
    model, data = load_for("molecules", None), molecules("CCCO", "c1ccccc1C", "CC(=O)NC")
    rows = list(benchmark_properties(model, ["logp"], data, targets=3, each=2, steps=2))  # type: ignore[arg-type]
    assert [row.what for row in rows] == [TOLD, CHECKED, ATOMS, CONSTANT]
    assert [row.n for row in rows] == [6, 6, 3, 3] and rows[1].mae < rows[0].mae
    assert "told and checked" in table(rows)
    with pytest.raises(UserError, match="colour"):
        list(benchmark_properties(model, ["colour"], data))  # type: ignore[arg-type]


def test_bad_names_end_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "properties", "--names", "colour", "--quiet"]) != 0
    assert "colour" in capsys.readouterr().err
