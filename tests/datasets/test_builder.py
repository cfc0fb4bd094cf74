"""The builder: right minima, and a build killed at any moment ends as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sciconsist.datasets import builder, qm9_gfn2
from sciconsist.errors import UserError

pytest.importorskip("tblite")

SMILES = "C methane\nO\nC#C\nnot_a_smiles\nCCO\nC=O\nO.O\nCC(=O)N\nc1ccoc1\n[NH4+]\nCCC\nN\n"
SCRIPT = """
import sys
from sciconsist.datasets import builder
if __name__ == "__main__":
    builder.build(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
"""


@pytest.fixture
def smiles(tmp_path) -> Path:
    path = tmp_path / "few.smi"
    path.write_text(SMILES)
    return path


def test_build(smiles, tmp_path):
    seen = []
    done = builder.build(smiles, tmp_path / "few.npz", advance=seen.append)
    assert (done.molecules, done.failed, done.resumed) == (10, 2, 0)
    assert sum(seen) == 12
    records = qm9_gfn2.read(done.output)
    assert len(records) == 10 and all(r.same_graph for r in records)
    methane = records[0].mol.GetConformer().GetPositions()
    assert np.linalg.norm(methane[1:] - methane[0], axis=1) == pytest.approx(1.086, abs=0.01)
    water = records[1].properties  # the same calculation as in the shared data's record of water
    assert water["energy_ev"] == pytest.approx(-137.97654, abs=1e-3)
    assert water["homo_ev"] == pytest.approx(-12.147, abs=0.01)
    assert water["dipole_debye"] == pytest.approx(2.217, abs=0.01)
    errors = [json.loads(line) for line in (tmp_path / "few.npz.errors.jsonl").read_text().splitlines()]
    assert [e["smiles"] for e in errors] == ["not_a_smiles", "O.O"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few.npz", "few.npz.errors.jsonl", "few.smi"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_continues(smiles, tmp_path, workers):
    builder.build(smiles, tmp_path / "whole.npz")
    output, script = tmp_path / "killed.npz", tmp_path / "run.py"
    journal = tmp_path / "killed.npz.journal.jsonl"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    for wanted in (3, 6):  # journal lines, its head among them
        process = subprocess.Popen([sys.executable, script, smiles, output, str(workers)], env=env)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if journal.is_file() and journal.read_bytes().count(b"\n") >= wanted:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if output.is_file():
            break  # it was faster than we
        with journal.open("a") as file:
            file.write('{"index": 7, "smiles": "CC(')  # what a kill inside a write leaves
    done = builder.build(smiles, output)
    whole, resumed = np.load(tmp_path / "whole.npz"), np.load(output)
    assert (done.molecules, done.failed) == (10, 2)
    for key in whole.files:
        assert np.array_equal(whole[key], resumed[key]), key
    assert not journal.exists()


def test_rows_that_are_done_are_not_done_again(smiles, tmp_path, monkeypatch):
    calls = []
    real = builder.build_one

    def stopping(task):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(task.index)
        return real(task)

    monkeypatch.setattr(builder, "build_one", stopping)
    with pytest.raises(KeyboardInterrupt):
        builder.build(smiles, tmp_path / "few.npz")
    monkeypatch.setattr(builder, "build_one", lambda task: calls.append(task.index) or real(task))
    assert builder.build(smiles, tmp_path / "few.npz").resumed == 4
    assert sorted(calls) == list(range(12))


def test_a_journal_of_another_build_is_refused(smiles, tmp_path):
    (tmp_path / "few.npz.journal.jsonl").write_text('{"build": "another"}\n')
    with pytest.raises(UserError, match="another seed"):
        builder.build(smiles, tmp_path / "few.npz")


def test_smiles_files(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("gdb9_index,smiles,split\n7,CCO,train\n9,C,test\n")
    assert builder.read_smiles(table) == [(7, "CCO"), (9, "C")]
    table.write_text("gdb9_index,smiles\n7,CCO\n7,C\n")
    with pytest.raises(UserError, match="twice"):
        builder.read_smiles(table)
    for text in ("", "name\nx\n"):
        table.write_text(text)
        with pytest.raises(UserError, match=r"t\.csv"):
            builder.read_smiles(table)
    with pytest.raises(UserError, match="absent"):
        builder.read_smiles(tmp_path / "absent.smi")
