"""SMILES -> ETKDGv3 -> MMFF94 -> GFN2-xTB minimum and its properties, for any list of SMILES.

Every finished molecule is one line of a journal beside the output, so a build that is killed at any moment
goes on where it was: nothing is lost, nothing done twice, and the result depends neither on when it was
killed nor on the number of workers. The output has the layout of qm9_gfn2_*.npz.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from sciconsist.domains.molecules.gfn2 import CalculationFailed, charge_and_unpaired, relax
from sciconsist.domains.molecules.shells import close_shells
from sciconsist.errors import UserError
from sciconsist.files import atomic_path

from .records import conformer, has_same_graph

EMBED_SECONDS = 60  # ETKDG gives up after this long on one molecule
_RESULTS = ("energy_ev", "homo_ev", "lumo_ev", "dipole_debye", "same_graph")


@dataclass(frozen=True)
class Task:
    """One SMILES to build: its index (gdb9_index, or the row) and the seed of the build."""

    index: int
    smiles: str
    seed: int


@dataclass(frozen=True)
class Built:
    """What a build did: molecules in the output, SMILES refused, and how many of both were there already."""

    output: Path
    molecules: int
    failed: int
    resumed: int


def read_smiles(path: str | Path) -> list[tuple[int, str]]:
    """Index and SMILES of every row: a .smi file (SMILES first in the line), or a CSV with a column `smiles`.

    The index is the CSV's `gdb9_index` or `index` where it has one, else the row, from 0. `.gz` is read as it
    is. Raises UserError.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            if ".csv" not in path.suffixes:
                rows = [(n, line.split()[0]) for n, line in enumerate(filter(str.strip, file))]
            else:
                table = csv.DictReader(file)
                key = next((k for k in ("gdb9_index", "index") if k in (table.fieldnames or ())), None)
                rows = [(int(row[key]) if key else n, row["smiles"]) for n, row in enumerate(table)]
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as SMILES ({error!r}); expected .smi or CSV with smiles") from error
    if not rows:
        raise UserError(f"{path}: found no SMILES in it")
    if len({index for index, _ in rows}) < len(rows):
        raise UserError(f"{path}: found an index twice, expected each once")
    return rows


def build(
    smiles: str | Path,
    output: str | Path,
    *,
    workers: int = 1,
    seed: int = 0,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Built:
    """Build every SMILES of a file into `output` (.npz). Run again after a stop, it continues.

    Refused SMILES are listed in `OUTPUT.errors.jsonl`. `advance`, a progress bar's callback, is told how
    many molecules are newly done, those of an earlier run first. Raises UserError when the input is wrong or
    the journal belongs to another build.
    """
    output = Path(output)
    tasks = [Task(index, text, seed) for index, text in read_smiles(smiles)[:limit]]
    journal = output.with_name(output.name + ".journal.jsonl")
    done = _open_journal(journal, _fingerprint(tasks))
    advance(len(done))
    waiting = [task for task in tasks if task.index not in done]
    resumed = len(done)
    with journal.open("a", encoding="utf-8") as file:
        for row in _run(waiting, workers):
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[row["index"]] = row
            advance(1)
    rows = [done[task.index] for task in tasks]
    good = [row for row in rows if "error" not in row]
    refused = [row for row in rows if "error" in row]
    errors = output.with_name(output.name + ".errors.jsonl")
    if refused:
        with atomic_path(errors) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in refused), encoding="utf-8")
    else:
        errors.unlink(missing_ok=True)
    with atomic_path(output) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {**_pack(good), "provenance": np.array(_provenance(seed))}
        np.savez_compressed(file, **arrays)
    journal.unlink()
    return Built(output, len(good), len(refused), resumed)


def build_one(task: Task) -> dict:
    """The journal's row for one SMILES: positions, numbers and properties, or `error` with the reason."""
    row: dict = {"index": task.index, "smiles": task.smiles}
    try:
        mol = _embedded(task)
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        charge, unpaired = charge_and_unpaired(mol)
        relaxed = relax(numbers, mol.GetConformer().GetPositions(), charge=charge, unpaired=unpaired)
    except (CalculationFailed, ValueError, RuntimeError) as error:
        return {**row, "error": str(error).splitlines()[0] if str(error) else type(error).__name__}
    mol.RemoveAllConformers()
    mol.AddConformer(conformer(relaxed.positions))
    return {
        **row,
        "numbers": numbers.tolist(),
        "positions": relaxed.positions.round(7).tolist(),
        "energy_ev": relaxed.energy_ev,
        "homo_ev": relaxed.homo_ev,
        "lumo_ev": relaxed.lumo_ev,
        "dipole_debye": relaxed.dipole_debye,
        "same_graph": has_same_graph(mol),
    }


