"""The network of the climate domain: convolutions on the coarse lattice, a neural field within its cells.

Shape legend: B samples, C variables, h x w coarse cells, k fine cells a side in each, H = h k, W = w k, N places.

Encoder: two 3 x 3 convolutions on the fine lattice; their means against sines and cosines of the offset within
the coarse cell (a convolution with a continuous kernel, for any k) go to the coarse lattice. Trunk: dilated
convolutions there. Decoder: a network of one place's features: the trunk and the encoder, both interpolated
linearly, the local height, and Fourier features of the offset that fade with the size of the target's cell.

A step of two that halves the lattice would depend on where a tile begins, and a group norm on what else is in
it: there is neither, so a crop of the input gives the crop of the output away from a rim of `halo` cells.
Every operation has a forward derivative (JVP recipes).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from sciconsist.nn.embeddings import Sinusoidal

HARMONICS = (1, 2)  # of the coarse cell, along each axis
OFFSET_FEATURES = 4 * len(HARMONICS) + 1
MOMENTS = 9  # {1, cos, sin} x {1, cos, sin} of the first harmonic


class NetworkConfig(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(extra="forbid")

    width: int = Field(default=56, gt=0)  # of the trunk
    fine: int = Field(default=24, gt=0)  # of the encoder
    decoder: int = Field(default=48, gt=0)
    dilations: list[int] = [1, 2, 1, 2, 1, 1]  # one block of the trunk each
    time_width: int = Field(default=32, gt=0)
    embedding: int = Field(default=0, ge=0)  # learned numbers per coarse cell: a fixed domain only
    dropout: float = Field(default=0.0, ge=0, lt=1)


class FieldNetwork(nn.Module):
    """F(x, s, t) `[B, C, H, W]` of residual fields x; see `ClimateDomain.condition` for what it is told.

    With `condition["query"]` (places on the lattice and their own features) F comes at N places instead:
    `[B, C, N]`. `lattice` is (h, w) of a fixed domain with a learned embedding.
    """

    def __init__(
        self, variables: int, coarse_in: int, fine_in: int, config: NetworkConfig, lattice: tuple[int, int] | None
    ) -> None:
        super().__init__()
        c = config
        self.time = Sinusoidal(c.time_width)
        self.clock = nn.Sequential(nn.Linear(2 * c.time_width, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.fine_1 = nn.Conv2d(variables + fine_in, c.fine, 3)
        self.fine_2 = nn.Conv2d(c.fine, c.fine, 3)
        self.moments_in = nn.Conv2d(c.fine, c.fine // 2, 1)
        self.moments = nn.Conv2d(MOMENTS * (c.fine // 2), c.width, 1)
        self.coarse_in = nn.Conv2d(coarse_in, c.width, 3)
        self.place: nn.Parameter | None = None
        if c.embedding and lattice is not None:
            self.place = nn.Parameter(
                0.1 * torch.randn(c.embedding, *lattice, generator=torch.Generator().manual_seed(0))
            )
            self.place_in = nn.Conv2d(c.embedding, c.width, 1)
        self.blocks = nn.ModuleList(Block(c.width, d, c.dropout) for d in c.dilations)
        self.coarse_out = nn.Conv2d(c.width, c.decoder, 1)
        self.fine_out = nn.Conv2d(c.fine + variables + fine_in, c.decoder, 1)
        self.film = nn.Linear(64, 2 * c.decoder)
        self.hidden = nn.Conv2d(c.decoder, c.decoder, 1)
        self.out = nn.Conv2d(c.decoder, variables, 1)
        blank(self.film)
        nn.init.normal_(self.out.weight, std=0.1 / math.sqrt(c.decoder))
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)
        self.halo = 3 + sum(c.dilations)  # two fine convolutions and the decoder's interpolation: 3 coarse cells

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: dict[str, Any], mask: Any = None) -> Tensor:
        around = bool(condition["periodic"])
        clock = self.clock(torch.cat([self.time(s), self.time(t)], -1).to(x.dtype))
        inputs = torch.cat([x, condition["fine"]], 1)
        near = functional.silu(self.fine_1(padded(inputs, 1, around)))
        near = functional.silu(self.fine_2(padded(near, 1, around)))
        factor = x.shape[-1] // condition["coarse"].shape[-1]
        h = self.coarse_in(padded(condition["coarse"], 1, around))
        h = h + self.moments(cell_moments(self.moments_in(near), factor))
        if self.place is not None:
            h = h + self.place_in(cut(self.place, condition["box"], h.shape[-2:]))
        for block in self.blocks:
            h = block(h, clock, around)
        far = self.coarse_out(h)
        if (query := condition.get("query")) is None:
            return self.decode(upsample(far, factor, around), torch.cat([near, inputs], 1), clock)
        far = sample(far, query["row"], query["column"], around)
        # the query has its own features of place; what the encoder and x say is read off the fine lattice
        row, column = factor * (query["row"] + 0.5) - 0.5, factor * (query["column"] + 0.5) - 0.5
        here = sample(torch.cat([near, x], 1), row, column, around)
        return self.decode(far, torch.cat([here, query["features"]], 1)[..., None, :], clock)[..., 0, :]

    def decode(self, far: Tensor, near: Tensor, clock: Tensor) -> Tensor:
        scale, shift = self.film(clock)[:, :, None, None].chunk(2, 1)
        if far.dim() == 3:
            far = far[..., None, :]
        h = functional.silu(far + self.fine_out(near))
        return self.out(functional.silu(self.hidden(h) * (1 + scale) + shift))


class Block(nn.Module):
    """h + W2 silu(W1 * norm(h)): a dilated 3 x 3 convolution, told the times; the norm is over channels."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.gain = nn.Parameter(torch.ones(width))
        self.spread = nn.Conv2d(width, width, 3, dilation=dilation)
        self.film = nn.Linear(64, 2 * width)
        self.drop = nn.Dropout2d(dropout)
        self.back = nn.Conv2d(width, width, 1)
        blank(self.film)
        nn.init.normal_(self.back.weight, std=0.3 / math.sqrt(width))

    def forward(self, h: Tensor, clock: Tensor, around: bool) -> Tensor:
        scale, shift = self.film(clock)[:, :, None, None].chunk(2, 1)
        norm = h * torch.rsqrt(h.square().mean(1, keepdim=True) + 1e-5) * self.gain[:, None, None]
        mixed = self.spread(padded(norm, self.dilation, around)) * (1 + scale) + shift
        return h + self.back(self.drop(functional.silu(mixed)))


