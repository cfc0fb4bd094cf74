"""The network: a crop gives the crop, the globe goes round, places between cells have values, JVPs exist."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sciconsist.domains.climate.network import (
    HARMONICS,
    OFFSET_FEATURES,
    FieldNetwork,
    NetworkConfig,
    cell_moments,
    offset_features,
    offsets,
    sample,
    upsample,
)
from sciconsist.random import stream

FINE_IN, COARSE_IN, C = 5, 4, 2


def network(dtype: torch.dtype = torch.float64, lattice: tuple[int, int] | None = None) -> FieldNetwork:
    config = NetworkConfig(width=10, fine=8, decoder=9, dilations=[1, 2], time_width=8, embedding=3 if lattice else 0)
    net = FieldNetwork(C, COARSE_IN, FINE_IN, config, lattice).to(dtype)
    generator = stream(0, "net")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=dtype))
    return net.eval()


def inputs(h: int = 18, w: int = 20, k: int = 3, periodic: bool = False) -> tuple[torch.Tensor, dict[str, Any]]:
    g = stream(1, "inputs")
    x, fine = (torch.randn(2, n, h * k, w * k, generator=g, dtype=torch.float64) for n in (C, FINE_IN))
    coarse = torch.randn(2, COARSE_IN, h, w, generator=g, dtype=torch.float64)
    box = torch.zeros(2, 2, dtype=torch.long)
    return x, {"fine": fine, "coarse": coarse, "periodic": periodic, "box": box}


S, T = torch.tensor([0.9, 0.4]).double(), torch.tensor([0.5, 0.4]).double()


def cut(x: torch.Tensor, condition: dict[str, Any], i: int, j: int, h: int, w: int, k: int) -> Any:
    fine = (..., slice(i * k, (i + h) * k), slice(j * k, (j + w) * k))
    box = torch.tensor([[i, j]]).expand(2, 2)
    part = {"fine": condition["fine"][fine], "coarse": condition["coarse"][..., i : i + h, j : j + w]}
    return x[fine], {**part, "periodic": False, "box": box}


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("embedded", [False, True])
def test_a_crop_gives_the_crop_away_from_its_rim(k: int, embedded: bool) -> None:
    net = network(lattice=(18, 20) if embedded else None)
    x, condition = inputs(k=k)
    whole = net(x, S, T, condition)
    i, j, h, w = 1, 3, 16, 15  # an odd origin: nothing may depend on where an array begins
    part = net(*[cut(x, condition, i, j, h, w, k)[0], S, T, cut(x, condition, i, j, h, w, k)[1]])
    rim = net.halo
    inner = (..., slice(rim * k, (h - rim) * k), slice(rim * k, (w - rim) * k))
    expected = whole[..., i * k : (i + h) * k, j * k : (j + w) * k]
    assert expected.std() > 1e-2
    assert torch.allclose(part[inner], expected[inner], atol=1e-12)
    outer = (part - expected).abs().amax()
    assert outer > 1e-6, "the rim is as good as the middle: the test would be empty"


def test_a_rolled_globe_gives_the_rolled_result() -> None:
    net = network()
    x, condition = inputs(periodic=True)
    rolled = {**condition, "fine": condition["fine"].roll(3 * 7, -1), "coarse": condition["coarse"].roll(7, -1)}
    out = net(x, S, T, condition)
    assert torch.allclose(net(x.roll(3 * 7, -1), S, T, rolled), out.roll(3 * 7, -1), atol=1e-12)
    assert not torch.allclose(net(x, S, T, {**condition, "periodic": False}), out, atol=1e-6)


def test_each_sample_is_its_own() -> None:
    net = network()
    x, condition = inputs()
    one = {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in condition.items()}
    assert torch.allclose(net(x[:1], S[:1], T[:1], one), net(x, S, T, condition)[:1], atol=1e-12)


def test_places_on_the_lattice_have_the_lattices_values() -> None:
    net = network()
    k = 3
    x, condition = inputs(k=k)
    rows, columns = torch.meshgrid(torch.arange(54.0).double(), torch.arange(60.0).double(), indexing="ij")
    at = {"row": (rows.flatten() + 0.5) / k - 0.5, "column": (columns.flatten() + 0.5) / k - 0.5}
    query = {n: v.double()[None].expand(2, -1) for n, v in at.items()} | {"features": condition["fine"].flatten(2)}
    found = net(x, S, T, {**condition, "query": query})
    assert torch.allclose(found.reshape(x.shape), net(x, S, T, condition), atol=1e-10)


def test_sample_is_exact_on_a_plane_and_goes_round() -> None:
    plane = (2.0 * torch.arange(6.0)[:, None] - 3.0 * torch.arange(7.0)).expand(1, 1, 6, 7)
    row, column = torch.rand(1, 50) * 5, torch.rand(1, 50) * 6
    assert torch.allclose(sample(plane, row, column)[0, 0], (2 * row - 3 * column)[0], atol=1e-5)
    ring = torch.arange(4.0).expand(1, 1, 2, 4)
    assert sample(ring, torch.zeros(1, 2), torch.tensor([[3.5, -0.5]]), True).flatten().tolist() == [1.5, 1.5]


def test_upsampling_is_sampling_at_the_fine_centres() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, generator=stream(0, "up"))
    k = 3
    rows, columns = torch.meshgrid(torch.arange(4 * k).double(), torch.arange(5 * k).double(), indexing="ij")
    at = [((v.flatten() + 0.5) / k - 0.5)[None].double() for v in (rows, columns)]
    assert torch.allclose(upsample(x, k).flatten(2), sample(x, *at), atol=1e-12)


def test_an_offset_feature_is_its_waves_mean_over_the_target_cell() -> None:
    """Closed form against a numerical mean; a cell as large as the wave sees none of it."""
    size, fine = 0.4, torch.linspace(-0.5, 0.5, 2001, dtype=torch.float64)
    centre = torch.tensor([0.13], dtype=torch.float64)
    found = offset_features(centre, centre, size)
    cell = centre + size * fine
    expected = [torch.tensor(size)]
    for n in HARMONICS:
        for _ in range(2):
            expected += [torch.sin(2 * math.pi * n * cell).mean(), torch.cos(2 * math.pi * n * cell).mean()]
    assert torch.allclose(found[:, 0], torch.stack([e.double() for e in expected]), atol=2e-3)
    assert len(found) == OFFSET_FEATURES and offset_features(centre, centre, 1.0)[1:].abs().max() < 1e-12


def test_moments_do_not_depend_on_the_factor_for_smooth_fields() -> None:
    """The moments are integrals over the cell: of a wave that any factor resolves they are the same."""
    found = []
    for k in (4, 8):
        o = offsets(k, torch.zeros(1, dtype=torch.float64)).repeat(3)
        wave = torch.cos(2 * math.pi * o)[:, None] * torch.sin(2 * math.pi * o)
        found.append(cell_moments(wave[None, None], k))
    assert torch.allclose(*found, atol=1e-12) and found[0].abs().max() > 0.4


def test_forward_derivatives_agree_with_differences() -> None:
    net = network()
    x, condition = inputs(6, 6)
    dx = torch.randn(x.shape, dtype=torch.float64, generator=stream(2, "dx"))
    ds = torch.tensor([0.3, -0.2]).double()
    _, derivative = torch.func.jvp(lambda a, s: net(a, s, T, condition), (x, S), (dx, ds))
    h = 1e-5
    numerical = (net(x + h * dx, S + h * ds, T, condition) - net(x - h * dx, S - h * ds, T, condition)) / (2 * h)
    assert torch.allclose(derivative, numerical, atol=1e-6) and derivative.abs().max() > 1e-2