def _embedded(task: Task) -> Chem.Mol:
    """A conformer of ETKDGv3, then MMFF94 where it has parameters. Raises ValueError with the reason."""
    with rdBase.BlockLogs():
        parsed = Chem.MolFromSmiles(task.smiles)
        if parsed is None or parsed.GetNumAtoms() == 0:
            raise ValueError("RDKit cannot read the SMILES")
        if len(Chem.GetMolFrags(parsed)) > 1:
            raise ValueError("more than one fragment")
        mol = close_shells(Chem.AddHs(parsed))
        parameters: Any = rdDistGeom.ETKDGv3()  # RDKit's stubs give its fields the wrong types
        parameters.randomSeed = (crc32(task.smiles.encode()) + task.seed) & 0x7FFFFFFF
        parameters.timeout = EMBED_SECONDS
        if rdDistGeom.EmbedMolecule(mol, parameters) < 0:
            parameters.useRandomCoords = True
            if rdDistGeom.EmbedMolecule(mol, parameters) < 0:
                raise ValueError("ETKDGv3 found no conformer")
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=1000)
    return mol


def _run(tasks: list[Task], workers: int) -> Iterator[dict]:
    """Rows as they are finished, in this process or in `workers` others."""
    if workers <= 1 or len(tasks) < 2:
        yield from map(build_one, tasks)
        return
    queue = iter(tasks)
    # spawn: a fork of a process that has started torch's or OpenMP's threads can hang
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare, initargs=(os.getpid(),))
    try:
        running = {pool.submit(build_one, task) for task in islice(queue, 2 * workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(build_one, task) for task in islice(queue, len(finished))}
            for future in finished:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(parent: int) -> None:
    """One thread a worker, and a worker ends when its parent has been killed."""
    os.environ["OMP_NUM_THREADS"] = "1"  # tblite is imported after this, and reads it then

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _fingerprint(tasks: list[Task]) -> str:
    return hashlib.sha256(repr(tasks).encode()).hexdigest()


def _open_journal(path: Path, fingerprint: str) -> dict[int, dict]:
    """Rows of an earlier run by index, less a line cut off by a kill. Starts a missing journal."""
    text = path.read_bytes() if path.is_file() else b""
    whole = text[: text.rfind(b"\n") + 1]
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"build": fingerprint}) + "\n", encoding="utf-8")
        return {}
    if lines[0].get("build") != fingerprint:
        raise UserError(f"{path}: belongs to a build of other SMILES or another seed; remove it or change the output")
    if len(whole) < len(text):
        os.truncate(path, len(whole))
    return {row["index"]: row for row in lines[1:]}


def _pack(rows: list[dict]) -> dict[str, np.ndarray]:
    """Arrays of the layout: positions `[M, N, 3]` Å and numbers `[M, N]`, padded with 0; else `[M]`."""
    size = max((len(row["numbers"]) for row in rows), default=0)
    numbers = np.zeros((len(rows), size), dtype=np.uint8)
    positions = np.zeros((len(rows), size, 3), dtype=np.float32)
    for k, row in enumerate(rows):
        numbers[k, : len(row["numbers"])] = row["numbers"]
        positions[k, : len(row["numbers"])] = row["positions"]
    types = {"energy_ev": np.float64, "same_graph": bool}
    return {
        "positions": positions,
        "numbers": numbers,
        "gdb9_index": np.array([row["index"] for row in rows], dtype=np.int32),
        "smiles": np.array([row["smiles"] for row in rows], dtype=np.str_),
        **{key: np.array([row[key] for row in rows], dtype=types.get(key, np.float32)) for key in _RESULTS},
    }


def _provenance(seed: int) -> str:
    versions = {name: version(name) for name in ("rdkit", "tblite")}
    return json.dumps({"method": "ETKDGv3 -> MMFF94 -> GFN2-xTB L-BFGS", "seed": seed, **versions})
