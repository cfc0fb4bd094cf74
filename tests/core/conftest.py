"""Shared by the core's tests: paths, exact maps as networks, a small MLP."""

from __future__ import annotations

import pytest
import torch

from sciconsist.paths import VE, VP, Linear, Path, Trigonometric

PATHS: dict[str, Path] = {
    "linear": Linear(), "trigonometric": Trigonometric(), "vp": VP(0.1, 6.0), "ve": VE(8.0)
}  # fmt: skip


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> Path:
    return PATHS[request.param]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
