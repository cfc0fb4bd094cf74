"""Regressions of many cells at once, each shrunk towards what all of them have in common (empirical Bayes).

y_cs = X_c beta_cs + e, with beta_cs ~ N(mu_s, Sigma_s) over the cells c for each detail s, and e ~ N(0, sigma_cs^2).
mu, Sigma and sigma are what makes the data likeliest, by EM (Lindley and Smith 1972; Dempster, Laird and Rubin 1977, 4.5).
A ridge knows one number of what coefficients are like; this learns which neighbours matter, and how they go together.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST = 0.05  # prior variance of a standardised coefficient to begin with
SMALLEST = 1e-6  # noise variance of a standardised target
STILL = 1e-7  # added to Sigma's diagonal, so that a predictor that never moves does no harm


def pooled_regressions(X: Tensor, Y: Tensor, rounds: int) -> Tensor:
    """Coefficients `[c, F + 1, S]` of predictors `[c, T, F + 1]`, the last of them 1, for targets `[c, T, S]`; float64."""
    X = X[..., :-1]
    centre, level = X.mean(1, keepdim=True), Y.mean(1, keepdim=True)
    unit, size = X.std(1, keepdim=True), Y.std(1, keepdim=True).clamp_min(1e-12)
    moving = unit > 1e-9
    A = torch.where(moving, (X - centre) / unit.clamp_min(1e-9), 0.0)
    Z = (Y - level) / size
    beta = em(A.mT @ A, A.mT @ Z, Z.square().sum(1), len(X[0]), rounds)
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
