"""The crystal denoiser in float64: turned cells, moved origins, permuted atoms, wrapped coordinates, padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciconsist.domains.crystals.adapter import CrystalConfig, CrystalDomain
from sciconsist.domains.crystals.network import NetworkConfig
from sciconsist.flowmap import FlowMap

B, N, K = 3, 6, 4
FIELDS = ("frac", "lattice", "species")


@pytest.fixture
def model() -> FlowMap:
    table = [[0.1, 1.0], [0.5, -1.0], [-1.0, 0.3], [0.7, 0.2]]
    sizes = NetworkConfig(layers=2, width=32, pair_width=8, heads=2, radial=8, time_width=16)
    config = CrystalConfig(
        elements=[3, 8, 11, 17], table=table, cell_mean=[[2.7, 0.0, 0.0, 0.0, 0.0, 0.0]] * 8,
        cell_std=[[0.3, 0.2, 0.2, 0.2, 0.2, 0.2]] * 8, size_histogram={6: 1}, network=sizes,
    )  # fmt: skip
    model = CrystalDomain(config).model().double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():  # the zero-initialised branches must speak too
        p.data = 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return model


def inputs(seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    state = {"frac": torch.rand(B, N, 3, generator=generator, dtype=torch.float64),
             "lattice": draw(B, 6), "species": draw(B, N, K)}  # fmt: skip
    s = {f: torch.rand(B, generator=generator, dtype=torch.float64) for f in FIELDS}
    return state, s, {f: v * 0.5 for f, v in s.items()}


def run(model: FlowMap, state: dict[str, Tensor], s: dict, t: dict, real: int = N, fixed: Tensor | None = None) -> dict:
    node = (torch.arange(state["frac"].shape[1]) < real).expand(B, -1)
    with torch.no_grad():
        return model.raw(state, s, t, model.domain.condition(node, fixed=fixed), model.domain.masks(node))


def test_moved_origin_and_wrapped_atoms(model: FlowMap) -> None:
    state, s, t = inputs()
    plain = run(model, state, s, t)
    assert plain["frac"].abs().max() > 1e-3
    shift = torch.tensor([0.3, -0.8, 0.55], dtype=torch.float64)
    wraps = torch.randint(-2, 3, (B, N, 3), generator=torch.Generator().manual_seed(4)).double()
    moved = run(model, {**state, "frac": state["frac"] + shift + wraps}, s, t)
    for name in FIELDS:
        torch.testing.assert_close(moved[name], plain[name], atol=1e-9, rtol=0)


def test_permuted(model: FlowMap) -> None:
    state, s, t = inputs()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    plain = run(model, state, s, t)
    mixed = run(model, {n: x if n == "lattice" else x[:, order] for n, x in state.items()}, s, t)
    for name in ("frac", "species"):
        torch.testing.assert_close(mixed[name], plain[name][:, order], atol=1e-9, rtol=0)
    torch.testing.assert_close(mixed["lattice"], plain["lattice"], atol=1e-9, rtol=0)


def test_padding_is_not_seen(model: FlowMap) -> None:
    state, s, t = inputs()
    short = run(model, {n: x if n == "lattice" else x[:, :4] for n, x in state.items()}, s, t, real=4)
    padded = run(model, state, s, t, real=4)
    for name in ("frac", "species"):
        torch.testing.assert_close(padded[name][:, :4], short[name], atol=1e-9, rtol=0)
    torch.testing.assert_close(padded["lattice"], short["lattice"], atol=1e-9, rtol=0)


def test_no_drift_and_fixed_sites_stand_still(model: FlowMap) -> None:
    state, s, t = inputs()
    assert run(model, state, s, t)["frac"].mean(1).abs().max() < 1e-12
    fixed = torch.zeros(B, N, dtype=torch.bool)
    fixed[0, :2] = True
    held = run(model, state, s, t, fixed=fixed)["frac"]
    assert held[0, :2].abs().max() == 0 and held[0, 2:].abs().max() > 1e-3
    assert held[1:].mean(1).abs().max() < 1e-12


def test_second_time_matters_only_off_the_diagonal(model: FlowMap) -> None:
    state, s, t = inputs()
    far, on = run(model, state, s, t)["species"], run(model, state, s, s)["species"]
    assert (far - on).abs().max() > 1e-4
    for p in model.net.target[2].parameters():
        p.data.zero_()
    torch.testing.assert_close(run(model, state, s, t)["species"], on)


def test_forward_derivative_is_that_of_differences(model: FlowMap) -> None:
    """JVP recipes differentiate the network: cell, coordinates and times at once."""
    state, s, t = inputs(2)
    direction, _, _ = inputs(5)
    node = torch.ones(B, N, dtype=torch.bool)
    given = model.domain.condition(node), model.domain.masks(node)

    def along(h: Tensor) -> dict[str, Tensor]:
        x = {n: v + h * (direction[n] if n != "frac" else direction[n] - 0.5) for n, v in state.items()}
        return model.raw(x, {n: v + 0.1 * h for n, v in s.items()}, t, *given)

    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    exact = torch.func.jvp(along, (zero,), (one,))[1]
    h = 1e-6
    with torch.no_grad():
        up, down = along(zero + h), along(zero - h)
    for name in FIELDS:
        torch.testing.assert_close(exact[name], (up[name] - down[name]) / (2 * h), atol=1e-5, rtol=1e-4)
