"""Regressions of many cells at once, each shrunk towards what all of them have in common (empirical Bayes).

y_cs = X_c beta_cs + e, with beta_cs ~ N(mu_s, Sigma_s) over the cells c for each detail s, and e ~ N(0, sigma_cs^2).
mu, Sigma and sigma are what makes the data likeliest, by EM (Lindley and Smith 1972; Dempster, Laird and Rubin 1977, 4.5).
A ridge knows one number of what coefficients are like; this learns which neighbours matter, and how they go together.

Not every time is as informative: a dry month's residual is a tenth of a wet one's. The regression is made twice, the second
time weighted by the reciprocal of the residuals' variance, which is log-linear in the predictors (Harvey 1976) and
itself regressed so, and as Student's t would have it (Lange, Little and Taylor 1989): outliers count little.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST = 0.05  # prior variance of a standardised coefficient to begin with
SMALLEST = 1e-6  # noise variance of a standardised target
STILL = 1e-7  # added to Sigma's diagonal, so that a predictor that never moves does no harm
DEGREES = 4.0  # of freedom of Student's t
FLOOR = 0.3  # of a cell's root mean square residual: what a perfect fit, such as that of a dry day, counts as
WIDEST = 2.0  # e-folds that a time's scale may be from the cell's own


def pooled_regressions(X: Tensor, Y: Tensor, rounds: int) -> Tensor:
    """Coefficients `[c, F + 1, S]` of predictors `[c, T, F + 1]`, the last of them 1, for targets `[c, T, S]`; float64."""
    alike = weighted_regressions(X, Y, torch.ones_like(X[..., :1]), rounds)
    residual = Y - X @ alike
    scale = scale_of(X, scale_law(X, residual, rounds))
    square = (residual / scale).square()
    distance = (square / square.mean(1, keepdim=True).clamp_min(1e-24)).mean(-1, keepdim=True)
    return weighted_regressions(X, Y, (DEGREES + 1) / (DEGREES + distance) / scale.square(), rounds)


def scale_law(X: Tensor, residual: Tensor, rounds: int) -> Tensor:
    """Coefficients `[c, F + 1, 1]` of the log of the targets' root mean square residual at a time, 0 on average."""
    square = residual.square().mean(-1, keepdim=True)
    log = 0.5 * torch.log(square + FLOOR**2 * square.mean(1, keepdim=True) + 1e-30)
    return weighted_regressions(X, log - log.mean(1, keepdim=True), torch.ones_like(X[..., :1]), rounds)


def scale_of(X: Tensor, law: Tensor) -> Tensor:
    """Scales `[c, T, 1]` by such a law."""
    return (X @ law).clamp(-WIDEST, WIDEST).exp()


def weighted_regressions(X: Tensor, Y: Tensor, weights: Tensor, rounds: int) -> Tensor:
    """Those of times with `weights` `[c, T, 1]`, one after the other of EM's `rounds`."""
    X, w = X[..., :-1], weights / weights.mean(1, keepdim=True)

    def mean(x: Tensor) -> Tensor:
        return (w * x).mean(1, keepdim=True)

    centre, level = mean(X), mean(Y)
    unit, size = mean((X - centre).square()).sqrt(), mean((Y - level).square()).sqrt().clamp_min(1e-12)
    moving = unit > 1e-9
    A = torch.where(moving, (X - centre) / unit.clamp_min(1e-9), 0.0)
    Z = (Y - level) / size
    beta = em(A.mT @ (w * A), A.mT @ (w * Z), (w * Z.square()).sum(1), len(X[0]), rounds)
    beta = torch.where(moving.mT, beta / unit.clamp_min(1e-9).mT, 0.0) * size
    return torch.cat([beta, level - centre @ beta], 1)


def em(gram: Tensor, xy: Tensor, yy: Tensor, count: int, rounds: int) -> Tensor:
    """Posterior means `[c, F, S]` from the moments of standardised data: `[c, F, F]`, `[c, F, S]`, `[c, S]`."""
    cells, features, targets = xy.shape
    eye = torch.eye(features, dtype=xy.dtype)
    beta = torch.zeros_like(xy)
    for s in range(targets):  # one at a time: a detail's covariances of all cells fit into memory
        mu, sigma, noise = torch.zeros(features, dtype=xy.dtype), FIRST * eye, torch.full((cells,), 0.5, dtype=xy.dtype)
        for _ in range(rounds):
            spread = sigma @ gram / noise[:, None, None] + eye  # no inverse of sigma: neighbours may be the same cell
            right = mu[:, None] + sigma @ (xy[..., s] / noise[:, None])[..., None]
            found = torch.linalg.solve(spread, torch.cat([sigma.expand_as(gram), right], -1))
            covariance, mean = found[..., :-1], found[..., -1]
            apart = mean - mu
            sigma = (apart.mT @ apart + covariance.sum(0)) / cells + STILL * eye
            mu = mean.mean(0)
            left = yy[:, s] - 2 * (mean * xy[..., s]).sum(1) + torch.einsum("cf,cfg,cg->c", mean, gram, mean)
            noise = ((left + (gram * covariance).sum((1, 2))) / count).clamp_min(SMALLEST)
        beta[..., s] = mean
    return beta
