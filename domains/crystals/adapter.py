"""The crystal domain: state, geometry, what the network is told, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sciconsist.domains.crystals.composition_network import CompositionConfig, CompositionNetwork
from sciconsist.domains.crystals.crystals import Crystal, PaddedCrystals
from sciconsist.domains.crystals.lattice import from_vector
from sciconsist.domains.crystals.network import CrystalNetwork, NetworkConfig
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product, Simplex, Torus
from sciconsist.paths import Linear
from sciconsist.times import Split

PROPERTIES = ("e_above_hull", "band_gap")  # eV/atom, eV: what may be asked for, besides the space group


class CrystalConfig(BaseModel):
    """Everything needed to rebuild the model around its weights."""

    model_config = ConfigDict(extra="forbid")

    elements: list[int]  # atomic numbers, in class order
    table: list[list[float]]  # descriptors of each
    cell_mean: list[list[float]]  # of the cell's six numbers, by number of atoms from 1
    cell_std: list[list[float]]
    size_histogram: dict[int, int]
    value_mean: list[float] = [0.0, 0.0]
    value_std: list[float] = [1.0, 1.0]
    species_scale: float = 3.0  # length of a one-hot vector: how early on the path an element settles
    network: NetworkConfig = NetworkConfig()
    composition: CompositionConfig | None = None  # draws formulas; a model without one draws each site's element


@dataclass
class CrystalDomain:
    """Adapter between crystals and the core."""

    config: CrystalConfig

    def __post_init__(self) -> None:
        self.geometry = Product(
            {"frac": Torus(), "lattice": Euclidean(), "species": Simplex(self.config.species_scale)}
        )
        self.class_of = {z: k for k, z in enumerate(self.config.elements)}
        self.mean = torch.tensor(self.config.cell_mean)
        self.std = torch.tensor(self.config.cell_std)

    def model(self) -> FlowMap:
        net = CrystalNetwork(self.config.table, self.config.network)
        rows = {"frac": "velocity", "lattice": "endpoint", "species": "endpoint"}
        model = FlowMap(net, Linear(), self.geometry, rows)
        if self.config.composition is not None:
            model.composition = CompositionNetwork(self.config.table, self.config.composition)
        model.domain, model.config = self, self.config.model_dump()
        return model

    def classes(self, numbers: np.ndarray) -> np.ndarray:
        """Classes of atomic numbers. Raises KeyError for an element the model does not know."""
        return np.array([self.class_of[int(z)] for z in numbers])

    def masks(self, node: Tensor) -> dict[str, Tensor | None]:
        """Field masks of a node mask `[B, N]`; the lattice has none."""
        return {"frac": node, "lattice": None, "species": node}

    def condition(
        self, node: Tensor, values: Tensor | None = None, space_group: Tensor | None = None,
        fixed: Tensor | None = None, allowed: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """What the network is told. `values` `[B, 2]` in eV, NaN: anything; `space_group` `[B]`, 0: any;
        `fixed` `[B, N]` sites that stand still; `allowed` `[B, K]` elements that may come out."""
        row = node.sum(1).clamp(1, len(self.mean)) - 1
        if values is None:
            values = torch.full((len(node), len(PROPERTIES)), torch.nan)
        known = torch.isfinite(values)
        scaled = (values - torch.tensor(self.config.value_mean)) / torch.tensor(self.config.value_std)
        told = {
            "mean": self.mean[row], "std": self.std[row],
            "values": torch.where(known, scaled, 0.0), "known": known.float(),
            "space_group": torch.zeros(len(node), dtype=torch.long) if space_group is None else space_group,
            "fixed": torch.zeros_like(node) if fixed is None else fixed,
        }  # fmt: skip
        return told if allowed is None else {**told, "allowed": allowed}

    def encode(self, crystals: PaddedCrystals, condition: dict[str, Tensor]) -> dict[str, Tensor]:
        """The clean state of a batch."""
        species = self.geometry["species"]
        assert isinstance(species, Simplex)
        return {
            "frac": self.geometry["frac"].project(crystals.frac, crystals.mask),
            "lattice": (crystals.vector - condition["mean"]) / condition["std"],
            "species": species.encode(crystals.classes, len(self.config.elements), crystals.mask),
        }

    def cells(self, lattice: Tensor, condition: dict[str, Tensor], node: Tensor) -> np.ndarray:
        """Triangular cells `[B, 3, 3]` Å of a state's lattice field, float64."""
        vector = lattice.double() * condition["std"].double() + condition["mean"].double()
        return from_vector(vector, node.sum(1)).numpy()

    def loss(
        self, output: dict[str, Tensor], target: dict[str, Tensor], times: dict[str, Tensor], mask: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss per crystal `[B]` and its parts; a given field (s = 0) counts nothing.

        Velocities in units of the mean spacing of N atoms in a cell; cells in standard deviations, more toward the
        data's end; cross-entropy of elements.
        """
        node = mask["frac"].to(output["frac"].dtype)
        count = node.sum(1).clamp_min(1)
        difference = (output["frac"] - target["frac"]).square().sum(-1) * node
        frac = 2.0 * difference.sum(1) / count * count ** (2 / 3)
        s = times["lattice"]
        lattice = (output["lattice"] - target["lattice"]).square().mean(-1) / (s.square() + 0.1)
        log_p = torch.log_softmax(output["species"], -1)
        species = (-(target["species"] / self.config.species_scale * log_p).sum(-1) * node).sum(1) / count
        parts = {"frac": frac, "lattice": 0.2 * lattice, "species": 0.3 * species}
        parts = {name: value * (times[name] > 0) for name, value in parts.items()}
        return torch.stack(list(parts.values())).sum(0), parts

    def metric(self, output: Any, target: Any, times: Split, mask: Any) -> Tensor:
        """The loss as the hook of `flow_map_loss`."""
        return self.loss(output, target, times.s, mask)[0]  # type: ignore[arg-type]


def composition_of(model: FlowMap) -> CompositionNetwork | None:
    """The part of a crystal model that draws formulas, None where it has none."""
    part = getattr(model, "composition", None)
    assert part is None or isinstance(part, CompositionNetwork)
    return part


def from_config(config: dict[str, Any]) -> CrystalDomain:
    """The domain a checkpoint's config describes. Raises pydantic's ValidationError when a key is unknown."""
    return CrystalDomain(CrystalConfig(**config))


def cell_statistics(crystals: Sequence[Crystal], window: int = 1) -> tuple[list[list[float]], list[list[float]]]:
    """Mean and standard deviation of the cell's six numbers for every size up to the largest, `[N, 6]` each.

    Sizes within `window` share theirs, and a size seen less than 50 times takes everything's.
    """
    vectors = np.stack([c.vector for c in crystals])
    sizes = np.array([len(c) for c in crystals])
    means, stds = [], []
    for n in range(1, int(sizes.max()) + 1):
        near = vectors[np.abs(sizes - n) <= window]
        near = vectors if len(near) < 50 else near
        means.append([round(float(v), 5) for v in near.mean(0)])
        stds.append([round(float(v), 5) for v in np.maximum(near.std(0), 0.02)])
    return means, stds
