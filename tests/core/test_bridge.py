"""Schroedinger bridges of 1-D Gaussians against the closed form: cov 1.213754, variance 1.579377 at the middle."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sciconsist import bridge, exact
from sciconsist.random import stream

A, B, SIGMA = 1.0, 1.5, 0.8
COV = exact.bridge_covariance(A, B, SIGMA)
MIDDLE = exact.bridge_variance(A, B, SIGMA, 0.5)


def ends(count: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, count, 1, generator=stream(0, "ends"), dtype=torch.float64)
    return A * x[0], B * x[1]


class Linear(nn.Module):
    """gain(t) x with cubic gains, which a bridge of Gaussians needs no more than; `power` adds 1 / sqrt(t (1-t))."""

    def __init__(self, power: bool = False) -> None:
        super().__init__()
        self.power = power
        self.gain = nn.Parameter(torch.zeros(8, dtype=torch.float64))

    def features(self, x: Tensor, t: Tensor) -> Tensor:
        columns = [t**k for k in range(6)]
        u = t.clamp(0.001, 0.999)
        columns += [(u * (1 - u)).sqrt(), (1 - 2 * u)]
        return torch.stack(columns, -1) * x

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return (self.features(x, t) @ self.gain)[:, None]


def fit(parameters: list[nn.Parameter], loss: Callable[[torch.Generator], Tensor], steps: int) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, tolerance_grad=1e-9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(stream(0, "fit"))  # the same draws every time: least squares
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[arg-type]


def test_entropic_pairs_have_the_bridge_s_covariance() -> None:
    x0, x1 = bridge.entropic_pairs(*ends(1500), SIGMA, stream(1))
    scale = A * B / float(x0.std() * ends(1500)[1].std())
    assert float((x0 * x1).mean()) * scale == pytest.approx(COV, abs=0.12)
    assert abs(COV - 1.213754) < 1e-6
    t = torch.full((1500,), 0.5, dtype=torch.float64)
    middle, _ = bridge.bridge_point(x0, x1, t, SIGMA, stream(2))
    assert float(middle.var()) == pytest.approx(MIDDLE, rel=0.1)


def test_sf2m_simulates_the_bridge() -> None:
    pairs = bridge.entropic_pairs(*ends(1500), SIGMA, stream(1))
    flow, score = Linear(), Linear()
    fit([flow.gain, score.gain], lambda g: bridge.sf2m_loss(flow, score, *pairs, SIGMA, g), 60)
    x0 = ends(6000)[0]
    x1 = bridge.simulate(bridge.sf2m_drift(flow, score, SIGMA), x0, SIGMA, 60, stream(3))
    assert float(x1.var()) == pytest.approx(B**2, rel=0.12)
    assert float((x0 * x1).mean()) == pytest.approx(COV, rel=0.12)


def test_dsbm_goes_from_independent_pairs_to_the_bridge() -> None:
    """Covariance 0 at the start; every round comes nearer to 1.2138, and the ends keep their variances."""
    x0, x1 = ends(4000)
    found = []
    for rounds in (1, 4):
        net, back = bridge.dsbm(
            Linear(), x0, x1, SIGMA, lambda net, loss: fit(list(net.parameters()), loss, 25), rounds=rounds
        )  # fmt: skip
        end = bridge.simulate(bridge.end_drift(net), x0, SIGMA, 60, stream(4))
        found.append(float((x0 * end).mean()))
        assert float(end.var()) == pytest.approx(B**2, rel=0.1)
    begin = bridge.simulate(bridge.end_drift(back, True), x1, SIGMA, 60, stream(5), backward=True)
    assert abs(found[1] - COV) < min(0.12, abs(found[0] - COV))
    assert float(begin.var()) == pytest.approx(A**2, rel=0.12)
    assert float((begin * x1).mean()) == pytest.approx(COV, rel=0.12)
