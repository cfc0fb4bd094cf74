"""How a network's output F becomes the flow map: X_{s,t}(x) = A(s,t) x + B(s,t) F.

Three rows, each with its diagonal limit; they act on one field. `data_std` is the data's standard deviation.

preconditioned  A, B from regression on the conditional path (EDM on VE at t = 0, TrigFlow on the circle)
velocity        X = exp_x((t - s) F), the only one for a Torus
endpoint        A = b_t / b_s, B = a_t - a_s b_t / b_s; F is a point at time 0 (a softmax for categories)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciconsist.geometry import Geometry, Simplex, Torus
from sciconsist.paths import Path
from sciconsist.state import expand

# below this the source is data already: the map is the identity there, its coefficients 0/0
TINY = 1e-6


def preconditioner(path: Path, s: Tensor, t: Tensor, data_std: float) -> tuple[Tensor, Tensor]:
    """A(s,t) and B(s,t); the residual x_t - A x_s of the conditional path has variance B^2."""
    a_s, b_s, a_t, b_t = path.a(s), path.b(s), path.a(t), path.b(t)
    variance = a_s * a_s * data_std**2 + b_s * b_s  # the numerator's own order: A(s,s) = 1 to the last bit
    a = (a_t * a_s * data_std**2 + b_t * b_s) / variance
    b = (a_t * b_s - a_s * b_t) * data_std / variance.sqrt()
    return a, b


def preconditioner_rates(path: Path, t: Tensor, data_std: float) -> tuple[Tensor, Tensor]:
    """A' and B', the diagonal's limit: v = A' x + B' F."""
    a, b, da, db = path.a(t), path.b(t), path.da(t), path.db(t)
    variance = (a * data_std).square() + b.square()
    return (da * a * data_std**2 + db * b) / variance, (da * b - a * db) * data_std / variance.sqrt()


def endpoint_coefficients(path: Path, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """A = b_t / b_s and B = a_t - a_s b_t / b_s, the identity where s = 0."""
    b_s = path.b(s)
    given = b_s <= TINY
    ratio = torch.where(given, torch.ones_like(s), path.b(t) / b_s.clamp_min(TINY))
    return ratio, torch.where(given, torch.zeros_like(s), path.a(t) - path.a(s) * ratio)


@dataclass(frozen=True)
class Parametrisation:
    """One row of the table, for one field."""

    kind: str
    path: Path
    geometry: Geometry
    data_std: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("preconditioned", "velocity", "endpoint"):
            raise ValueError(f"parametrisation {self.kind!r}: expected preconditioned, velocity or endpoint")
        if isinstance(self.geometry, Torus) and self.kind != "velocity":
            raise ValueError(f"a Torus has only the velocity parametrisation, not {self.kind!r}")
        if isinstance(self.geometry, Simplex) and self.kind != "endpoint":
            raise ValueError(f"a Simplex has only the endpoint parametrisation, not {self.kind!r}")

    def scale_input(self, x: Tensor, s: Tensor) -> Tensor:
        """c_in(s) x: unit variance at the network's input (preconditioned only)."""
        if self.kind != "preconditioned":
            return x
        variance = (self.path.a(s) * self.data_std).square() + self.path.b(s).square()
        return x * expand(variance.rsqrt(), x).to(x.dtype)

    def output(self, raw: Tensor, mask: Tensor | None) -> Tensor:
        """F from the network's raw output: an endpoint on the geometry, or a vector."""
        if self.kind == "endpoint":
            return self.geometry.endpoint(raw, mask)
        return self.geometry.project(raw, mask) if not isinstance(self.geometry, Torus) else raw

    def jump(self, x: Tensor, f: Tensor, s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        """X_{s,t}(x)."""
        if self.kind == "velocity":
            step = expand(t - s, x).to(x.dtype) * self.geometry.tangent(x, f, mask)
            return self.geometry.exp(x, step)
        a, b = self.coefficients(s, t)
        return expand(a, x).to(x.dtype) * x + expand(b, x).to(x.dtype) * f

    def velocity(self, x: Tensor, f: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        """The diagonal's limit: dX/dt at t = s. A given field (t = 0 exactly, endpoint form) stands still."""
        if self.kind == "velocity":
            return self.geometry.tangent(x, f, mask)
        a, b = self._diagonal(t)
        return expand(a, x).to(x.dtype) * x + expand(b, x).to(x.dtype) * f

    def average(self, x: Tensor, f: Tensor, s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        """u = (X_{s,t} - x) / (t - s), and its limit, the velocity, where s = t."""
        if self.kind == "velocity":
            return self.geometry.tangent(x, f, mask)
        rate_a, rate_b = self.rates(s, t)
        return expand(rate_a, x).to(x.dtype) * x + expand(rate_b, x).to(x.dtype) * f

    def target(self, x: Tensor, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """The F that gives the average velocity u from s to t (its diagonal limit where s = t).

        Zero where no F matters (s = 0 in endpoint form).
        """
        if self.kind == "velocity":
            return u
        rate_a, rate_b = self.rates(s, t)
        free = rate_b == 0
        inverse = torch.where(free, 0.0, 1 / torch.where(free, 1.0, rate_b))
        return expand(inverse, x).to(x.dtype) * (u - expand(rate_a, x).to(x.dtype) * x)

    def rates(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(A - 1) / (t - s) and B / (t - s), with A' and B' where s = t."""
        same = (t - s).abs() < 1e-6
        a, b = self.coefficients(s, t)
        da, db = self._diagonal(s)
        gap = torch.where(same, torch.ones_like(s), t - s)
        return torch.where(same, da, (a - 1) / gap), torch.where(same, db, b / gap)

    def _diagonal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """A' and B' at t = s."""
        if self.kind == "preconditioned":
            return preconditioner_rates(self.path, t, self.data_std)
        b_t = self.path.b(t)
        given = b_t <= TINY
        rate = torch.where(given, torch.zeros_like(t), self.path.db(t) / b_t.clamp_min(TINY))
        return rate, torch.where(given, torch.zeros_like(t), self.path.da(t) - self.path.a(t) * rate)

    def coefficients(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """A and B of X = A x + B F."""
        if self.kind == "preconditioned":
            return preconditioner(self.path, s, t, self.data_std)
        return endpoint_coefficients(self.path, s, t)
