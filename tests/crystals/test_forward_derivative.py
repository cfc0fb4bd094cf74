"""The crystal network serves the recipes with a JVP: the map's derivative along times against central differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciconsist.domain import Batch
from sciconsist.flowmap import FlowMap
from sciconsist.state import map_fields
from sciconsist.targets import jvp
from sciconsist.testing import gradients_of
from tests.crystals.test_network import B, N, inputs, model

__all__ = ["model"]  # the fixture


def test_the_map_has_a_forward_derivative(model: FlowMap) -> None:
    state, s, t = inputs()
    node = torch.ones(B, N, dtype=torch.bool)
    condition, masks = model.domain.condition(node), model.domain.masks(node)
    ones = map_fields(torch.ones_like, s)
    v = {n: torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype) for n, x in state.items()}

    def move(x: dict[str, Tensor], s: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        return model(x, s, t, condition, masks)

    def at(h: float) -> dict[str, Tensor]:
        parts = ((state, v), (s, ones), (t, ones))
        with torch.no_grad():
            return move(*(map_fields(lambda a, b: a + h * b, a, b) for a, b in parts))

    _, rate = jvp(move, (state, s, t), (v, ones, ones))
    apart = model.geometry.log(at(-1e-4), at(1e-4))
    for name, found in rate.items():
        expected = apart[name] / 2e-4
        assert float((found - expected).detach().norm() / expected.norm()) < 0.02, name


@pytest.mark.parametrize("name", ["meanflow", "lsd"])
def test_recipes_with_a_jvp_have_gradients(model: FlowMap, name: str) -> None:
    """By forward mode alone, and (lsd, lmd) by reverse through it."""
    state, _, _ = inputs()
    node = torch.ones(B, N, dtype=torch.bool)
    one_hot = torch.nn.functional.one_hot(state["species"].argmax(-1), state["species"].shape[-1]).double()
    clean = {**state, "species": model.domain.config.species_scale * one_hot}
    batch = Batch(clean, condition=model.domain.condition(node), mask=model.domain.masks(node))
    gradients_of(model, model.domain, batch, name)