def blank(layer: nn.Linear) -> None:
    """Silent at birth: what the times say is learned."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def padded(x: Tensor, by: int, around: bool) -> Tensor:
    """Zeros beyond the edges; longitudes that go around go on at the other end."""
    if around:
        return functional.pad(torch.cat([x[..., -by:], x, x[..., :by]], -1), (0, 0, by, by))
    return functional.pad(x, (by, by, by, by))


def edged(x: Tensor, around: bool) -> Tensor:
    """One more cell on each side with its neighbour's value."""
    if around:
        x = torch.cat([x[..., -1:], x, x[..., :1]], -1)
    else:
        x = torch.cat([x[..., :1], x, x[..., -1:]], -1)
    return torch.cat([x[..., :1, :], x, x[..., -1:, :]], -2)


def upsample(x: Tensor, factor: int, around: bool = False) -> Tensor:
    """Linear interpolation to the fine lattice `[B, C, h k, w k]`, constant beyond the outermost centres."""
    fine = functional.interpolate(edged(x, around), scale_factor=factor, mode="bilinear", align_corners=False)
    return fine[..., factor:-factor, factor:-factor]


def sample(x: Tensor, row: Tensor, column: Tensor, around: bool = False) -> Tensor:
    """Linear interpolation at places given by indices of centres, `[B, N]` or `[N]`: `[B, C, N]`."""
    B, C, height, width = x.shape
    row = row.expand(B, -1).clamp(0, height - 1)
    column = column.expand(B, -1)
    column = torch.remainder(column, width) if around else column.clamp(0, width - 1)
    top, left = row.floor(), column.floor()
    down, right = (row - top)[:, None].to(x.dtype), (column - left)[:, None].to(x.dtype)
    i, j = top.long(), left.long()
    below = (i + 1).clamp(max=height - 1)
    beside = (j + 1) % width if around else (j + 1).clamp(max=width - 1)
    flat = x.flatten(2)

    def at(a: Tensor, b: Tensor) -> Tensor:
        return torch.gather(flat, 2, (a * width + b)[:, None].expand(B, C, -1))

    upper = at(i, j) * (1 - right) + at(i, beside) * right
    lower = at(below, j) * (1 - right) + at(below, beside) * right
    return upper * (1 - down) + lower * down


def cell_moments(x: Tensor, factor: int) -> Tensor:
    """Means over each coarse cell of x times {1, cos, sin} x {1, cos, sin} of the offset: `[B, 9 C, h, w]`."""
    o = offsets(factor, x)
    wave = torch.stack(
        [torch.ones_like(o), math.sqrt(2) * (2 * math.pi * o).cos(), math.sqrt(2) * (2 * math.pi * o).sin()]
    )
    B, C, H, W = x.shape
    cells = x.reshape(B, C, H // factor, factor, W // factor, factor)
    moments = torch.einsum("bchiwj,pi,qj->bpqchw", cells, wave, wave) / factor**2
    return moments.reshape(B, MOMENTS * C, H // factor, W // factor)


def offsets(factor: int, like: Tensor) -> Tensor:
    """Centres of the fine cells in a coarse cell, in (-1/2, 1/2): `[factor]`."""
    return (torch.arange(factor, dtype=like.dtype, device=like.device) + 0.5) / factor - 0.5


def offset_features(dy: Tensor, dx: Tensor, size: Tensor | float) -> Tensor:
    """Fourier features of offsets in units of a coarse cell `[...]`, and the target cell's size: `[9, ...]`.

    Each is its wave's mean over a target cell of that `size` (also in coarse cells): the wave at the centre times
    sinc(n size) for a square cell, so what the cell is too large to show fades.
    """
    size = torch.as_tensor(size, dtype=dy.dtype, device=dy.device).expand_as(dy)
    parts = [size]
    for n in HARMONICS:
        fade = torch.sinc(n * size)
        for o in (dy, dx):
            parts += [fade * torch.sin(2 * math.pi * n * o), fade * torch.cos(2 * math.pi * n * o)]
    return torch.stack(parts)


def cut(table: Tensor, box: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Blocks of a table `[E, h, w]` that start at `box` `[B, 2]`: `[B, E, *shape]`."""
    rows = box[:, 0, None] + torch.arange(shape[0], device=box.device)
    columns = box[:, 1, None] + torch.arange(shape[1], device=box.device)
    return table[:, rows[:, :, None], columns[:, None, :]].movedim(0, 1)
