"""What a crystal is made of, before where its atoms are: a small autoregressive model of formulas.

A composition of N atoms is drawn as the number of formula units Z (a divisor of N), then the reduced formula of N / Z
atoms, element by element from the most electropositive to the most electronegative, each with its count. Masks
make every draw add up to N atoms of allowed elements, so both hold exactly.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from sciconsist.errors import UserError


class CompositionConfig(BaseModel):
    """Sizes, and the order in which elements are drawn."""

    model_config = ConfigDict(extra="forbid")

    order: list[int]  # classes of the crystal model's elements, electropositive first
    largest: int = Field(20, gt=0)  # atoms that a cell can have
    width: int = 128
    dropout: float = 0.2


class Formulas(NamedTuple):
    """A batch of compositions: atoms `[B]`, formula units `[B]`, and of the reduced formula the places in the order of its
    elements `[B, L]` (-1: no further element) and their counts `[B, L]`."""

    atoms: Tensor
    units: Tensor
    places: Tensor
    counts: Tensor


class CompositionNetwork(nn.Module):
    """p(formula units, elements and counts | atoms in the cell)."""

    table: Tensor

    def __init__(self, table: Sequence[Sequence[float]], config: CompositionConfig) -> None:
        super().__init__()
        self.config = config
        d, n = config.width, config.largest
        facts = torch.tensor(table)[config.order]
        self.register_buffer("table", torch.cat([torch.eye(len(facts)), facts], -1), persistent=False)
        self.start = nn.Sequential(nn.Linear(2 * n + 2, d), nn.SiLU(), nn.Linear(d, d))
        self.units = nn.Sequential(nn.Linear(n + 1, d), nn.SiLU(), nn.Linear(d, n))
        self.element_in = nn.Linear(self.table.shape[1], d)
        self.element_out = nn.Linear(self.table.shape[1], d)
        self.count_in = nn.Embedding(n + 1, d)
        self.left_in = nn.Embedding(n + 1, d)
        self.recurrent = nn.GRU(d, d, batch_first=True)
        self.query = nn.Sequential(nn.Linear(2 * d, d), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(d, d))
        self.count = nn.Sequential(nn.Linear(3 * d, d), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(d, n))
        self.drop = nn.Dropout(config.dropout)
        self.bias = nn.Parameter(torch.zeros(len(facts)))

    def unit_logits(self, atoms: Tensor) -> Tensor:
        """Logits `[B, n]` of 1 to n formula units; -inf where they do not divide the atoms `[B]`."""
        n = self.config.largest
        divides = atoms[:, None] % torch.arange(1, n + 1, device=atoms.device) == 0
        size = functional.one_hot(atoms, n + 1).to(self.bias.dtype)
        return self.units(size).masked_fill(~divides, -math.inf)

    def first(self, atoms: Tensor, units: Tensor) -> Tensor:
        """The recurrent state `[1, B, D]` before the first element."""
        n = self.config.largest
        told = [functional.one_hot(atoms, n + 1), functional.one_hot(atoms // units, n + 1)]
        return self.start(torch.cat(told, -1).to(self.bias.dtype)).unsqueeze(0)

    def step(self, places: Tensor, counts: Tensor) -> Tensor:
        """Inputs `[B, L, D]` of the recurrence: an element and its count."""
        return self.drop(self.element_in(self.table[places]) + self.count_in(counts))

    def element_logits(self, h: Tensor, left: Tensor, after: Tensor, allowed: Tensor) -> Tensor:
        """Logits `[..., K]` of the next place: allowed `[..., K]` and behind the place `after` `[...]` (-1: none yet).

        h `[..., D]`; `left` `[...]` atoms of the reduced formula are not given yet.
        """
        query = self.query(torch.cat([self.drop(h), self.left_in(left)], -1))
        keys = self.element_out(self.table)
        logits = query @ keys.T / math.sqrt(keys.shape[1]) + self.bias
        fits = allowed & (torch.arange(len(keys), device=keys.device) > after[..., None])
        return logits.masked_fill(~fits, -math.inf)

    def count_logits(self, h: Tensor, left: Tensor, places: Tensor, allowed: Tensor) -> Tensor:
        """Logits `[..., n]` of 1 to n atoms of a place: at most `left`, and all of them when no element can follow."""
        told = torch.cat([self.drop(h), self.left_in(left), self.element_in(self.table[places])], -1)
        number = torch.arange(1, self.config.largest + 1, device=h.device)
        last = ~(allowed & (torch.arange(len(self.bias), device=h.device) > places[..., None])).any(-1)
        fits = (number <= left[..., None]) & (~last[..., None] | (number == left[..., None]))
        return self.count(told).masked_fill(~fits, -math.inf)

    def log_likelihood(self, x: Formulas) -> Tensor:
        """log p of every composition, `[B]`."""
        real = x.places >= 0
        places, counts = x.places.clamp_min(0), x.counts * real
        units = torch.log_softmax(self.unit_logits(x.atoms), -1).gather(1, x.units[:, None] - 1)[:, 0]
        start = self.first(x.atoms, x.units)
        seen, _ = self.recurrent(self.step(places, counts), start)
        h = torch.cat([start.transpose(0, 1), seen[:, :-1]], 1)
        left = (x.atoms // x.units)[:, None] - torch.cat([torch.zeros_like(counts[:, :1]), counts.cumsum(1)[:, :-1]], 1)
        left = left.clamp_min(0)
        after = torch.cat([torch.full_like(places[:, :1], -1), places[:, :-1]], 1)
        allowed = torch.ones_like(self.bias, dtype=torch.bool)
        element = log_p(self.element_logits(h, left, after, allowed), places, real)
        count = log_p(self.count_logits(h, left, places, allowed), (counts - 1).clamp_min(0), real)
        return units + (element + count).sum(1)

    @torch.no_grad()
    def draw(
        self, sizes: Sequence[int], allowed: np.ndarray | None, uniforms: Tensor, temperature: float,
        atoms_of_each: Sequence[Sequence[int]] | None = None,
    ) -> list:  # fmt: skip
        """Classes `[N]` of one composition for each size; `allowed` `[K]` of the crystal model's classes.

        With `atoms_of_each` each has so many atoms of its elements, in any order.

        `uniforms` `[B, 2 largest + 1]` in [0, 1) are the draws, so that a sample does not depend on its batch. Done in
        float64, where rounding moves no draw to another element. Below a `temperature` of 1 commoner choices win more.
        """
        if len(sizes) and max(sizes) > self.config.largest:
            raise UserError(f"{max(sizes)} atoms: compositions are known up to {self.config.largest}; give a formula")
        net = copy.deepcopy(self).cpu().double().eval()
        order = torch.tensor(self.config.order)
        free = torch.ones(len(order), dtype=torch.bool) if allowed is None else torch.from_numpy(allowed)[order]
        atoms, u = torch.tensor(list(sizes)), uniforms
        units = pick(net.unit_logits(atoms), u[:, 0], temperature) + 1
        open_counts = None
        if atoms_of_each is not None:
            units = torch.tensor([int(np.gcd.reduce(each)) for each in atoms_of_each])
            shares = [np.array(each) // int(n) for each, n in zip(atoms_of_each, units)]
            open_counts = torch.from_numpy(
                np.stack([np.bincount(s, minlength=self.config.largest + 1) for s in shares])
            )
        behind = free.flip(0).cumsum(0).flip(0)  # allowed elements from each place on
        left, state = atoms // units, net.first(atoms, units)
        after = torch.full_like(atoms, -1)
        amounts = torch.zeros(len(atoms), len(order), dtype=torch.long)
        for column in range(1, u.shape[1], 2):
            rows = left.nonzero().flatten()
            if not len(rows):
                break
            h, fits = state[0, rows], free
            if open_counts is not None:  # as many elements have to follow as counts are open
                fits = free & (behind >= open_counts[rows].sum(1)[:, None])
            place = pick(net.element_logits(h, left[rows], after[rows], fits), u[rows, column], temperature)
            amount = net.count_logits(h, left[rows], place, free)
            if open_counts is not None:
                amount = amount.masked_fill(open_counts[rows, 1:] == 0, -math.inf)
            number = pick(amount, u[rows, column + 1], temperature) + 1
            if open_counts is not None:
                open_counts[rows, number] -= 1
            amounts[rows, place] = number * units[rows]
            state[:, rows] = net.recurrent(net.step(place, number)[:, None], state[:, rows].contiguous())[1]
            left[rows], after[rows] = left[rows] - number, place
        return [np.repeat(order.numpy(), row.numpy()) for row in amounts]


def log_p(logits: Tensor, index: Tensor, real: Tensor) -> Tensor:
    """log softmax at `index` `[...]`, 0 where not `real`."""
    logits = logits.masked_fill(~real.unsqueeze(-1), 0.0)
    return torch.log_softmax(logits, -1).gather(-1, index.unsqueeze(-1))[..., 0] * real


def pick(logits: Tensor, u: Tensor, temperature: float) -> Tensor:
    """Categories `[B]` of logits `[B, K]` by inverting their distribution function at u `[B]`."""
    cumulative = torch.softmax(logits / temperature, -1).cumsum(-1)
    found = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
    return torch.minimum(found, last_possible(logits))


def last_possible(logits: Tensor) -> Tensor:
    """The last category with a finite logit: where rounding would run past the end."""
    return logits.shape[-1] - 1 - torch.isfinite(logits).flip(-1).int().argmax(-1)


def formulas_of(classes: Sequence[np.ndarray], order: Sequence[int]) -> Formulas:
    """Compositions of atoms' classes, as the network reads them."""
    place = np.empty(len(order), dtype=int)
    place[list(order)] = np.arange(len(order))
    rows = []
    for atoms in classes:
        found, amounts = np.unique(place[atoms], return_counts=True)
        share = int(np.gcd.reduce(amounts))
        rows.append((len(atoms), share, found, amounts // share))
    longest = max(len(found) for _, _, found, _ in rows)
    places, counts = np.full((len(rows), longest), -1), np.zeros((len(rows), longest), dtype=int)
    for k, (_, _, found, number) in enumerate(rows):
        places[k, : len(found)], counts[k, : len(found)] = found, number
    sizes, units = (torch.tensor([row[j] for row in rows]) for j in (0, 1))
    return Formulas(sizes, units, torch.from_numpy(places), torch.from_numpy(counts))


def electronegativity_order(numbers: Sequence[int]) -> list[int]:
    """Classes of atomic numbers from the most electropositive; noble gases, which have no value, first."""
    from pymatgen.core import Element

    return sorted(range(len(numbers)), key=lambda k: (float(np.nan_to_num(Element.from_Z(numbers[k]).X)), numbers[k]))
