"""Screening crystals: validity, relaxation, energy above hull, duplicates, novelty, symmetry, a ranked table."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sciconsist import __version__
from sciconsist.domains.crystals.files import CrystalRecord, cif_text, read_readable
from sciconsist.domains.crystals.ranking import COLUMNS, counts, rank
from sciconsist.domains.crystals.relax import CHGNET
from sciconsist.domains.crystals.screening import SYMPREC, Candidate, Settings, plain_structure, structure_of_plain
from sciconsist.domains.crystals.thermo import SCALES, Hull, Scale, chgnet_offsets, read_hull, shipped_hull
from sciconsist.errors import UserError
from sciconsist.files import atomic_path, check_output
from sciconsist.workflows.crystal_reference import read_reference
from sciconsist.workflows.screen_pool import cluster, local
from sciconsist.workflows.screen_run import ScreenRun, fingerprint, named, open_run, write_json

DEFAULT_REFERENCE = "mp-20-bt:train"  # novelty is against it where it is on the machine
NOTE = "relaxed by sciconsist screen; computer-generated, not synthesised or tested"


@dataclass(frozen=True)
class ScreenRequest:
    """What to do with the candidates; the fields are the options of `sciconsist screen crystals`."""

    settings: Settings
    hull: Path | None = None
    e_above_hull: float = 0.1  # eV/atom
    reference: str | None = None
    deadline: float = 600.0  # s a candidate
    workers: int | None = None
    scheduler: str | None = None


def scale_for(relaxer: str, given: str | None) -> Scale:
    """The energy scale of a relaxer: CHGNet gives the Materials Project's, of others we know nothing."""
    if given is not None and given not in SCALES:
        raise UserError(f"energies {given!r}: expected one of {', '.join(SCALES)}")
    if relaxer == CHGNET and given not in (None, "mp2020"):
        raise UserError(f"energies {given!r}: CHGNet gives mp2020 energies")
    return given or ("mp2020" if relaxer == CHGNET else "own")  # type: ignore[return-value]


def read_candidates(paths: Sequence[str | Path]) -> dict[str, CrystalRecord | UserError]:
    """Crystals of files and folders by name; in the place of one that cannot be read, why. Raises UserError."""
    found: dict[str, CrystalRecord | UserError] = named([item for path in paths for item in read_readable(path)])
    if not any(isinstance(item, CrystalRecord) for item in found.values()):
        first = next(iter(found.values()))
        raise UserError(f"none of {len(found)} structures can be read; the first: {first}")
    return found


def draw_candidates(
    folder: Path, n: int, steps: int, seed: int, model: str | None, wish: Mapping[str, Any], *, resume: bool,
    advance: Callable[[int], None],
) -> Path:  # fmt: skip
    """Draw `n` usable crystals into a folder of CIFs; one that is there already is taken when resuming.

    `wish` as in `generate_crystals.Wish`. The folder appears when it is whole. Raises UserError.
    """
    from sciconsist.workflows.crystal_output import Folder
    from sciconsist.workflows.crystal_requests import Wish
    from sciconsist.workflows.generate_crystals import Crystals
    from sciconsist.workflows.models import load_for

    if folder.exists():
        if not resume:
            raise UserError(f"{folder}: is there already; give --resume to go on with it, or another -o")
        return folder
    request = Crystals(load_for("crystals", model), Wish(**wish), steps, seed)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        out = Folder(temporary)
        for structure in request.take(n, advance):
            out.add(structure)
        if out.count == 0:
            raise UserError(f"none of {request.counts.drawn} crystals drawn could be used: {request.counts.figures()}")
    return folder


