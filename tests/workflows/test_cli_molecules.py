"""The molecule commands as a user types them: outputs, statuses, one line for a mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rdkit import Chem

from sciconsist.cli import main

ROOT = Path(__file__).resolve().parents[2]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    status = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return status, out, err


def test_generate_molecules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mols.sdf"
    status, out, err = call(capsys, "generate", "molecules", "-n", 5, "-o", path, "--json", "--quiet")
    assert status == 0 and err == ""
    assert json.loads(out)["written"] == 5 == len(list(Chem.SDMolSupplier(str(path))))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["-n", "-3"], "--count"),
        (["-n", "many"], "--count"),
        (["--steps", "0"], "--steps"),
        (["--atoms", "40"], "trained on"),
        (["--elements", "C,Xx"], "the model knows"),
        (["--model", "nonesuch"], "molecules-qm9gfn2"),
        (["--device", "abacus"], "cpu or cuda"),
        (["--novel-to", "absent.smi"], "absent.smi"),
        (["--property", "colour=6"], "can be told gap"),
        (["--formula", "C2H6", "--atoms", "2"], "leave out"),
        (["--property", "gap"], "gap=6.5"),
        (["--guidance", "2"], "give one"),
        (["--scaffold", "core.sdf"], "core.sdf"),
        (["--linker", "core.sdf"], "two SDF files"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    status, out, err = call(capsys, "generate", "molecules", "-o", tmp_path / "m.sdf", *extra)
    assert status == 2 and out == "" and words in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file/m.sdf", tmp_path / "absent/m.sdf", tmp_path, tmp_path / "m.txt"):
        status, _, err = call(capsys, "generate", "molecules", "-n", 2, "-o", path)
        assert status == 2 and str(path) in err and err.count("\n") == 1
    if os.path.exists("/dev/full"):
        status, _, err = call(capsys, "generate", "molecules", "-n", 2, "-o", "/dev/full")
        assert status == 2 and err.startswith("error: /dev/full: No space left")
    assert (tmp_path / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 1


@pytest.fixture(scope="module")
def sdf(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SDF file of ours, as text."""
    path = tmp_path_factory.mktemp("input") / "m.sdf"
    assert main(["generate", "molecules", "-n", "6", "-o", str(path), "--quiet"]) == 0
    return path.read_text()


