"""The molecule domain: state, geometry, pairing and what a training batch is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sciconsist.couplings import align_points
from sciconsist.domains.molecules.graphs import PaddedGraphs
from sciconsist.domains.molecules.network import MoleculeNetwork, NetworkConfig
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product, Simplex
from sciconsist.paths import Linear


class MoleculeConfig(BaseModel):
    """Everything needed to rebuild the model around its weights."""

    model_config = ConfigDict(extra="forbid")

    vocabulary: list[list]
    network: NetworkConfig = NetworkConfig()
    atom_scale: float = 2.0  # one-hot length of classes and bonds: how early on the path the graph settles
    bond_scale: float = 2.0
    length_factor: float = 0.75  # Å per unit of a cloud of N heavy atoms is length_factor * N ** length_power
    length_power: float = 0.3
    size_histogram: dict[int, int] = {}


@dataclass
class MoleculeDomain:
    """Adapter between molecules and the core."""

    config: MoleculeConfig

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary.from_config(self.config.vocabulary)
        self.geometry = Product(
            {
                "positions": Euclidean(zero_com=True),
                "atoms": Simplex(self.config.atom_scale),
                "bonds": Simplex(self.config.bond_scale, symmetric=True),
            }
        )

    def model(self) -> FlowMap:
        net = MoleculeNetwork(len(self.vocabulary), self.config.network)
        model = FlowMap(net, Linear(), self.geometry, "endpoint")
        model.domain, model.config = self, self.config.model_dump()
        return model

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
        scale = self.length_scale(graphs.mask)
        atoms, bonds = self.geometry["atoms"], self.geometry["bonds"]
        assert isinstance(atoms, Simplex) and isinstance(bonds, Simplex)
        state = {
            "positions": self.geometry["positions"].project(graphs.positions / scale[:, None, None], graphs.mask),
            "atoms": atoms.encode(graphs.classes, len(self.vocabulary), mask["atoms"]),
            "bonds": bonds.encode(graphs.orders, 4, mask["bonds"]),
        }
        return state, {"length_scale": scale}, mask

    def couple(
        self, x0: dict[str, Tensor], noise: dict[str, Tensor], mask: dict[str, Tensor], given: Tensor
    ) -> dict[str, Tensor]:
        """Pair noise with data: Hungarian + Kabsch over positions and classes; turned only where the graph is given."""
        extra = -2.0 * torch.matmul(x0["atoms"], noise["atoms"].transpose(1, 2))
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


Batch = dict[str, Any]
