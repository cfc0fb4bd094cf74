"""The E(3)-equivariant graph denoiser of molecules.

Shape legend: B molecules, N heavy atoms, D node width, E pair width, V vector channels, H heads.

Node scalars h_BND, symmetric pair scalars e_BNNE and vector channels v_BNV3 exchange information in every
layer; coordinates move in every layer. Pairs see each other through a triangle product over the third atom,
without which a message-passing net cannot count rings. Only polar vectors, their inner products and
distances enter, so the output turns, mirrors, shifts and permutes with the input.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from sciconsist.domains.molecules.bookkeeping import Bookkeeping
from sciconsist.state import field_of

FIELDS = ("positions", "atoms", "bonds")
FORBIDDEN = -1e4  # logit of a class that an atom may not have


class NetworkConfig(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(extra="forbid")

    layers: int = 6
    width: int = 128
    pair_width: int = 32
    vectors: int = 16
    heads: int = 8
    radial: int = 16
    time_width: int = 64
    conditions: int = 0  # numbers per molecule the network may be told, each with a flag whether it is
    elements: bool = False  # whether it may be told the elements of atoms, as classes that are allowed
    bookkeeping: bool = False  # whether it sees what its input adds up to, beside the totals told


def time_features(t: Tensor) -> Tensor:
    """Smooth features of times in [0, 1], fine near 0 where geometry settles: `[B] -> [B, 12]`."""
    t = t.float().unsqueeze(-1)
    log = torch.log(t + 1e-3) / 7.0
    frequencies = math.pi * torch.tensor([1.0, 2.0, 4.0, 8.0], device=t.device)
    root = torch.sqrt(t.clamp_min(1e-12))  # of derivative 0 at 0, where a held field's clock stands
    return torch.cat([t, log, (t == 0).float(), root, torch.cos(t * frequencies), torch.sin(t * frequencies)], -1)


def bumps(d: Tensor, centres: Tensor, widths: Tensor) -> Tensor:
    """Gaussians of distances, `[..., 1] -> [..., radial]`; their tails end at 1e-13, since denormals cost ten times as much."""
    return torch.exp(-((d - centres) * widths).square().clamp(max=30.0))


def shares(logits: Tensor) -> Tensor:
    """Softmax over the last dimension; torch's own is four times slower where that has few entries."""
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


