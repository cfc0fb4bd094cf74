"""The climate domain: the core's contract, residuals and fields, conservation inside the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError

from sciconsist.domain import Batch
from sciconsist.domains.climate.adapter import ClimateDomain, from_config
from sciconsist.domains.climate.conserve import block_mean
from sciconsist.domains.climate.statics import Terrain, terrain
from sciconsist.random import stream
from sciconsist.testing import DomainContract
from sciconsist.workflows.climate_data import make_batch

K = 3
CONFIG: dict[str, Any] = {
    "variables": ["t2m", "tp"], "factor": K, "centre": [280.0, 1.0], "scale": [5.0, 1.0], "spread": [0.5, 0.4],
    "network": {"width": 8, "fine": 6, "decoder": 8, "dilations": [1], "time_width": 8},
}  # fmt: skip


def ground(periodic: bool = False, dtype: torch.dtype = torch.float32) -> Terrain:
    g = stream(0, "ground")
    height, land = (torch.rand(6 * K, 8 * K, generator=g) for _ in range(2))
    area = torch.cos(torch.linspace(0.2, 0.9, 6 * K))[:, None].expand(-1, 8 * K)
    if not periodic:
        area = torch.where(torch.arange(8 * K) < K, 0.0, area)  # a column of cells without values
    return terrain((1000 * height).numpy(), land.numpy(), area.numpy(), K, 1.0, periodic)


def sample(domain: ClimateDomain, seed: int, periodic: bool = True) -> Batch:
    """One time of fields that conserve nothing but themselves, and the coarse fields that are their means."""
    g, land = stream(seed, "sample"), ground(periodic)
    truth = torch.randn(1, 2, 6 * K, 8 * K, generator=g)
    truth = torch.stack([280 + 3 * truth[:, 0], (4 * truth[:, 1]).clamp_min(0)], 1)
    coarse = block_mean(truth, land.area[None, None], K)
    net: Any = domain.network()
    base = domain.base(net, coarse, land, torch.zeros(1, 4))
    return make_batch(domain, net, truth, coarse, base, land, torch.zeros(1, 4), torch.ones(1, 2), torch.ones(2))


def roll(batch: Batch, generator: torch.Generator) -> Batch:
    """The globe turned by three coarse cells."""
    fine, coarse = ("fine", "base", "spread", "area", "truth"), ("coarse", "amount")
    turned = {n: batch.condition[n].roll(3 * K, -1) for n in fine} | {n: batch.condition[n].roll(3, -1) for n in coarse}
    assert isinstance(batch.x0, torch.Tensor) and isinstance(batch.mask, torch.Tensor)
    return Batch(batch.x0.roll(3 * K, -1), condition=batch.condition | turned, mask=batch.mask.roll(3 * K, -1))


class TestClimateDomain(DomainContract):
    symmetries: ClassVar = {"rolled": roll}

    def make(self) -> ClimateDomain:
        return from_config(CONFIG)

    def items(self) -> list[Batch]:
        return [sample(self.make(), seed) for seed in range(3)]

    def same(self, item: Batch, decoded: torch.Tensor) -> bool:
        return bool(torch.allclose(item.condition["truth"][0], decoded, atol=2e-3))


@pytest.mark.parametrize("periodic", [False, True])
def test_fields_come_back_from_residuals_where_there_are_any(periodic: bool) -> None:
    batch = sample(domain := from_config(CONFIG), 0, periodic)
    found, truth = domain.fields(batch.x0, batch.condition), batch.condition["truth"]  # type: ignore[arg-type]
    assert torch.allclose(torch.where(batch.mask, found, truth), truth, atol=2e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("periodic", [False, True])
def test_any_residual_conserves(periodic: bool) -> None:
    """To 1e-5 of the field's deviation, the size of float32's own rounding at 280 K; exactly non-negative."""
    batch = sample(domain := from_config(CONFIG), 1, periodic)
    wild = 5 * torch.randn(batch.x0.shape, generator=stream(0, "wild"))  # type: ignore[union-attr]
    y = domain.fields(wild, batch.condition)
    error = (block_mean(y.double(), batch.condition["area"].double(), K) - batch.condition["amount"]).abs()
    valid = batch.condition["coarse"][:, 4:5] > 0
    assert (error * valid)[:, 0].max() < 1e-4 and (error * valid)[:, 1].max() < 1e-5
    assert y[:, 1].min() >= 0 and (y[:, 1] < 1e-3).any()
    free = domain.fields(wild, batch.condition, conserve=False)
    assert (block_mean(free, batch.condition["area"], K) - batch.condition["amount"]).abs().max() > 0.1


def test_the_scale_of_the_residual_is_a_spread() -> None:
    batch = sample(domain := from_config(CONFIG), 2)
    x = torch.randn(batch.x0.shape, generator=stream(0, "x"))  # type: ignore[union-attr]
    one, two = (domain.fields(f * x, batch.condition) - batch.condition["base"] for f in (1.0, 2.0))
    assert torch.allclose(2 * one[:, 0], two[:, 0], atol=1e-3)


def test_a_variable_that_is_not_known_changes_nothing() -> None:
    domain = from_config(CONFIG)
    model, land = domain.model().eval(), ground(True)
    truth = sample(domain, 0).condition["truth"]
    out = []
    for filler in (0.0, 50.0):
        fields = torch.stack([truth[:, 0], torch.full_like(truth[:, 1], filler)], 1)
        coarse = block_mean(fields, land.area[None, None], K)
        net: Any = model.net
        known = torch.tensor([[1.0, 0.0]])
        base = domain.base(net, coarse, land, torch.zeros(1, 4)) * known[:, :, None, None]
        batch = make_batch(domain, net, fields, coarse, base, land, torch.zeros(1, 4), known, torch.ones(2))
        x = torch.randn(fields.shape, generator=stream(0, "x")) * batch.mask  # type: ignore[operator]
        out.append(model(x, 1.0, 0.0, batch.condition)[:, 0])
    assert torch.equal(*out)


@pytest.mark.parametrize(
    ("change", "named"), [({"variables": ["snow", "tp"]}, "snow"), ({"factor": 9}, "factor"), ({"colour": 1}, "colour")]
)
def test_a_config_that_makes_no_sense_is_refused(change: dict, named: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=named):
        from_config(CONFIG | change)


def test_weights_survive_their_file(tmp_path: Any, make_world: Callable, make_model: Callable) -> None:
    from sciconsist.checkpoint import save_model
    from sciconsist.workflows.models import load

    model = make_model(make_world())
    model.config = {"domain": "climate", **model.config}
    save_model(tmp_path / "m.safetensors", model)
    again = load(tmp_path / "m.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
