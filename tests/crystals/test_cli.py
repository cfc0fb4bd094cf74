"""The crystal commands as a user types them: files, statuses, one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from sciconsist.checkpoint import save_model
from sciconsist.cli import main
from sciconsist.domains.crystals.files import read_file

from .conftest import small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, small_model())
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen rock salts and caesium chlorides of a folder."""
    folder = tmp_path_factory.mktemp("real")
    for k in range(16):
        lattice = Lattice.cubic(5.4 + 0.05 * k) if k % 2 else Lattice.cubic(3.4 + 0.05 * k)
        a, b = [("Na", "Cl"), ("Li", "O"), ("Ti", "O"), ("Fe", "Cl")][k // 4]
        group = "Fm-3m" if k % 2 else "Pm-3m"
        Structure.from_spacegroup(group, lattice, [a, b], [[0, 0, 0], [0.5] * 3]).to(filename=str(folder / f"{k}.cif"))
    return folder


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    status = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return status, out, err


def test_generate(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "xtals"
    options = ("--model", model, "--steps", 2, "--raw", "--json", "--quiet", "-o", out)
    status, text, err = call(
        capsys, "generate", "crystals", "-n", 5, "--elements", "Na,Ti,O", "--atoms", "3:6", *options
    )
    assert status == 0 and err == ""
    figures = json.loads(text)
    assert figures["written"] == figures["drawn"] == 5 and figures["steps"] == 2
    files = sorted(out.glob("*.cif"))
    assert [f.name for f in files] == [f"{k:05d}.cif" for k in range(5)]
    for k, file in enumerate(files):
        (record,) = read_file(file)
        assert {e.symbol for e in record.structure.composition} <= {"Na", "Ti", "O"}
        assert 3 <= len(record.structure) <= 6
        assert record.origin["index"] == str(k) and record.origin["generator"].startswith("sciconsist")
    # a shorter run leaves nothing of the longer one
    assert call(capsys, "generate", "crystals", "-n", 2, "--formula", "NaCl", *options)[0] == 0
    assert len(list(out.glob("*.cif"))) == 2


def test_a_host_keeps_its_sites(tmp_path: Path, model: Path, real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host, out = real / "1.cif", tmp_path / "doped"
    status, _, err = call(
        capsys, "generate", "crystals", "-n", 1, "--from", host, "--supercell", "2,1,1", "--replace", "Na=Li:1",
        "--model", model, "--steps", 2, "--raw", "--quiet", "-o", out,
    )  # fmt: skip
    assert status == 0 and err == ""
    (record,) = read_file(out / "00000.cif")
    assert record.structure.composition.formula == "Na7 Li1 Cl8"
    first = read_file(host)[0].structure.make_supercell([2, 1, 1])
    places = {tuple(np.round(f % 1, 6) % 1) for f in first.frac_coords}
    kept = [s for s in record.structure if s.specie.symbol != "Li"]
    assert all(tuple(np.round(s.frac_coords % 1, 6) % 1) in places for s in kept)


def test_train_generate_evaluate(tmp_path: Path, real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, whole, student = tmp_path / "run", tmp_path / "whole", tmp_path / "student"
    sizes = [f for name, n in (("layers", 1), ("width", 16), ("pair_width", 8), ("heads", 2)) for f in
             ("--set", f"network.{name}={n}")]  # fmt: skip
    data = ("--data", real, "--quiet", "--json")
    status, text, _ = call(capsys, "train", "crystals", *data, *sizes, "--steps", 3, "--batch-size", 4, "-o", run)
    assert status == 0 and json.loads(text)["steps"] == 3
    status, text, _ = call(
        capsys, "train", "crystals", *data, *sizes, "--steps", 5, "--batch-size", 4, "--resume", "-o", run
    )
    assert status == 0 and json.loads(text)["steps"] == 5
    status, *_ = call(
        capsys, "train", "crystals", *data, "--init", run, "--set", "part=composition", "--steps", 2, "-o", whole
    )
    assert status == 0
    options = ("--data", real, "--quiet", "--steps", 1, "--recipe", "lmd_fd", "--batch-size", 4, "-o", student)
    assert call(capsys, "distill", whole, *options)[0] == 0

    out, report = tmp_path / "out", tmp_path / "report.json"
    status, *_ = call(
        capsys, "generate", "crystals", "-n", 6, "--raw", "--steps", 1, "--model", whole, "--quiet", "-o", out
    )
    assert status == 0 and len(list(out.glob("*.cif"))) == 6
    status, *_ = call(
        capsys, "evaluate", "crystals", out, "--reference", real, "--known", real, "-o", report, "--quiet"
    )
    assert status == 0
    figures = json.loads(report.read_text())
    assert figures["samples"]["n"] == 6 and figures["ceiling"]["validity"]["structural"] == 1
    assert 0 < figures["samples"]["novelty"]["unique"] <= 1


def test_benchmark(tmp_path: Path, model: Path, real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    options = ("--data", real, "--model", model, "--steps", "1,2:3", "-k", 5, "--limit", 4, "--no-baselines", "--quiet")
    status, text, _ = call(capsys, "benchmark", "crystals", *options, "-o", out)
    rows = json.loads(out.read_text())["rows"]
    assert status == 0 and [(r["evaluations"], r["boost"]) for r in rows] == [(1, 0.0), (2, 3.0)]
    assert all(r["n"] == 4 and 0 <= r["match_k1"] <= r["match_k5"] <= 1 and r["cpu_ms"] > 0 for r in rows)
    assert "4 crystals" in text
    status, _, err = call(
        capsys, "benchmark", "crystals", "--data", real, "--model", model, "--steps", "few", "--quiet"
    )
    assert status == 2 and "'few'" in err


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--formula", "Na2Xx"], "Na2Xx"), (["--elements", "Na,Zz"], "Zz"), (["--space-group", "300"], "300"),
        (["--atoms", "99"], "trained on"), (["--supercell", "2,2,2"], "--from"), (["--property", "gap=1"], "gap"),
        (["--model", "nonesuch"], "nonesuch"), (["--from", "absent.cif", "--vacancy", "O"], "absent.cif"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    given = [] if "--model" in extra else ["--model", model]
    status, out, err = call(capsys, "generate", "crystals", "-n", 1, "-o", tmp_path / "x", "--quiet", *given, *extra)
    assert status == 2 and out == "" and words in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [("generate", "crystals"), ("train", "crystals"), ("distill",), ("evaluate", "crystals")]
)
def test_help_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, *command, "--help")
    assert status == 0 and f"sciconsist {' '.join(command)}" in out


def test_benchmark_of_space_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """Every sample is counted, and those of another group are named."""
    assert main(["benchmark", "crystals", "--groups", "3", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["groups"], found["n"]) == (3, 12)
    assert found["kept"] + sum(found["missed"].values()) == 12 and found["kept"] >= 9
