"""Conformers: the network with the graph given, hydrogens placed, the stereochemistry checked."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom

from sciconsist.datasets.records import conformer
from sciconsist.domains.molecules.distance_network import DistanceNetwork
from sciconsist.domains.molecules.distances import restraints, settle
from sciconsist.domains.molecules.generate import draw_positions, place_atoms
from sciconsist.domains.molecules.graphs import HeavyGraph, heavy_graph
from sciconsist.domains.molecules.hydrogens import FAILED, all_positions, skeleton, whole_molecule
from sciconsist.domains.molecules.position_network import PositionNetwork, correct_positions
from sciconsist.domains.molecules.shells import has_radicals
from sciconsist.errors import UserError
from sciconsist.files import atomic_path
from sciconsist.flowmap import FlowMap
from sciconsist.random import stream
from sciconsist.workflows.devices import on_device
from sciconsist.workflows.generate import check_seed, set_origin

TRIES = 40  # samples drawn for each conformer asked for, before we give up
PATIENCE = 8  # so many from noise; later ones start at an embedding that has the stereochemistry asked for
FLAT = 0.1  # a centre whose unit bond vectors span less has no hand
EMBEDDED = 0.5  # time to which an embedding is noised
POWER = 2.0  # of the time grid: bond lengths settle at the end of it
TRUST = {1: 0.12, 2: 0.05}  # Å, by evaluations: how far off the network's positions are taken to be
_CHIRAL = (Chem.ChiralType.CHI_TETRAHEDRAL_CW, Chem.ChiralType.CHI_TETRAHEDRAL_CCW)


@dataclass(frozen=True)
class Request:
    """One molecule to make conformers of. `where` names it in messages."""

    smiles: str
    where: str
    name: str = ""


@dataclass
class Target:
    """A checked request: the molecule with its hydrogens, its heavy graph, and the stereo asked for."""

    mol: Chem.Mol
    graph: HeavyGraph
    smiles: str
    centres: dict[int, Chem.ChiralType] = field(default_factory=dict)
    double: dict[int, Chem.BondStereo] = field(default_factory=dict)


def read_requests(what: str) -> list[Request]:
    """Requests of a file (.smi, .csv, .sdf, also .gz of the first two), or the one SMILES given."""
    path = Path(what)
    if len(what) < 4096 and path.is_file():
        if path.suffix == ".sdf":
            from sciconsist.datasets.sdf import read_sdf

            return [
                Request(Chem.MolToSmiles(Chem.RemoveHs(r.mol)), f"{path}, record {k}", r.name)
                for k, r in enumerate(read_sdf(path), 1)
            ]
        from sciconsist.datasets.builder import read_smiles

        return [Request(text, f"{path}, record {k}") for k, (_, text) in enumerate(read_smiles(path), 1)]
    if path.suffix in (".smi", ".csv", ".sdf", ".gz"):
        raise UserError(f"{what}: no such file; expected a SMILES or a .smi, .csv or .sdf file")
    return [Request(what, f"SMILES {what!r}")]


class Conformers:
    """Conformers of one or many molecules; `errors` lists what could not be made, a dict a molecule."""

    def __init__(
        self,
        model: FlowMap,
        steps: int = 8,
        seed: int = 0,
        batch_size: int | None = None,
        device: str | None = "cpu",
    ) -> None:
        if steps < 1:
            raise UserError(f"{steps} steps: expected at least 1")
        self.model = on_device(model, device)
        self.steps, self.seed = steps, check_seed(seed)
        self.batch_size = 64 if batch_size is None else batch_size
        self.written = self.mirrored = 0
        self.rejected: Counter[str] = Counter()
        self.errors: list[dict[str, Any]] = []

    def take_all(
        self, requests: Sequence[Request], n: int, progress: Callable[[int], None] = lambda n: None
    ) -> Iterator[Chem.Mol]:
        """`n` conformers of each request in turn. Lists a refused request; UserError if all are."""
        done = 0
        for request in requests:
            try:
                target = self.prepare(request)
            except UserError as error:
                self.errors.append({"where": request.where, "smiles": request.smiles, "error": str(error)})
                if done == 0 and len(self.errors) == len(requests):
                    raise UserError(self.errors[0]["error"]) from error
                continue
            count = 0
            for mol in self.take(target, n):
                count += 1
                progress(1)
                mol.SetProp("request", request.smiles)
                if request.name:
                    mol.SetProp("request_name", request.name)
                yield mol
            done += 1
            if count < n:
                found = f"{count} of {n} conformers with the stereochemistry asked for after {TRIES * n} samples"
                self.errors.append({"where": request.where, "smiles": request.smiles, "written": count, "error": found})

    def prepare(self, request: Request) -> Target:
        """Raises UserError: not readable, too large, an element or a charge the model does not know."""
        with rdBase.BlockLogs():
            parsed = Chem.MolFromSmiles(request.smiles)
        if parsed is None or parsed.GetNumAtoms() == 0:
            raise UserError(f"{request.where}: found a SMILES that RDKit cannot read, expected a molecule")
        if parsed.GetNumHeavyAtoms() == 0:
            raise UserError(f"{request.where}: found hydrogen alone, expected a molecule with heavier atoms")
        if len(Chem.GetMolFrags(parsed)) > 1:
            raise UserError(f"{request.where}: found more than one fragment, expected one molecule")
        if has_radicals(parsed):
            raise UserError(f"{request.where}: found a radical, expected closed shells")
        domain = self.model.domain
        most = max(domain.config.size_histogram)
        if (size := parsed.GetNumHeavyAtoms()) > most:
            raise UserError(f"{request.where}: found {size} heavy atoms, expected at most {most} for this model")
        try:
            graph = heavy_graph(parsed, domain.vocabulary)
        except KeyError as error:
            known = ", ".join(domain.vocabulary.symbols)
            raise UserError(
                f"{request.where}: found {error.args[0]}, which the model does not know; elements: {known}"
            ) from error
        except ValueError as error:
            raise UserError(f"{request.where}: {error}") from error
        mol = Chem.AddHs(parsed)
        centres = {a.GetIdx(): a.GetChiralTag() for a in mol.GetAtoms() if a.GetChiralTag() in _CHIRAL}
        double = {b.GetIdx(): b.GetStereo() for b in mol.GetBonds() if b.GetStereo() > Chem.BondStereo.STEREOANY}
        return Target(mol, graph, Chem.MolToSmiles(parsed), centres, double)

    def take(self, target: Target, n: int) -> Iterator[Chem.Mol]:
        """Up to `n` conformers. Sample i depends on the molecule, the seed and i only."""
        if n < 1:
            raise UserError(f"{n} conformers: expected at least 1")
        written, drawn = 0, 0
        while written < n and drawn < TRIES * n:
            embed = drawn >= PATIENCE * n
            limit = (TRIES if embed else PATIENCE) * n
            size = min(self.batch_size, limit - drawn, max(n - written, 8 if drawn else 1))
            for index, positions in zip(range(drawn, drawn + size), self._positions(target, drawn, size, embed)):
                drawn += 1
                mol, why = self.fit(target, positions)
                if mol is None:
                    self.rejected[why] += 1
                    continue
                set_origin(mol, self.model, self.seed, index, self.steps)
                mol.SetProp("start", f"ETKDG embedding noised to {EMBEDDED:g}" if embed else "noise")
                written += 1
                self.written += 1
                yield mol
                if written == n:
                    return

    def _positions(self, target: Target, first: int, count: int, embed: bool = False) -> list[np.ndarray]:
        indices, graph = range(first, first + count), target.graph
        sizes = [len(graph)] * count
        noise = draw_positions(sizes, indices, self.seed, f"conformer {target.smiles}")
        begin = EMBEDDED if embed else 1.0
        times = [begin * (1 - k / self.steps) ** POWER for k in range(self.steps + 1)]
        starts = [embedding(target, self.seed, i) if embed else np.zeros((sizes[0], 3)) for i in indices]
        graphs = [HeavyGraph(graph.classes, graph.orders, start, graph.aromatic) for start in starts]
        placed = place_atoms(self.model, graphs, noise, times)
        nearest = self.model.domain.config.nearest
        learned = cast(DistanceNetwork, self.model.distances)
        asked = restraints([graph], learned, nearest) * count
        return settle(asked, placed, TRUST.get(self.steps, 0.02))

    def fit(self, target: Target, positions: np.ndarray) -> tuple[Chem.Mol | None, str]:
        """The molecule asked for at these heavy positions, or their mirror image, or why neither will do."""
        if not np.isfinite(positions).all():
            return None, "not finite"
        mol = self._assembled(target, positions)
        if mol is None:
            return None, "hydrogens"
        wrong = wrong_stereo(mol, target)
        if wrong == "all":
            mol = self._assembled(target, positions * [1.0, 1.0, -1.0])
            wrong = "hydrogens" if mol is None else wrong_stereo(mol, target)
            self.mirrored += not wrong
        return (None, "other stereochemistry") if wrong else (mol, "")

    def _assembled(self, target: Target, positions: np.ndarray) -> Chem.Mol | None:
        graph = target.graph
        vocabulary = self.model.domain.vocabulary
        bare = skeleton(graph.classes, graph.orders, vocabulary)
        every = all_positions(bare, positions)
        if bare.HasProp(FAILED) or len(every) != target.mol.GetNumAtoms():
            return None
        (every,) = correct_positions(cast(PositionNetwork, self.model.positions), [graph], [every], vocabulary)
        made = whole_molecule(bare, every)
        source = [0] * made.GetNumAtoms()  # atoms of `made` in the order of the request, which may mix in hydrogens
        for theirs, ours in zip(_heavy(made), _heavy(target.mol)):
            source[ours.GetIdx()] = theirs.GetIdx()
            for h_theirs, h_ours in zip(_hydrogens(theirs), _hydrogens(ours), strict=True):
                source[h_ours] = h_theirs
        mol = Chem.Mol(target.mol)
        mol.RemoveAllConformers()
        mol.AddConformer(conformer(made.GetConformer().GetPositions()[source]), assignId=True)
        turn_hydrogens(mol, target)
        return mol

    def figures(self) -> dict[str, Any]:
        return {
            "written": self.written, "mirrored": self.mirrored, "rejected": sum(self.rejected.values()),
            "rejected_why": dict(sorted(self.rejected.items())), "incomplete": len(self.errors),
        }  # fmt: skip


def embedding(target: Target, seed: int, index: int) -> np.ndarray:
    """Heavy-atom positions `[N, 3]` Å of an ETKDGv3 embedding with the stereo asked for; zeros where there is none."""
    mol = Chem.Mol(target.mol)
    parameters: Any = rdDistGeom.ETKDGv3()  # RDKit's stubs give its fields the wrong types
    parameters.randomSeed = int(torch.randint(2**31 - 1, (1,), generator=stream(seed, "embedding", index)))
    parameters.timeout = 5
    if rdDistGeom.EmbedMolecule(mol, parameters) < 0:
        return np.zeros((len(target.graph), 3))
    return mol.GetConformer().GetPositions()[[a.GetIdx() for a in _heavy(mol)]]


def _heavy(mol: Chem.Mol) -> list[Chem.Atom]:
    return [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]


def _hydrogens(atom: Chem.Atom) -> list[int]:
    return sorted(n.GetIdx() for n in atom.GetNeighbors() if n.GetAtomicNum() == 1)


def wrong_stereo(mol: Chem.Mol, target: Target) -> str:
    """What the coordinates get wrong of the stereo asked for: "", "all" tetrahedral centres alone, or "some".

    Marks are compared on the same atoms and bonds in the same order, so no names (R, S, E, Z) are needed.
    Open centres get the marks of the coordinates.
    """
    if not target.centres and not target.double:
        Chem.AssignStereochemistryFrom3D(mol)
        return ""
    seen = Chem.Mol(mol)
    Chem.AssignStereochemistryFrom3D(seen)
    tags = [(handedness(seen, i), tag) for i, tag in target.centres.items()]
    inverted = [found in _CHIRAL and found != tag for found, tag in tags]
    flat = any(found not in _CHIRAL for found, _ in tags)
    if flat or not all(same_side(seen.GetBondWithIdx(i), target.mol.GetBondWithIdx(i)) for i in target.double):
        return "some"
    if any(inverted):
        return "all" if all(inverted) else "some"
    Chem.AssignStereochemistryFrom3D(mol)
    return ""


def turn_hydrogens(mol: Chem.Mol, target: Target) -> None:
    """Hydrogens of C=N-H to the side asked for: heavy atoms do not say on which side they are."""
    if not target.double:
        return
    seen, place = Chem.Mol(mol), mol.GetConformer()
    Chem.AssignStereochemistryFrom3D(seen)
    for i in target.double:
        bond = seen.GetBondWithIdx(i)
        if same_side(bond, target.mol.GetBondWithIdx(i)):
            continue
        for end in (bond.GetBeginAtom(), bond.GetEndAtom()):
            others = [n for n in end.GetNeighbors() if n.GetIdx() != bond.GetOtherAtomIdx(end.GetIdx())]
            if len(others) == 1 and others[0].GetAtomicNum() == 1:
                x = mol.GetConformer().GetPositions()
                centre, arm = x[end.GetIdx()], x[others[0].GetIdx()] - x[end.GetIdx()]
                axis = x[bond.GetOtherAtomIdx(end.GetIdx())] - centre
                axis /= np.linalg.norm(axis)
                turned = centre + 2 * (axis @ arm) * axis - arm  # half a turn about the double bond
                place.SetAtomPosition(others[0].GetIdx(), turned.tolist())
                break


def handedness(mol: Chem.Mol, centre: int) -> Chem.ChiralType:
    """RDKit's mark of a centre by its coordinates, also of nitrogens, which RDKit itself leaves unmarked mostly.

    The mark tells the turn of the bonds in their order: the sign of the volume that the first three span.
    """
    atom = mol.GetAtomWithIdx(centre)
    if atom.GetAtomicNum() != 7 or atom.GetDegree() != 3:
        return atom.GetChiralTag()
    x = mol.GetConformer().GetPositions()
    away = x[[bond.GetOtherAtomIdx(centre) for bond in atom.GetBonds()]] - x[centre]
    volume = float(np.linalg.det(away / np.linalg.norm(away, axis=1, keepdims=True)))
    if abs(volume) < FLAT:
        return Chem.ChiralType.CHI_UNSPECIFIED
    return Chem.ChiralType.CHI_TETRAHEDRAL_CCW if volume > 0 else Chem.ChiralType.CHI_TETRAHEDRAL_CW


def same_side(found: Chem.Bond, asked: Chem.Bond) -> bool:
    """Whether two marks of one double bond mean the same geometry, judged on the same reference atoms."""
    here, there = list(found.GetStereoAtoms()), list(asked.GetStereoAtoms())
    if len(here) != 2 or len(there) != 2:
        return False
    flips = sum(a != b for a, b in zip(here, there))
    together = (Chem.BondStereo.STEREOZ, Chem.BondStereo.STEREOCIS)
    return ((found.GetStereo() in together) == (asked.GetStereo() in together)) == (flips % 2 == 0)


def write_errors(output: str | os.PathLike[str], errors: Sequence[dict[str, Any]]) -> Path:
    """`OUTPUT.errors.jsonl`, one line a refused record; an old one goes when there are none."""
    path = Path(f"{os.fspath(output)}.errors.jsonl")
    if errors:
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(e) + "\n" for e in errors), encoding="utf-8")
    elif Path(output).is_file():
        path.unlink(missing_ok=True)
    return path
