"""Seeded streams: a draw depends on the seed and on what it is for, never on the batch it is made in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sciconsist.geometry import Geometry, Product, geometry_of
from sciconsist.state import Mask, State, batch_size, field_of, leaves

Generators = torch.Generator | Sequence[torch.Generator]


def stream(seed: int, *purpose: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator of its own for a seed and a purpose, e.g. `stream(0, "prior", index)`."""
    words = tuple(p if isinstance(p, str) else int(p) for p in purpose)  # a numpy integer is the integer it is
    digest = hashlib.blake2b(repr((int(seed), *words)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


@contextmanager
def fresh_weights(seed: int) -> Iterator[None]:
    """First weights that depend on the seed alone: torch draws them from its global state, which is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream(seed, "weights").initial_seed())
        yield


def streams(seed: int, *purpose: str | int, indices: Sequence[int]) -> list[torch.Generator]:
    """One stream a sample, for samplers that take a generator per sample."""
    return [stream(seed, *purpose, i) for i in indices]


def draw_prior(geometry: Geometry | Product, like: State, mask: Mask = None, *, generator: Generators) -> State:
    """Prior noise in the shape of `like` `[B, ...]`.

    One generator draws the batch at once. A sequence of `B` generators draws every sample from its own, on
    its real nodes only, so that neither the batch nor its padding matters (real nodes come first).
    """
    if isinstance(generator, torch.Generator):
        return geometry.prior(like, mask, generator=generator)  # type: ignore[arg-type]
    if len(generator) != batch_size(like):
        raise ValueError(f"{len(generator)} generators for {batch_size(like)} samples: expected one a sample")
    noise: Any = {n: torch.zeros_like(x) for n, x in like.items()} if isinstance(like, dict) else torch.zeros_like(like)
    names: list[Any] = list(like) if isinstance(like, dict) else [None]
    for k, own in enumerate(generator):
        for name, field in zip(names, leaves(noise)):
            part = None if field_of(mask, name) is None else field_of(mask, name)[k]
            box = (slice(k, k + 1), *(slice(0, n) for n in extent(part)))
            field[box] = geometry_of(geometry, name).prior(
                field[box], None if part is None else part[None][(slice(None), *box[1:])], generator=own
            )
    return noise


def per_sample_noise(
    geometry: Geometry | Product,
    like: State,
    seed: int,
    indices: Sequence[int],
    mask: Mask = None,
    purpose: str = "prior",
) -> State:
    """Prior noise of samples `indices` of a seed: sample i's depends on `(seed, purpose, i)`."""
    return draw_prior(geometry, like, mask, generator=streams(seed, purpose, indices=indices))


def extent(mask: Tensor | None) -> list[int]:
    """Size of the corner box that holds a sample's real entries; empty (no crop) without a mask."""
    if mask is None:
        return []
    real = mask.nonzero()
    return (real.amax(0) + 1).tolist() if len(real) else [0] * mask.dim()
