"""A learned weight of the times: every (s, t) comes to count the same, whatever the size of its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciconsist import parallel
from sciconsist.nn.embeddings import Sinusoidal
from sciconsist.state import Times, leaves


class LearnedWeight(nn.Module):
    """u(s, t), linear in sines and cosines of s, t and s - t, which learns the log of the expected loss there.

    Karras et al. 2024 (EDM2), eq. 21: E[loss / e^u + u] is least where e^u = E[loss | s, t], so exp(-u) is the
    inverse of the expected loss. It begins at u = 0, all weights 1. `clocks` is the number of fields with times.
    """

    def __init__(self, clocks: int = 1) -> None:
        super().__init__()
        self.embedding = Sinusoidal(16)
        self.linear = nn.utils.skip_init(nn.Linear, 3 * 16 * clocks, 1)  # no random number is drawn
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, s: Times, t: Times) -> Tensor:
        """u at times `[B]`, or dicts of them: `[B]`."""
        pairs = zip(leaves(s), leaves(t))
        u: Tensor = self.linear(torch.cat([self.embedding(v.float()) for a, b in pairs for v in (a, b, a - b)], -1))
        return u[:, 0]

    def weigh(self, losses: Tensor, s: Times, t: Times, off: Tensor) -> Tensor:
        """Weighted losses `[B]`, whose gradient trains the network, and u beside it; neither feels the other's.

        Weights are divided by their mean over the batch's diagonal and over the rest of it (`off`, `[B]`): u moves
        attention between times, and leaves the size of the gradient, on which clipping depends, and the anchor's
        share of it. Without the latter a semigroup that holds already outweighs the data, and the map drifts off.
        """
        u = self(s, t)
        weight = torch.exp(-u.detach())
        groups = torch.stack([~off, off]).to(weight.dtype)
        sums = torch.stack([groups @ weight, groups.sum(1)])
        if parallel.join()[1] > 1:
            parallel.average([sums])
        mean = (sums[0] / sums[1].clamp_min(1e-12)) @ groups
        own = losses.detach() * torch.exp(-u) + u
        return losses * (weight / mean).to(losses.dtype) + (own - own.detach()).to(losses.dtype)
