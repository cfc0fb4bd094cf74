"""A fourth domain: sprays of particles ("jets") of a little parton shower, in 1, 2 and 4 steps: python docs/jets.py"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from sciconsist import RECIPES, Euclidean, FlowMap, fit, sample, uniform
from sciconsist.domain import Batch, States
from sciconsist.errors import UserError
from sciconsist.nn.embeddings import Sinusoidal
from sciconsist.random import stream

SLOTS = 8  # particles at most


def shower(count: int, seed: int) -> list[np.ndarray]:
    """Jets `[N, 3]`: energy share and two angles (rad) a particle; each splits its energy and opens an angle."""
    random, jets = np.random.default_rng(seed), []
    for _ in range(count):
        jet = np.array([[1.0, 0.0, 0.0]])
        for _ in range(random.integers(3, SLOTS)):
            k = int(jet[:, 0].argmax())
            share, opening = random.beta(2, 2), 0.3 * jet[k, 0] * random.normal(size=2)
            parts = [[jet[k, 0] * z, *(jet[k, 1:] + a * opening)] for z, a in ((share, 1 - share), (1 - share, -share))]
            jet = np.vstack([np.delete(jet, k, 0), *parts])
        jets.append(jet)
    return jets


class SetNetwork(nn.Module):
    """Particles `[B, N, 3]` see the sums over all: permuting them permutes the output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.clock = Sinusoidal(16)
        self.start = nn.Linear(3 + 2 * 16, width)
        self.own, self.all = (nn.ModuleList(nn.Linear(width, width) for _ in range(3)) for _ in range(2))
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
        real = mask[..., None].to(x.dtype)
        clock = torch.cat([self.clock(s), self.clock(s - t)], -1)[:, None].expand(-1, x.shape[1], -1)
        h = self.start(torch.cat([x, clock.to(x.dtype)], -1))
        for own, everyone in zip(self.own, self.all):
            h = nn.functional.silu(h)
            h = h + own(h) + everyone((h * real).sum(1, keepdim=True)) / SLOTS
        return self.out(h) * real


class Jets:
    """The adapter: jets to states (log energy share and angles, scaled to about unit variance) and back."""

    geometry = Euclidean()

    def collate(self, items: Sequence[np.ndarray]) -> Batch:
        x, mask = torch.zeros(len(items), SLOTS, 3), torch.zeros(len(items), SLOTS, dtype=torch.bool)
        for k, jet in enumerate(items):
            if jet.ndim != 2 or jet.shape[1] != 3 or len(jet) > SLOTS or not (jet[:, 0] > 0).all():
                raise UserError(f"jet {k}: expected [N, 3], N <= {SLOTS}, positive energies; found {jet.shape}")
            x[k, : len(jet)] = torch.from_numpy(np.column_stack([np.log(jet[:, 0]) + 2, jet[:, 1:] * 8]))
            mask[k, : len(jet)] = True
        return Batch(x, mask=mask)

    def network(self, size: int = 64) -> nn.Module:
        return SetNetwork(size)

    def model(self) -> FlowMap:
        model = FlowMap(self.network(), geometry=self.geometry)
        model.domain = self
        return model

    def decode(self, batch: Batch) -> list[np.ndarray]:
        x = batch.x0.double().numpy()
        return [np.column_stack([np.exp(a[m, 0] - 2), a[m, 1:] / 8]) for a, m in zip(x, batch.mask.numpy())]

    def metrics(self, samples: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> dict[str, float]:
        """Wasserstein-1 of a jet's width (energy-weighted angle, rad) and total energy share (1 if conserved)."""
        seen = {"width": lambda j: (j[:, 0] * np.hypot(j[:, 1], j[:, 2])).sum(), "energy": lambda j: j[:, 0].sum()}
        return {n: wasserstein_distance(*([f(j) for j in js] for js in (samples, reference))) for n, f in seen.items()}


def main(steps: int = 1500) -> dict[str, dict[str, float]]:
    jets, train, test = Jets(), shower(8000, seed=0), shower(2000, seed=1)
    model, batch, fresh = jets.model(), jets.collate(train), jets.collate(test)
    fit(model, RECIPES["shortcut"], States(batch.x0, mask=batch.mask), steps=steps, batch_size=256, lr=4e-3)
    states = {f"{n} steps": sample(model, (2000, SLOTS, 3), uniform(n), stream(0), mask=fresh.mask) for n in (1, 2, 4)}
    states["noise"] = jets.geometry.prior(fresh.x0, fresh.mask, generator=stream(0))
    scores = {name: jets.metrics(jets.decode(Batch(x, mask=fresh.mask)), test) for name, x in states.items()}
    scores["simulator"] = jets.metrics(train[:2000], test)
    return scores


if __name__ == "__main__":
    for name, score in main().items():
        print(f"{name:<12}" + "".join(f"{key} {value:.4f}  " for key, value in score.items()))
