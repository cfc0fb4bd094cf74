"""Closed forms to test against, in float64: Gaussians, mixtures, one-hot vectors, the circle, optimal
transport.

All follow x_t = a_t x0 + b_t eps of any `Path`, t = 0 data. Times are numbers or tensors that broadcast
against the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciconsist.geometry import Torus
from sciconsist.paths import Path

LOG_2PI = math.log(2 * math.pi)


def as64(value: Tensor | float | list[float]) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _column(t: Tensor | float, x: Tensor) -> Tensor:
    """A time as `[1, 1]` or `[B, 1]` against `x` `[B, d]`."""
    t = as64(t)
    return t.reshape(-1, *[1] * (x.dim() - 1))


# --- Gaussian data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, covariance) in R^d; S_t = a_t^2 C + b_t^2 I throughout."""

    mean: Tensor
    covariance: Tensor

    def _spectrum(self) -> tuple[Tensor, Tensor]:
        return torch.linalg.eigh(self.covariance.double())  # type: ignore[no-any-return]

    def _apply(self, x: Tensor, factor: Tensor) -> Tensor:
        """Q diag(factor) Q^T x for `x` `[B, d]` and `factor` `[B or 1, d]`."""
        _, q = self._spectrum()
        return (x @ q * factor) @ q.T

    def _variances(self, path: Path, t: Tensor) -> Tensor:
        eigenvalues, _ = self._spectrum()
        return path.a(t).square() * eigenvalues + path.b(t).square()

    def flow_map(self, path: Path, x: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        """X_{s,t}(x) = a_t m + S_t^{1/2} S_s^{-1/2} (x - a_s m): `[B, d]`."""
        x, s, t = as64(x), _column(s, x), _column(t, x)
        ratio = (self._variances(path, t) / self._variances(path, s)).sqrt()
        return path.a(t) * as64(self.mean) + self._apply(x - path.a(s) * as64(self.mean), ratio)

    def velocity(self, path: Path, x: Tensor, t: Tensor | float) -> Tensor:
        """a' m + (a a' C + b b' I) S_t^{-1} (x - a m)."""
        x, t = as64(x), _column(t, x)
        eigenvalues, _ = self._spectrum()
        rate = path.a(t) * path.da(t) * eigenvalues + path.b(t) * path.db(t)
        centred = x - path.a(t) * as64(self.mean)
        return path.da(t) * as64(self.mean) + self._apply(centred, rate / self._variances(path, t))

    def score(self, path: Path, x: Tensor, t: Tensor | float) -> Tensor:
        """-S_t^{-1} (x - a m)."""
        x, t = as64(x), _column(t, x)
        return -self._apply(x - path.a(t) * as64(self.mean), 1 / self._variances(path, t))

    def denoiser(self, path: Path, x: Tensor, t: Tensor | float) -> Tensor:
        """E[x0 | x_t = x] = m + a C S_t^{-1} (x - a m)."""
        x, t = as64(x), _column(t, x)
        eigenvalues, _ = self._spectrum()
        gain = path.a(t) * eigenvalues / self._variances(path, t)
        return as64(self.mean) + self._apply(x - path.a(t) * as64(self.mean), gain)

    def log_prob(self, path: Path, x: Tensor, t: Tensor | float = 0.0) -> Tensor:
        """Log density of x_t: `[B]`."""
        x, t = as64(x), _column(t, x)
        variances = self._variances(path, t)
        centred = x - path.a(t) * as64(self.mean)
        square = (centred * self._apply(centred, 1 / variances)).sum(-1)
        return -0.5 * (square + variances.log().sum(-1) + x.shape[-1] * LOG_2PI)

    def divergence_integral(self, path: Path, s: float, t: float) -> Tensor:
        """The integral of div v from s to t along any trajectory: 1/2 logdet S_t / S_s."""
        return 0.5 * (self._variances(path, as64(t)) / self._variances(path, as64(s))).log().sum()


# --- mixtures of Gaussians --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """Data sum_k w_k N(mean_k, std_k^2 I): weights `[K]`, means `[K, d]`, stds `[K]`."""

    weights: Tensor
    means: Tensor
    stds: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(self.weights.double(), count, replacement=True, generator=generator)
        eps = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return as64(self.means)[k] + as64(self.stds)[k, None] * eps

    def _components(self, path: Path, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x - a m_k `[B, K, d]`, variances a^2 std_k^2 + b^2 `[B, K]`, log joint densities `[B, K]`."""
        centred = x[:, None] - path.a(t)[..., None] * as64(self.means)
        variance = path.a(t).square() * as64(self.stds).square() + path.b(t).square()
        log_joint = as64(self.weights).log() - 0.5 * (
            centred.square().sum(-1) / variance + x.shape[-1] * (variance.log() + LOG_2PI)
        )
        return centred, variance.expand_as(log_joint), log_joint

    def log_prob(self, path: Path, x: Tensor, t: Tensor | float = 0.0) -> Tensor:
        x, t = as64(x), _column(t, x)
        return torch.logsumexp(self._components(path, x, t)[2], 1)

    def score(self, path: Path, x: Tensor, t: Tensor | float) -> Tensor:
        x, t = as64(x), _column(t, x)
        centred, variance, log_joint = self._components(path, x, t)
        return -(torch.softmax(log_joint, 1)[..., None] * centred / variance[..., None]).sum(1)

    def denoiser(self, path: Path, x: Tensor, t: Tensor | float) -> Tensor:
        """Posterior mean: each component's, weighted by its responsibility."""
        x, t = as64(x), _column(t, x)
        centred, variance, log_joint = self._components(path, x, t)
        gain = path.a(t) * as64(self.stds).square() / variance
        each = as64(self.means) + gain[..., None] * centred
        return (torch.softmax(log_joint, 1)[..., None] * each).sum(1)

    def velocity(self, path: Path, x: Tensor, t: Tensor | float) -> Tensor:
        """E[a' x0 + b' eps | x_t = x]: each component's velocity, weighted by its responsibility."""
        x, t = as64(x), _column(t, x)
        centred, variance, log_joint = self._components(path, x, t)
        rate = (path.a(t) * path.da(t) * as64(self.stds).square() + path.b(t) * path.db(t)) / variance
        each = path.da(t)[..., None] * as64(self.means) + rate[..., None] * centred
        return (torch.softmax(log_joint, 1)[..., None] * each).sum(1)

    def flow_map(self, path: Path, x: Tensor, s: Tensor | float, t: Tensor | float, steps: int = 400) -> Tensor:
        """X_{s,t}(x) `[B, d]`: F_t^{-1} o F_s in one dimension, Runge-Kutta 4 in `steps` steps in more."""
        if x.shape[1] == 1:
            return self.quantile(path, self.cdf(path, x, s), self.cdf(path, -x, s, flip=True), t)
        return self.integrate(path, x, s, t, steps)

    def integrate(self, path: Path, x: Tensor, s: Tensor | float, t: Tensor | float, steps: int) -> Tensor:
        """The ODE from s to t by the classical Runge-Kutta method."""
        x, s, t = as64(x), _column(s, x), _column(t, x)
        h = (t - s) / steps
        for k in range(steps):
            now = s + k * h
            k1 = self.velocity(path, x, now)
            k2 = self.velocity(path, x + h / 2 * k1, now + h / 2)
            k3 = self.velocity(path, x + h / 2 * k2, now + h / 2)
            k4 = self.velocity(path, x + h * k3, now + h)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x

    def cdf(self, path: Path, x: Tensor, t: Tensor | float, flip: bool = False) -> Tensor:
        """F_t(x) of a 1-D mixture, `[B, 1]`; `flip` mirrors it: cdf(-x, flip) is 1 - F in full precision."""
        x, t = as64(x), _column(t, x)
        means = as64(self.means)[:, 0] * (-1 if flip else 1)
        std = (path.a(t).square() * as64(self.stds).square() + path.b(t).square()).sqrt()
        z = (x - path.a(t) * means) / std
        return (as64(self.weights) * torch.special.ndtr(z)).sum(1, keepdim=True)

    def quantile(self, path: Path, p: Tensor, q: Tensor, t: Tensor | float) -> Tensor:
        """F_t^{-1}(p) by bisection; q = 1 - p decides in the upper half, where p has lost its digits."""
        t = _column(t, p)
        spread = as64(self.stds).max() + 1
        edge = (as64(self.means).abs().max() + 40 * spread + 40 * path.b(t).max()) * torch.ones_like(p)
        low, high = -edge, edge
        for _ in range(100):
            mid = 0.5 * (low + high)
            below = torch.where(p < 0.5, self.cdf(path, mid, t) < p, self.cdf(path, -mid, t, flip=True) > q)
            low, high = torch.where(below, mid, low), torch.where(below, high, mid)
        return 0.5 * (low + high)


# --- categories and the circle ----------------------------------------------------------------------------


def onehot_posterior(x: Tensor, prior: Tensor, a: float, b: float, scale: float = 1.0) -> Tensor:
    """p(k | x) for x = a e_k + b eps and prior probabilities `[K]`: softmax(log pi + (a x - a^2 / 2) / b^2).

    `scale` is the one-hot's length; it multiplies a.
    """
    a = a * scale
    return torch.softmax(as64(prior).log() + (a * as64(x) - a * a / 2) / b**2, -1)


def point_mass_on_torus(x: Tensor, y: Tensor, s: float, t: float) -> Tensor:
    """X_{s,t}(x) = exp_y((t / s) log_y x) for data that are one point y. Uniform data give the identity."""
    torus = Torus()
    return torus.exp(y, t / s * torus.log(y, x))


@dataclass(frozen=True)
class TorusMixture:
    """Data sum_k w_k N(mean_k, std_k^2 I) wrapped onto the unit torus: weights `[K]`, means `[K, d]`, stds `[K]`.

    The path is the geodesic to uniform noise, so x_t - x0 is uniform on a cube of side t whatever x0 is, and a
    component's share of that cube is a product of truncated normals. Stds below a tenth: images beyond the next
    cell are left out.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        flat = Mixture(self.weights, self.means, self.stds)
        return Torus().project(flat.sample(count, generator))

    def _window(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mass of the cube of side t around x, and mean of x0 - x in it, by component and dimension `[B, K, d]`."""
        centre = Torus().log(x[:, None], as64(self.means))[..., None] + as64([-1.0, 0.0, 1.0])
        std = as64(self.stds)[:, None, None]
        high, low = ((sign * 0.5 * t[..., None, None] - centre) / std for sign in (1, -1))
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        density = (torch.exp(-0.5 * high.square()) - torch.exp(-0.5 * low.square())) / math.sqrt(2 * math.pi)
        total = mass.sum(-1).clamp_min(1e-280)
        return total, (centre * mass - std * density).sum(-1) / total

    def velocity(self, x: Tensor, t: Tensor | float) -> Tensor:
        """E[log_x0(noise) | x_t = x] = -E[x0 - x] / t: `[B, d]`."""
        x, t = as64(x), _column(t, x).clamp_min(1e-3)
        mass, mean = self._window(x, t)
        posterior = torch.softmax(as64(self.weights).log() + mass.log().sum(-1), 1)
        return -(posterior[..., None] * mean).sum(1) / t

    def density(self, x: Tensor, t: float) -> Tensor:
        """p_t(x) for t > 0: the data's mass in the cube around x over its volume: `[B]`."""
        x, time = as64(x), _column(t, as64(x))
        return (as64(self.weights) * self._window(x, time)[0].prod(-1)).sum(1) / t ** x.shape[1]

    def flow_map(self, x: Tensor, s: float, t: float, steps: int = 400) -> Tensor:
        """X_{s,t}(x) by the classical Runge-Kutta method: `[B, d]`."""
        x, h = as64(x), (t - s) / steps
        for k in range(steps):
            now = s + k * h
            k1 = self.velocity(x, now)
            k2 = self.velocity(x + h / 2 * k1, now + h / 2)
            k3 = self.velocity(x + h / 2 * k2, now + h / 2)
            k4 = self.velocity(x + h * k3, now + h)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return Torus().project(x)


# --- transport between Gaussians --------------------------------------------------------------------------


def sqrtm(a: Tensor) -> Tensor:
    """Square root of a positive semi-definite matrix."""
    values, q = torch.linalg.eigh(as64(a))
    return (q * values.clamp_min(0).sqrt()) @ q.T


def gaussian_ot_map(a: Tensor, b: Tensor) -> Tensor:
    """T = A^{-1/2} (A^{1/2} B A^{1/2})^{1/2} A^{-1/2}, the optimal map from N(0, A) to N(0, B): `[d, d]`."""
    root = sqrtm(a)
    inverse = torch.linalg.inv(root)
    return inverse @ sqrtm(root @ as64(b) @ root) @ inverse


def bures_wasserstein(mean_a: Tensor, a: Tensor, mean_b: Tensor, b: Tensor) -> Tensor:
    """W2 between Gaussians: BW^2 = |dm|^2 + tr(A + B - 2 (A^{1/2} B A^{1/2})^{1/2})."""
    root = sqrtm(a)
    cross = sqrtm(root @ as64(b) @ root)
    square = (as64(mean_a) - as64(mean_b)).square().sum() + torch.trace(as64(a) + as64(b) - 2 * cross)
    return square.clamp_min(0).sqrt()


def bridge_covariance(a: float, b: float, sigma: float) -> float:
    """cov(x0, x1) of the Schrödinger bridge from N(0, a^2) to N(0, b^2) with Brownian variance sigma^2."""
    return (math.sqrt(4 * a * a * b * b + sigma**4) - sigma**2) / 2


def bridge_variance(a: float, b: float, sigma: float, t: float) -> float:
    """Variance of that bridge at time t in [0, 1]."""
    c = bridge_covariance(a, b, sigma)
    return (1 - t) ** 2 * a * a + 2 * t * (1 - t) * c + t * t * b * b + sigma**2 * t * (1 - t)
