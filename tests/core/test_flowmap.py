"""The flow map: boundary, semigroup, ODE, times per field, products, what a network sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sciconsist.exact import point_mass_on_torus
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product, Simplex, Torus
from sciconsist.paths import Linear, Path
from tests.core.exact_maps import DATA, column, exact_model, pairs

KINDS = ("preconditioned", "velocity", "endpoint")


class Fields(nn.Module):
    """A random smooth network on a dict state; every output depends on all inputs."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.sizes = sizes
        generator = torch.Generator().manual_seed(3)
        width = sum(sizes.values()) + 2 * len(sizes)
        self.weight = nn.Parameter(torch.randn(width, sum(sizes.values()), generator=generator) * 0.5)

    def forward(self, x: Any, s: Any, t: Any, condition: Any = None, mask: Any = None) -> Any:
        some = next(iter(x.values()))
        clock = [v[:, None, None].expand(*some.shape[:2], 1) for d in (s, t) for v in d.values()]
        h = torch.cat([*x.values(), *clock], -1).to(self.weight.dtype)
        out = torch.tanh(h @ self.weight).to(some.dtype)
        return dict(zip(self.sizes, out.split(list(self.sizes.values()), -1)))


def product_model() -> tuple[FlowMap, Product, dict[str, torch.Tensor]]:
    geometry = Product({"r": Euclidean(zero_com=True), "k": Simplex(2.0), "f": Torus(zero_drift=True)})
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    model = FlowMap(Fields({"r": 3, "k": 4, "f": 3}), Linear(), geometry, None, {"r": 0.7, "k": 1.0, "f": 1.0})
    return model, geometry, {"r": mask, "k": mask, "f": mask}


def noise_like(geometry: Product, mask: dict[str, torch.Tensor], generator: torch.Generator) -> Any:
    like = {"r": torch.zeros(3, 4, 3), "k": torch.zeros(3, 4, 4), "f": torch.zeros(3, 4, 3)}
    return geometry.prior(like, mask, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_gaussian_map(path: Path, kind: str, generator: torch.Generator) -> None:
    """Any row, any path: the network that is the exact map carries x to the closed form, and composes."""
    x0, noise = pairs(16, generator)
    model = exact_model(path, kind)
    x = path.a(column(0.8)) * x0 + path.b(column(0.8)) * noise
    assert torch.allclose(model(x, 0.8, 0.1), DATA.flow_map(path, x, 0.8, 0.1), atol=1e-9)
    s, w, t = (column(v).expand(16) for v in (0.8, 0.35, 0.1))
    assert torch.allclose(model(model(x, s, w), w, t), model(x, s, t), atol=1e-9)
    assert torch.allclose(model(x, s, s), x, atol=1e-12)
    assert torch.allclose(model.velocity(x, s), DATA.velocity(path, x, s), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_map_breaks_the_semigroup(kind: str, generator: torch.Generator) -> None:
    x, _ = pairs(16, generator)
    s, w, t = (column(v).expand(16) for v in (0.8, 0.35, 0.1))
    model = exact_model(Linear(), kind, "start")
    assert (model(model(x, s, w), w, t) - model(x, s, t)).abs().max() > 0.05


def test_given_fields_are_held_exactly(generator: torch.Generator) -> None:
    model, geometry, mask = product_model()
    x = noise_like(geometry, mask, generator)
    x["k"] = Simplex(2.0).encode(torch.zeros(3, 4, dtype=torch.long), 4, mask["k"])
    s = {"r": torch.tensor([1.0, 0.6, 0.3]), "k": torch.zeros(3), "f": torch.tensor([1.0, 0.0, 0.3])}
    t = {"r": torch.zeros(3), "k": torch.zeros(3), "f": torch.zeros(3)}
    y = model(x, s, t, mask=mask)
    assert torch.equal(y["k"], x["k"])
    assert torch.equal(y["f"][1], x["f"][1])
    assert not torch.equal(y["f"][0], x["f"][0])
    assert (model.velocity(x, s, mask=mask)["k"] == 0).all()


def test_product_keeps_every_geometry(generator: torch.Generator) -> None:
    model, geometry, mask = product_model()
    x = noise_like(geometry, mask, generator)
    y = model(x, 1.0, 0.0, mask=mask)
    real = mask["r"]
    assert (y["r"] * real[..., None]).sum(1).abs().max() < 1e-5
    for field in y.values():
        assert (field[~real] == 0).all()
    assert ((y["f"] >= 0) & (y["f"] < 1)).all()
    assert torch.allclose(y["k"][real].sum(-1), torch.full((int(real.sum()),), 2.0))
    assert (y["k"][real] > 0).all()
    drift = geometry["f"].log(x["f"], y["f"])
    assert (drift.sum(1) - drift.sum(1).round()).abs().max() < 1e-5  # no net motion, up to whole turns


def test_intermediate_states_keep_the_centre_of_mass(generator: torch.Generator) -> None:
    model, geometry, mask = product_model()
    x = noise_like(geometry, mask, generator)
    for s, t in ((1.0, 0.7), (0.7, 0.2), (0.2, 0.0)):
        x = model(x, s, t, mask=mask)
        assert x["r"].sum(1).abs().max() < 1e-5


def test_point_mass_on_the_torus(generator: torch.Generator) -> None:
    """The network that points to y along the short way is the circle's exact map, across the seam as well."""
    y = torch.tensor([0.05], dtype=torch.float64)

    class ToPoint(nn.Module):
        def forward(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return -Torus().log(x, y) / s[:, None]

    model = FlowMap(ToPoint(), Linear(), Torus())
    x = torch.rand(50, 1, generator=generator, dtype=torch.float64)
    s, t = column(0.9).expand(50), column(0.3).expand(50)
    apart = Torus().log(model(x, s, t), point_mass_on_torus(x, y, 0.9, 0.3))
    assert apart.abs().max() < 1e-12


def test_times_reach_the_network_in_single_precision() -> None:
    seen = {}

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            seen["s"] = s
            return x

    x = torch.zeros(4, 2, dtype=torch.bfloat16)
    y = FlowMap(Spy())(x, torch.full((4,), 0.5, dtype=torch.bfloat16), 0)
    assert seen["s"].dtype == torch.float32
    assert seen["s"].shape == (4,)
    assert y.dtype == torch.bfloat16
