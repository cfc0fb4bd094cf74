"""The E(3)-equivariant graph denoiser of molecules.

Shape legend: B molecules, N heavy atoms, P = N (N - 1) / 2 pairs of them, D node width, E pair width, V vector channels,
H heads.

Node scalars h_BND, scalars of pairs e_BPE and vector channels v_BNV3 exchange information in every layer; coordinates
move in every layer. Pairs see each other through a triangle product over the third atom, without which a message-passing
net cannot count rings. Only polar vectors, their inner products and distances enter, so the output turns, mirrors, shifts
and permutes with the input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Pairs:
    """The pairs (first < second) of N atoms `[P]`, and for each i, j the pair's number, P on the diagonal `[N * N]`."""

    first: Tensor
    second: Tensor
    place: Tensor

    @classmethod
    def of(cls, atoms: int, device: torch.device) -> Pairs:
        first, second = torch.triu_indices(atoms, atoms, 1, device=device)
        place = torch.full((atoms, atoms), len(first), device=device)
        place[first, second] = place[second, first] = torch.arange(len(first), device=device)
        return cls(first, second, place.flatten())

    def ends(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """What both atoms of each pair have, of `[B, N, ...]`."""
        return nodes.index_select(1, self.first), nodes.index_select(1, self.second)

    def dense(self, e: Tensor) -> Tensor:
        """`[B, P, C]` as symmetric `[B, N, N, C]`, zero on the diagonal."""
        B, _, C = e.shape
        N = math.isqrt(len(self.place))
        return torch.cat([e, e.new_zeros(B, 1, C)], 1).index_select(1, self.place).view(B, N, N, C)

    def lengths(self, x: Tensor) -> Tensor:
        """Distances of positions `[B, N, 3]`, `[B, P, 1]`."""
        x_i, x_j = self.ends(x)
        return torch.sqrt((x_i - x_j).square().sum(-1, keepdim=True) + 1e-8)

    def take(self, dense: Tensor) -> Tensor:
        """The pairs of `[B, N, N, C]`, `[B, P, C]`."""
        return dense.flatten(1, 2).index_select(1, self.first * dense.shape[1] + self.second)


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
        self, h: Tensor, e: Tensor, v: Tensor, x: Tensor, centres: Tensor, scale: Tensor, node: Tensor, pairs: Pairs,
        there: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        B, N, D = h.shape
        E, V, H = e.shape[-1], v.shape[2], self.heads
        # geometry of the moment
        r = x.unsqueeze(2) - x.unsqueeze(1)  # B N N 3
        d = torch.sqrt(r.square().sum(-1, keepdim=True) + 1e-8)
        unit = r / (d + 1.0)  # tame at close range, and no 0/0 on the diagonal
        d, along = pairs.take(d), pairs.take(unit).unsqueeze(-1)
        radial = bumps(d, centres, scale)
        v_i, v_j = pairs.ends(self.to_vec(v.transpose(2, 3)))  # B P 3 V
        # inner products of both ends' vectors, and their projections on the bond
        geo = (v_i * (0.5 * v_j + along) - v_j * along).sum(2)
        hn = self.norm_h(h)
        (p_i, q_i), (p_j, q_j) = (end.split((2 * E, 2 * E), -1) for end in pairs.ends(self.node_to_pair(hn)))
        en = self.norm_e(e)
        inner = self.pair_in(torch.cat([en, radial, geo, d * 0.2, 1.0 / (1.0 + d)], -1))
        inner = functional.silu(inner + p_i + p_j + q_i * q_j)
        # triangle product: pairs (i,k) and (k,j) speak to (i,j)
        tri = pairs.dense(self.triangle(en) * there).permute(0, 3, 1, 2)
        tri = pairs.take(torch.matmul(tri, tri).permute(0, 2, 3, 1)) * (1.0 / math.sqrt(8.0))
        e = (e + self.pair_out(torch.cat([inner, tri], -1))) * there
        # attention biased by pairs; pairs are carried along with the values
        whole = pairs.dense(e)
        query, key, value = self.qkv(hn).view(B, N, 3, H, D // H).permute(2, 0, 3, 1, 4)
        logits = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(D // H) + self.pair_bias(whole).permute(
            0, 3, 1, 2
        )
        weights = shares(logits.masked_fill(~node[:, None, None, :].bool(), -1e9))
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(B, N, D)
        carried = torch.matmul(weights.permute(0, 2, 1, 3), whole).reshape(B, N, H * E)
        h = h + self.attended(torch.cat([mixed, carried], -1))
        # vectors and coordinates
        a, b, c = pairs.dense(self.pair_vec(e) * there).split((V, V, 1), -1)
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
        pairs = Pairs.of(N, node.device)
        there = pairs.take(pair)
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
        d0 = pairs.lengths(x0)
        radial = bumps(d0, self.centres, self.widths)
        wide = bumps(d0, 2.5 * self.centres, 0.4 * self.widths)
        e = self.bond_in(pairs.take(state["bonds"])) + self.pair_start(torch.cat([radial, wide], -1))
        e = (e + clock[:, None, d:]) * there
        v = x0.new_zeros(B, N, self.config.vectors, 3)
        x = x0
        for layer in self.layers:
            h, e, v, x = layer(h, e, v, x, self.centres, self.widths, node, pairs, there)
        h, e = self.norm_h(h), self.norm_e(e)
        radial = bumps(pairs.lengths(x), self.centres, self.widths)
        (p_i, q_i), (p_j, q_j) = (end.chunk(2, -1) for end in pairs.ends(self.bond_nodes(h)))
        bonds = pairs.dense(self.bond_out(torch.cat([e + p_i + p_j + q_i * q_j, radial], -1)))
        atoms = self.atom_out(h)
        if self.config.elements:
            atoms = atoms.masked_fill(~condition["allowed"], FORBIDDEN)
        return {"positions": x / scale, "atoms": atoms, "bonds": bonds}
