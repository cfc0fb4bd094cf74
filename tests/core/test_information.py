"""I-MMSE and rate-distortion against CORE.md's item 7."""

from __future__ import annotations

import math

import pytest
import torch

from sciconsist import information
from sciconsist.errors import UserError
from sciconsist.paths import Linear, Path
from sciconsist.random import stream
from tests.core.exact_maps import COVARIANCE, DATA, MEAN, column, exact_model
from tests.core.test_sampling import start

F64 = torch.float64
SNR = torch.cat([torch.zeros(1, dtype=F64), torch.logspace(-4, 0, 60, dtype=F64)])


def test_golden_values_of_a_sign() -> None:
    """x = +-1 at snr 1: mmse .449600 and I = .485944 bits, here by quadrature over the noise."""
    eps = torch.special.ndtri((torch.arange(4000, dtype=F64) + 0.5) / 4000)
    errors = []
    for snr in SNR.tolist():
        y = math.sqrt(snr) + eps
        errors.append(float((1 - torch.tanh(math.sqrt(snr) * y)).square().mean()))
    assert errors[-1] == pytest.approx(0.449600, abs=2e-4)
    bits = float(information.mutual_information(SNR, column(*errors))[-1]) / math.log(2)
    assert bits == pytest.approx(0.485944, abs=3e-4)


def test_mmse_by_samples_agrees() -> None:
    x = (torch.arange(20_000) % 2 * 2 - 1).double()[:, None]
    found = information.mmse(lambda y, snr: torch.tanh(snr.sqrt()[:, None] * y), x, column(1.0), stream(0))
    assert float(found[0]) == pytest.approx(0.449600, abs=0.005)


@pytest.mark.parametrize("kind", ["preconditioned", "endpoint"])
def test_information_of_a_gaussian_from_its_flow_map(path: Path, kind: str) -> None:
    """I = 1/2 sum log(1 + snr lambda) from a model's diagonal and 4,000 samples."""
    x = MEAN + start(4000) @ torch.linalg.cholesky(COVARIANCE).T
    snr = torch.cat([torch.zeros(1, dtype=F64), torch.logspace(-3, 1, 16, dtype=F64)])
    denoise = information.denoiser_of(exact_model(path, kind))
    errors = information.mmse(denoise, x, snr[1:], stream(0))
    errors = torch.cat([COVARIANCE.trace()[None], errors])
    exact = 0.5 * torch.log1p(snr[-1] * torch.linalg.eigvalsh(COVARIANCE)).sum()
    assert float(information.mutual_information(snr, errors)[-1]) == pytest.approx(float(exact), rel=0.02)


def test_a_gaussian_lies_on_its_rate_distortion_curve() -> None:
    """R(D) = 1/2 log(v / D): mmse v / (1 + snr v) and I = 1/2 log(1 + snr v) are on it."""
    v, snr = 0.7, torch.cat([torch.zeros(1, dtype=F64), torch.logspace(-4, 3, 300, dtype=F64)])
    distortion, rate = information.rate_distortion(snr, v / (1 + snr * v))
    assert torch.allclose(rate, 0.5 * torch.log(v / distortion), atol=2e-3)
    assert bool((rate.diff() > 0).all() and (distortion.diff() < 0).all())


def test_tuned_models_are_refused() -> None:
    model = exact_model(Linear(), "velocity")
    model.card = {"tuned_for": [1]}
    with pytest.raises(UserError, match="no flow map"):
        information.denoiser_of(model)
    assert DATA.mean.dtype == F64
