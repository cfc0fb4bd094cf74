"""The denoiser of crystals: attention over atoms, biased by pairs that see every near periodic image.

Shape legend: B crystals, N atoms, D node width, E pair width, K elements, R radial functions, H heads, G cell width.

Fractional coordinates enter by differences and the cell by its triangular form, so the output does not change when the
crystal is turned, its origin moved or an atom carried to a neighbouring cell, and permutes with the atoms. The velocity
of an atom is a sum over images of other atoms, along the line between them, as a force is, plus a smooth periodic part.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from sciconsist.domains.crystals.lattice import from_vector

FIELDS = ("frac", "lattice", "species")
HARMONICS = 4  # of the fractional difference
FAR = 7.0  # Å, beyond which no radial function reaches


class NetworkConfig(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(extra="forbid")

    layers: int = 5
    width: int = 96
    pair_width: int = 32
    heads: int = 8
    radial: int = 16
    time_width: int = 64
    values: int = 2  # properties per crystal that the network may be told: e_above_hull, band_gap


def time_features(t: Tensor) -> Tensor:
    """Smooth features of times in [0, 1], fine near 0 where geometry settles: `[B] -> [B, 12]`."""
    t = t.unsqueeze(-1)
    log = torch.log(t + 1e-2) / 4.0
    frequencies = math.pi * torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=t.dtype, device=t.device)
    return torch.cat([t, log, (t == 0).to(t.dtype), torch.sqrt(t + 1e-4), torch.cos(t * frequencies),
                      torch.sin(t * frequencies)], -1)  # fmt: skip


class Periodic(nn.Module):
    """Radial functions of a pair, summed over its 27 nearest images, and the same along the line between them."""

    shifts: Tensor
    exponents: Tensor

    def __init__(self, radial: int) -> None:
        super().__init__()
        axis = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer("shifts", torch.cartesian_prod(axis, axis, axis), persistent=False)
        centres = torch.linspace(1.2, 5.4, radial)
        width = 1.2 * (centres[1] - centres[0])
        # exp(-((d - c) / w)^2) as one product: (d^2, d, 1) @ exponents
        rows = torch.stack([-torch.ones(radial), 2 * centres, -centres.square()]) / width.square()
        self.register_buffer("exponents", rows, persistent=False)

    def forward(self, delta: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Differences `[B, N, N, 3]` (j minus i, wrapped), cells `[B, 3, 3]` -> sums `[B, N, N, R]`, `[B, N, N, R, 3]`."""
        B, N = delta.shape[:2]
        images = (delta.unsqueeze(3) + self.shifts).view(B, -1, 3)  # B N*N*27 3
        distance = (torch.bmm(images, cell).square().sum(-1, keepdim=True) + 1e-8).sqrt().clamp(max=FAR)
        powers = torch.cat([distance.square(), distance, torch.ones_like(distance)], -1)
        radial = torch.exp((powers @ self.exponents).clamp(min=-40.0)).view(B * N * N, 27, -1)  # no denormals: slow
        carried = torch.cat([torch.ones_like(distance), images], -1).view(B * N * N, 27, 4)
        sums = torch.bmm(radial.transpose(1, 2), carried).view(B, N, N, -1, 4)
        return sums[..., 0], sums[..., 1:]


