"""The molecule domain: objects to states and back, geometry, pairing and loss.

A state is positions `[B, N, 3]` in units of the molecule's own length scale, atoms `[B, N, K]` and bonds
`[B, N, N, 4 or 5]` as scaled one-hot vectors; hydrogens are in the atoms' classes, aromatic bonds a class of their own in a
model of five.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from rdkit import Chem
from torch import Tensor

from sciconsist.couplings import align_points
from sciconsist.domain import Batch
from sciconsist.domains.molecules.bookkeeping import Bookkeeping
from sciconsist.domains.molecules.decode import decode_graph, kekule_choices
from sciconsist.domains.molecules.distance_network import DistanceNetwork
from sciconsist.domains.molecules.distances import Nearest
from sciconsist.domains.molecules.graphs import HeavyGraph, PaddedGraphs, heavy_graph, pad_graphs
from sciconsist.domains.molecules.hydrogens import assemble
from sciconsist.domains.molecules.interchange import from_data, is_data, unbatched
from sciconsist.domains.molecules.kinds import Kinds
from sciconsist.domains.molecules.network import MoleculeNetwork, NetworkConfig
from sciconsist.domains.molecules.position_network import PositionNetwork
from sciconsist.domains.molecules.properties import Known
from sciconsist.domains.molecules.sketch import Sketches
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product, Simplex
from sciconsist.paths import Linear

NEVER = 1e6  # cost of giving an atom another class's noise


class MoleculeConfig(BaseModel):
    """Everything needed to rebuild the model around its weights."""

    model_config = ConfigDict(extra="forbid")

    vocabulary: list[list]
    network: NetworkConfig = NetworkConfig()
    atom_scale: float = 2.0  # one-hot length of classes and bonds: how early on the path the graph settles
    bond_scale: float = 2.0
    bond_classes: Literal[4, 5] = 4  # Kekulé orders; or these and aromatic
    length_factor: float = 0.75  # Å per unit of a cloud of N heavy atoms is length_factor * N ** length_power
    length_power: float = 0.3
    size_histogram: dict[int, int] = {}
    properties: list[Known] = []  # what the network may be told; network.conditions is their number
    nearest: Nearest | None = None  # Å between free atoms of the training data; None: no distances were learned
    kinds: Kinds = Kinds()  # of the training data's atoms and rings, others are decoded less often
    sketches: Sketches = Sketches()  # properties that samples are told unless others are asked for

    @model_validator(mode="after")
    def _a_condition_for_each_property(self) -> MoleculeConfig:
        if self.network.conditions != len(self.properties):
            raise ValueError(f"network.conditions is {self.network.conditions} for {len(self.properties)} properties")
        if unknown := set(self.sketches.names) - {p.name for p in self.properties}:
            raise ValueError(f"sketches of {', '.join(sorted(unknown))}, which the network cannot be told")
        return self


@dataclass
class MoleculeDomain:
    """Adapter between molecules and the core."""

    config: MoleculeConfig

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary.from_config(self.config.vocabulary)
        self.same_element = torch.from_numpy(self.vocabulary.same_element())
        self.geometry = Product(
            {
                "positions": Euclidean(zero_com=True),
                "atoms": Simplex(self.config.atom_scale),
                "bonds": Simplex(self.config.bond_scale, symmetric=True),
            }
        )

    def network(self, size: NetworkConfig | None = None) -> MoleculeNetwork:
        """F(x, s, t, condition, mask) for this domain's classes, of the config's size unless told otherwise."""
        size = size or self.config.network
        scales = (self.config.atom_scale, self.config.bond_scale)
        books = Bookkeeping(self.vocabulary, *scales, size.width) if size.bookkeeping else None
        return MoleculeNetwork(len(self.vocabulary), size, books, self.config.bond_classes)

    def model(self) -> FlowMap:
        model = FlowMap(self.network(), Linear(), self.geometry, "endpoint")
        # fitted by themselves, the flow does not ask them
        model.distances = DistanceNetwork(len(self.vocabulary)).requires_grad_(False)
        model.positions = PositionNetwork(len(self.vocabulary)).requires_grad_(False)
        model.domain, model.config = self, self.config.model_dump(mode="json")
        return model

    def collate(self, items: Any) -> Batch:
        """RDKit molecules with a conformer, torch-geometric Data (or a Batch of them) or heavy graphs, as states.

        Raises UserError: no conformer, a radical, an atom whose class the model does not know.
        """
        graphs = [self.graph(item, f"item {k}") for k, item in enumerate(unbatched(items))]
        if not graphs:
            raise UserError("found no molecules, expected at least one")
        state, condition, mask = self.encode(pad_graphs(graphs))
        return Batch(state, condition=condition, mask=mask)  # type: ignore[arg-type]

    def graph(self, item: Any, where: str) -> HeavyGraph:
        """The heavy graph of one object; `where` names it in messages."""
        try:
            if isinstance(item, HeavyGraph):
                graph = item
            else:
                graph = heavy_graph(from_data(item) if is_data(item) else item, self.vocabulary)
        except KeyError as error:
            known = ", ".join(self.vocabulary.symbols)
            raise UserError(
                f"{where}: found {error.args[0]}, which the model does not know; elements: {known}"
            ) from error
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        if graph.positions is None:
            raise UserError(f"{where}: found no conformer, expected 3D coordinates")
        if not len(graph):
            raise UserError(f"{where}: found no heavy atom, expected at least one")
        return graph

    def template(self, request: Any) -> Batch:
        """The empty batch of molecules with these many heavy atoms, an integer tensor or array `[B]`."""
        sizes = torch.as_tensor(request)
        if sizes.dim() != 1 or not len(sizes) or sizes.is_floating_point() or int(sizes.min()) < 1:
            raise UserError("expected the numbers of heavy atoms as an integer tensor [B], each at least 1")
        node = torch.arange(int(sizes.max()))[None] < sizes[:, None]
        (count, n), mask = node.shape, self.masks(node)
        shapes = {"positions": (n, 3), "atoms": (n, len(self.vocabulary)), "bonds": (n, n, self.config.bond_classes)}
        empty: dict[str, Tensor] = {name: torch.zeros(count, *shape) for name, shape in shapes.items()}
        return Batch(empty, condition=self.condition(node), mask=mask)  # type: ignore[arg-type]

    def condition(
        self, node: Tensor, told: Tensor | None = None, allowed: Tensor | None = None
    ) -> dict[str, Tensor]:  # fmt: skip
        """What the network is told of molecules of a node mask `[B, N]`.

        `told` `[B, P]` are property values in their units, NaN where nothing is told (everywhere when it is None);
        `allowed` `[B, N, K]` are the classes that atoms may have (all when it is None).
        """
        found = {"length_scale": self.length_scale(node)}
        if self.config.network.elements:
            every = torch.ones(*node.shape, len(self.vocabulary), dtype=torch.bool, device=node.device)
            found["allowed"] = every if allowed is None else allowed
            found["totals"] = self.totals(node, told)
        if self.config.properties:
            shape = (len(node), len(self.config.properties))
            told = torch.full(shape, torch.nan) if told is None else told
            mean, std = (
                torch.tensor([getattr(p, name) for p in self.config.properties], device=told.device)
                for name in ("mean", "std")
            )
            known = torch.isfinite(told)
            values = torch.where(known, ((told - mean) / std).clamp(-5.0, 5.0), 0.0)
            found |= {"values": values.float(), "known": known.float()}
        return found

    def totals(self, node: Tensor, told: Tensor | None) -> Tensor:
        """Hydrogens and bonded pairs (heavy atoms - 1 + rings) that are told, `[B, 2]`; NaN where not."""
        totals = torch.full((len(node), 2), torch.nan, device=node.device)
        names = [p.name for p in self.config.properties]
        if told is not None and "H_atoms" in names:
            totals[:, 0] = told[:, names.index("H_atoms")]
        if told is not None and "rings" in names:
            totals[:, 1] = told[:, names.index("rings")] + node.sum(1) - 1
        return totals

    @property
    def sketched(self) -> Tensor:
        """Which of the properties `[P]` are a sketch's."""
        return torch.tensor([p.name in self.config.sketches.names for p in self.config.properties], dtype=torch.bool)

    def decode(self, batch: Batch) -> list[Chem.Mol]:
        """States at time 0 as molecules: the likeliest consistent graphs, hydrogens placed.

        Where there is none, a molecule without bonds that says why. Raises ValueError where a state is not finite.
        """
        x, mask = batch.x0, batch.mask
        assert isinstance(x, dict) and isinstance(mask, dict)
        atoms = (x["atoms"].double() / self.config.atom_scale).clamp_min(1e-9).log().cpu().numpy()
        bonds = (x["bonds"].double() / self.config.bond_scale).clamp_min(1e-9).log().cpu().numpy()
        positions = x["positions"].double() * batch.condition["length_scale"].double()[:, None, None]
        mols = []
        for k, n in enumerate(mask["atoms"].sum(1).tolist()):
            graph = decode_graph(atoms[k, :n], kekule_choices(bonds[k, :n, :n]), self.vocabulary)
            mols.append(assemble(graph.classes, graph.orders, positions[k, :n].cpu().numpy(), self.vocabulary))
        return mols

    def metrics(self, samples: Sequence[Chem.Mol], reference: Sequence[Chem.Mol]) -> dict[str, float]:
        """Every figure of `metrics.evaluate`, by a dotted name."""
        from sciconsist.domains.molecules.metrics import evaluate

        return dict(flat(evaluate(samples, reference)))

    def length_scale(self, mask: Tensor) -> Tensor:
        """Å per unit of the position field for each molecule of a mask `[B, N]`: `[B]`."""
        n = mask.sum(1).float()
        return self.config.length_factor * n**self.config.length_power

    def masks(self, mask: Tensor) -> dict[str, Tensor]:
        """Field masks of a node mask `[B, N]`; bonds are between different real atoms."""
        pairs = mask[:, :, None] & mask[:, None, :] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        return {"positions": mask, "atoms": mask, "bonds": pairs}

    def encode(self, graphs: PaddedGraphs) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Clean state, condition and masks of a batch."""
        mask = self.masks(graphs.mask)
        condition = self.condition(graphs.mask)
        scale = condition["length_scale"]
        atoms, bonds = self.geometry["atoms"], self.geometry["bonds"]
        assert isinstance(atoms, Simplex) and isinstance(bonds, Simplex)
        state = {
            "positions": self.geometry["positions"].project(graphs.positions / scale[:, None, None], graphs.mask),
            "atoms": atoms.encode(graphs.classes, len(self.vocabulary), mask["atoms"]),
            "bonds": bonds.encode(graphs.bonds(self.config.bond_classes), self.config.bond_classes, mask["bonds"]),
        }
        return state, condition, mask

    def couple(
        self, x0: dict[str, Tensor], noise: dict[str, Tensor], mask: dict[str, Tensor], given: Tensor,
        allowed: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Pair noise with data: Hungarian + Kabsch over positions and classes; turned only where the graph is given.

        An atom gets the noise of one of the classes it is `allowed` `[B, N, K]`: in a sample they are told before noise
        is drawn.
        """
        extra = -2.0 * torch.matmul(x0["atoms"], noise["atoms"].transpose(1, 2))
        if allowed is not None:
            classes = x0["atoms"].argmax(-1)
            other = ~torch.gather(allowed, 2, classes[:, None].expand(-1, classes.shape[1], -1))
            extra = extra + NEVER * other
        positions, order = align_points(x0["positions"], noise["positions"], mask["atoms"], extra, ~given)
        atoms = torch.gather(noise["atoms"], 1, order[..., None].expand_as(noise["atoms"]))
        return {"positions": positions, "atoms": atoms, "bonds": noise["bonds"]}

    def endpoint_loss(
        self,
        raw: dict[str, Tensor],
        target: dict[str, Tensor],
        times: dict[str, Tensor],
        mask: dict[str, Tensor],
        scale: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of an endpoint per molecule `[B]`, with its parts.

        `target` holds positions, and probabilities times scale (one-hot or soft) for atoms and bonds.
        Positions and distances under 3 Å count more toward t = 0; cross-entropies only where the graph is not given.
        """
        node, pair = mask["atoms"].float(), mask["bonds"].float()
        count = node.sum(1).clamp_min(1)
        length = scale[:, None, None]
        x, y = raw["positions"] * length, target["positions"] * length
        t = times["positions"]
        weight = (1.0 / (t.square() + 0.05)).clamp(max=10.0)
        position = ((x - y).square().sum(-1) * node).sum(1) / count
        dx = torch.sqrt((x[:, :, None] - x[:, None]).square().sum(-1) + 1e-6)
        dy = torch.sqrt((y[:, :, None] - y[:, None]).square().sum(-1) + 1e-6)
        near = pair * (dy < 3.0)
        distance = ((dx - dy).square() * near).sum((1, 2)) / count
        atoms = soft_cross_entropy(raw["atoms"], target["atoms"] / self.config.atom_scale, node) / count
        bonds = soft_cross_entropy(raw["bonds"], target["bonds"] / self.config.bond_scale, pair) / (2 * count)
        free = (times["atoms"] > 0).float()
        parts = {"position": position, "distance": distance, "atoms": atoms, "bonds": bonds}
        total = weight * (position + distance) + free * (0.6 * atoms + 1.0 * bonds)
        return total, parts


def from_config(config: dict[str, Any]) -> MoleculeDomain:
    """The domain a checkpoint's config describes. Raises pydantic's ValidationError when a key is unknown."""
    return MoleculeDomain(MoleculeConfig(**config))


def soft_cross_entropy(logits: Tensor, probabilities: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy against soft targets, summed over real entries: `[B]`."""
    log_p = torch.log_softmax(logits, -1)
    return (-(probabilities * log_p).sum(-1) * weight).flatten(1).sum(1)


def draw_times(count: int, given: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Times of a diagonal batch: one clock Beta(1.6, 1) for all fields; positions alone where the graph is given."""
    u = torch.rand(count, generator=generator)
    late = torch.rand(count, generator=generator)
    clock = u ** (1 / 1.6)  # Beta(1.6, 1) by its inverse
    alone = torch.where(late < 0.5, 0.4 * u, u)  # refinement starts near .3, conformers at 1
    positions = torch.where(given, alone, clock).clamp_min(1e-3)
    graph = torch.where(given, torch.zeros_like(clock), clock.clamp_min(1e-3))
    return {"positions": positions, "atoms": graph, "bonds": graph}


def flat(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a nested report with dotted names."""
    for key, value in report.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)