class Layer(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        d, e, v = c.width, c.pair_width, c.vectors
        self.heads = c.heads
        self.norm_h = nn.LayerNorm(d)
        self.norm_e = nn.LayerNorm(e)
        self.to_vec = nn.Linear(v, v, bias=False)
        self.node_to_pair = nn.Linear(d, 4 * e)
        self.pair_in = nn.Linear(e + c.radial + v + 2, 2 * e)
        self.triangle = nn.Linear(e, e)
        self.pair_out = nn.Linear(3 * e, e)
        self.qkv = nn.Linear(d, 3 * d)
        self.pair_bias = nn.Linear(e, c.heads)
        self.attended = nn.Linear(d + c.heads * e, d)
        self.pair_vec = nn.Linear(e, 2 * v + 1)
        self.mix = nn.Linear(v, 2 * v, bias=False)
        self.ffn_in = nn.Linear(d + v, 2 * d)
        self.ffn_out = nn.Linear(2 * d, d + v)
        self.move = nn.Linear(v, 1, bias=False)
        for last in (self.attended, self.pair_out, self.ffn_out):
            nn.init.normal_(last.weight, std=0.3 / math.sqrt(last.in_features))
            nn.init.zeros_(last.bias)
        nn.init.normal_(self.pair_vec.weight, std=0.02)
        nn.init.zeros_(self.pair_vec.bias)

    def forward(
        self, h: Tensor, e: Tensor, v: Tensor, x: Tensor, centres: Tensor, scale: Tensor, node: Tensor, pair: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        B, N, D = h.shape
        E = e.shape[-1]
        # geometry of the moment
        r = x.unsqueeze(2) - x.unsqueeze(1)  # B N N 3
        d = torch.sqrt(r.square().sum(-1, keepdim=True) + 1e-8)
        unit = r / (d + 1.0)  # tame at close range, and no 0/0 on the diagonal
        radial = bumps(d, centres, scale)
        vn = self.to_vec(v.transpose(2, 3))  # B N 3 V
        gram = torch.einsum("bixc,bjxc->bijc", vn, vn)
        along = torch.einsum("bixc,bijx->bijc", vn, unit)  # projections of both ends on the bond
        along = along + along.transpose(1, 2)
        geo = gram * 0.5 + along
        hn = self.norm_h(h)
        p, q = self.node_to_pair(hn).split((2 * E, 2 * E), -1)
        en = self.norm_e(e)
        inner = self.pair_in(torch.cat([en, radial, geo, d * 0.2, 1.0 / (1.0 + d)], -1))
        inner = functional.silu(inner + p.unsqueeze(2) + p.unsqueeze(1) + q.unsqueeze(2) * q.unsqueeze(1))
        # triangle product: pairs (i,k) and (k,j) speak to (i,j)
        tri = (self.triangle(en) * pair).permute(0, 3, 1, 2)
        tri = torch.matmul(tri, tri).permute(0, 2, 3, 1) * (1.0 / math.sqrt(8.0))
        e = (e + self.pair_out(torch.cat([inner, tri], -1))) * pair
        # attention biased by pairs; pairs are carried along with the values
        H = self.heads
        query, key, value = self.qkv(hn).view(B, N, 3, H, D // H).permute(2, 0, 3, 1, 4)
        logits = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(D // H) + self.pair_bias(e).permute(0, 3, 1, 2)
        weights = shares(logits.masked_fill(~node[:, None, None, :].bool(), -1e9))
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(B, N, D)
        carried = torch.matmul(weights.permute(0, 2, 1, 3), e).reshape(B, N, H * E)
        h = h + self.attended(torch.cat([mixed, carried], -1))
        # vectors and coordinates
        V = v.shape[2]
        a, b, c = (self.pair_vec(e) * pair).split((V, V, 1), -1)
        dv = torch.matmul(a.transpose(2, 3), unit)  # B N V 3
        dv = dv + torch.einsum("bijc,bjcx->bicx", b, v) * 0.3
        v = v + dv
        left, right = self.mix(v.transpose(2, 3)).split((V, V), -1)  # B N 3 V
        norms = torch.sqrt(left.square().sum(2) + 1e-6)
        update = self.ffn_out(functional.silu(self.ffn_in(torch.cat([self.norm_h(h), norms], -1))))
        h = (h + update[..., :D]) * node.unsqueeze(-1)
        v = v + (right * torch.tanh(update[..., None, D:])).transpose(2, 3)
        size = torch.sqrt(v.square().sum(-1, keepdim=True) + 1e-6)
        v = v * (torch.clamp(size, max=8.0) / size) * node[:, :, None, None]
        step = (torch.clamp(c, -4, 4) * unit).sum(2) + self.move(v.transpose(2, 3)).squeeze(-1)
        length = torch.sqrt(step.square().sum(-1, keepdim=True) + 1e-6)
        x = x + step * (torch.clamp(length, max=4.0) / length) * node.unsqueeze(-1)
        return h, e, v, x


class MoleculeNetwork(nn.Module):
    """F(x, s, t): noisy molecule at times s (per field) -> positions endpoint, class logits, bond logits.

    State: positions `[B, N, 3]` in units of the molecule's own length scale, atoms `[B, N, K]`, bonds `[B, N, N, bonds]`.
    `condition` has `length_scale` `[B]` (Å per unit), `values`, `known` `[B, C]` when the config has conditions, and
    `allowed` `[B, N, K]`, the classes an atom may have, and `totals` `[B, 2]` when it has elements.
    """

    centres: Tensor
    widths: Tensor

    def __init__(
        self, classes: int, config: NetworkConfig, books: Bookkeeping | None = None, bonds: int = 4
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        self.books = books
        c, d, e = config, config.width, config.pair_width
        self.atom_in = nn.Linear(classes, d)
        self.bond_in = nn.Linear(bonds, e)
        self.source = nn.Sequential(nn.Linear(36, c.time_width), nn.SiLU(), nn.Linear(c.time_width, d + e))
        self.target = nn.Sequential(nn.Linear(36, c.time_width), nn.SiLU(), nn.Linear(c.time_width, d + e))
        self.size = nn.Linear(3, d)
        if c.conditions:
            self.condition = nn.Sequential(nn.Linear(2 * c.conditions, d), nn.SiLU(), nn.Linear(d, d))
            for parameter in self.condition[2].parameters():
                nn.init.zeros_(parameter)
        if c.elements:
            self.forbidden_in = nn.Linear(classes, d, bias=False)
            nn.init.zeros_(self.forbidden_in.weight)
        # the second time enters through a zero-initialised branch: a teacher's weights start a flow map
        for parameter in self.target[2].parameters():
            nn.init.zeros_(parameter)
        self.pair_start = nn.Linear(2 * c.radial, e)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm_h, self.norm_e = nn.LayerNorm(d), nn.LayerNorm(e)
        self.atom_out = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, classes))
        self.bond_nodes = nn.Linear(d, 2 * e)
        self.bond_out = nn.Sequential(nn.Linear(e + c.radial, 2 * e), nn.SiLU(), nn.Linear(2 * e, bonds))
        # fine radial basis: bond lengths differ by hundredths of an Å
        centres = torch.cat([torch.linspace(0.9, 2.8, c.radial - 4), torch.linspace(3.3, 7.0, 4)])
        widths = torch.cat([torch.full((c.radial - 4,), 1.0 / 0.18), torch.full((4,), 1.0)])
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("widths", widths, persistent=False)

    def forward(
        self, state: dict[str, Tensor], s: Any, t: Any, condition: dict[str, Tensor], mask: Any
    ) -> dict[str, Tensor]:
        node = field_of(mask, "atoms").to(state["positions"].dtype)
        B, N = node.shape
        pair = (
            node[:, :, None] * node[:, None, :] * (1 - torch.eye(N, device=node.device, dtype=node.dtype))
        ).unsqueeze(-1)
        scale = condition["length_scale"].to(node.dtype)[:, None, None]
        x0 = state["positions"] * scale
        source = torch.cat([time_features(field_of(s, f).expand(B)) for f in FIELDS], -1).to(node.dtype)
        target = torch.cat([time_features(field_of(t, f).expand(B)) for f in FIELDS], -1).to(node.dtype)
        clock = self.source(source) + self.target(target) - self.target(source)  # nothing is added on the diagonal
        d, _e_width = self.config.width, self.config.pair_width
        count = node.sum(1, keepdim=True)
        sizes = torch.cat([count / 9.0, torch.log(count), 1.0 / count], -1)
        per_molecule = clock[:, :d] + self.size(sizes)
        if self.config.conditions:
            known = condition["known"].to(node.dtype)
            per_molecule = per_molecule + self.condition(torch.cat([condition["values"] * known, known], -1))
        h = self.atom_in(state["atoms"]) + per_molecule.unsqueeze(1)
        if self.config.elements:
            h = h + self.forbidden_in((~condition["allowed"]).to(node.dtype))
        if self.books is not None:
            s_atoms, s_bonds = (field_of(s, f).expand(B) for f in ("atoms", "bonds"))
            h = h + self.books(
                state["atoms"], state["bonds"], s_atoms, s_bonds, condition["allowed"], condition["totals"], node, pair
            )
        h = h * node.unsqueeze(-1)
        r = x0.unsqueeze(2) - x0.unsqueeze(1)
        d0 = torch.sqrt(r.square().sum(-1, keepdim=True) + 1e-8)
        radial = bumps(d0, self.centres, self.widths)
        wide = bumps(d0, 2.5 * self.centres, 0.4 * self.widths)
        e = self.bond_in(state["bonds"]) + self.pair_start(torch.cat([radial, wide], -1)) + clock[:, None, None, d:]
        e = e * pair
        v = x0.new_zeros(B, N, self.config.vectors, 3)
        x = x0
        for layer in self.layers:
            h, e, v, x = layer(h, e, v, x, self.centres, self.widths, node, pair)
        h, e = self.norm_h(h), self.norm_e(e)
        r = x.unsqueeze(2) - x.unsqueeze(1)
        d1 = torch.sqrt(r.square().sum(-1, keepdim=True) + 1e-8)
        radial = bumps(d1, self.centres, self.widths)
        p, q = self.bond_nodes(h).chunk(2, -1)
        e = e + p.unsqueeze(2) + p.unsqueeze(1) + q.unsqueeze(2) * q.unsqueeze(1)
        atoms = self.atom_out(h)
        if self.config.elements:
            atoms = atoms.masked_fill(~condition["allowed"], FORBIDDEN)
        return {"positions": x / scale, "atoms": atoms, "bonds": self.bond_out(torch.cat([e, radial], -1))}
