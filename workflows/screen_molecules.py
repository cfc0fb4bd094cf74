"""Screening molecules: one look at each record, then all beside each other; a ranked table, SDF and page."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rdkit import Chem

from sciconsist import __version__
from sciconsist.datasets.builder import read_smiles
from sciconsist.datasets.sdf import parse_record, split_records
from sciconsist.domains.molecules.metrics.validity import known_smiles
from sciconsist.domains.molecules.screening import FIGURES, Row, compare, examine, filter_names
from sciconsist.errors import UserError
from sciconsist.extras import need
from sciconsist.files import atomic_path
from sciconsist.sections import Gallery, Metric, Section, Table, Text
from sciconsist.workflows.molecule_output import sdf_record

CHUNK = 32  # records a task of a worker
SHOWN = 60  # molecules on the page
COLUMNS = (
    "rank",
    "record",
    "name",
    "status",
    "smiles",
    "formula",
    "score",
    *FIGURES,
    "alerts",
    "novel",
    "pick",
    "note",
)
MEANING = (
    "Score: the mean of QED and of ease of synthesis, (10 - SA) / 9. Alerts are labels that medicinal chemists look at, "
    "not verdicts, and do not enter the score; they say nothing about hazard."
)


@dataclass(frozen=True)
class Screen:
    """What was found: ranked rows, records that could not be read, and the sum of it."""

    rows: list[Row]
    errors: list[dict[str, Any]]
    summary: dict[str, Any]


def screen_molecules(
    path: str | Path,
    out: str | Path,
    *,
    filters: str = "default",
    novel_to: str | Path | None = None,
    relax: str = "none",
    picks: int = 50,
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> Screen:
    """Screen the records of an SDF file into the folder `out`, which exists.

    It gets ranked.csv, ranked.sdf (unique molecules, relaxed ones where asked), picks.sdf, summary.json,
    report.html, and errors.jsonl when records could not be read. On Ctrl-C what is finished is written first.
    Raises UserError: no record can be read, an unknown filter or relaxation.
    """
    names, folder = filter_names(filters), Path(out)
    if relax not in ("gfn2", "none"):
        raise UserError(f"relax {relax!r}: expected gfn2 or none")
    if relax == "gfn2":
        need("tblite", "molecules", "relaxing molecules")
    known = None if novel_to is None else known_smiles(text for _, text in read_smiles(novel_to))
    texts, errors = read_texts(path)
    rows: list[Row] = []
    stopped = False
    try:
        for found in looked_at(texts, names, relax == "gfn2", workers):
            if isinstance(found, Row):
                rows.append(found)
            else:
                errors.append(found)
            progress(1)
    except KeyboardInterrupt:
        stopped = True
    if not rows and not stopped:
        raise UserError(str(errors[0]["error"]))
    ranked = compare(rows, known, picks, seed)
    summary = {
        "sciconsist": __version__, "input": str(path), "records": len(rows) + len(errors), "read": len(rows),
        "not_read": len(errors), **Counter(r.status for r in ranked),
        "novel": None if known is None else sum(bool(r.novel) for r in ranked if r.status == "unique"),
        "novelty_against": None if novel_to is None else str(novel_to), "filters": list(names),
        "with_alerts": sum(bool(r.alerts) for r in ranked if r.status == "unique"), "relaxation": relax,
        "picks": sum(r.pick is not None for r in ranked), "seed": seed, "stopped_early": stopped,
    }  # fmt: skip
    write(folder, ranked, sorted(errors, key=lambda e: e["record"]), summary)
    if stopped:
        raise KeyboardInterrupt
    return Screen(ranked, errors, summary)


def read_texts(path: str | Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The records of an SDF file as text; a last one that is cut off becomes an error. Raises UserError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an SDF file")
    texts: list[str] = []
    try:
        for text in split_records(path):
            texts.append(text)
    except UserError as error:
        if not texts:
            raise
        return texts, [{"record": len(texts) + 1, "error": str(error)}]
    return texts, []


def looked_at(
    texts: Sequence[str], names: tuple[str, ...], relax: bool, workers: int
) -> Iterator[Row | dict[str, Any]]:
    """A Row or an error for every record, in order, from this process or `workers` others."""
    tasks = [(k + 1, texts[k : k + CHUNK], names, relax) for k in range(0, len(texts), CHUNK)]
    if workers <= 1 or len(tasks) < 2:
        for k, text in enumerate(texts, 1):
            yield look((k, text, names, relax))
        return
    # spawn: a fork of a process that has started torch's or OpenMP's threads can hang
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)
    try:
        for found in pool.map(look_all, tasks):
            yield from found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def look_all(task: tuple[int, list[str], tuple[str, ...], bool]) -> list[Row | dict[str, Any]]:
    first, texts, names, relax = task
    return [look((first + k, text, names, relax)) for k, text in enumerate(texts)]


def look(task: tuple[int, str, tuple[str, ...], bool]) -> Row | dict[str, Any]:
    """One record, read and examined."""
    record, text, names, relax = task
    try:
        read = parse_record(text, f"record {record}", sanitize=False)
    except UserError as error:
        return {"record": record, "error": str(error)}
    return examine(record, read.name, read.mol, names, relax)


def _one_thread() -> None:
    import os

    os.environ["OMP_NUM_THREADS"] = "1"
    Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)


def write(folder: Path, rows: Sequence[Row], errors: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    """The outputs of a screen, each whole or absent."""
    extra = sorted({name for r in rows for name in r.figures} - set(FIGURES))
    columns = [*COLUMNS[: 7 + len(FIGURES)], *extra, *COLUMNS[7 + len(FIGURES) :]]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    for rank, row in enumerate(rows, 1):
        writer.writerow(cells(rank, row))
    texts = {
        "ranked.csv": table.getvalue(),
        "ranked.sdf": "".join(record_of(r) for r in rows if r.status == "unique"),
        "picks.sdf": "".join(record_of(r) for r in sorted(rows, key=lambda r: r.pick or 0) if r.pick is not None),
        "errors.jsonl": "".join(json.dumps(e) + "\n" for e in errors),
        "summary.json": json.dumps(summary, indent=1) + "\n",
    }
    for name, text in texts.items():
        if name == "errors.jsonl" and not text:
            (folder / name).unlink(missing_ok=True)
            continue
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    page(folder / "report.html", rows, summary)


def cells(rank: int, row: Row) -> dict[str, Any]:
    numbers = {name: f"{value:.5g}" for name, value in row.figures.items()}
    return {
        "rank": rank if row.status == "unique" else "", "record": row.record, "name": row.name, "status": row.status,
        "smiles": row.smiles, "formula": row.formula, "score": "" if row.score != row.score else f"{row.score:.4f}",
        **numbers, "alerts": "; ".join(row.alerts), "novel": {None: "", True: "yes", False: "no"}[row.novel],
        "pick": "" if row.pick is None else row.pick, "note": row.note,
    }  # fmt: skip


def record_of(row: Row) -> str:
    """The record as it came, its own fields kept, with what the screen found beside them."""
    assert row.mol is not None
    mol = Chem.Mol(row.mol)
    found = {k: v for k, v in cells(0, row).items() if k not in ("rank", "name", "record") and v != ""}
    for name, value in found.items():
        mol.SetProp(f"screen_{name}", str(value))
    mol.SetProp("screen_by", f"sciconsist {__version__}")
    return sdf_record(mol)


def page(path: Path, rows: Sequence[Row], summary: dict[str, Any]) -> None:
    """report.html: counts, alerts met, and the best molecules to look at."""
    from sciconsist.domains.molecules.report import molecule_sections
    from sciconsist.workflows.report import molecule_provenance, write_report

    unique = [r for r in rows if r.status == "unique"]
    count = max(1, summary["records"])
    shares = [
        Metric("Unique molecules", len(unique) / count, count),
        Metric("Duplicates", summary.get("duplicate", 0) / count, count),
        Metric("Not one closed-shell molecule", summary.get("invalid", 0) / count, count),
        Metric("Not readable", summary["not_read"] / count, count),
    ]
    if summary["novel"] is not None:
        shares.append(Metric("Novel", summary["novel"] / max(1, len(unique)), len(unique), meaning="of the unique"))
    met = Counter(label for r in unique for label in r.alerts)
    common = [Metric(label, n / max(1, len(unique)), len(unique)) for label, n in met.most_common(15)]
    sections = [
        Table("What came in", "", shares),
        Text("How the molecules are ranked", "", [MEANING]),
        *([Table("Most frequent alerts", "Share of the unique molecules with this label.", common)] if common else []),
        *(_ranked(section, len(unique)) for section in molecule_sections([_shown(r) for r in unique[:SHOWN]])),
    ]
    origin = molecule_provenance([r.mol for r in unique[:1]])
    write_report(path, title="Screened molecules", sections=sections, provenance={**origin, "input": summary["input"]})


def _ranked(section: Section, total: int) -> Section:
    """The gallery says that its molecules are the best ones, not the first."""
    if not isinstance(section, Gallery):
        return section
    intro = f"The best {len(section.cards)} of {total} unique molecules by score. Choose one to turn it round in 3D."
    return replace(section, intro=intro, total=total)


def _shown(row: Row) -> Chem.Mol:
    assert row.mol is not None
    mol = Chem.Mol(row.mol)
    for name in list(mol.GetPropNames()):
        mol.ClearProp(name)
    for name, value in cells(0, row).items():
        if value != "" and name not in ("rank", "smiles", "formula", "status"):
            mol.SetProp(name, str(value))
    return mol
