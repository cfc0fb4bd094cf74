"""Geometries: what a field of a state is. None of them knows a domain.

Each works on one tensor `[B, ...]` with an optional boolean mask over its leading dimensions;
`Product` works on a dict of them. All share: project, tangent, exp, log, sq_norm, prior, log_prior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciconsist.state import apply_mask, expand, field_of

LOG_2PI = math.log(2 * math.pi)


def remove_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Subtract the mean over the nodes (dimension 1) of each sample; unreal nodes become zero."""
    if mask is None:
        return x - x.mean(1, keepdim=True)
    weight = expand(mask, x).to(x.dtype)
    mean = (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
    return (x - mean) * weight


def sum_squares(x: Tensor, mask: Tensor | None) -> Tensor:
    return apply_mask(x, mask).square().flatten(1).sum(1)


def wrap(x: Tensor) -> Tensor:
    """x modulo 1 in [0, 1): a tiny negative number rounds to 1, which is 0."""
    y = x - torch.floor(x)
    return y - (y >= 1).to(y.dtype)


@dataclass(frozen=True)
class Euclidean:
    """R^d with a standard normal prior. `zero_com` keeps the mean over the nodes of `[B, N, d]` at zero."""

    zero_com: bool = False

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return remove_mean(x, mask) if self.zero_com else apply_mask(x, mask)

    def tangent(self, x: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.project(v, mask)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def sq_norm(self, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Squared length of a tangent vector: `[B]`."""
        return sum_squares(v, mask)

    def endpoint(self, raw: Tensor, mask: Tensor | None = None) -> Tensor:
        """A network's raw output as a point at time 0."""
        return self.project(raw, mask)

    def prior(self, like: Tensor, mask: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
        return self.project(noise.to(like.device), mask)

    def log_prior(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log density of the prior on its own subspace: `[B]`."""
        count = real_count(x, mask)
        if self.zero_com:
            count = count - x.shape[-1]
        return -0.5 * (sum_squares(x, mask) + count * LOG_2PI)


@dataclass(frozen=True)
class Simplex:
    """Categories: one-hot vectors times `scale` inside R^K, a Gaussian prior, softmax endpoints.

    A larger scale settles the category earlier on the path. `symmetric` is for pair fields `[B, N, N, K]`.
    """

    scale: float = 1.0
    symmetric: bool = False

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.symmetric:
            x = 0.5 * (x + x.transpose(1, 2))
        return apply_mask(x, mask)

    def tangent(self, x: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.project(v, mask)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def sq_norm(self, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return sum_squares(v, mask)

    def endpoint(self, raw: Tensor, mask: Tensor | None = None) -> Tensor:
        return apply_mask(self.scale * torch.softmax(raw, -1), mask)

    def encode(self, labels: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
        """Labels `[B, ...]` as scaled one-hot vectors `[B, ..., K]`."""
        onehot = torch.nn.functional.one_hot(labels, classes).to(torch.get_default_dtype())
        return apply_mask(self.scale * onehot, mask)

    def probabilities(self, x: Tensor) -> Tensor:
        """A clean state as class probabilities."""
        return x / self.scale

    def prior(self, like: Tensor, mask: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
        noise = noise.to(like.device)
        if self.symmetric:  # mirror one triangle, so that every pair keeps unit variance
            upper = torch.ones(like.shape[1:3], dtype=torch.bool, device=like.device).triu()[..., None]
            noise = torch.where(upper, noise, noise.transpose(1, 2))
        return apply_mask(noise, mask)

    def log_prior(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.symmetric:
            upper = torch.ones(x.shape[1:3], dtype=torch.bool, device=x.device).triu()
            mask = upper if mask is None else mask & upper
            mask = mask.expand(x.shape[:3])
        return -0.5 * (sum_squares(x, mask) + real_count(x, mask) * LOG_2PI)


@dataclass(frozen=True)
class Torus:
    """The flat unit torus [0, 1)^d with a uniform prior. `zero_drift` takes the mean over nodes off velocities."""

    zero_drift: bool = False

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return apply_mask(wrap(x), mask)

    def tangent(self, x: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return remove_mean(v, mask) if self.zero_drift else apply_mask(v, mask)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return wrap(x + v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Shortest displacement, in [-1/2, 1/2)."""
        d = y - x
        return d - torch.floor(d + 0.5)

    def sq_norm(self, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return sum_squares(v, mask)

    def endpoint(self, raw: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.project(raw, mask)

    def prior(self, like: Tensor, mask: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        noise = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
        return apply_mask(noise.to(like.device), mask)

    def log_prior(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.zeros(x.shape[0], dtype=x.dtype, device=x.device)


Geometry = Euclidean | Simplex | Torus


def real_count(x: Tensor, mask: Tensor | None) -> Tensor:
    """Number of real coordinates of each sample: `[B]`."""
    return apply_mask(torch.ones_like(x), mask).flatten(1).sum(1)


@dataclass(frozen=True)
class Product:
    """A dict of geometries, one per field of a dict state."""

    fields: Mapping[str, Geometry] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Geometry:
        return self.fields[name]

    def _each(self, method: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        return {
            name: getattr(part, method)(*(field_of(a, name) for a in arguments), **keywords)
            for name, part in self.fields.items()
        }

    def project(self, x: dict, mask: Any = None) -> dict[str, Tensor]:
        return self._each("project", x, mask)

    def tangent(self, x: dict, v: dict, mask: Any = None) -> dict[str, Tensor]:
        return self._each("tangent", x, v, mask)

    def exp(self, x: dict, v: dict) -> dict[str, Tensor]:
        return self._each("exp", x, v)

    def log(self, x: dict, y: dict) -> dict[str, Tensor]:
        return self._each("log", x, y)

    def sq_norm(self, v: dict, mask: Any = None) -> Tensor:
        return torch.stack(list(self._each("sq_norm", v, mask).values())).sum(0)

    def endpoint(self, raw: dict, mask: Any = None) -> dict[str, Tensor]:
        return self._each("endpoint", raw, mask)

    def prior(self, like: dict, mask: Any = None, *, generator: torch.Generator) -> dict[str, Tensor]:
        return self._each("prior", like, mask, generator=generator)

    def log_prior(self, x: dict, mask: Any = None) -> Tensor:
        return torch.stack(list(self._each("log_prior", x, mask).values())).sum(0)


def geometry_of(geometry: Geometry | Product, name: str | None) -> Geometry:
    """The geometry of one field; `name` is None for a state that is one tensor."""
    if isinstance(geometry, Product):
        if name is None:
            raise ValueError("a Product geometry needs a dict state")
        return geometry[name]
    return geometry