def screen(
    candidates: Mapping[str, CrystalRecord | UserError],
    folder: str | Path,
    request: ScreenRequest,
    *,
    resume: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Screen candidates into a folder: ranked.csv, relaxed/*.cif, symmetrized/*.cif, summary.json, report.html.

    A candidate that crashes, hangs or diverges becomes a row that says so. Stopped or killed, the same call with
    `resume` does what is left; the table does not depend on where it was cut. Returns the summary, with "rows".
    Raises UserError.
    """
    folder = check_output(folder, "folder")
    begin = time.monotonic()
    hull = _hull(request)
    known, reference = _known(request.reference)
    good = {name: item for name, item in candidates.items() if isinstance(item, CrystalRecord)}
    about = {"settings": asdict(request.settings), "hull": _hull_stamp(request), "candidates": fingerprint(good)}
    run = open_run(folder, about, good, resume)
    resumed = len(run.results)
    advance(resumed)
    _compute(run, good, request, hull, advance)

    records = [run.results[name] for name in good]
    records += [
        {"name": name, "status": "failed", "stage": "file", "reason": str(item), "formula": ""}
        for name, item in candidates.items()
        if isinstance(item, UserError)
    ]
    rows = rank(
        records, hull, request.e_above_hull, ((r.name, r.structure) for r in known),
        chgnet_offsets() if request.settings.relaxer == CHGNET else None,
    )  # fmt: skip

    for row in rows:
        row.pop("seconds", None)
    cpu = [record.get("seconds", 0.0) for record in run.results.values()]
    summary = {
        "sciconsist": __version__, "output": str(folder), **counts(rows), "resumed": resumed,
        "relaxer": _relaxer(request.settings.relaxer), "settings": asdict(request.settings),
        "hull": None if hull is None else hull.about(),
        "e_above_hull_limit": request.e_above_hull, "reference": reference, "reference_crystals": len(known),
        "symprec": SYMPREC, "seconds": round(time.monotonic() - begin, 2),
        "seconds_in_candidates": round(sum(cpu), 2),
    }  # fmt: skip
    _write(folder, rows, summary, hull, good)
    return {**summary, "rows": rows}


def _compute(
    run: ScreenRun, good: Mapping[str, CrystalRecord], request: ScreenRequest, hull: Hull | None,
    advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Screen what has no result yet; each result is on disk before the next is waited for."""
    todo = [name for name in good if name not in run.results]
    if not todo:
        return
    workers = min(request.workers or os.cpu_count() or 1, len(todo))
    where = (
        cluster(request.settings, request.deadline, request.scheduler)
        if request.scheduler
        else local(request.settings, request.deadline, workers)
    )
    with where as submit:
        pending = {}
        for name in todo:
            structure = good[name].structure
            energy = hull.energy(structure.composition) if hull is not None else None
            candidate = Candidate(name, plain_structure(structure), energy)
            pending[submit(candidate)] = candidate
        for future in as_completed(pending):
            candidate = pending[future]
            try:
                record = future.result()
            except UserError:
                raise
            except Exception as error:  # the cluster lost a worker too often: that candidate's row says so
                record = _lost(candidate, error)
            run.keep(record)
            advance(1)


def _lost(candidate: Candidate, error: Exception) -> dict[str, Any]:
    from sciconsist.domains.crystals.screening import describe

    reason = f"lost by the cluster ({type(error).__name__})"
    figures = describe(structure_of_plain(candidate.structure))
    return {"name": candidate.name, "status": "failed", "stage": "relaxation", "reason": reason, **figures}


def _hull(request: ScreenRequest) -> Hull | None:
    if request.hull is not None:
        return read_hull(request.hull, request.settings.scale)
    return shipped_hull() if request.settings.scale != "own" else None


def _hull_stamp(request: ScreenRequest) -> str:
    if request.hull is None:
        return "shipped"
    return hashlib.sha256(Path(request.hull).read_bytes()).hexdigest()


def _known(reference: str | None) -> tuple[list[CrystalRecord], str | None]:
    """Crystals that are not new. The default set is used where it is, a named one must be there."""
    try:
        return read_reference(reference or DEFAULT_REFERENCE)
    except UserError:
        if reference is not None:
            raise
        return [], None


def _relaxer(name: str) -> str:
    if name != CHGNET:
        return name
    return f"CHGNet 0.3.0 (chgnet {metadata.version('chgnet')})"


# --- what is written


def _write(
    folder: Path, rows: list[dict[str, Any]], summary: dict[str, Any], hull: Hull | None,
    candidates: Mapping[str, CrystalRecord],
) -> None:  # fmt: skip
    with atomic_path(folder / "relaxed") as relaxed, atomic_path(folder / "symmetrized") as symmetrized:
        relaxed.mkdir()
        symmetrized.mkdir()
        for row in rows:
            if "structure" not in row:
                continue
            structure = structure_of_plain(row["structure"])
            origin = _origin(row, summary, candidates[row["name"]])
            (relaxed / f"{row['name']}.cif").write_text(cif_text(structure, origin), encoding="utf-8")
            if row["status"] == "passed" and row["space_group_number"]:
                text = cif_text(structure, origin, symprec=SYMPREC)
                (symmetrized / f"{row['name']}.cif").write_text(text, encoding="utf-8")
    write_table(folder / "ranked.csv", rows)
    write_errors(folder / "errors.jsonl", rows)
    write_json(folder / "summary.json", summary)
    from sciconsist.workflows.report import write_crystal_report

    inputs = {name: record.structure for name, record in candidates.items()}
    write_crystal_report(folder / "report.html", rows, summary, hull, inputs)


def _origin(row: Mapping[str, Any], summary: Mapping[str, Any], record: CrystalRecord) -> dict[str, str]:
    """What made the candidate, and what was done to it."""
    origin = {**record.origin, "screened_by": f"sciconsist {__version__}", "relaxer": str(summary["relaxer"])}
    origin.setdefault("generator", f"sciconsist {__version__} screen")
    for key in ("e_above_hull", "e_form"):
        if row.get(key) is not None:
            origin[f"{key}_ev_per_atom"] = f"{row[key]:.6f}"
    return {**origin, "note": NOTE}


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows as CSV, the columns of `ranking.COLUMNS`; floats in six decimals."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([_cell(row.get(column)) for column in COLUMNS] for row in rows)


def write_errors(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """What failed, a line of JSON each; no file when nothing did."""
    failed = [{key: row[key] for key in ("name", "stage", "reason")} for row in rows if row["status"] == "failed"]
    path.unlink(missing_ok=True)
    if failed:
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in failed), encoding="utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6f}" if isinstance(value, float) else str(value)