@pytest.mark.parametrize("damage", ["cut in half", "an unknown element"])
@pytest.mark.parametrize(
    "command",
    [
        "evaluate molecules IN --reference IN -o OUT.json",
        "generate conformers IN -n 1 -o OUT.sdf",
        "train molecules --data IN --steps 1 -o OUT",
    ],
)
def test_a_damaged_sdf_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sdf: str, damage: str, command: str
) -> None:
    path = tmp_path / "in.sdf"
    path.write_text(sdf[: len(sdf) // 2] if damage == "cut in half" else sdf.replace(" C   0", " Xx  0"))
    words = [w.replace("IN", str(path)).replace("OUT", str(tmp_path / "out")) for w in command.split()]
    status, out, err = call(capsys, *words)
    assert status == 2 and out == "" and err.count("\n") == 1, err
    assert err.startswith(f"error: {path}, record ") and "expected" in err
    assert [p.name for p in tmp_path.iterdir()] == ["in.sdf"]


@pytest.mark.parametrize("command", ["generate molecules", "generate conformers CCO", "models show"])
def test_a_checkpoint_with_flipped_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    from sciconsist.workflows.models import locate

    content = bytearray(locate("molecules-qm9gfn2").read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 16):
        content[place] ^= 255
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    rest = [path] if command == "models show" else ["--model", path, "-o", tmp_path / "m.sdf"]
    status, out, err = call(capsys, *command.split(), *rest)
    assert status == 2 and out == "" and err.count("\n") == 1 and f"{path}: its sha256" in err
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
@pytest.mark.parametrize(
    "command",
    [
        "generate molecules -n 100 -o OUT/m.sdf",
        "generate conformers CCO -n 100 -o OUT/c.sdf",
        "train molecules --data IN --steps 1 -o OUT",
    ],
)
def test_a_disk_that_fills_up(tmp_path: Path, sdf: str, command: str) -> None:
    """A limit on the size of a file stands for the disk: the write that crosses it fails half-way."""
    import resource

    (tmp_path / "in.sdf").write_text(sdf)
    out = tmp_path / "out"
    out.mkdir()
    words = [w.replace("IN", str(tmp_path / "in.sdf")).replace("OUT", str(out)) for w in command.split()]
    limit = 20_000
    done = subprocess.run(
        [sys.executable, "-m", "sciconsist", *words], cwd=ROOT, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {out}") and "free some space" in done.stderr
    assert not [p for p in out.rglob("*") if p.suffix in (".sdf", ".safetensors") or ".tmp" in p.name]


def test_conformers_partly_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.smi").write_text("CCO first\nCCS\nC[C@H](O)F\n")
    path = tmp_path / "confs.sdf"
    status, out, err = call(capsys, "generate", "conformers", tmp_path / "in.smi", "-n", 2, "-o", path, "--json")
    assert status == 3 and json.loads(out)["written"] == 4 and "partly done" in err
    (line,) = Path(f"{path}.errors.jsonl").read_text().splitlines()
    assert json.loads(line)["smiles"] == "CCS" and "record 2" in json.loads(line)["where"]
    status, _, err = call(capsys, "generate", "conformers", "CCS", "-o", tmp_path / "none.sdf")
    assert status == 2 and "found S" in err and not (tmp_path / "none.sdf").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_finished_records(tmp_path: Path, number: int, status: int) -> None:
    path = tmp_path / "many.sdf"
    command = [sys.executable, "-m", "sciconsist", "generate", "molecules", "-n", "100000", "-o", str(path)]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(p.stat().st_size for p in tmp_path.glob(".tmp-*")):
        time.sleep(0.1)
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == status and "Traceback" not in err
    records = path.read_text().split("$$$$\n")
    assert records[-1] == "" and len(records) > 1
    assert [p.name for p in tmp_path.iterdir()] == ["many.sdf"]


def test_models_and_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = call(capsys, "models", "list", "--json")
    assert status == 0 and "molecules-qm9gfn2" in {m["name"] for m in json.loads(out)["models"]}
    status, out, _ = call(capsys, "models", "show", "molecules-qm9gfn2", "--json")
    assert status == 0 and json.loads(out)["card"]["data_licence"]
    status, out, _ = call(capsys, "data", "list", "--json")
    assert status == 0 and "qm9-gfn2" in {d["name"] for d in json.loads(out)["data"]}
    status, _, err = call(capsys, "data", "get", "nonesuch")
    assert status == 2 and "qm9-gfn2" in err


def test_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCICONSIST_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no data at all: novelty is left out
    path, report, page = (tmp_path / name for name in ("m.sdf", "r.json", "r.html"))
    assert call(capsys, "generate", "molecules", "-n", 12, "--raw", "-o", path)[0] == 0
    arguments = ("--reference", path, "-o", report, "--html", page)
    status, out, _ = call(capsys, "evaluate", "molecules", path, *arguments)
    assert status == 0 and "ceiling" in out and page.stat().st_size > 1000
    found = json.loads(report.read_text())
    assert found["samples"]["n"] == 12 and found["origin"]["selection"] == "raw"
    status, _, err = call(capsys, "evaluate", "molecules", path)
    assert status == 2 and "SCICONSIST_DATA_DIR" in err


def test_train_resume_and_distill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "m.sdf"
    assert call(capsys, "generate", "molecules", "-n", 12, "-o", data)[0] == 0
    small = ["network.width=32", "network.layers=2", "network.heads=4", "batch_size=6", "min_count=1"]
    settings = [word for one in small for word in ("--set", one)]
    run = tmp_path / "run"
    base = ("train", "molecules", "--data", data, "-o", run, *settings)
    assert call(capsys, *base, "--steps", 2)[0] == 0
    status, out, _ = call(capsys, *base, "--steps", 4, "--resume", "--json")
    assert status == 0 and json.loads(out)["steps"] == 4
    assert call(capsys, "generate", "molecules", "-n", 3, "--raw", "--model", run, "-o", tmp_path / "x.sdf")[0] == 0
    for recipe in ("lmd_fd", "emd_fd", "psd"):
        student = (
            "distill",
            run,
            "--data",
            data,
            "-o",
            tmp_path / recipe,
            "--recipe",
            recipe,
            "--set",
            "batch_size=6",
        )
        status, out, err = call(capsys, *student, "--steps", 2, "--json")
        assert status == 0, err
        assert json.loads(out)["loss"] > 0
    for bad, words in (
        (["--set", "lr=fast"], "lr"),
        (["--set", "speed=1"], "speed"),
        ([], "--minutes or --steps"),
    ):
        extra = ["--steps", 1] if bad else []
        status, _, err = call(capsys, "train", "molecules", "--data", data, "-o", tmp_path / "r2", *extra, *bad)
        assert status == 2 and words in err
