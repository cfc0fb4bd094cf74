"""A small crystal model with random weights: enough for what must hold whatever the network says."""

from __future__ import annotations

import pytest
import torch

from sciconsist.domains.crystals.adapter import CrystalConfig, CrystalDomain
from sciconsist.domains.crystals.composition_network import CompositionConfig, electronegativity_order
from sciconsist.domains.crystals.elements import descriptors
from sciconsist.domains.crystals.network import NetworkConfig
from sciconsist.flowmap import FlowMap

SYMBOLS = {3: "Li", 8: "O", 11: "Na", 14: "Si", 17: "Cl", 22: "Ti", 26: "Fe", 38: "Sr"}


def small_model(composition: bool = True, seed: int = 0, largest: int = 12) -> FlowMap:
    config = CrystalConfig(
        elements=list(SYMBOLS), table=descriptors(list(SYMBOLS.values())),
        cell_mean=[[2.7, 0.0, 0.05, 0.0, 0.0, 0.0]] * largest, cell_std=[[0.3, 0.15, 0.15, 0.2, 0.2, 0.2]] * largest,
        size_histogram=dict.fromkeys(range(1, largest + 1), 1),
        network=NetworkConfig(layers=1, width=16, pair_width=8, heads=2, radial=8, time_width=8),
        composition=CompositionConfig(order=electronegativity_order(list(SYMBOLS)), largest=largest, width=12)
        if composition else None,
    )  # fmt: skip
    model = CrystalDomain(config).model()
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = 0.2 * torch.randn(p.shape, generator=generator)
    model.config = {"domain": "crystals", **model.config}
    model.card = {"name": "small", "sha256": "0" * 64}
    return model.eval()


@pytest.fixture(scope="session")
def small() -> FlowMap:
    return small_model()
