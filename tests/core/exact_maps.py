"""Networks that are the exact flow map of a Gaussian, and wrong ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciconsist.exact import Gaussian
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean
from sciconsist.parametrisations import Parametrisation
from sciconsist.paths import Path

MEAN = torch.tensor([0.7, -1.1], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.8, 0.3], [0.3, 0.4]], dtype=torch.float64)
DATA = Gaussian(MEAN, COVARIANCE)
DATA_STD = 0.7


class ExactNet(nn.Module):
    """F of the exact map, or of a wrong one: "identity" stands still, "start" evaluates the velocity only at s."""

    def __init__(self, row: Parametrisation, wrong: str | None = None) -> None:
        super().__init__()
        self.row, self.wrong = row, wrong
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, scaled: Tensor, s: Tensor, t: Tensor) -> Tensor:
        row, path = self.row, self.row.path
        unit = row.scale_input(torch.ones_like(scaled), s)
        x = scaled / unit
        v = DATA.velocity(path, x, s)
        if self.wrong == "identity":
            u = torch.zeros_like(x)
        elif self.wrong == "start":
            u = v
        else:
            same = (s == t)[:, None]
            gap = torch.where(same, torch.ones_like(x[:, :1]), (t - s)[:, None])
            u = torch.where(same, v, (DATA.flow_map(path, x, s, t) - x) / gap)
        return self.scale * row.target(x, u, s, t)


def exact_model(path: Path, kind: str, wrong: str | None = None) -> FlowMap:
    model = FlowMap(nn.Identity(), path, Euclidean(), kind, DATA_STD)
    model.net = ExactNet(model.rows[None], wrong)
    return model


def pairs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(x0, eps) with x0 from the Gaussian: `[count, 2]` float64 each."""
    noise = torch.randn(2, count, 2, generator=generator, dtype=torch.float64)
    return MEAN + noise[0] @ torch.linalg.cholesky(COVARIANCE).T, noise[1]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
