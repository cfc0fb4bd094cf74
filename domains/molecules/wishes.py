"""What samples shall be, and what the network is told of it: sizes, properties, sketches, elements of atoms."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sciconsist.domains.molecules.adapter import MoleculeDomain
from sciconsist.domains.molecules.completion import Given
from sciconsist.domains.molecules.sketch import ELEMENTS, pick
from sciconsist.random import stream

# In steps of this [0, 1) is filled more evenly than by chance (Weyl 1916): few samples are already in the training data's
# proportions
EVENLY = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Wish:
    """What samples shall be: properties told to the network, how strongly, atoms of each element, classes allowed `[K]`,
    atoms given, SMILES to stay away from (`canonical_smiles`).

    `properties` are from low to high; a sample is told a value of the training data between them. What is not asked is
    drawn as a sketch, where the model has sketches.
    """

    properties: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    guidance: float = 1.0
    formula: Mapping[str, int] = field(default_factory=dict)
    allowed: np.ndarray | None = None
    given: Given | None = None
    known: Collection[str] = frozenset()


NOTHING = Wish()


@dataclass(frozen=True)
class Told:
    """What a sample is told: its heavy atoms, and values by the properties' names."""

    size: int
    values: Mapping[str, float]


def draw_told(
    domain: MoleculeDomain, wish: Wish, histogram: Mapping[int, int], indices: Sequence[int], seed: int
) -> list[Told]:
    """Size and values of samples; each depends on the seed and its index alone. `histogram`: the sizes there may be."""
    values = [property_values(domain, wish, i, seed) for i in indices]
    sketches = domain.config.sketches
    if not sketches.names or wish.given is not None:
        return [Told(size, told) for size, told in zip(draw_sizes(histogram, indices, seed), values)]
    ranges = {**wish.properties, **{name: (n, n) for name, n in formula_values(domain, wish).items()}}
    fitting = sketches.fitting(allowed_symbols(domain, wish), ranges) & np.isin(sketches.table[:, 0], list(histogram))
    cumulative = np.cumsum(sketches.weights(fitting))
    begin = torch.rand(1, generator=stream(seed, "sketch"), dtype=torch.float64).item()
    found = []
    for i, told in zip(indices, values):
        own = np.cumsum(sketches.weights(fitting, told)) if told else cumulative
        if own[-1] == 0:  # none fits: the size alone
            found.append(Told(draw_sizes(histogram, [i], seed)[0], told))
            continue
        row = pick(own, (begin + i * EVENLY) % 1.0)
        drawn = zip(sketches.names, sketches.values[row].tolist())
        found.append(Told(int(sketches.table[row, 0]), {**told, **dict(drawn)}))
    return found


def property_values(domain: MoleculeDomain, wish: Wish, index: int, seed: int) -> dict[str, float]:
    """What a sample is told because it was asked for: values of properties, atoms of a formula."""
    told = {}
    for known in domain.config.properties:
        if known.name in wish.properties:
            low, high = wish.properties[known.name]
            u = torch.rand(1, generator=stream(seed, "property", known.name, index)).item() if high > low else 0.0
            told[known.name] = known.draw(low, high, u) if high > low else low
    return {**told, **formula_values(domain, wish)}


def formula_values(domain: MoleculeDomain, wish: Wish) -> dict[str, float]:
    if not wish.formula:
        return {}
    names = [p.name for p in domain.config.properties if p.name in ELEMENTS]
    return {name: float(wish.formula.get(ELEMENTS[name], 0)) for name in names}


def draw_sizes(histogram: Mapping[int, int], indices: Sequence[int], seed: int) -> list[int]:
    """Heavy-atom counts from the training histogram, one independent draw a sample."""
    sizes = np.array(sorted(histogram))
    counts = np.cumsum([histogram[int(n)] for n in sizes], dtype=np.float64)
    return [
        int(sizes[pick(counts, torch.rand(1, generator=stream(seed, "size", i), dtype=torch.float64).item())])
        for i in indices
    ]


def allowed_symbols(domain: MoleculeDomain, wish: Wish) -> set[str] | None:
    if wish.allowed is None:
        return None
    classes = [c for c, kept in zip(domain.vocabulary.classes, wish.allowed) if kept]
    return {c.symbol for c in classes} | {"H" for c in classes if c.hydrogens}


def told_tensor(domain: MoleculeDomain, told: Sequence[Told]) -> Tensor | None:
    """The values as `[B, P]`, NaN for what is not told; None when nothing is."""
    if not any(one.values for one in told):
        return None
    names = [p.name for p in domain.config.properties]
    return torch.tensor([[one.values.get(name, np.nan) for name in names] for one in told], dtype=torch.float32)


def told_elements(domain: MoleculeDomain, told: Sequence[Told], node: Tensor) -> Tensor | None:
    """The classes `[B, N, K]` that atoms may have where the atoms of every element are told; None if none may be."""
    if not domain.config.network.elements:
        return None
    symbols = domain.vocabulary.symbols
    of_element = np.array([[c.symbol == s for c in domain.vocabulary.classes] for s in symbols])
    allowed = np.ones((*node.shape, len(domain.vocabulary)), dtype=bool)
    for k, one in enumerate(told):
        line = np.repeat(np.arange(len(symbols)), [int(one.values.get(f"{s}_atoms", 0)) for s in symbols])
        if len(line) == one.size:  # not where an element is untold
            allowed[k, : len(line)] = of_element[line]
    return torch.from_numpy(allowed)