class Layer(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        d, e = c.width, c.pair_width
        self.heads = c.heads
        self.norm_h, self.norm_f = (nn.LayerNorm(d, elementwise_affine=False) for _ in range(2))
        self.norm_e = nn.LayerNorm(e)
        self.film = nn.Linear(c.time_width, 4 * d)
        self.node_to_pair = nn.Linear(d, 4 * e)
        self.pair_in = nn.Linear(e, 2 * e)
        self.pair_out = nn.Linear(2 * e, e)
        self.qkv = nn.Linear(d, 3 * d)
        self.pair_bias = nn.Linear(e, c.heads)
        self.attended = nn.Linear(d + c.heads * e, d)
        self.ffn_in = nn.Linear(d, 2 * d)
        self.ffn_out = nn.Linear(2 * d, d)
        self.cell_in = nn.Linear(2 * d + e, d)
        self.cell_out = nn.Linear(d, d)
        for last in (self.attended, self.pair_out, self.ffn_out, self.cell_in, self.cell_out):
            nn.init.normal_(last.weight, std=0.3 / math.sqrt(last.in_features))
            nn.init.zeros_(last.bias)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(
        self, h: Tensor, e: Tensor, g: Tensor, clock: Tensor, node: Tensor, pair: Tensor, bias: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms `[B, N, D]`, pairs `[B, N, N, E]` and the cell `[B, D]`, once around."""
        B, N, D = h.shape
        E, H = e.shape[-1], self.heads
        scale, shift, scale_f, shift_f = self.film(clock).unsqueeze(1).chunk(4, -1)
        hn = self.norm_h(h) * (1 + scale) + shift
        p, q, a, b = self.node_to_pair(hn).split((E, E, E, E), -1)
        inner = self.pair_in(self.norm_e(e))
        outer = torch.cat([p.unsqueeze(2) + q.unsqueeze(1), a.unsqueeze(2) * b.unsqueeze(1)], -1)
        e = e + self.pair_out(functional.silu(inner + outer))
        query, key, value = self.qkv(hn).view(B, N, 3, H, D // H).permute(2, 0, 3, 1, 4)
        logits = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(D // H) + self.pair_bias(e).permute(0, 3, 1, 2)
        weights = torch.softmax(logits + bias, -1)
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(B, N, D)
        carried = torch.matmul(weights.permute(0, 2, 1, 3), e).reshape(B, N, H * E)
        h = h + self.attended(torch.cat([mixed, carried], -1)) + self.cell_out(g).unsqueeze(1)
        fn = self.norm_f(h) * (1 + scale_f) + shift_f
        h = (h + self.ffn_out(functional.silu(self.ffn_in(fn)))) * node
        mean_h = h.sum(1) * share
        mean_e = (e * pair).sum((1, 2)) * share.square()
        g = g + functional.silu(self.cell_in(torch.cat([g, mean_h, mean_e], -1)))
        return h, e, g


class CrystalNetwork(nn.Module):
    """F(x, s, t): a noisy crystal at times s (per field) -> torus velocity, endpoint of the cell, element logits.

    State: frac `[B, N, 3]`, lattice `[B, 6]` standardised, species `[B, N, K]`. `condition` has `mean`, `std` `[B, 6]` of
    the cell's coordinates, `fixed` `[B, N]` (sites that are given and do not move), `allowed` `[B, K]` (elements that may
    come out), `values`, `known` `[B, V]` and `space_group` `[B]` (0: any).
    """

    table: Tensor

    def __init__(self, table: list[list[float]], config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        c, d, e = config, config.width, config.pair_width
        self.register_buffer("table", torch.tensor(table), persistent=False)
        classes, facts = self.table.shape
        self.periodic = Periodic(c.radial)
        self.species_in = nn.Linear(classes + facts, d)
        self.fixed_in = nn.Linear(1, d, bias=False)
        self.source = nn.Sequential(nn.Linear(36, c.time_width), nn.SiLU(), nn.Linear(c.time_width, c.time_width))
        self.target = nn.Sequential(nn.Linear(36, c.time_width), nn.SiLU(), nn.Linear(c.time_width, c.time_width))
        self.told = nn.Linear(2 * c.values + 2, c.time_width)
        self.space_group = nn.Embedding(231, c.time_width)
        self.cell_start = nn.Sequential(nn.Linear(20, d), nn.SiLU(), nn.Linear(d, d))
        self.pair_start = nn.Linear(c.radial + 6 * HARMONICS, e)
        self.clock_pair = nn.Linear(c.time_width, e)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm_h, self.norm_e, self.norm_g = nn.LayerNorm(d), nn.LayerNorm(e), nn.LayerNorm(d)
        self.species_out = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, classes))
        self.velocity_out = nn.Sequential(nn.Linear(d, d // 2), nn.SiLU(), nn.Linear(d // 2, 3))
        self.pair_nodes = nn.Linear(d, 2 * e)
        self.pair_out = nn.Sequential(nn.Linear(e, 2 * e), nn.SiLU(), nn.Linear(2 * e, c.radial + HARMONICS))
        self.gain = nn.Linear(c.time_width, 1)
        self.cell_out = nn.Sequential(nn.Linear(d + 6, d), nn.SiLU(), nn.Linear(d, 6))
        # the second time enters through a zero-initialised branch: a teacher's weights start a flow map
        for module in (self.target[2], self.space_group, self.velocity_out[2], self.gain):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, state: dict[str, Tensor], s: Any, t: Any, condition: dict[str, Tensor], mask: Any
    ) -> dict[str, Tensor]:
        frac, cell_vector, species = (state[name] for name in FIELDS)
        real = mask["frac"]
        dtype = frac.dtype
        node = real.to(dtype).unsqueeze(-1)
        count = node.sum((1, 2))
        share = 1 / count.unsqueeze(-1).clamp_min(1)
        pair = node.unsqueeze(2) * node.unsqueeze(1)
        bias = (1 - node.transpose(1, 2)).unsqueeze(1) * -1e9
        clock = self.clock(s, t, condition, count, dtype)

        physical = cell_vector * condition["std"].to(dtype) + condition["mean"].to(dtype)
        cell = from_vector(physical, count)
        delta = frac.unsqueeze(1) - frac.unsqueeze(2)  # j minus i
        delta = delta - torch.floor(delta + 0.5)
        radial, along = self.periodic(delta, cell)
        angle = 2 * math.pi * delta
        waves = [f(angle * k) for k in range(1, HARMONICS + 1) for f in (torch.cos, torch.sin)]
        sines = torch.stack(waves[1::2], -2)  # B N N M 3
        e = self.pair_start(torch.cat([torch.log1p(radial), *waves], -1)) + self.clock_pair(clock)[:, None, None]
        h = self.species_in(torch.cat([species, species @ self.table.to(dtype)], -1))
        h = (h + self.fixed_in(condition["fixed"].to(dtype).unsqueeze(-1))) * node
        g = self.cell_start(torch.cat([cell_vector, cell_features(cell), share, count.log().unsqueeze(-1)], -1))
        for layer in self.layers:
            h, e, g = layer(h, e, g, clock, node, pair, bias, share)

        h, g = self.norm_h(h), self.norm_g(g)
        p, q = self.pair_nodes(h).chunk(2, -1)
        weights = self.pair_out(self.norm_e(e) + p.unsqueeze(2) + q.unsqueeze(1)) * pair
        force, wave = weights.split((self.config.radial, HARMONICS), -1)
        moved = torch.einsum("bijr,bijrc->bic", force, along) + torch.einsum("bijm,bijmc->bic", wave, sines) * 0.1
        near = (self.gain(clock) + 1).unsqueeze(1) / (s["frac"].to(dtype)[:, None, None] + 0.1)
        velocity = moved * near * 0.1 + self.velocity_out(h)
        logits = self.species_out(h)
        if "allowed" in condition:
            logits = logits.masked_fill(~condition["allowed"].unsqueeze(1), -1e9)
        return {
            "frac": steady(velocity, node, condition["fixed"].to(dtype).unsqueeze(-1)),
            "lattice": self.cell_out(torch.cat([g, cell_vector], -1)),
            "species": logits,
        }

    def clock(self, s: Any, t: Any, condition: dict[str, Tensor], count: Tensor, dtype: torch.dtype) -> Tensor:
        """What holds for the whole crystal: times, size and what the request asks for, `[B, G]`."""
        now, then = (torch.cat([time_features(x[f].to(dtype)) for f in FIELDS], -1) for x in (s, t))
        far = torch.stack([s[f] != t[f] for f in FIELDS], -1).any(-1, keepdim=True).to(dtype)
        known = condition["known"].to(dtype)
        told = torch.cat([condition["values"].to(dtype) * known, known, count.unsqueeze(-1) / 10,
                          count.log().unsqueeze(-1)], -1)  # fmt: skip
        total = self.source(now) + far * self.target(then) + self.told(told)
        return functional.silu(total + self.space_group(condition["space_group"]))


def cell_features(cell: Tensor) -> Tensor:
    """Edges (Å / 5), cosines and inverse edges of cells `[B, 3, 3]`: `[B, 12]`."""
    edges = cell.square().sum(-1).sqrt()
    unit = cell / edges.unsqueeze(-1)
    cosines = torch.stack([(unit[:, i] * unit[:, j]).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2))], -1)
    diagonal = torch.diagonal(cell, dim1=1, dim2=2)
    return torch.cat([edges / 5, cosines, 2 / edges, diagonal / 5], -1)


def steady(velocity: Tensor, node: Tensor, fixed: Tensor) -> Tensor:
    """Velocities without drift: fixed sites stand still, and where nothing is fixed the mean is removed."""
    free = node * (1 - fixed)
    mean = (velocity * free).sum(1, keepdim=True) / free.sum(1, keepdim=True).clamp_min(1)
    anchored = ((fixed * node).sum(1, keepdim=True) > 0).to(velocity.dtype)
    return (velocity - mean * (1 - anchored)) * free
