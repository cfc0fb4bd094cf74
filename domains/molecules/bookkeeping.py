"""What a noisy graph adds up to so far, beside what it was told to: hydrogens, bonded pairs, valences.

Every atom of a flow decides for itself; a total that they must meet together is seen by none of them. The posterior of
one-hot classes under Gaussian noise is a softmax of the noisy state (docs of `Simplex`), so the expected totals are exact
sums that need no learning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciconsist.domains.molecules.vocabulary import Vocabulary

FEATURES = 9
ORDERS = (0.0, 1.0, 2.0, 3.0, 1.5)  # of the bond classes


class Bookkeeping(nn.Module):
    """Features of every atom and of the whole, into node scalars; silent at first."""

    hydrogens: Tensor
    order_sums: Tensor

    def __init__(self, vocabulary: Vocabulary, atom_scale: float, bond_scale: float, width: int) -> None:
        super().__init__()
        self.scales = (atom_scale, bond_scale)
        self.register_buffer(
            "hydrogens", torch.tensor([float(c.hydrogens) for c in vocabulary.classes]), persistent=False
        )
        self.register_buffer(
            "order_sums", torch.tensor([float(c.order_sum) for c in vocabulary.classes]), persistent=False
        )
        self.out = nn.Linear(FEATURES, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(
        self, atoms: Tensor, bonds: Tensor, s_atoms: Tensor, s_bonds: Tensor, allowed: Tensor, totals: Tensor,
        node: Tensor, pair: Tensor,
    ) -> Tensor:  # fmt: skip
        """Noisy `atoms` `[B, N, K]`, `bonds` `[B, N, N, C]` at times `[B]`, `totals` `[B, 2]` of hydrogens and bonded pairs
        (NaN: untold), masks `[B, N]` and `[B, N, N, 1]` -> `[B, N, D]`."""
        p = posterior(atoms, s_atoms[:, None, None], self.scales[0], allowed) * node[..., None]
        q = posterior(bonds, s_bonds[:, None, None, None], self.scales[1]) * pair
        hydrogens, wanted = p @ self.hydrogens.to(p.dtype), p @ self.order_sums.to(p.dtype)
        spent = (q * torch.tensor(ORDERS[: q.shape[-1]], device=q.device, dtype=q.dtype)).sum((2, 3))
        bonded = (1 - q[..., 0]) * pair[..., 0]
        now = torch.stack([hydrogens.sum(1), bonded.sum((1, 2)) / 2], -1)
        known = torch.isfinite(totals)
        lacking = torch.where(known, totals.to(p.dtype) - now, 0.0) / 2
        whole = torch.cat([lacking, known.to(p.dtype), (wanted - spent).sum(1, keepdim=True) / 4], -1)
        own = torch.stack([hydrogens, wanted, spent, wanted - spent], -1) / 2
        return self.out(torch.cat([own, whole.unsqueeze(1).expand(-1, own.shape[1], -1)], -1))


def posterior(x: Tensor, s: Tensor, scale: float, allowed: Tensor | None = None) -> Tensor:
    """Class probabilities of `x = (1 - s) scale one_hot + s noise`, all classes as likely before."""
    s = s.to(x.dtype).clamp_min(0.02)
    logits = (1 - s) * scale * x / s.square()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -1e9)
    return torch.softmax(logits, -1)
